use postroad_envelope::{Fence, JobKey, LeaseRef};

use super::{ConvertError, queue_id, queue_id_bytes, required};
use crate::queue::v1;

impl From<LeaseRef> for v1::LeaseRef {
    fn from(lease: LeaseRef) -> Self {
        Self {
            job: Some(v1::JobKey {
                queue_id: queue_id_bytes(lease.job.queue_id),
                number: lease.job.number,
            }),
            revision: lease.revision,
            fence: Some(v1::Fence {
                epoch: lease.fence.epoch,
                counter: lease.fence.counter,
            }),
        }
    }
}

impl TryFrom<v1::LeaseRef> for LeaseRef {
    type Error = ConvertError;

    fn try_from(wire: v1::LeaseRef) -> Result<Self, ConvertError> {
        let job = required("job", wire.job)?;
        let fence = required("fence", wire.fence)?;
        Ok(Self {
            job: JobKey {
                queue_id: queue_id("queue_id", &job.queue_id)?,
                number: job.number,
            },
            revision: wire.revision,
            fence: Fence {
                epoch: fence.epoch,
                counter: fence.counter,
            },
        })
    }
}
