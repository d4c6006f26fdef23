use std::collections::HashMap;

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
}

impl Queue {
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

    /// Every destination that has living jobs, those with most of them first.
    pub fn destinations(&self, now: Timestamp) -> Vec<DestinationStats> {
        let core = self.core();
        let mut found: HashMap<&str, (DestinationStats, Timestamp)> = HashMap::new();
        for (key, phase, _, destination, at) in core.schedule.jobs() {
            let (stats, waits_until) = found.entry(destination).or_insert_with(|| {
                let stats = DestinationStats {
                    destination: destination.to_owned(),
                    due: 0,
                    delayed: 0,
                    leased: 0,
                    held: 0,
                    oldest: key.queue_id,
                    sample: key,
                };
                (stats, now)
            });
            match phase {
                Phase::Ready => stats.due += 1,
                Phase::Waiting if at <= now => stats.due += 1,
                Phase::Waiting | Phase::Owing => stats.delayed += 1,
                Phase::Leased | Phase::Resuming => stats.leased += 1,
                Phase::Held => stats.held += 1,
            }
            let nobody_waits = *waits_until == now;
            if phase == Phase::Waiting && at > *waits_until {
                (*waits_until, stats.sample) = (at, key);
            } else if nobody_waits && key.queue_id < stats.oldest {
                stats.sample = key;
            }
            stats.oldest = stats.oldest.min(key.queue_id);
        }
        let mut all: Vec<DestinationStats> = found.into_values().map(|(stats, _)| stats).collect();
        drop(core);
        all.sort_by(|a, b| {
            let most = b.jobs().cmp(&a.jobs());
            most.then_with(|| a.destination.cmp(&b.destination))
        });
        all
    }
}
