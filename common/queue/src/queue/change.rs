use std::sync::Arc;

use postroad_envelope::{Envelope, QueueId, Route, RouteClass, StatusReport, Timestamp};
use postroad_journal::{ContentRef, RecordDraft};

use super::Queue;
use crate::{
    Claim, Digest, JobKey, JobState, QueueError, SenderPrint,
    record::{Checkpoint, EncodedState, Finished, FinishedBlock, JOB_STATE, LeaseHint},
};

/// Changes with the records that make them durable: one commit, all or nothing.
#[derive(Debug)]
#[must_use = "what was prepared must be committed and applied, or abandoned"]
pub struct Prepared {
    records: Vec<RecordDraft>,
    changes: Vec<Change>,
    ended: usize,
}

/// What one record means to index and schedule.
#[derive(Debug)]
pub enum Change {
    Mail(MailFacts),
    State(Arc<EncodedState>),
    /// A state copied forward with its mail: nothing changes but its place in the journal.
    Copied(Arc<EncodedState>),
    Epoch(u64),
    Checkpoint(Checkpoint),
    Snapshot,
    Block(FinishedBlock),
    /// A block of ids that the index knows already: only its place is new.
    KnownBlock(FinishedBlock),
    /// A block copied forward: the same, and nothing is owed if it is given up.
    MovedBlock(FinishedBlock),
    Hints(Vec<LeaseHint>),
    Skip,
}

/// What of a mail record is not in the record alone.
#[derive(Debug)]
pub struct MailFacts {
    pub queue_id: QueueId,
    pub sender: String,
    /// Of the sender.
    pub print: SenderPrint,
    pub received_at: Timestamp,
    pub recipients: u32,
    pub digest: Digest,
    pub file: Option<ContentRef>,
    pub tenant: String,
    pub account: Option<String>,
    pub tags: Vec<String>,
    /// The jobs as accepted; empty if the mail was copied forward.
    pub jobs: Vec<EncodedState>,
    /// A new mail: it counts from its preparation on, so that of many at once no more come in than there is room for.
    pub is_counted: bool,
}

impl MailFacts {
    pub fn of(
        envelope: &Envelope,
        digest: Digest,
        file: Option<ContentRef>,
        jobs: Vec<EncodedState>,
    ) -> Self {
        let sender = envelope.reverse_path.to_string();
        Self {
            queue_id: envelope.queue_id,
            print: SenderPrint::of(&sender),
            sender,
            received_at: envelope.received_at,
            recipients: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
            digest,
            file,
            tenant: envelope.tenant.clone(),
            account: envelope.account.clone(),
            tags: envelope.tags.clone(),
            jobs,
            is_counted: false,
        }
    }

    /// The jobs as accepted.
    pub fn states(&self) -> impl Iterator<Item = &JobState> {
        self.jobs.iter().map(|job| &**job)
    }

    /// What it takes of each quota.
    pub fn claim(&self) -> Claim {
        let living = self.jobs.iter().filter(|state| !state.has_ended());
        let domains = living.map(|state| (&state.destination[..], 1));
        let (tenant, account) = (&self.tenant, self.account.as_deref());
        Claim::new(tenant, account, self.digest.len, domains)
    }
}

impl Prepared {
    pub(super) fn one(record: RecordDraft, change: Change) -> Self {
        Self {
            records: vec![record],
            changes: vec![change],
            ended: 0,
        }
    }

    pub(super) const fn empty() -> Self {
        Self {
            records: Vec::new(),
            changes: Vec::new(),
            ended: 0,
        }
    }

    pub(super) fn state(state: JobState) -> Self {
        Self::encoded(Arc::new(state.into()))
    }

    pub(super) fn encoded(state: Arc<EncodedState>) -> Self {
        let record = RecordDraft::new(JOB_STATE, state.octets().clone());
        Self::one(record, Change::State(state))
    }

    pub(super) fn copy(state: EncodedState) -> Self {
        let record = RecordDraft::new(JOB_STATE, state.octets().clone());
        Self::one(record, Change::Copied(Arc::new(state)))
    }

    pub(super) fn block(finished: Vec<Finished>) -> Self {
        let block = FinishedBlock(finished);
        Self::one(block.draft(), Change::KnownBlock(block))
    }

