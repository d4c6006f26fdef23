//! Records, schedule and index joined: what the queue agent calls.

mod change;
mod clear;
mod destinations;
mod expansion;
mod holds;
mod insert;
mod leasing;
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
pub use leasing::Leased;
use leasing::hint_of;
pub use list::{JobSummary, Listing, MailSummary, Page, Stats};
pub use newcomers::{Newcomers, Reception};
use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{Location, Lsn};
pub use reclaim::LiveInSegment;
pub use settle::{Debt, Settled};
pub use standing::Standing;
pub use suppressed::Suppressions;
pub use usage::UsageOf;
pub use withdraw::Withdrawal;

use crate::{
    Digest, Fairness, FinishedMail, JobKey, JobState, LeaseTimes, QueueError, Quotas,
    RetrySchedule, Schedule,
    index::{self, Former, Index},
    record::{COUNTS_JOBS, Checkpoint, FORMATS, Finished, LeaseHint, encode_epoch},
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
                    core.schedule.place_new(mail.states(), mail.print);
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

#[cfg(test)]
mod tests;
