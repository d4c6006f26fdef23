//! The living jobs by ascending key, with little memory for each, and which of them is to be woken next.
//!
//! Entries lie sorted in chunks, and chunks in a tree. A chunk knows the earliest time that one of its jobs waits for, and
//! only that stands among the wake-ups: so a job that waits needs no place but its entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, RangeBounds},
};

use postroad_envelope::{QueueId, RouteClass, Timestamp};

use super::{Phase, SenderPrint, destinations::DestinationNumber, term::PackedTerm};
use crate::{JobKey, Revision};

/// Most entries of a chunk, for which it has room from the beginning. What changes one of them may look at all.
const CHUNK: usize = 32;
/// A chunk and the one behind it become one when they have no more than this together.
const FEW: usize = CHUNK / 4 * 3;

/// A [`JobKey`] without the gap that its alignment leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(Rust, packed(4))]
pub(super) struct Key {
    queue_id: QueueId,
    number: u32,
}

/// A living job. There may be millions, so no octet is wasted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub key: Key,
    pub destination: DestinationNumber,
    pub sender: SenderPrint,
    pub revision: Revision,
    pub term: PackedTerm,
    /// Waiting, ready: when it became due. Else: the wake-up time, if any.
    pub at: Timestamp,
    pub class: RouteClass,
    pub priority: i8,
    pub phase: Phase,
    /// A durable change was prepared and waits for its commit.
    pub changing: bool,
}

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Each by its bound: no key in it, or in those behind it, is less.
    chunks: BTreeMap<Key, Chunk>,
    /// The earliest wake-up of each chunk that has one, and the chunk's bound.
    wakes: BTreeSet<(Timestamp, Key)>,
    len: usize,
    /// How many there are in each phase.
    phases: [usize; Phase::ALL.len()],
}

#[derive(Debug, Default)]
struct Chunk {
    entries: Vec<Entry>,
    earliest: Option<Timestamp>,
}

impl From<JobKey> for Key {
    fn from(JobKey { queue_id, number }: JobKey) -> Self {
        Self { queue_id, number }
    }
}

impl From<Key> for JobKey {
    fn from(Key { queue_id, number }: Key) -> Self {
        Self { queue_id, number }
    }
}

impl Entry {
    pub fn job(&self) -> JobKey {
        self.key.into()
    }

    /// When something is to be done about it.
    pub fn wake(&self) -> Option<Timestamp> {
        let waits = !self.changing && !matches!(self.phase, Phase::Ready | Phase::Held);
        waits.then_some(self.at)
    }
}

impl Entries {
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many are in this phase.
    pub fn in_phase(&self, phase: Phase) -> usize {
        self.phases[phase as usize]
    }

    pub fn get(&self, job: JobKey) -> Option<&Entry> {
        let key = job.into();
        let (_, chunk) = self.chunks.range(..=key).next_back()?;
        chunk.entries.get(chunk.place(key).ok()?)
    }

    /// The one to be woken first; of several at one time the one with the least key.
    pub fn first_to_wake(&self) -> Option<&Entry> {
        let (at, bound) = self.wakes.first()?;
        let mut entries = self.chunks.get(bound)?.entries.iter();
        entries.find(|entry| entry.wake() == Some(*at))
    }

    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Those in a range of keys, by ascending key.
    pub fn range<R: RangeBounds<JobKey>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        let range = (
            range.start_bound().map(|job| Key::from(*job)),
            range.end_bound().map(|job| Key::from(*job)),
        );
        // The range may begin inside a chunk.
        let begin = match range.0 {
            Bound::Included(key) | Bound::Excluded(key) => self.chunks.range(..=key).next_back(),
            Bound::Unbounded => None,
        };
        let begin = begin.map_or(Bound::Unbounded, |(bound, _)| Bound::Included(*bound));
        let end = range.1;
        let chunks = is_range(begin, end).then(|| self.chunks.range((begin, end)));
        let chunks = chunks.into_iter().flatten();
        chunks.flat_map(move |(_, chunk)| chunk.part(range))
    }

    /// Changes an entry, but not its key. Tells what it was, if it is there.
    pub fn change(&mut self, job: JobKey, change: impl FnOnce(&mut Entry)) -> Option<Entry> {
        let key = job.into();
        let (&bound, chunk) = self.chunks.range_mut(..=key).next_back()?;
        let place = chunk.place(key).ok()?;
        let entry = chunk.entries.get_mut(place)?;
        let before = *entry;
        change(entry);
        let after = entry.wake();
        self.phases[before.phase as usize] -= 1;
        self.phases[entry.phase as usize] += 1;
        chunk.moved(bound, before.wake(), after, &mut self.wakes);
        Some(before)
    }

    /// Puts an entry in, instead of the one with its key if there is one. Tells what that was.
    pub fn put(&mut self, entry: Entry) -> Option<Entry> {
        let key = entry.key;
        self.reach_down_to(key);
        let (&bound, chunk) = self.chunks.range_mut(..=key).next_back()?;
        match chunk.place(key) {
            Ok(_) => return self.change(entry.job(), |known| *known = entry),
            Err(place) if chunk.entries.len() < CHUNK => {
                chunk.entries.insert(place, entry);
                chunk.moved(bound, None, entry.wake(), &mut self.wakes);
            }
            Err(place) => {
                let mut behind = chunk.split(place, entry);
                chunk.look(bound, &mut self.wakes);
                let bound = behind.entries.first().map_or(key, |first| first.key);
                behind.look(bound, &mut self.wakes);
                self.chunks.insert(bound, behind);
                self.join(bound);
            }
        }
        self.len += 1;
        self.phases[entry.phase as usize] += 1;
        None
    }

    pub fn remove(&mut self, job: JobKey) -> Option<Entry> {
        let key = job.into();
        let (&bound, chunk) = self.chunks.range_mut(..=key).next_back()?;
        let entry = chunk.entries.remove(chunk.place(key).ok()?);
        chunk.moved(bound, entry.wake(), None, &mut self.wakes);
        self.len -= 1;
        self.phases[entry.phase as usize] -= 1;
        match chunk.entries.len() {
            0 => drop(self.chunks.remove(&bound)),
            left if left <= FEW / 2 && left % 4 == 0 => self.join_neighbours(bound),
            // To look at the neighbours each time would take longer than to remove.
            _ => {}
        }
        Some(entry)
    }

    fn join_neighbours(&mut self, bound: Key) {
        self.join(bound);
        let before = self.chunks.range(..bound).next_back();
        if let Some((&before, _)) = before {
            self.join(before);
        }
    }

    /// Sees to it that there is a chunk for a key less than all others.
    fn reach_down_to(&mut self, key: Key) {
        let Some(first) = self.chunks.first_entry() else {
            self.chunks.insert(key, Chunk::with_room());
            return;
        };
        if key < *first.key() {
            let (bound, chunk) = first.remove_entry();
            if let Some(at) = chunk.earliest {
                self.wakes.remove(&(at, bound));
                self.wakes.insert((at, key));
            }
            self.chunks.insert(key, chunk);
        }
    }

    /// Joins a chunk with the one behind it if they have few entries.
    fn join(&mut self, bound: Key) {
        let mut both = self.chunks.range(bound..);
        let (Some((_, chunk)), Some((&behind, next))) = (both.next(), both.next()) else {
            return;
        };
        if chunk.entries.len() + next.entries.len() > FEW {
            return;
        }
        let Some(mut next) = self.chunks.remove(&behind) else {
            return;
        };
        let earliest = next.earliest;
        next.wait_until(behind, None, &mut self.wakes);
        if let Some(chunk) = self.chunks.get_mut(&bound) {
            chunk.entries.append(&mut next.entries);
            chunk.moved(bound, None, earliest, &mut self.wakes);
        }
    }
}

