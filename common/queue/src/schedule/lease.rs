use std::{fmt, sync::Arc};

use postroad_envelope::Timestamp;

use crate::{JobKey, Revision};

/// What a worker must show to settle: never given twice, since each start of the queue has its own epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fence {
    /// The start of the queue it was given in.
    pub epoch: u64,
    /// Its number there.
    pub counter: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

/// Who holds a lease: an agent on one of its streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Name of the agent, the same after a reconnect.
    pub agent: Arc<str>,
    /// The stream, never the same twice in one start of the queue.
    pub stream: u64,
}

/// The right to try a job, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What the settlement must name.
    pub fence: Fence,
    /// What may be tried.
    pub job: JobKey,
    /// The job's state when it was granted.
    pub revision: Revision,
    /// Who may try.
    pub holder: Holder,
    /// Since when it was due.
    pub due_at: Timestamp,
    /// Since when it is held.
    pub granted_at: Timestamp,
    /// Until when, unless extended.
    pub deadline: Timestamp,
}
