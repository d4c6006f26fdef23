use std::sync::Arc;

use bytes::Bytes;
use postroad_envelope::Timestamp;
use postroad_journal::{Location, RecordKind, RecordRef};

use super::{Change, MailFacts, Queue};
use crate::{
    FinishedMail, QueueError,
    index::side_by_side,
    record::{self, EncodedState, MailHead, Record, split_head},
};

impl Queue {
    /// Applies a record from the journal, whatever the index says already. Tells of a mail that it ends.
    pub fn replay(&self, record: RecordRef<'_>) -> Result<Option<FinishedMail>, QueueError> {
        let RecordRef {
            location,
            kind,
            payload,
            ..
        } = record;
        self.replay_record(location, kind, payload)
    }

    fn replay_record(
        &self,
        location: Location,
        kind: RecordKind,
        payload: &[u8],
    ) -> Result<Option<FinishedMail>, QueueError> {
        let change = change_of(kind, payload)?;
        let finished = self.index.apply(location, &change)?;
        let mut core = self.core();
        if let Some(mail) = &finished {
            core.finished.insert(mail.finished.queue_id, mail.finished);
        }
        if core.loaded {
            match &change {
                Change::Mail(mail) => core.schedule.place_new(mail.states(), mail.print),
                Change::State(state) => core.schedule.place(state),
                _ => {}
            }
        }
        match change {
            Change::Mail(mail) if finished.is_none() => {
                self.index.lives_again(mail.queue_id)?;
                core.finished.remove(&mail.queue_id);
                // A mail that was copied forward comes without first states.
                if mail.jobs.iter().any(|job| job.hold.is_none()) {
                    core.unchecked.push(mail.queue_id);
                }
            }
            Change::Block(block) => {
                for finished in block.0 {
                    core.finished.remove(&finished.queue_id);
                }
            }
            Change::Hints(hints) => {
                core.replayed_hints
                    .extend(hints.into_iter().map(|hint| (hint.job, hint)));
            }
            Change::Checkpoint(checkpoint) => {
                self.index.forget_left_before(checkpoint.retired_before)?;
                core.retired_before = core.retired_before.max(checkpoint.retired_before);
                core.unchecked.clear();
                core.replayed_hints = checkpoint.leases.into_iter().map(|h| (h.job, h)).collect();
            }
            _ => {}
        }
        Ok(finished)
    }

    /// Ends the replay: loads the schedule, unless that was done. Tells how many jobs live.
    pub fn finish_replay(&self, now: Timestamp) -> Result<usize, QueueError> {
        if !self.core().loaded {
            self.load()?;
        }
        let mut core = self.core();
        for hint in std::mem::take(&mut core.replayed_hints).into_values() {
            core.schedule.await_resume(&hint, now);
        }
        Ok(core.schedule.len())
    }

    /// Loads the schedule from the index. What is replayed after it changes both, so whoever has little left to replay
    /// does this before, and [`Queue::finish_replay`] is quick.
    pub fn load(&self) -> Result<(), QueueError> {
        if self.options.quotas.are_none() {
            // Counting takes longer than all else here.
            self.load_schedule()?;
        } else {
            let (counted, loaded) =
                side_by_side(|| self.index.begin_counting(), || self.load_schedule());
            counted?;
            loaded?;
        }
        self.core().loaded = true;
        Ok(())
    }

    fn load_schedule(&self) -> Result<(), QueueError> {
        for facts in self.index.living_jobs() {
            let facts = facts?;
            self.core().schedule.place_facts(facts);
        }
        Ok(())
    }
}

pub(super) fn change_of(kind: RecordKind, payload: &[u8]) -> Result<Change, QueueError> {
    if kind == record::MAIL {
        // Only the head is read: content may be large.
        let (head, _) = split_head(payload)?;
        return Ok(Change::Mail(facts_of(head)));
    }
    if kind == record::JOB_STATE {
        let state = EncodedState::decode(Bytes::copy_from_slice(payload))?;
        return Ok(Change::State(Arc::new(state)));
    }
    Ok(match Record::decode(kind, payload)? {
        Record::LeaseHints(hints) => Change::Hints(hints.0),
        Record::Epoch(epoch) => Change::Epoch(epoch),
        Record::Checkpoint(checkpoint) => Change::Checkpoint(checkpoint),
        Record::Snapshot(_) => Change::Snapshot,
        Record::FinishedBlock(block) => Change::Block(block),
        Record::Mail(_) | Record::JobState(_) | Record::Unknown(_) => Change::Skip,
    })
}

pub(super) fn facts_of(head: MailHead) -> MailFacts {
    MailFacts::of(&head.envelope, head.digest, head.file, head.jobs)
}