impl Chunk {
    fn with_room() -> Self {
        Self {
            entries: Vec::with_capacity(CHUNK),
            earliest: None,
        }
    }

    /// Where the entry is, or where it would be.
    fn place(&self, key: Key) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }

    fn part(&self, (begin, end): (Bound<Key>, Bound<Key>)) -> &[Entry] {
        let before = |key: Key| self.entries.partition_point(|entry| entry.key < key);
        let up_to = |key: Key| self.entries.partition_point(|entry| entry.key <= key);
        let from = match begin {
            Bound::Included(key) => before(key),
            Bound::Excluded(key) => up_to(key),
            Bound::Unbounded => 0,
        };
        let to = match end {
            Bound::Included(key) => up_to(key),
            Bound::Excluded(key) => before(key),
            Bound::Unbounded => self.entries.len(),
        };
        self.entries.get(from..to).unwrap_or_default()
    }

    /// Divides a full chunk, with one more entry at its place. The part in front keeps as much as it can, so that entries
    /// that come in ascending order, as most do, leave full chunks behind.
    fn split(&mut self, place: usize, entry: Entry) -> Self {
        let cut = place.max(CHUNK / 2);
        let mut behind = Self::with_room();
        if place == cut {
            behind.entries.push(entry);
        }
        behind.entries.extend(self.entries.drain(cut..));
        if place < cut {
            self.entries.insert(place, entry);
        }
        behind
    }

    /// The wake-up of one entry has changed.
    fn moved(
        &mut self,
        bound: Key,
        before: Option<Timestamp>,
        after: Option<Timestamp>,
        wakes: &mut BTreeSet<(Timestamp, Key)>,
    ) {
        match after {
            Some(at) if self.earliest.is_none_or(|earliest| at <= earliest) => {
                self.wait_until(bound, after, wakes);
            }
            _ if before.is_some() && before == self.earliest => self.look(bound, wakes),
            _ => {}
        }
    }

    /// Looks for the earliest wake-up.
    fn look(&mut self, bound: Key, wakes: &mut BTreeSet<(Timestamp, Key)>) {
        let earliest = self.entries.iter().filter_map(Entry::wake).min();
        self.wait_until(bound, earliest, wakes);
    }

    fn wait_until(
        &mut self,
        bound: Key,
        earliest: Option<Timestamp>,
        wakes: &mut BTreeSet<(Timestamp, Key)>,
    ) {
        if self.earliest == earliest {
            return;
        }
        if let Some(at) = self.earliest {
            wakes.remove(&(at, bound));
        }
        wakes.extend(earliest.map(|at| (at, bound)));
        self.earliest = earliest;
    }
}

/// Whether it ends behind its beginning, as a tree demands of ranges.
fn is_range(begin: Bound<Key>, end: Bound<Key>) -> bool {
    match (begin, end) {
        (Bound::Included(begin), Bound::Included(end) | Bound::Excluded(end)) => begin <= end,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
