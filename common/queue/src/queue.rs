//! Records, schedule and index joined: what the queue agent calls.

mod change;
mod clear;
mod destinations;
mod expansion;
mod holds;
mod insert;
mod leaving;
mod list;
mod newcomers;
mod reclaim;
mod renewal;
mod replay;
mod settle;
mod standing;
mod suppressed;
mod usage;
mod withdraw;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

pub(crate) use change::{Change, MailFacts};
pub use change::{Instruction, Prepared};
pub use destinations::{DestinationStats, JobCounts};
pub use holds::HoldRule;
pub use insert::{Admission, DOUBLE_BOUNCE};
pub use list::{JobSummary, Listing, MailSummary, Page, Stats};
pub use newcomers::{Newcomers, Reception};
use postroad_envelope::{QueueId, RouteClass, StoreName, Timestamp};
use postroad_journal::{Location, Lsn, RecordDraft};
pub use reclaim::LiveInSegment;
pub use settle::{Debt, Settled};
pub use standing::Standing;
pub use suppressed::Suppressions;
pub use usage::UsageOf;
pub use withdraw::Withdrawal;

use crate::{
    Digest, Fairness, Fence, FinishedMail, Gate, Holder, JobKey, JobState, Lease, LeaseTimes,
    MailPlace, Open, QueueError, Quotas, RetrySchedule, Revision, Schedule, StaleLease, Ticked,
    Waiting, Waits,
    index::{self, Former, Index},
    record::{COUNTS_JOBS, Checkpoint, FORMATS, Finished, LeaseHint, LeaseHints, encode_epoch},
};

/// Octets of a finished id in a block, at most.
const LONGEST_FINISHED: usize = 64;
/// Ids in a block, at most.
const LONGEST_BLOCK: usize = 10_000;

/// What an operator may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// When a mail is tried again.
    pub retry: RetrySchedule,
    /// How long leases and graces are.
    pub times: LeaseTimes,
    /// How leases are shared out.
    pub fairness: Fairness,
    /// Octets of index kept in memory; the process needs up to five times that.
    pub cache_capacity: u64,
    /// How long a finished id is known.
    pub finished_window: Duration,
    /// Whether finished mails are kept in [`Queue::leaving`] until they are retired.
    pub retire: bool,
    /// How much tenants, accounts and recipient domains may have in the queue.
    pub quotas: Arc<Quotas>,
    /// Epochs that a start skips: of a queue that others were given leases by since this copy of it was made.
    pub epochs_ahead: u64,
    /// The format of the folder: what may be written into it.
    pub format: u32,
    /// Octets of the longest record that the journal takes.
    pub longest_record: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retry: RetrySchedule::default(),
            times: LeaseTimes::default(),
            fairness: Fairness::default(),
            cache_capacity: 64 << 20,
            finished_window: Duration::from_secs(24 * 3600),
            retire: false,
            quotas: Arc::default(),
            epochs_ahead: 0,
            format: FORMATS.newest,
            longest_record: 1 << 20,
        }
    }
}

/// What [`Queue::open`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The first record to replay; 0: all.
    pub needs_replay_from: Lsn,
    /// Where the former index lies now, if it did not open and is to be rebuilt.
    pub rebuilt: Option<PathBuf>,
    /// The former index was of another release's format, and is made anew.
    pub outdated: bool,
}

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

/// What applying changes brought about.
#[derive(Debug, Default)]
pub struct Applied {
    /// Mails that are all done now; their content files may go.
    pub finished: Vec<FinishedMail>,
}

/// The queue. All methods may be called from any thread, and may block on the disk.
pub struct Queue {
    pub(crate) options: Options,
    pub(crate) index: Index,
    core: Mutex<Core>,
    hold_rules: RwLock<Arc<[HoldRule]>>,
    suppressions: RwLock<Arc<Suppressions>>,
    terms: RwLock<Arc<Terms>>,
}

/// Of what an operator may choose, what can change while the queue runs, and is asked for with each mail.
pub(crate) struct Terms {
    pub(crate) retry: RetrySchedule,
    pub(crate) quotas: Arc<Quotas>,
}

