//! Records change the index here, the same way when they are new and when they are replayed: unconditionally.

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{Location, Lsn};
use prost::Message;
use sled::IVec;

use super::{FinishedMail, Index, block_key, jobs, keys, location_to_wire};
use crate::{
    Digest, JobState, QueueError, SenderPrint,
    queue::{Change, MailFacts},
    record::{EncodedState, Finished, FinishedBlock, cut, digest_to_wire, file_to_wire, wire},
    usage::MAX_NAME,
};

impl Index {
    /// Applies one record, un-flushed. Tells of a mail that is all done by it.
    pub fn apply(
        &self,
        location: Location,
        change: &Change,
    ) -> Result<Option<FinishedMail>, QueueError> {
        let meta = &self.trees.meta;
        match change {
            Change::Mail(mail) => return self.put_mail(location, mail),
            Change::State(state) => return self.put_state(location, state),
            Change::Copied(state) => self.write_state(state)?,
            Change::Epoch(epoch) => {
                meta.insert("epoch", &epoch.to_be_bytes())?;
            }
            Change::Checkpoint(checkpoint) => {
                meta.insert("epoch", &checkpoint.epoch.to_be_bytes())?;
            }
            Change::Snapshot => {
                meta.insert("snapshot", location_to_wire(location).encode_to_vec())?;
            }
            Change::Block(block) => {
                self.put_finished(block, location.lsn)?;
                self.place_block(location, block)?;
            }
            Change::KnownBlock(block) | Change::MovedBlock(block) => {
                self.place_block(location, block)?;
            }
            Change::Hints(_) | Change::Skip => {}
        }
        Ok(None)
    }

    /// A mail record makes the mail living, whatever was known before: if it has finished, a later record says so.
    fn put_mail(
        &self,
        location: Location,
        mail: &MailFacts,
    ) -> Result<Option<FinishedMail>, QueueError> {
        let id = mail.queue_id;
        let entry = wire::MailEntry {
            location: Some(location_to_wire(location)),
            sender: mail.sender.clone(),
            received_at: mail.received_at.as_millis(),
            digest: Some(digest_to_wire(mail.digest)),
            file: mail.file.map(file_to_wire),
            recipients: mail.recipients,
            // So that an entry stays below 4 KiB.
            tenant: cut(&mail.tenant, MAX_NAME),
            account: mail
                .account
                .as_deref()
                .map(|account| cut(account, MAX_NAME)),
            tags: mail.tags.clone(),
        };
        let former = self
            .trees
            .mail
            .insert(id.to_bytes(), entry.encode_to_vec())?;
        if former.is_none() && !mail.is_counted {
            self.counting(|usage| {
                usage.add_mail(&mail.tenant, mail.account.as_deref(), mail.digest.len);
            });
        }
        if self.forget_finished(id)? {
            // In a replay over what the index knows already, or of an id that was used again after its window: with the last
            // states of its jobs it would end before its records say so, or keep a job of its former life.
            self.remove_jobs(id)?;
        }
        for state in &mail.jobs {
            let before = self.insert_job(mail.print, state)?;
            self.count_change(before.as_ref(), state, mail.is_counted)?;
        }
        match mail.jobs.last() {
            // Nothing but discarded recipients: done as soon as accepted.
            Some(last) if mail.jobs.iter().all(|state| state.has_ended()) => self
                .finish(id, last.changed_at, mail.digest, location.lsn)
                .map(Some),
            _ => Ok(None),
        }
    }

    fn put_state(
        &self,
        location: Location,
        state: &EncodedState,
    ) -> Result<Option<FinishedMail>, QueueError> {
        if !state.has_ended() {
            return self.write_state(state).map(|()| None);
        }
        if self.ends_its_mail(state)? {
            let id = state.key.queue_id;
            if self.retire {
                self.write_state(state)?;
            }
            return self
                .finish(id, state.changed_at, state.digest, location.lsn)
                .map(Some);
        }
        match self.is_of_a_mail(state)? {
            true => self.write_state(state)?,
            false => self.remove_job(&keys::job(state.key))?,
        }
        Ok(None)
    }

    /// Whether the index knows the mail of a state, and in this life: a replay may meet the last states of jobs whose mail ended
    /// so long ago that its record is gone and its id forgotten, or used again. None of them is a job of that other mail.
    fn is_of_a_mail(&self, state: &JobState) -> Result<bool, QueueError> {
        let mail = self.mail(state.key.queue_id)?;
        Ok(mail.is_some_and(|mail| mail.received_at == state.arrived_at))
    }

    /// Whether the mail of a job that has ended is done. Where a replay begins after the end of its other jobs, their
    /// states may be gone; then the mail is known as finished already.
    fn ends_its_mail(&self, state: &JobState) -> Result<bool, QueueError> {
        let id = state.key.queue_id;
        let mut others = if state.of_jobs > 1 {
            self.jobs(id)?
        } else {
            Vec::new()
        };
        others.retain(|other| other.key != state.key);
        let all_known = u32::try_from(others.len()).is_ok_and(|known| known + 1 >= state.of_jobs);
        let done = all_known && others.iter().all(JobState::has_ended);
        Ok(done || self.is_finished(id)?)
    }

