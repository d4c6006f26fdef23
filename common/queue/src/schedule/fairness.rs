use std::{collections::BTreeMap, time::Duration};

use postroad_envelope::{RouteClass, Timestamp};

/// How leases are shared out among jobs whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fairness {
    /// One step of priority counts as much as having been due for so long.
    pub aging_step: Duration,
    /// Hundredths of the leases that each lane with jobs gets at least; of no more meaning beyond 33.
    pub minimum_share: u32,
    /// Most leases at one time for one destination reached over the network (classes relay and lmtp); 0: any number.
    pub max_leases: u32,
    /// What holds instead for some destinations, whatever their class; 0: any number.
    pub max_leases_of: BTreeMap<String, u32>,
}

impl Default for Fairness {
    fn default() -> Self {
        Self {
            aging_step: Duration::from_secs(10 * 60),
            minimum_share: 10,
            max_leases: 20,
            max_leases_of: BTreeMap::new(),
        }
    }
}

impl Fairness {
    /// Most leases of a destination at one time; none: any number. Local mail is one destination for all people of a
    /// domain, and its worker knows its own limit.
    pub fn limit(&self, class: RouteClass, destination: &str) -> Option<u32> {
        let by_class = match class {
            RouteClass::Relay | RouteClass::Lmtp => self.max_leases,
            RouteClass::Local | RouteClass::Hold | RouteClass::Discard => 0,
        };
        let limit = self.max_leases_of.get(destination).copied();
        Some(limit.unwrap_or(by_class)).filter(|limit| *limit > 0)
    }

    /// When the job would have become due if it had the ordinary priority. It never changes while a job waits, so that
    /// jobs age without being sorted again.
    pub(super) fn rank(&self, priority: i8, due: Timestamp) -> i64 {
        let step = i64::try_from(self.aging_step.as_millis()).unwrap_or(i64::MAX);
        let due = i64::try_from(due.as_millis()).unwrap_or(i64::MAX);
        due.saturating_sub(step.saturating_mul(i64::from(priority)))
    }
}

/// Jobs that compete by more than their time: mail for many, what people write, what somebody wants to be first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Urgent,
    Ordinary,
    Bulk,
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Ordinary, Self::Bulk];

    pub const fn of(priority: i8) -> Self {
        match priority {
            1.. => Self::Urgent,
            0 => Self::Ordinary,
            ..0 => Self::Bulk,
        }
    }
}
