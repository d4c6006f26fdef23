use std::{collections::HashMap, sync::Arc};

use postroad_envelope::{QueueId, Timestamp};

use super::Queue;
use crate::{JobKey, Phase};

/// The living jobs of one destination, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationStats {
    /// Which one.
    pub destination: String,
    /// Their time has come.
    pub due: usize,
    /// Their time has not come, or their senders are to be told.
    pub delayed: usize,
    /// Workers hold them, or held them before a restart.
    pub leased: usize,
    /// Someone holds them back.
    pub held: usize,
    /// The oldest mail.
    pub oldest: QueueId,
    /// The job that waits longest for its next attempt; without one, that of the oldest mail.
    pub sample: JobKey,
}

impl DestinationStats {
    /// All of them.
    pub const fn jobs(&self) -> usize {
        self.due + self.delayed + self.leased + self.held
    }

    fn new(destination: &str, first: JobKey) -> Self {
        Self {
            destination: destination.to_owned(),
            due: 0,
            delayed: 0,
            leased: 0,
            held: 0,
            oldest: first.queue_id,
            sample: first,
        }
    }

    /// `waits_until` is the next attempt of the sample; now, where none waits.
    fn count(
        &mut self,
        job: JobKey,
        phase: Phase,
        at: Timestamp,
        now: Timestamp,
        waits_until: &mut Timestamp,
    ) {
        match phase {
            Phase::Ready => self.due += 1,
            Phase::Waiting if at <= now => self.due += 1,
            Phase::Waiting | Phase::Owing => self.delayed += 1,
            Phase::Leased | Phase::Resuming => self.leased += 1,
            Phase::Held | Phase::HeldOwing => self.held += 1,
        }
        let nobody_waits = *waits_until == now;
        if phase == Phase::Waiting && at > *waits_until {
            (*waits_until, self.sample) = (at, job);
        } else if nobody_waits && job.queue_id < self.oldest {
            self.sample = job;
        }
        self.oldest = self.oldest.min(job.queue_id);
    }
}

/// The living jobs, in numbers; as of [`DestinationStats`], of all destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// Their time has come.
    pub due: usize,
    /// Their time has not come, or their senders are to be told.
    pub delayed: usize,
    /// Workers hold them, or held them before a restart.
    pub leased: usize,
    /// Someone holds them back.
    pub held: usize,
}

impl Queue {
    /// How many jobs there are. Costs nothing, however many: they are counted as they move.
    pub fn job_counts(&self) -> JobCounts {
        let core = self.core();
        let count = |phase| core.schedule.in_phase(phase);
        JobCounts {
            due: count(Phase::Ready),
            delayed: count(Phase::Waiting) + count(Phase::Owing),
            leased: count(Phase::Leased) + count(Phase::Resuming),
            held: count(Phase::Held) + count(Phase::HeldOwing),
        }
    }

    /// See [`crate::Schedule::oldest_due`].
    pub fn oldest_due(&self) -> Option<Timestamp> {
        self.core().schedule.oldest_due()
    }

    /// How many jobs the workers hold, by the number of their stream.
    pub fn leases_by_stream(&self) -> HashMap<u64, u32> {
        let core = self.core();
        let mut counts = HashMap::new();
        for lease in core.schedule.leases() {
            let count: &mut u32 = counts.entry(lease.holder.stream).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// How many jobs the workers hold.
    pub fn leases(&self) -> usize {
        self.core().schedule.leases().count()
    }

    /// Every destination that has living jobs, those with most of them first. Mail moves while they are counted.
    pub fn destinations(&self, now: Timestamp) -> Vec<DestinationStats> {
        let mut found: HashMap<Arc<str>, (DestinationStats, Timestamp)> = HashMap::new();
        let mut behind = None;
        loop {
            // Between two stretches others get the schedule.
            let core = self.core();
            let mut last = None;
            for (key, phase, destination, at) in core.schedule.stretch(behind) {
                last = Some(key);
                let known = found.get_mut(destination);
                let (stats, waits_until) = match known {
                    Some(known) => known,
                    None => {
                        let stats = DestinationStats::new(destination, key);
                        found.entry(Arc::clone(destination)).or_insert((stats, now))
                    }
                };
                stats.count(key, phase, at, now, waits_until);
            }
            drop(core);
            if last.is_none() {
                break;
            }
            behind = last;
        }
        let mut all: Vec<DestinationStats> = found.into_values().map(|(stats, _)| stats).collect();
        all.sort_by(|a, b| {
            let most = b.jobs().cmp(&a.jobs());
            most.then_with(|| a.destination.cmp(&b.destination))
        });
        all
    }
}
