//! What came of an attempt, for all of its recipients or for those of one job.

use postroad_envelope::{Outcome, RecipientIndex};
use postroad_queue_client::{Lease, SiteResult, SiteTry};

use super::ledger::Ledger;
use super::sources::Source;

/// The result of a job, or of several that went together.
pub struct Attempted {
    /// One for each recipient.
    pub outcomes: Vec<(RecipientIndex, Outcome)>,
    /// Of whom the host reports success.
    pub reporting: Vec<RecipientIndex>,
    /// For whom it was told how much time is left.
    pub timed: Vec<RecipientIndex>,
    /// Whose outcome came over a connection that had carried other mail before.
    pub reused: Vec<RecipientIndex>,
    /// How it went with each site.
    pub sites: Vec<SiteTry>,
    /// Where it was sent from, if it came so far.
    pub source: Option<Source>,
}

impl Attempted {
    /// Nobody was spoken to.
    pub fn nowhere(ledger: Ledger<'_>) -> Self {
        let (reporting, reused) = (ledger.reporting(), ledger.reused());
        Self {
            timed: ledger.timed(),
            outcomes: ledger.finish(),
            reporting,
            reused,
            sites: Vec::new(),
            source: None,
        }
    }

    /// The part of each of the jobs that went together. The first tells of the site.
    pub fn by_job(self, leases: Vec<Lease>) -> Vec<(Lease, Self)> {
        let leases = match <[Lease; 1]>::try_from(leases) {
            Ok([alone]) => return vec![(alone, self)],
            Err(several) => several,
        };
        let part = |(at, lease): (usize, Lease)| {
            let is_of_it = |index: &RecipientIndex| lease.envelope.recipient(*index).is_some();
            let those = |all: &[RecipientIndex]| all.iter().copied().filter(is_of_it).collect();
            let outcomes = self.outcomes.iter().filter(|(index, _)| is_of_it(index));
            let part = Self {
                outcomes: outcomes.cloned().collect(),
                reporting: those(&self.reporting),
                timed: those(&self.timed),
                reused: those(&self.reused),
                sites: match at {
                    0 => self.sites.clone(),
                    _ => self.sites.iter().map(along).collect(),
                },
                source: self.source.clone(),
            };
            (lease, part)
        };
        leases.into_iter().enumerate().map(part).collect()
    }
}

/// Of one that went with another.
fn along(tried: &SiteTry) -> SiteTry {
    SiteTry {
        site: tried.site.clone(),
        result: Some(SiteResult {
            joined: true,
            ..SiteResult::default()
        }),
    }
}
