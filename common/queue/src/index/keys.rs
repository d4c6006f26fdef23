//! Keys: big-endian, so that they sort as their parts do.

use postroad_envelope::{QueueId, Timestamp, fold_sender};

use crate::JobKey;

pub const JOB_KEY: usize = 20;

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

/// `time | job`.
pub fn due(at: Timestamp, key: JobKey) -> Vec<u8> {
    [&at.as_millis().to_be_bytes()[..], &job(key)].concat()
}

pub fn parse_due(key: &[u8]) -> Option<(Timestamp, JobKey)> {
    let (at, key) = key.split_at_checked(8)?;
    Some((
        Timestamp::from_millis(u64::from_be_bytes(at.try_into().ok()?)),
        parse_job(key)?,
    ))
}

/// `text | 0 | job`: texts hold no NUL, so none is the beginning of another.
pub fn destination(text: &str, key: JobKey) -> Vec<u8> {
    [text.as_bytes(), &[0], &job(key)].concat()
}

/// `folded text | 0 | id`.
pub fn sender(text: &str, id: QueueId) -> Vec<u8> {
    [fold_sender(text).as_bytes(), &[0], &id.to_bytes()].concat()
}

pub fn text_prefix(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
