//! The jobs in the index: the print of the sender of a job's mail, then the job's state.

use bytes::Bytes;
use postroad_envelope::QueueId;
use sled::IVec;

use super::{Index, keys};
use crate::{
    JobFacts, JobKey, JobState, QueueError, SenderPrint,
    error::unreadable,
    record::{EncodedState, decode_state, facts_of_state, reason_of_state},
};

const PRINT: usize = 4;

/// A job's value.
pub(super) fn value(sender: SenderPrint, state: &EncodedState) -> Vec<u8> {
    [&sender.to_bytes()[..], state.octets()].concat()
}

pub(super) fn split(value: &[u8]) -> Result<(SenderPrint, &[u8]), QueueError> {
    let (print, state) = value
        .split_first_chunk::<PRINT>()
        .ok_or_else(|| unreadable("job", "length"))?;
    Ok((SenderPrint::from_bytes(*print), state))
}

pub(super) fn state(value: &[u8]) -> Result<JobState, QueueError> {
    decode_state(split(value)?.1)
}

pub fn directed<'a, T>(
    items: impl DoubleEndedIterator<Item = T> + 'a,
    newest_first: bool,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match newest_first {
        true => Box::new(items.rev()),
        false => Box::new(items),
    }
}

fn facts(key: &[u8], value: &[u8]) -> Result<Option<JobFacts>, QueueError> {
    let key = keys::parse_job(key).ok_or_else(|| unreadable("job key", "length"))?;
    let (sender, state) = split(value)?;
    Ok(facts_of_state(key, state)?.map(|facts| JobFacts { sender, ..facts }))
}

impl Index {
    pub fn job(&self, job: JobKey) -> Result<Option<JobState>, QueueError> {
        let value = self.trees.job.get(keys::job(job))?;
        value.map(|value| state(&value)).transpose()
    }

    /// Makes a job's state unreadable.
    #[cfg(test)]
    pub fn spoil(&self, job: JobKey) {
        self.trees.job.insert(keys::job(job), b"\xff").unwrap();
    }

    /// The jobs of a mail, ended ones too while the mail lives.
    pub fn jobs(&self, id: QueueId) -> Result<Vec<JobState>, QueueError> {
        let jobs = self.trees.job.of_mail(id);
        jobs.map(|item| state(&item?.1)).collect()
    }

    /// The same, with the octets of each.
    pub fn encoded_jobs(&self, id: QueueId) -> Result<Vec<EncodedState>, QueueError> {
        let jobs = self.trees.job.of_mail(id);
        let encoded = |value: IVec| EncodedState::decode(Bytes::copy_from_slice(split(&value)?.1));
        jobs.map(|item| encoded(item?.1)).collect()
    }

    /// Why jobs are not done, of mails with ids from the first to the last. Only that is read of each.
    pub fn reasons(
        &self,
        (first, last): (QueueId, QueueId),
        newest_first: bool,
    ) -> impl Iterator<Item = Result<(QueueId, Option<String>), QueueError>> + use<> {
        let behind = [&last.to_bytes()[..], &[0xff; 5]].concat();
        let jobs = self.trees.job.range(&first.to_bytes()[..]..&behind[..]);
        directed(jobs, newest_first).map(|item| {
            let (key, value) = item?;
            let key = keys::parse_job(&key).ok_or_else(|| unreadable("job key", "length"))?;
            Ok((key.queue_id, reason_of_state(split(&value)?.1)?))
        })
    }

    /// What the schedule must know of every living job, by ascending key.
    pub fn living_jobs(&self) -> impl Iterator<Item = Result<JobFacts, QueueError>> {
        let jobs = self.trees.job.iter();
        jobs.filter_map(|item: sled::Result<(IVec, IVec)>| match item {
            Ok((key, value)) => facts(&key, &value).transpose(),
            Err(error) => Some(Err(error.into())),
        })
    }
}
