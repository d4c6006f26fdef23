use super::Queue;
use crate::{Amount, Claim, OverQuota, QueueError, Quota, Scope};

/// A scope, and by name what is used of which quota.
pub type UsageOf = (Scope, Vec<(String, Amount, Quota)>);

impl Queue {
    /// Whether every quota has room for a mail that is announced. A yes is no promise.
    pub fn admit(&self, claim: &Claim) -> Result<(), OverQuota> {
        match &*self.index.usage() {
            Some(usage) => usage.check(&self.terms().quotas, claim),
            None => Ok(()),
        }
    }

    /// What each of these scopes has in the queue, with what waits for its commit, and its quota; the fullest first. Where there
    /// are no quotas nothing is counted as it comes, and this reads all of the index.
    pub fn usage(&self, scopes: &[Scope]) -> Result<Vec<UsageOf>, QueueError> {
        let known = self.index.usage().clone();
        let counted = match known {
            Some(counted) => *counted,
            None => self.index.count()?,
        };
        let quotas = &self.terms().quotas;
        let of = |scope: &Scope| (*scope, quotas.fullest(*scope, counted.all(*scope)));
        Ok(scopes.iter().map(of).collect())
    }
}
