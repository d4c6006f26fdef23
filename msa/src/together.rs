//! What all copies of this agent count together, by way of the queue; and what this one knows by itself while the queue is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use postroad_counters::{Ban, Count, Counted, Counters, Kept, Key, Limit, Room, Rule};
use postroad_envelope::Timestamp;
use postroad_metrics::{Gauge, Metrics, list};
use postroad_queue_client::{QueueError, QueueService};
use tokio::time::timeout;
use tracing::{info, warn};

/// After a question that nobody answered, so long nobody is asked: whoever waits has waited enough.
const PAUSE: Duration = Duration::from_secs(1);
/// What this copy remembers.
const ROOM: Room = Room {
    counters: 10_000,
    bans: 10_000,
};

/// Counters that are shared as long as the queue answers.
pub struct Together {
    queue: Arc<dyn QueueService>,
    /// What came by here, and the bans that are known here.
    own: Mutex<Counters>,
    /// How long an answer is waited for, in milliseconds: nobody who logs in waits longer for it.
    patience: AtomicU64,
    reach: Mutex<Reach>,
    alone: Gauge,
}

/// Whether the queue answers.
#[derive(Default)]
struct Reach {
    is_away: bool,
    ask_again_at: Option<Instant>,
}

/// Why there is no answer.
enum NoAnswer {
    /// Nobody was asked.
    Paused,
    Failed(String),
}

impl Together {
    /// Counts at this queue, and waits so long for its answer.
    pub fn new(queue: Arc<dyn QueueService>, patience: Duration, metrics: &Metrics) -> Self {
        Self {
            queue,
            own: Mutex::new(Counters::new(ROOM)),
            patience: AtomicU64::new(millis(patience)),
            reach: Mutex::default(),
            alone: metrics.gauge(&list::COUNTERS_AWAY, &[]),
        }
    }

    /// Waits so long from now on.
    pub fn renew(&self, patience: Duration) {
        self.patience.store(millis(patience), Ordering::Relaxed);
    }

    /// Counts, and says how it stands: of all copies, or of this one if the queue does not answer soon.
    pub async fn count(&self, count: &Count) -> Counted {
        match self.ask(count).await {
            Ok(counted) => {
                self.learn(count, counted);
                counted
            }
            Err(no_answer) => {
                if let NoAnswer::Failed(why) = no_answer {
                    self.lost(&why);
                }
                self.count_alone(count)
            }
        }
    }

    /// Counts here alone, and whether it is the first in its window.
    pub fn is_first(&self, count: &Count) -> bool {
        self.own().count(count, now()).value == count.add
    }

    /// Until when one is banned, as far as it is known here.
    pub fn known_ban(&self, key: &Key) -> Option<Timestamp> {
        let rule = Rule::Ban {
            limit: Limit {
                window: Duration::from_secs(1),
                most: u64::MAX,
            },
            ban: Duration::ZERO,
        };
        let (key, add) = (key.clone(), 0);
        let counted = self.own().count(&Count { key, add, rule }, now());
        counted.banned_until
    }

    async fn ask(&self, count: &Count) -> Result<Counted, NoAnswer> {
        // Whoever sends was just told by the queue that it has room; a pause would only let more pass than the limit allows.
        let may_pause = matches!(count.rule, Rule::Ban { .. });
        let again = self.reach().ask_again_at;
        if may_pause && again.is_some_and(|again| Instant::now() < again) {
            return Err(NoAnswer::Paused);
        }
        let patience = Duration::from_millis(self.patience.load(Ordering::Relaxed));
        match timeout(patience, self.queue.count(count.clone())).await {
            Ok(Ok(counted)) => {
                self.found();
                Ok(counted)
            }
            Ok(Err(error)) => Err(NoAnswer::Failed(why(&error))),
            Err(_) => Err(NoAnswer::Failed("no answer in time".to_owned())),
        }
    }

    /// What is needed once the queue is away: this copy's share of the count, and the bans of all.
    fn learn(&self, count: &Count, counted: Counted) {
        let (mut own, now) = (self.own(), now());
        let known = match counted.full {
            Some(_) => Counted::default(),
            None => own.count(count, now),
        };
        let key = &count.key;
        match counted.banned_until {
            Some(until) if known.banned_until != Some(until) => {
                own.clear(key);
                own.restore(Kept::Ban(Ban {
                    key: key.clone(),
                    since: now,
                    until,
                    value: counted.value,
                }));
            }
            // An operator lifted it, or the queue began anew.
            None if known.banned_until.is_some() => drop(own.clear(key)),
            _ => {}
        }
    }

    fn count_alone(&self, count: &Count) -> Counted {
        let mut own = self.own();
        let counted = own.count(count, now());
        let begun = own.take_begun(count.key.kind()) > 0;
        drop(own);
        if let (true, Some(until)) = (begun, counted.banned_until) {
            info!(event = "banned", key = %count.key, count = counted.value, until = %until);
        }
        counted
    }

    fn lost(&self, why: &str) {
        let mut reach = self.reach();
        reach.ask_again_at = Some(Instant::now() + PAUSE);
        if !std::mem::replace(&mut reach.is_away, true) {
            self.alone.set(1);
            warn!(
                event = "counters_lost",
                reason = why,
                "this copy counts failed log-ins and mail sent by itself"
            );
        }
    }

    fn found(&self) {
        let mut reach = self.reach();
        reach.ask_again_at = None;
        if std::mem::replace(&mut reach.is_away, false) {
            self.alone.set(0);
            info!(
                event = "counters_found",
                "failed log-ins and mail sent are counted for all copies again"
            );
        }
    }

    fn own(&self) -> MutexGuard<'_, Counters> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn why(error: &QueueError) -> String {
    match error {
        QueueError::Unsupported(_) => "the queue is of a release that does not count".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
