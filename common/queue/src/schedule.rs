//! Who is due and who holds it: in memory, without clock, randomness or disk.
//!
//! Every living job has one entry, and the entry exactly one place: a wake-up time, a ready queue, a hold, or a change
//! that waits for its commit.

mod along;
mod clear;
mod destinations;
mod entries;
mod facts;
mod fairness;
mod gate;
mod lease;
mod leasing;
mod out_of_time;
mod ranks;
mod ready;
mod term;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use destinations::Destinations;
use entries::{Entries, Entry};
pub use facts::{JobFacts, LeaseTimes, Phase, SenderPrint, Wait};
pub use fairness::Fairness;
pub use gate::{Gate, Kinship, Open};
pub use lease::{Fence, Holder, Lease};
use out_of_time::Look;
pub use out_of_time::{Waiting, Waits};
use postroad_envelope::{QueueId, RouteClass, StoreName, Timestamp};
use ready::ReadyQueue;
use term::PackedTerm;
pub use term::Term;
pub use view::{Scan, Scanned};

use crate::{JobKey, JobState, QueueError, Revision, record::LeaseHint};

const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// Jobs that one tick moves, and one look for those out of time passes: whoever holds the schedule holds it for moments,
/// however much mail there is.
const STRETCH: usize = 10_000;

/// What [`Schedule::tick`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ticked {
    /// Leases that ended without a settlement; their jobs are due again.
    pub expired: Vec<Lease>,
    /// Mails whose reports are to be made now.
    pub reports: Vec<QueueId>,
}

/// The schedule of all living jobs.
#[derive(Debug, Default)]
pub struct Schedule {
    times: LeaseTimes,
    fairness: Arc<Fairness>,
    last_fence: Fence,
    entries: Entries,
    /// Each store has its own, so that one whose worker is away holds up no other.
    ready: BTreeMap<(RouteClass, StoreName), ReadyQueue>,
    leases: BTreeMap<JobKey, Lease>,
    resumable: BTreeMap<JobKey, Fence>,
    /// Local jobs that a worker had and of which nobody knows what it did with them.
    unclear: BTreeSet<JobKey>,
    /// Jobs of which a lease ended without a word: something of them may have been sent.
    begun: BTreeSet<JobKey>,
    /// Leases over the network that ended since [`Schedule::take_ended`].
    ended: Vec<Fence>,
    destinations: Destinations,
    /// Jobs that no worker may have before that is done which [`Schedule::out_of_time`] has them told.
    barred: BTreeSet<JobKey>,
    /// Where the look for jobs out of time goes on.
    looked_to: Option<JobKey>,
    /// What it has seen since it began at the front.
    look: Look,
    /// Since when the job is due that waits longest for a worker, as the last look found it.
    oldest_due: Option<Timestamp>,
}

impl Schedule {
    /// An empty one. No lease is granted before [`Schedule::begin_epoch`].
    pub fn new(times: LeaseTimes, fairness: Fairness) -> Self {
        Self {
            times,
            fairness: Arc::new(fairness),
            ..Self::default()
        }
    }

    /// Other times and limits hold from now on, for leases that are granted or extended. Jobs keep the ranks they have, so
    /// how they age does not change.
    pub fn renew_terms(&mut self, times: LeaseTimes, fairness: Fairness) {
        let fairness = Arc::new(Fairness {
            aging_step: self.fairness.aging_step,
            ..fairness
        });
        for ready in self.ready.values_mut() {
            ready.renew_limits(&fairness, |number| self.destinations.name(number));
        }
        (self.times, self.fairness) = (times, fairness);
    }

    /// From now on fences carry this epoch, which is durable.
    pub fn begin_epoch(&mut self, epoch: u64) {
        self.last_fence = Fence { epoch, counter: 0 };
    }