    fn write_state(&self, state: &EncodedState) -> Result<(), QueueError> {
        let before = self.trees.job.get(keys::job(state.key))?;
        let mut sender = SenderPrint::UNKNOWN;
        if let Some(before) = &before {
            sender = jobs::split(before)?.0;
        }
        if sender == SenderPrint::UNKNOWN {
            // In a rebuild, of a mail that was copied forward.
            sender = self.sender_of(state.key.queue_id)?;
        }
        self.insert_job(sender, state)?;
        self.count_change(before.as_ref(), state, false)
    }

    fn sender_of(&self, id: QueueId) -> Result<SenderPrint, QueueError> {
        let mail = self.mail(id)?;
        Ok(mail.map_or(SenderPrint::UNKNOWN, |mail| SenderPrint::of(&mail.sender)))
    }

    fn insert_job(
        &self,
        sender: SenderPrint,
        state: &EncodedState,
    ) -> Result<Option<IVec>, QueueError> {
        let value = jobs::value(sender, state);
        Ok(self.trees.job.insert(keys::job(state.key), value)?)
    }

    fn count_change(
        &self,
        before: Option<&IVec>,
        state: &JobState,
        is_counted: bool,
    ) -> Result<(), QueueError> {
        if self.usage().is_some() {
            let before = before.map(|before| jobs::state(before)).transpose()?;
            self.count_job(before.as_ref(), Some(state), is_counted);
        }
        Ok(())
    }

    fn finish(
        &self,
        id: QueueId,
        at: Timestamp,
        digest: Digest,
        lsn: Lsn,
    ) -> Result<FinishedMail, QueueError> {
        let finished = Finished {
            queue_id: id,
            at,
            digest,
        };
        let mail = self.mail(id)?;
        // First, so that a replay of half of this knows what it is about.
        self.remember_finished(&finished)?;
        let leaving = self.retire && self.put_leaving(&finished, lsn, mail.as_ref())?;
        if !leaving {
            self.remove_jobs(id)?;
        }
        if let Some(mail) = &mail {
            self.trees.mail.remove(id.to_bytes())?;
            self.counting(|usage| {
                usage.remove_mail(&mail.tenant, mail.account.as_deref(), mail.digest.len);
            });
        }
        Ok(FinishedMail {
            finished,
            file: mail.and_then(|mail| mail.file),
            leaving,
        })
    }

    fn remove_job(&self, key: &[u8]) -> Result<(), QueueError> {
        let before = self.trees.job.remove(key)?;
        let is_counting = self.usage().is_some();
        if let (Some(before), true) = (before, is_counting) {
            self.count_job(Some(&jobs::state(&before)?), None, false);
        }
        Ok(())
    }

    pub(super) fn remove_jobs(&self, id: QueueId) -> Result<(), QueueError> {
        for item in self.trees.job.of_mail(id) {
            self.remove_job(&item?.0)?;
        }
        Ok(())
    }

    fn put_finished(&self, block: &FinishedBlock, lsn: Lsn) -> Result<(), QueueError> {
        for finished in &block.0 {
            let id = finished.queue_id.to_bytes();
            if self
                .finished(finished.queue_id)?
                .is_some_and(|known| known.at > finished.at)
            {
                // A block copied forward, of an id that was used again after its window.
                continue;
            }
            if !self.trees.mail.contains_key(id)? {
                self.remember_finished(finished)?;
                // In a rebuild, states whose mail went with an earlier segment.
                if !self.is_leaving(finished.queue_id)? {
                    self.remove_jobs(finished.queue_id)?;
                }
            } else if self.is_over(finished)? {
                self.finish(finished.queue_id, finished.at, finished.digest, lsn)?;
            }
        }
        Ok(())
    }

    /// Whether a mail that lives here had ended by then: the record of its end is damaged. It must not be tried again. One
    /// that was accepted anew, once its id was forgotten, is younger than this.
    fn is_over(&self, finished: &Finished) -> Result<bool, QueueError> {
        let jobs = self.jobs(finished.queue_id)?;
        Ok(jobs.iter().all(|state| state.changed_at <= finished.at))
    }

    fn place_block(&self, location: Location, block: &FinishedBlock) -> Result<(), QueueError> {
        let newest = block
            .0
            .iter()
            .map(|finished| finished.at)
            .max()
            .unwrap_or_default();
        let place = location_to_wire(location).encode_to_vec();
        let value = [&newest.as_millis().to_be_bytes()[..], &place].concat();
        self.trees.meta.insert(block_key(location.lsn), value)?;
        Ok(())
    }
}
