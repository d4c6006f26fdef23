//! Keys: big-endian, so that they sort as their parts do.

use postroad_envelope::QueueId;

use crate::JobKey;

const JOB_KEY: usize = 20;

pub fn job(job: JobKey) -> [u8; JOB_KEY] {
    let mut key = [0; JOB_KEY];
    let (id, number) = key.split_at_mut(16);
    id.copy_from_slice(&job.queue_id.to_bytes());
    number.copy_from_slice(&job.number.to_be_bytes());
    key
}

pub fn parse_job(key: &[u8]) -> Option<JobKey> {
    let (id, number) = key.split_at_checked(16)?;
    Some(JobKey {
        queue_id: QueueId::from_bytes(id.try_into().ok()?),
        number: u32::from_be_bytes(number.try_into().ok()?),
    })
}

pub fn parse_id(key: &[u8]) -> Option<QueueId> {
    Some(QueueId::from_bytes(key.try_into().ok()?))
}