    /// The current epoch; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.last_fence.epoch
    }

    /// Puts a job where its durable state says, ending a lease or change; removes it if it has ended.
    pub fn place(&mut self, state: &JobState) {
        match JobFacts::of(state) {
            Some(facts) => self.place_facts(facts),
            None => self.remove(state.key),
        }
    }

    /// As [`Schedule::place`], the jobs of a new mail.
    pub fn place_new<'a>(
        &mut self,
        states: impl IntoIterator<Item = &'a JobState>,
        sender: SenderPrint,
    ) {
        for state in states {
            match JobFacts::of(state) {
                Some(facts) => self.place_facts(JobFacts { sender, ..facts }),
                None => self.remove(state.key),
            }
        }
    }

    /// As [`Schedule::place`], from facts. A sender that they do not tell stays the one known before.
    pub fn place_facts(&mut self, facts: JobFacts) {
        let sender = match facts.sender {
            SenderPrint::UNKNOWN => {
                let before = self.entries.get(facts.key);
                before.map_or(SenderPrint::UNKNOWN, |entry| entry.sender)
            }
            known => known,
        };
        let destination = self.destinations.join(facts.destination, facts.store);
        let (phase, at) = match facts.wait {
            Wait::Due(at) => (Phase::Waiting, facts.term.clip(at)),
            Wait::Hold => (Phase::Held, Timestamp::default()),
            Wait::Report(since) => (Phase::Owing, since.plus(self.times.report_gather)),
            Wait::HeldReport(since) => (Phase::HeldOwing, since.plus(self.times.report_gather)),
        };
        let before = self.entries.put(Entry {
            key: facts.key.into(),
            revision: facts.revision,
            class: facts.class,
            destination,
            sender,
            priority: facts.priority,
            phase,
            changing: false,
            term: PackedTerm::new(facts.term, facts.on_delay),
            at,
        });
        if let Some(before) = before {
            self.leave(&before);
        }
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: JobKey) {
        self.unclear.remove(&job);
        self.begun.remove(&job);
        self.barred.remove(&job);
        if let Some(entry) = self.entries.remove(job) {
            self.leave(&entry);
        }
    }

    /// Its entry is gone or replaced; now all else that it had goes.
    fn leave(&mut self, entry: &Entry) {
        self.unready(entry);
        self.end_lease(entry);
        self.resumable.remove(&entry.job());
        self.destinations.leave(entry.destination);
    }

    /// Lets a job wait for the worker that held it before a restart.
    pub fn await_resume(&mut self, hint: &LeaseHint, now: Timestamp) {
        let entry = self.entries.get(hint.job);
        let Some(entry) = entry.filter(|entry| entry.revision == hint.revision) else {
            return;
        };
        let waits = entry.phase == Phase::Waiting && entry.at <= now;
        // Also if the lease is long over: its worker may have filed the mail.
        if hint.deadline > Timestamp::default() {
            self.mark_unclear(hint.job);
            self.begun.insert(hint.job);
        }
        if waits && hint.deadline > now {
            let until = now.plus(self.times.resume_grace).min(hint.deadline);
            self.move_to(hint.job, Phase::Resuming, until);
            self.resumable.insert(hint.job, hint.fence);
        }
    }

    /// Begins another durable change of a job that nobody holds.
    pub fn begin_change(&mut self, job: JobKey) -> Result<Revision, QueueError> {
        let entry = self.entries.get(job).ok_or(QueueError::NoSuchJob(job))?;
        if entry.changing || entry.phase == Phase::Leased {
            return Err(QueueError::Busy(job));
        }
        let revision = entry.revision;
        self.begin(job);
        Ok(revision)
    }

    /// A change that was begun will not come about, and the job's state cannot be read: it goes on from where it was.
    pub fn give_up_change(&mut self, job: JobKey) {
        let before = self.entries.change(job, |entry| entry.changing = false);
        if let Some(entry) = before.filter(|entry| entry.changing) {
            self.move_to(job, entry.phase, entry.at);
        }
    }

    fn begin(&mut self, job: JobKey) {
        let before = self.entries.change(job, |entry| entry.changing = true);
        if let Some(entry) = before {
            self.unready(&entry);
        }
    }

    /// Does what time demands: makes jobs ready, ends leases, names the reports to make. What it leaves for the next call,
    /// since there is too much, [`Schedule::next_wakeup`] tells.
    pub fn tick(&mut self, now: Timestamp) -> Ticked {
        let mut ticked = Ticked::default();
        for _ in 0..STRETCH {
            let first = self.entries.first_to_wake();
            let Some(&entry) = first.filter(|entry| entry.at <= now) else {
                break;
            };
            let (job, at) = (entry.job(), entry.at);
            match entry.phase {
                Phase::Leased => {
                    ticked.expired.extend(self.end_lease(&entry));
                    self.move_to(job, Phase::Ready, at);
                    self.mark_unclear(job);
                    self.begun.insert(job);
                }
                owing @ (Phase::Owing | Phase::HeldOwing) => {
                    ticked.reports.push(job.queue_id);
                    // Named again, should the report not come to its commit.
                    self.move_to(job, owing, now.plus(REPORT_AGAIN));
                }
                Phase::Waiting | Phase::Resuming => {
                    self.move_to(job, Phase::Ready, at);
                    if Term::from(entry.term).bars(now) {
                        self.barred.insert(job);
                    }
                }
                // They are not woken.
                Phase::Ready | Phase::Held => {}
            }
        }
        ticked.reports.sort_unstable();
        ticked.reports.dedup();
        ticked
    }

    /// When [`Schedule::tick`] has something to do again.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.entries.next_wakeup()
    }

    /// How many jobs are in this phase.
    pub fn in_phase(&self, phase: Phase) -> usize {
        self.entries.in_phase(phase)
    }

    /// Whether a job lives, and where it stands; with the time it is due, leased until, or reported at.
    pub fn phase(&self, job: JobKey) -> Option<(Phase, Timestamp)> {
        self.entries.get(job).map(|entry| (entry.phase, entry.at))
    }

    /// The revision of a living job.
    pub fn revision(&self, job: JobKey) -> Option<Revision> {
        self.entries.get(job).map(|entry| entry.revision)
    }

    /// Whether a change of the job waits for its commit.
    pub fn is_changing(&self, job: JobKey) -> bool {
        self.entries.get(job).is_some_and(|entry| entry.changing)
    }

    /// The lease of a job.
    pub fn lease_of(&self, job: JobKey) -> Option<&Lease> {
        self.leases.get(&job)
    }

    /// All living leases.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// How many jobs of a class are ready.
    pub fn ready_len(&self, class: RouteClass) -> usize {
        let of_class = self.ready.iter().filter(|((of, _), _)| *of == class);
        of_class.map(|(_, ready)| ready.len()).sum()
    }

    /// Entries behind a job, by ascending key; behind none: all.
    fn after(&self, job: Option<JobKey>) -> impl Iterator<Item = &Entry> {
        let from = job.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded))
    }

    /// A stretch of the living jobs behind this one, by ascending key; empty: that was all.
    pub fn stretch(
        &self,
        behind: Option<JobKey>,
    ) -> impl Iterator<Item = (JobKey, Phase, &Arc<str>, Timestamp)> {
        let stretch = self.after(behind).take(STRETCH);
        stretch.map(|entry| {
            let destination = self.destinations.name(entry.destination);
            (entry.job(), entry.phase, destination, entry.at)
        })
    }

    /// Every living job: key, phase, class, destination, due.
    pub fn jobs(&self) -> impl Iterator<Item = (JobKey, Phase, RouteClass, &str, Timestamp)> {
        self.after(None).map(|entry| {
            let destination = self.destinations.name(entry.destination).as_ref();
            (entry.job(), entry.phase, entry.class, destination, entry.at)
        })
    }

    /// How many jobs live.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    fn move_to(&mut self, job: JobKey, phase: Phase, at: Timestamp) {
        let moved = |entry: &mut Entry| (entry.phase, entry.at) = (phase, at);
        let Some(before) = self.entries.change(job, moved) else {
            return;
        };
        self.unready(&before);
        if phase == Phase::Ready {
            let entry = Entry {
                phase,
                at,
                ..before
            };
            let (ready, name) = self.ready_of(&entry);
            ready.insert(&entry, name);
        }
    }

    fn unready(&mut self, entry: &Entry) {
        if entry.phase == Phase::Ready
            && let Some(ready) = self.ready.get_mut(&self.lane_of(entry))
        {
            ready.remove(entry);
        }
    }

    /// Takes the lease of a job away.
    fn end_lease(&mut self, entry: &Entry) -> Option<Lease> {
        let lease = self.leases.remove(&entry.job())?;
        self.note_end(entry.class, lease.fence);
        if let Some(ready) = self.ready.get_mut(&self.lane_of(entry)) {
            ready.lease_ended(entry.destination);
        }
        Some(lease)
    }

    fn note_end(&mut self, class: RouteClass, fence: Fence) {
        if matches!(class, RouteClass::Relay | RouteClass::Lmtp) {
            self.ended.push(fence);
        }
    }

    fn lane_of(&self, entry: &Entry) -> (RouteClass, StoreName) {
        (
            entry.class,
            self.destinations.store(entry.destination).clone(),
        )
    }

    /// The queue of an entry's class and store, and the name of its destination.
    fn ready_of(&mut self, entry: &Entry) -> (&mut ReadyQueue, &str) {
        let lane = self.lane_of(entry);
        let fairness = &self.fairness;
        let ready = self.ready.entry(lane);
        let ready = ready.or_insert_with(|| ReadyQueue::new(entry.class, Arc::clone(fairness)));
        (ready, self.destinations.name(entry.destination))
    }
}

#[cfg(test)]
mod tests;