pub(crate) struct Core {
    pub(crate) schedule: Schedule,
    /// The schedule has all that the index has.
    loaded: bool,
    /// Ids whose insert waits for its commit.
    in_flight: BTreeMap<QueueId, Digest>,
    /// See [`Queue::take_unchecked`].
    unchecked: Vec<QueueId>,
    /// Ids that finished since the last block of them.
    finished: BTreeMap<QueueId, Finished>,
    /// Leases granted since hints were last taken.
    hints: Vec<LeaseHint>,
    /// Hints found by a replay.
    replayed_hints: BTreeMap<JobKey, LeaseHint>,
    /// What finished before this number was retired.
    retired_before: Lsn,
}

impl Queue {
    /// Opens or creates the index in `folder/index`. Nothing may be leased before [`Queue::replay`] has been given every
    /// record from [`OpenReport::needs_replay_from`] on, then [`Queue::finish_replay`], then an epoch was committed.
    pub fn open(
        folder: &Path,
        options: Options,
        now: Timestamp,
    ) -> Result<(Self, OpenReport), QueueError> {
        let opened = index::open(folder, options.cache_capacity, now)?;
        let (index, former) = Index::new(opened, options.retire);
        let outdated = former == Former::Outdated;
        let rebuilt = match former {
            Former::Quarantined(path) => Some(path),
            Former::Kept | Former::Outdated => None,
        };
        let report = OpenReport {
            needs_replay_from: index.checkpoint_lsn()?,
            rebuilt,
            outdated,
        };
        let core = Core {
            schedule: Schedule::new(options.times.clone(), options.fairness.clone()),
            loaded: false,
            in_flight: BTreeMap::new(),
            unchecked: Vec::new(),
            finished: BTreeMap::new(),
            hints: Vec::new(),
            replayed_hints: BTreeMap::new(),
            retired_before: Lsn(0),
        };
        let terms = Terms {
            retry: options.retry.clone(),
            quotas: Arc::clone(&options.quotas),
        };
        Ok((
            Self {
                options,
                index,
                core: Mutex::new(core),
                hold_rules: RwLock::new(Arc::from([])),
                suppressions: RwLock::default(),
                terms: RwLock::new(Arc::new(terms)),
            },
            report,
        ))
    }

    /// Other intervals, quotas, times and limits hold from now on. What was decided by the old ones stays: when a job is due,
    /// when a mail's time is over, and leases that were granted. How jobs age does not change; and quotas are of use only if
    /// there were some when the queue was opened, since otherwise nothing is counted.
    pub fn renew_terms(
        &self,
        retry: RetrySchedule,
        quotas: Arc<Quotas>,
        times: LeaseTimes,
        fairness: Fairness,
    ) {
        let terms = Arc::new(Terms { retry, quotas });
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        self.core().schedule.renew_terms(times, fairness);
    }

    pub(crate) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The commit of a new epoch, first of all changes after a replay; leases are granted once it is applied.
    pub fn prepare_epoch(&self) -> Result<Prepared, QueueError> {
        let ahead = self.options.epochs_ahead.saturating_add(1);
        let epoch = self.index.epoch()?.saturating_add(ahead);
        Ok(Prepared::one(encode_epoch(epoch), Change::Epoch(epoch)))
    }

    /// Which start of the queue this is; 0 before its epoch is applied.
    pub fn epoch(&self) -> u64 {
        self.core().schedule.epoch()
    }

    /// Applies what was committed; `locations` are those of [`Prepared::records`], in order.
    pub fn apply(&self, prepared: Prepared, locations: &[Location]) -> Result<Applied, QueueError> {
        let mut applied = Applied::default();
        for (change, &location) in prepared.into_changes().iter().zip(locations) {
            // The index first: whoever is told of a job by the schedule finds it there.
            let finished = self.index.apply(location, change)?;
            let mut core = self.core();
            match change {
                Change::Mail(mail) => {
                    core.in_flight.remove(&mail.queue_id);
                    core.schedule.place_new(&mail.jobs, mail.print);
                }
                Change::State(state) => core.schedule.place(state),
                Change::Epoch(epoch) => core.schedule.begin_epoch(*epoch),
                _ => {}
            }
            if let Some(mail) = &finished {
                core.finished.insert(mail.finished.queue_id, mail.finished);
            }
            applied.finished.extend(finished);
        }
        Ok(applied)
    }

