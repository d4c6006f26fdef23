use std::fmt;

use crate::QueueId;

/// One job: the recipients of a mail that share route class and domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// The mail.
    pub queue_id: QueueId,
    /// The job's number in its mail.
    pub number: u32,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.queue_id, self.number)
    }
}

/// Proof of a lease: the epoch of the queue's start, and a counter in it. Later leases have greater fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence {
    /// Committed anew at each start of the queue.
    pub epoch: u64,
    /// Grows with each lease.
    pub counter: u64,
}

/// Names one lease: the job, its durable revision, and the fence under which it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseRef {
    /// The job.
    pub job: JobKey,
    /// The revision of the job's durable state when it was leased.
    pub revision: u64,
    /// The fence.
    pub fence: Fence,
}
