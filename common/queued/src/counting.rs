//! What agents count together: in memory, in a few parts so that nobody waits long, and what a restart is not to forget in a
//! small file of the queue's folder.

mod file;

use std::{
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use postroad_counters::{Count, Counted, Counters, Kept, Key, Kind, Room};
use postroad_queue_client::{CounterList, CountersQuery};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::warn;

use crate::{clock, core::Front, counts::Counts};

const PARTS: usize = 8;
/// Between two looks at what is over and what must be written: what a kill may lose.
const EVERY: Duration = Duration::from_secs(5);
/// Writing takes no more than this part of the time, up to a pause of [`LONGEST_PAUSE`].
const SHARE: u32 = 50;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Lines of a list, unless more are asked for, and at most.
const LISTED: usize = 1_000;
const MOST_LISTED: usize = 10_000;

/// All counters and bans of a queue.
pub(crate) struct Counting {
    parts: Vec<Mutex<Counters>>,
    hasher: RandomState,
    path: PathBuf,
    /// Something of what is kept changed since it was written.
    changed: AtomicBool,
    /// One writes at a time.
    writing: Mutex<()>,
    /// It cannot be written, and that was told.
    failed: AtomicBool,
    /// There are too many, and that was told; by place of the kind.
    crowded: [AtomicBool; Kind::ALL.len()],
}

impl Counting {
    /// With what was kept in this folder. Blocks.
    pub fn open(folder: &Path, room: Room) -> Self {
        let room = share(room);
        let counting = Self {
            parts: (0..PARTS)
                .map(|_| Mutex::new(Counters::new(room)))
                .collect(),
            hasher: RandomState::new(),
            path: folder.join(file::NAME),
            changed: AtomicBool::new(false),
            writing: Mutex::default(),
            failed: AtomicBool::new(false),
            crowded: Default::default(),
        };
        for kept in file::read(&counting.path) {
            let key = match &kept {
                Kept::Counter { key, .. } => key.clone(),
                Kept::Ban(ban) => ban.key.clone(),
            };
            if let Some(mut part) = counting.part(&key) {
                part.restore(kept);
            }
        }
        counting
    }

    pub fn set_room(&self, room: Room) {
        for mut part in self.parts() {
            part.set_room(share(room));
        }
    }

    /// How it stands after a count, and whether a ban began with it.
    pub fn count(&self, count: &Count) -> (Counted, bool) {
        let Some(mut part) = self.part(&count.key) else {
            return (Counted::default(), false);
        };
        let counted = part.count(count, clock::now());
        let begun = part.take_begun(count.key.kind()) > 0;
        drop(part);
        let is_new = count.add > 0 && counted.full.is_none();
        if begun || is_new && count.key.kind().is_kept() {
            self.changed.store(true, Ordering::Relaxed);
        }
        (counted, begun)
    }

    /// Forgets counters and bans; how many of these had any. What an operator lifted does not come back with a restart, so this
    /// is written at once. Blocks.
    pub fn clear(&self, keys: &[Key]) -> u64 {
        let mut cleared = 0;
        for key in keys {
            let had = self.part(key).is_some_and(|mut part| part.clear(key));
            cleared += u64::from(had);
        }
        self.changed.store(true, Ordering::Relaxed);
        self.save();
        cleared
    }

    pub fn list(&self, query: CountersQuery) -> CounterList {
        let limit = match usize::try_from(query.limit).unwrap_or(MOST_LISTED) {
            0 => LISTED,
            limit => limit.min(MOST_LISTED),
        };
        let (now, mut list) = (clock::now(), CounterList::default());
        let kinds = Kind::ALL.into_iter();
        for kind in kinds.filter(|kind| query.kind.is_none_or(|wanted| wanted == *kind)) {
            for part in self.parts() {
                match query.bans {
                    true => list.bans.extend(part.bans(kind, now)),
                    false => list.counters.extend(part.counters(kind, now)),
                }
            }
        }
        let total = list.bans.len() + list.counters.len();
        list.total = u64::try_from(total).unwrap_or(u64::MAX);
        list.bans
            .sort_by(|a, b| b.since.cmp(&a.since).then(a.key.cmp(&b.key)));
        list.counters
            .sort_by(|a, b| b.value.cmp(&a.value).then(a.key.cmp(&b.key)));
        list.bans.truncate(limit);
        list.counters.truncate(limit);
        list
    }

    /// How many counters and bans of a kind there are.
    pub fn sizes(&self, kind: Kind) -> (usize, usize) {
        let sizes = self.parts().map(|part| part.sizes(kind));
        sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Lets go what is over, tells what had to go before its time, and writes what must be kept. Blocks.
    fn tend(&self, counts: &Counts) {
        let now = clock::now();
        for mut part in self.parts() {
            part.tidy(now);
        }
        for (kind, crowded) in Kind::ALL.into_iter().zip(&self.crowded) {
            let dropped = self.parts().map(|mut part| part.take_dropped(kind)).sum();
            counts.counters_dropped(kind, dropped);
            let was = crowded.swap(dropped > 0, Ordering::Relaxed);
            if dropped > 0 && !was {
                warn!(
                    event = "counters_full",
                    name = kind.as_str(),
                    count = dropped,
                    remedy = "give queued.counters more room, or find out who makes so many",
                    "the oldest counters or bans make room for new ones"
                );
            }
        }
        self.save();
    }

    /// Writes what must be kept, if that changed. Blocks.
    fn save(&self) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = clock::now();
        let kept: Vec<Kept> = self.parts().flat_map(|part| part.kept(now)).collect();
        match file::write(&self.path, &kept) {
            Ok(()) => self.failed.store(false, Ordering::Relaxed),
            Err(error) => {
                self.changed.store(true, Ordering::Relaxed);
                if !self.failed.swap(true, Ordering::Relaxed) {
                    warn!(
                        event = "fault", path = %self.path.display(), %error,
                        "counters cannot be written; a restart now would forget the newest"
                    );
                }
            }
        }
    }

    fn part(&self, key: &Key) -> Option<MutexGuard<'_, Counters>> {
        let hash = usize::try_from(self.hasher.hash_one(key) % PARTS as u64).unwrap_or(0);
        self.parts.get(hash).map(lock)
    }

    fn parts(&self) -> impl Iterator<Item = MutexGuard<'_, Counters>> {
        self.parts.iter().map(lock)
    }
}

/// Looks after counters until the queue ends.
pub(crate) async fn keep(front: Arc<Front>) {
    let mut pause = EVERY;
    loop {
        tokio::select! {
            () = front.upkeep_stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        let tended = Arc::clone(&front);
        let begun = Instant::now();
        // A panic in it has been logged; the next turn tries again.
        let _ = spawn_blocking(move || tended.counting.tend(&tended.counts)).await;
        pause = (begun.elapsed() * SHARE).clamp(EVERY, LONGEST_PAUSE);
    }
}

/// Writes what must be kept, at the end of the queue.
pub(crate) async fn end(front: &Arc<Front>) {
    let ending = Arc::clone(front);
    let _ = spawn_blocking(move || ending.counting.tend(&ending.counts)).await;
}

fn lock(part: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chance does not fill all parts alike; what is too much for one goes a little early.
fn share(room: Room) -> Room {
    Room {
        counters: room.counters.div_ceil(PARTS),
        bans: room.bans.div_ceil(PARTS),
    }
}

#[cfg(test)]
mod tests;
