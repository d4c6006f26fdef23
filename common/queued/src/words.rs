//! The queue's own words ↔ those that agents use.

use postroad_envelope::{Fence, JobKey, LeaseRef};
use postroad_queue as queue;

pub(crate) fn lease_ref(lease: &queue::Lease) -> LeaseRef {
    LeaseRef {
        job: JobKey {
            queue_id: lease.job.queue_id,
            number: lease.job.number,
        },
        revision: lease.revision.0,
        fence: Fence {
            epoch: lease.fence.epoch,
            counter: lease.fence.counter,
        },
    }
}

pub(crate) fn job(lease: LeaseRef) -> queue::JobKey {
    queue::JobKey {
        queue_id: lease.job.queue_id,
        number: lease.job.number,
    }
}

pub(crate) fn fence(lease: LeaseRef) -> queue::Fence {
    queue::Fence {
        epoch: lease.fence.epoch,
        counter: lease.fence.counter,
    }
}

pub(crate) fn revision(lease: LeaseRef) -> queue::Revision {
    queue::Revision(lease.revision)
}