    /// Gives up a change that was prepared and will not be committed: its jobs are where the index has them.
    pub fn abandon(&self, prepared: Prepared) {
        for change in prepared.into_changes() {
            match change {
                Change::Mail(mail) => {
                    self.core().in_flight.remove(&mail.queue_id);
                    if mail.is_counted {
                        self.index.give_back(&mail.claim());
                    }
                }
                Change::State(state) => {
                    if let Err(error) = self.put_right(state.key) {
                        tracing::error!(event = "corruption", %error, "the index cannot be read");
                    }
                }
                Change::KnownBlock(block) => {
                    let finished = block
                        .0
                        .into_iter()
                        .map(|finished| (finished.queue_id, finished));
                    self.core().finished.extend(finished);
                }
                _ => {}
            }
        }
    }

    /// Places a job where the index has it.
    fn put_right(&self, job: JobKey) -> Result<(), QueueError> {
        let state = self.state_to_change(job)?;
        let mut core = self.core();
        match state {
            Some(state) => core.schedule.place(&state),
            None => core.schedule.remove(job),
        }
        Ok(())
    }

    /// The state of a job whose change has begun. If it cannot be read the change is given up, so that the job does not
    /// wait for ever for a commit that never comes.
    fn state_to_change(&self, job: JobKey) -> Result<Option<JobState>, QueueError> {
        let state = self.index.job(job);
        if state.is_err() {
            self.core().schedule.give_up_change(job);
        }
        state
    }

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
        first: &Lease,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, QueueError> {
        let leases = self.core().schedule.lease_along(gate, first, max, now);
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

    /// The records of a checkpoint, to be committed in a group of their own. Once they are applied,
    /// [`Queue::checkpoint`] with the number of the first of them.
    pub fn prepare_checkpoint(&self, now: Timestamp) -> Prepared {
        let mut core = self.core();
        let leases = core.schedule.leases().map(hint_of).collect();
        let checkpoint = Checkpoint {
            epoch: core.schedule.epoch(),
            at: now,
            leases,
            retired_before: core.retired_before,
            living_jobs: (self.options.format >= COUNTS_JOBS)
                .then(|| u64::try_from(core.schedule.len()).unwrap_or(u64::MAX)),
        };
        let prepared = Prepared::one(checkpoint.draft(), Change::Checkpoint(checkpoint));
        let finished = std::mem::take(&mut core.finished);
        match self.blocks_of(finished) {
            Some(blocks) => prepared.and(blocks),
            None => prepared,
        }
    }

    /// However many have finished since the last blocks, each of them fits into a record.
    fn blocks_of(&self, finished: BTreeMap<QueueId, Finished>) -> Option<Prepared> {
        let most = self.options.longest_record / LONGEST_FINISHED;
        let finished: Vec<Finished> = finished.into_values().collect();
        let blocks = finished.chunks(most.clamp(1, LONGEST_BLOCK));
        blocks
            .map(|block| Prepared::block(block.to_vec()))
            .reduce(Prepared::and)
    }

    /// Makes the index durable; a replay begins at `lsn` from now on. Also forgets finished ids whose window has
    /// passed. May run while others apply.
    pub fn checkpoint(&self, lsn: Lsn, now: Timestamp) -> Result<(), QueueError> {
        self.index.forget_before(self.window_from(now))?;
        self.index.pack_finished()?;
        self.index.checkpoint(lsn)
    }

    /// The lock is held for moments, never over a read of the disk. A panic under it leaves the schedule usable.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hint_of(lease: &Lease) -> LeaseHint {
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

#[cfg(test)]
mod tests;