    /// Both in one commit.
    pub fn and(mut self, other: Self) -> Self {
        self.records.extend(other.records);
        self.changes.extend(other.changes);
        self.ended += other.ended;
        self
    }

    /// Recipients that an instruction brings to their end.
    pub const fn ended(&self) -> usize {
        self.ended
    }

    /// What to append, in order.
    pub fn records(&self) -> &[RecordDraft] {
        &self.records
    }

    /// Octets to append, without the journal's own.
    pub fn len(&self) -> usize {
        self.records.iter().map(RecordDraft::payload_len).sum()
    }

    /// Records to append.
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

/// What an operator, a rule or the queue itself may tell a job that no worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Keep it back, for this reason.
    Hold(String),
    /// Let it go, now. A job whose route is to hold needs another route instead.
    Release,
    /// Try it now.
    Retry,
    /// Try it at this time.
    Schedule(Timestamp),
    /// What is pending fails with this report, and the sender is told.
    Fail(StatusReport),
    /// What is pending fails since its time is over, and the sender is told; also why it waited, where that is known.
    Expire(Option<StatusReport>),
    /// The time that its sender gave it is over (RFC 2852): the sender is told, and it goes on.
    TellLate(Option<StatusReport>),
    /// It waits for hosts that do not take it, for so long that its sender is told why (RFC 3461 §5.2.5); and it goes on.
    TellWaiting(StatusReport),
    /// Remove it; nobody is told.
    Drop,
    /// Give it another route.
    Reroute(Route),
    /// Change its priority.
    Priority(i8),
}

impl Queue {
    /// The change an instruction makes to one job. [`QueueError::Busy`] while a worker holds it.
    pub fn prepare(
        &self,
        job: JobKey,
        instruction: Instruction,
        now: Timestamp,
    ) -> Result<Prepared, QueueError> {
        let state = self.begin_change(job)?;
        let by_route = state.class == RouteClass::Hold && state.hold.is_some();
        let pending = state.pending().count();
        let mut next = instructed(state, instruction, now);
        if by_route && next.hold.is_none() {
            match self.hold_beyond_route(&next) {
                Ok(hold) => next.hold = hold,
                Err(error) => {
                    self.put_right(job)?;
                    return Err(error);
                }
            }
        }
        let ended = pending.saturating_sub(next.pending().count());
        Ok(Prepared {
            ended,
            ..Prepared::state(next)
        })
    }

    /// Keeps others off a job that nobody holds, and reads its state.
    pub(super) fn begin_change(&self, job: JobKey) -> Result<JobState, QueueError> {
        let revision = self.core().schedule.begin_change(job)?;
        match self.state_to_change(job)? {
            Some(state) if state.revision == revision => Ok(state),
            state => {
                self.put_right(job)?;
                Err(if state.is_some() {
                    QueueError::Busy(job)
                } else {
                    QueueError::NoSuchJob(job)
                })
            }
        }
    }
}

fn because(state: JobState, why: Option<StatusReport>) -> JobState {
    match why {
        Some(why) => state.waiting(&why),
        None => state,
    }
}

fn instructed(mut state: JobState, instruction: Instruction, now: Timestamp) -> JobState {
    let due = state.due;
    match instruction {
        Instruction::Hold(why) => state.held(Some(why), now),
        Instruction::Release => state.held(None, now),
        Instruction::Retry => state.rescheduled(now, now),
        Instruction::Schedule(at) => state.rescheduled(at, now),
        Instruction::Fail(report) => state.failed(Some(report), now),
        Instruction::Expire(why) => because(state, why).failed(None, now),
        Instruction::TellLate(why) => because(state, why).past_its_time(now),
        Instruction::TellWaiting(why) => state.told_why_it_waits(&why, now),
        Instruction::Drop => state.dropped(now),
        Instruction::Reroute(route) => {
            if state.class == RouteClass::Hold || route.class == RouteClass::Hold {
                state.hold = (route.class == RouteClass::Hold).then(|| route.rule.clone());
            }
            state.take(route);
            state.rescheduled(now, now)
        }
        Instruction::Priority(priority) => {
            state.priority = priority;
            state.rescheduled(due, now)
        }
    }
}
