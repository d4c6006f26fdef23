use super::Queue;
use crate::{Amount, Claim, OverQuota, Quota, Scope};

impl Queue {
    /// Whether every quota has room for a mail that is announced. A yes is no promise.
    pub fn admit(&self, claim: &Claim) -> Result<(), OverQuota> {
        match &*self.index.usage() {
            Some(usage) => usage.check(&self.options.quotas, claim),
            None => Ok(()),
        }
    }

    /// What each of a scope has in the queue, with what waits for its commit, and its quota; the fullest first.
    pub fn usage(&self, scope: Scope) -> Vec<(String, Amount, Quota)> {
        let counted = self.index.usage().as_ref().map(|usage| usage.all(scope));
        self.options
            .quotas
            .fullest(scope, counted.unwrap_or_default())
    }
}
