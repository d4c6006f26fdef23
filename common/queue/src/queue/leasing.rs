//! Jobs given to workers: leases granted, prolonged, handed back and ended.

use std::time::Duration;

use postroad_envelope::{RouteClass, StoreName, Timestamp};
use postroad_journal::RecordDraft;

use super::{Instruction, Queue};
use crate::{
    Fence, Gate, Holder, JobKey, JobState, Lease, MailPlace, Open, QueueError, RetrySchedule,
    Revision, StaleLease, Ticked, Waiting, Waits,
    record::{LeaseHint, LeaseHints},
};

/// A job given to a worker, with all it takes to try it.
#[derive(Debug, Clone, PartialEq)]
pub struct Leased {
    /// The right to try.
    pub lease: Lease,
    /// Who is still to be tried, and how.
    pub state: JobState,
    /// Where envelope and content lie.
    pub mail: MailPlace,
}

impl Queue {
    /// As [`Queue::lease_in`], of what is of no named store.
    pub fn lease(
        &self,
        class: RouteClass,
        holder: &Holder,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, QueueError> {
        self.lease_in(class, &StoreName::default(), holder, max, now)
    }

    /// Grants up to `max` leases of a class, of one store.
    pub fn lease_in(
        &self,
        class: RouteClass,
        store: &StoreName,
        holder: &Holder,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, QueueError> {
        self.lease_through(&mut Open, (class, store), holder, max, now)
    }

    /// The same, of destinations that a gate admits.
    pub fn lease_through(
        &self,
        gate: &mut dyn Gate,
        of: (RouteClass, &StoreName),
        holder: &Holder,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, QueueError> {
        let mut granted = Vec::new();
        while granted.len() < max {
            let room = max - granted.len();
            let mut core = self.core();
            let leases = core.schedule.lease_through(gate, of, holder, room, now);
            drop(core);
            if leases.is_empty() {
                break;
            }
            for lease in leases {
                granted.extend(self.equip(lease)?);
            }
        }
        Ok(granted)
    }

    /// Grants up to `max` leases more of what else of the same mail is due and may go with it, see [`Schedule::lease_along`].
    pub fn lease_along(
        &self,
        gate: &mut dyn Gate,
        first: &Leased,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, QueueError> {
        if first.state.of_jobs <= 1 {
            return Ok(Vec::new());
        }
        let leases = self
            .core()
            .schedule
            .lease_along(gate, &first.lease, max, now);
        let mut granted = Vec::with_capacity(leases.len());
        for lease in leases {
            granted.extend(self.equip(lease)?);
        }
        Ok(granted)
    }

    /// A destination that a gate refused has turns again.
    pub fn reopen(&self, class: RouteClass, destination: &str) {
        self.core().schedule.reopen(class, destination);
    }

    /// The leases of mail that leaves over the network which ended since this was called last.
    pub fn take_ended(&self) -> Vec<Fence> {
        self.core().schedule.take_ended()
    }

    /// Reads what a lease is for. A job of which the index says otherwise is put right, and not tried now.
    fn equip(&self, lease: Lease) -> Result<Option<Leased>, QueueError> {
        let state = self.index.job(lease.job)?;
        let mail = self.index.mail(lease.job.queue_id)?;
        match (state, mail) {
            (Some(state), Some(mail)) if state.revision == lease.revision => {
                self.core().hints.push(hint_of(&lease));
                Ok(Some(Leased { lease, state, mail }))
            }
            (Some(_), None) => {
                tracing::error!(event = "corruption", job = %lease.job, "its mail is not in the index");
                self.core().schedule.remove(lease.job);
                Ok(None)
            }
            _ => {
                tracing::warn!(event = "fault", job = %lease.job, "no such job is due");
                self.put_right(lease.job)?;
                Ok(None)
            }
        }
    }

    /// Moves the deadline of a lease; tells the new one.
    pub fn extend(
        &self,
        job: JobKey,
        fence: Fence,
        now: Timestamp,
    ) -> Result<Timestamp, StaleLease> {
        self.core().schedule.extend(job, fence, now)
    }

    /// Takes a job back that its worker could not try (limited, draining); costs no attempt.
    pub fn hand_back(
        &self,
        job: JobKey,
        fence: Fence,
        delay: Duration,
        now: Timestamp,
    ) -> Result<(), StaleLease> {
        let mut core = self.core();
        let lease = core.schedule.lease_of(job).cloned();
        core.schedule.hand_back(job, fence, delay, now)?;
        core.hints.extend(lease.as_ref().map(no_hint_of));
        Ok(())
    }

    /// A worker's stream has ended; its leases end after a grace, unless resumed. Tells how many.
    pub fn drop_stream(&self, stream: u64, now: Timestamp) -> usize {
        self.core().schedule.drop_stream(stream, now)
    }

    /// A worker left its stream: what it was given there is due at once. Tells how many.
    pub fn free_stream(&self, holder: &Holder, now: Timestamp) -> usize {
        let mut core = self.core();
        let leases = core.schedule.leases().filter(|l| l.holder == *holder);
        let leases: Vec<Lease> = leases.cloned().collect();
        let freed = core.schedule.free_stream(holder, now);
        for lease in leases {
            if core.schedule.lease_of(lease.job).is_none() {
                core.hints.push(no_hint_of(&lease));
            }
        }
        freed
    }

    /// Renews a lease after a lost stream or a restart, under a new fence. None: its result will be late.
    pub fn resume(
        &self,
        job: JobKey,
        fence: Fence,
        revision: Revision,
        holder: &Holder,
        now: Timestamp,
    ) -> Result<Option<Leased>, QueueError> {
        let lease = self
            .core()
            .schedule
            .resume(job, fence, revision, holder, now);
        lease.map_or(Ok(None), |lease| self.equip(lease))
    }

    /// Does what time demands: jobs become ready, leases end, reports fall due.
    pub fn tick(&self, now: Timestamp) -> Ticked {
        self.core().schedule.tick(now)
    }

    /// When [`Queue::tick`] has something to do again.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.core().schedule.next_wakeup()
    }

    /// How many jobs of a class are ready.
    pub fn ready_len(&self, class: RouteClass) -> usize {
        self.core().schedule.ready_len(class)
    }

    /// Jobs that nobody has and that wait for too long, with what they are to be told. `why` says of what class and destination jobs
    /// wait for hosts that do not take them.
    pub fn out_of_time(
        &self,
        why: &dyn Fn(RouteClass, &str) -> Option<Waits>,
        now: Timestamp,
        max: usize,
    ) -> Vec<(JobKey, Instruction)> {
        let terms = self.terms();
        let waiting = Waiting {
            why,
            tell_after: terms.retry.tell_after,
        };
        let mut over = self.core().schedule.out_of_time(&waiting, now, max);
        over.retain(|(job, told)| match told {
            Instruction::TellWaiting(_) => self.is_late(*job, &terms.retry, now),
            _ => true,
        });
        over
    }

    /// The schedule goes by the job's id; its sender may have wanted it held back (RFC 4865), and only the state knows.
    fn is_late(&self, job: JobKey, retry: &RetrySchedule, now: Timestamp) -> bool {
        // What cannot be read is told of elsewhere.
        let Ok(Some(state)) = self.index.job(job) else {
            return false;
        };
        let begun_at = retry.begun_at(&state.destination, state.arrived_at, state.expires_at);
        retry.is_late(begun_at, now)
    }

    /// The leases granted since the last call, to be appended unsynced with the next write.
    pub fn lease_hints(&self) -> Option<RecordDraft> {
        let hints = std::mem::take(&mut self.core().hints);
        (!hints.is_empty()).then(|| LeaseHints(hints).draft())
    }
}

pub(super) fn hint_of(lease: &Lease) -> LeaseHint {
    LeaseHint {
        job: lease.job,
        revision: lease.revision,
        agent: lease.holder.agent.to_string(),
        fence: lease.fence,
        deadline: lease.deadline,
    }
}

/// Takes a hint back: a lease that is over at once waits for nobody after a restart.
fn no_hint_of(lease: &Lease) -> LeaseHint {
    LeaseHint {
        deadline: Timestamp::default(),
        ..hint_of(lease)
    }
}
