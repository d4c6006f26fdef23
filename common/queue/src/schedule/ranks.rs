use std::collections::VecDeque;

use super::entries::Key;
use crate::JobKey;

/// Most jobs of a chunk.
const CHUNK: usize = 32;

/// Jobs by rank, see [`super::Fairness::rank`], then by key. Most come behind all others, and most leave in front; so they lie
/// in sorted chunks, of which only the last is not full then.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// None is empty.
    chunks: VecDeque<VecDeque<Ranked>>,
}

/// 28 octets; without the packing there would be 48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, packed(4))]
struct Ranked {
    rank: i64,
    key: Key,
}

impl Ranks {
    /// Tells whether it is new.
    pub fn insert(&mut self, rank: i64, job: JobKey) -> bool {
        let ranked = Ranked::new(rank, job);
        let Some(last) = self.chunks.back_mut() else {
            self.chunks = VecDeque::from([VecDeque::from([ranked])]);
            return true;
        };
        // No need to search for its place.
        if last.len() < CHUNK && last.back() < Some(&ranked) {
            last.push_back(ranked);
            return true;
        }
        let at = self.chunk_of(&ranked);
        let chunk = &mut self.chunks[at];
        let Err(place) = chunk.binary_search(&ranked) else {
            return false;
        };
        if chunk.len() < CHUNK {
            chunk.insert(place, ranked);
            return true;
        }
        // Those that come in their order leave full chunks behind.
        let cut = place.max(CHUNK / 2);
        let mut behind = chunk.split_off(cut);
        if place < cut {
            chunk.insert(place, ranked);
        } else {
            behind.push_front(ranked);
        }
        self.chunks.insert(at + 1, behind);
        true
    }

    /// Tells whether it was there.
    pub fn remove(&mut self, rank: i64, job: JobKey) -> bool {
        let ranked = Ranked::new(rank, job);
        let at = self.chunk_of(&ranked);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return false;
        };
        let Ok(place) = chunk.binary_search(&ranked) else {
            return false;
        };
        chunk.remove(place);
        self.removed_from(at);
        true
    }

    pub fn pop_first(&mut self) -> Option<JobKey> {
        let first = self.chunks.front_mut()?.pop_front()?;
        self.removed_from(0);
        Some(first.key.into())
    }

    /// The least rank.
    pub fn first(&self) -> Option<i64> {
        self.chunks.front()?.front().map(|first| first.rank)
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    #[cfg(test)]
    pub fn jobs(&self) -> impl Iterator<Item = JobKey> {
        self.chunks.iter().flatten().map(|ranked| ranked.key.into())
    }

    /// The last that does not begin behind it, or else the first.
    fn chunk_of(&self, ranked: &Ranked) -> usize {
        let begins = |chunk: &VecDeque<Ranked>| chunk.front().is_some_and(|first| first <= ranked);
        self.chunks.partition_point(begins).saturating_sub(1)
    }

    fn removed_from(&mut self, at: usize) {
        let Some(chunk) = self.chunks.get_mut(at) else {
            return;
        };
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() < chunk.capacity() / 4 {
            chunk.shrink_to(chunk.capacity() / 2);
        }
    }
}

impl Ranked {
    fn new(rank: i64, job: JobKey) -> Self {
        let key = job.into();
        Self { rank, key }
    }
}

#[cfg(test)]
mod tests;
