//! Ids of finished mails, for the window of idempotency.
//!
//! Each gets a key of its own when its mail ends. sled takes some 190 octets for that, so once there are many they are
//! packed, in order: a hundred under the key of the first. Where a mail ends long after those that came with it, its id
//! goes into the block it belongs to, which is halved when it is full.

use std::{
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use postroad_envelope::{QueueId, Timestamp};
use sled::IVec;

use super::{Index, finished_value, keys, tree::Tree};
use crate::{Digest, QueueError, error::unreadable, record::Finished};

/// So many keys of their own are let be.
const LOOSE: usize = 50_000;
/// Ids looked at in one walk for those to forget.
const LOOKED_AT: usize = 2000;
/// Packed at one time: a checkpoint waits for it.
const A_TIME: usize = 20_000;
/// Packed in one go, while others that would change what is packed wait.
const AT_ONCE: usize = 500;
const ENTRY: usize = 40;
/// Ids in a block, which is at most 4,000 octets.
const FULL: usize = 100;

/// What is packed. Whoever changes blocks has the turn; whoever reads them needs none, for an id is in its new place before
/// it leaves the old one.
#[derive(Debug)]
pub struct Packed {
    turn: Mutex<()>,
    /// Everything above is not.
    newest: Mutex<Option<QueueId>>,
    /// Keys of their own; none: they were not counted yet.
    loose: Mutex<Option<usize>>,
    /// Where the walks over keys of their own and over blocks go on.
    walk: Mutex<(Option<QueueId>, Option<QueueId>)>,
}

/// Part of a walk over ids to forget.
#[derive(Default)]
struct Walked {
    forgotten: usize,
    /// Where to go on; none: from the beginning.
    on: Option<QueueId>,
}

/// From this id on; none: from the first.
fn from(on: Option<QueueId>) -> (Bound<[u8; 16]>, Bound<[u8; 16]>) {
    let first = on.map_or(Bound::Unbounded, |id| Bound::Included(id.to_bytes()));
    (first, Bound::Unbounded)
}

/// One block, and where the next one begins.
struct Block {
    key: IVec,
    ends: Vec<Finished>,
    next: Option<IVec>,
}

impl Packed {
    pub fn of(ended: &Tree) -> Result<Self, QueueError> {
        let last = ended.range::<&[u8]>(..).next_back().transpose()?;
        let newest = match last {
            Some((_, block)) => decode(&block)?.last().map(|last| last.queue_id),
            None => None,
        };
        Ok(Self {
            turn: Mutex::default(),
            newest: Mutex::new(newest),
            loose: Mutex::default(),
            walk: Mutex::default(),
        })
    }

    fn reaches(&self, id: QueueId) -> bool {
        lock(&self.newest).is_some_and(|newest| newest >= id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    /// When a mail finished, while that is remembered.
    pub fn finished(&self, id: QueueId) -> Result<Option<Finished>, QueueError> {
        if let Some(value) = self.trees.done.get(id.to_bytes())? {
            return super::finished(id, &value).map(Some);
        }
        if !self.packed.reaches(id) {
            return Ok(None);
        }
        let block = self.block_of(id)?;
        Ok(block.and_then(|block| block.ends.into_iter().find(|end| end.queue_id == id)))
    }

    pub(super) fn is_finished(&self, id: QueueId) -> Result<bool, QueueError> {
        Ok(self.finished(id)?.is_some())
    }

    pub(super) fn remember_finished(&self, finished: &Finished) -> Result<(), QueueError> {
        let key = finished.queue_id.to_bytes();
        let before = self.trees.done.insert(key, finished_value(finished))?;
        if let (Some(loose), None) = (&mut *lock(&self.packed.loose), before) {
            *loose += 1;
        }
        Ok(())
    }

    /// Tells whether it was known.
    pub fn forget_finished(&self, id: QueueId) -> Result<bool, QueueError> {
        let was_loose = self.trees.done.remove(id.to_bytes())?.is_some();
        if !self.packed.reaches(id) {
            return Ok(was_loose);
        }
        let _turn = lock(&self.packed.turn);
        let Some(mut block) = self.block_of(id)? else {
            return Ok(was_loose);
        };
        let count = block.ends.len();
        block.ends.retain(|end| end.queue_id != id);
        let was_packed = block.ends.len() < count;
        if was_packed {
            self.replace(&block.key, &[&block.ends])?;
        }
        Ok(was_loose || was_packed)
    }

    /// Forgets ids that finished before `before`. Each call looks at a bounded number of them and the next goes on behind
    /// it, for the oldest may be of mails that took days and ended a moment ago.
    pub(super) fn forget_ids(&self, before: Timestamp) -> Result<usize, QueueError> {
        let mut walk = lock(&self.packed.walk);
        let (loose, packed) = *walk;
        let loose = self.forget_loose(loose, before)?;
        let packed = self.forget_packed(packed, before)?;
        *walk = (loose.on, packed.on);
        Ok(loose.forgotten + packed.forgotten)
    }

    fn forget_loose(&self, on: Option<QueueId>, before: Timestamp) -> Result<Walked, QueueError> {
        let mut walked = Walked::default();
        for (looked, item) in self.trees.done.range(from(on)).enumerate() {
            let (key, value) = item?;
            let id = keys::parse_id(&key).ok_or_else(|| unreadable("finished key", "length"))?;
            // Ids sort by the time they were minted, and none finished before that.
            if id.minted_at() >= before {
                break;
            }
            if looked >= LOOKED_AT {
                walked.on = Some(id);
                break;
            }
            if super::finished(id, &value)?.at < before {
                self.trees.done.remove(key)?;
                walked.forgotten += 1;
            }
        }
        Ok(walked)
    }

    fn forget_packed(&self, on: Option<QueueId>, before: Timestamp) -> Result<Walked, QueueError> {
        let mut walked = Walked::default();
        for (looked, item) in self.trees.ended.range(from(on)).enumerate() {
            let (key, _) = item?;
            let id = keys::parse_id(&key).ok_or_else(|| unreadable("block key", "length"))?;
            if id.minted_at() >= before {
                break;
            }
            if looked >= LOOKED_AT / FULL {
                walked.on = Some(id);
                break;
            }
            let _turn = lock(&self.packed.turn);
            let Some(mut block) = self.block_of(id)? else {
                continue;
            };
            let count = block.ends.len();
            block.ends.retain(|end| end.at >= before);
            if block.ends.len() < count {
                walked.forgotten += count - block.ends.len();
                self.replace(&block.key, &[&block.ends])?;
            }
        }
        Ok(walked)
    }

    /// Packs ids, the oldest first, once there are many with keys of their own.
    pub fn pack_finished(&self) -> Result<(), QueueError> {
        let counted = *lock(&self.packed.loose);
        let loose = counted.unwrap_or_else(|| self.trees.done.iter().count());
        lock(&self.packed.loose).get_or_insert(loose);
        let mut left = if loose > LOOSE { loose.min(A_TIME) } else { 0 };
        while left > 0 {
            let packed = self.pack_some()?;
            left = if packed == 0 {
                0
            } else {
                left.saturating_sub(packed)
            };
        }
        Ok(())
    }

    fn pack_some(&self) -> Result<usize, QueueError> {
        let _turn = lock(&self.packed.turn);
        let mut ends = Vec::with_capacity(AT_ONCE);
        for item in self.trees.done.iter().take(AT_ONCE) {
            let (key, value) = item?;
            let id = keys::parse_id(&key).ok_or_else(|| unreadable("finished key", "length"))?;
            ends.push(super::finished(id, &value)?);
        }
        let mut rest = &ends[..];
        while let Some(first) = rest.first() {
            let block = match self.block_of(first.queue_id)? {
                Some(block) => block,
                // Before all others, or there is none.
                None => Block {
                    key: IVec::from(&first.queue_id.to_bytes()),
                    ends: Vec::new(),
                    next: self.key_after(&[])?,
                },
            };
            let own = rest.partition_point(|end| block.is_before_next(end));
            let (own, others) = rest.split_at(own.max(1));
            self.merge(block, own)?;
            rest = others;
        }
        let last = ends.last().map(|last| last.queue_id);
        let newest = &mut *lock(&self.packed.newest);
        *newest = last.max(*newest);
        for end in &ends {
            self.trees.done.remove(end.queue_id.to_bytes())?;
        }
        if let Some(loose) = &mut *lock(&self.packed.loose) {
            *loose = loose.saturating_sub(ends.len());
        }
        Ok(ends.len())
    }

    /// Puts ids into the block they belong to. What comes in order fills its blocks.
    fn merge(&self, block: Block, ends: &[Finished]) -> Result<(), QueueError> {
        let Block {
            key,
            ends: mut all,
            next,
        } = block;
        let last = all.last().map(|last| last.queue_id);
        let is_appended = next.is_none() && last < ends.first().map(|first| first.queue_id);
        for end in ends {
            match all.binary_search_by_key(&end.queue_id, |known| known.queue_id) {
                Ok(at) => all[at] = *end,
                Err(at) => all.insert(at, *end),
            }
        }
        let size = match is_appended || all.len() <= FULL {
            true => FULL,
            false => all.len().div_ceil(all.len().div_ceil(FULL * 3 / 4)),
        };
        let parts: Vec<&[Finished]> = all.chunks(size).collect();
        self.replace(&key, &parts)
    }

    /// Blocks that take the place of one, in order. The first of them last, so that a crash loses none.
    fn replace(&self, key: &IVec, blocks: &[&[Finished]]) -> Result<(), QueueError> {
        for block in blocks.iter().rev() {
            if let Some(first) = block.first() {
                let value: Vec<u8> = block.iter().flat_map(encode).collect();
                self.trees.ended.insert(first.queue_id.to_bytes(), value)?;
            }
        }
        let first = blocks.first().and_then(|block| block.first());
        if first.is_none_or(|first| first.queue_id.to_bytes()[..] != key[..]) {
            self.trees.ended.remove(key)?;
        }
        Ok(())
    }

    /// The block an id belongs to; none if it is below all.
    fn block_of(&self, id: QueueId) -> Result<Option<Block>, QueueError> {
        let up_to = self.trees.ended.range(..=id.to_bytes()).next_back();
        let Some((key, value)) = up_to.transpose()? else {
            return Ok(None);
        };
        let mut block = Block {
            next: self.key_after(&key)?,
            ends: decode(&value)?,
            key,
        };
        // A crash may have left ids here that are in the next one too.
        let own = block.ends.partition_point(|end| block.is_before_next(end));
        block.ends.truncate(own);
        Ok(Some(block))
    }

    fn key_after(&self, key: &[u8]) -> Result<Option<IVec>, QueueError> {
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let next = self.trees.ended.range::<&[u8]>(behind).next();
        Ok(next.transpose()?.map(|(key, _)| key))
    }
}

impl Block {
    fn is_before_next(&self, end: &Finished) -> bool {
        let next = self.next.as_ref();
        next.is_none_or(|next| end.queue_id.to_bytes()[..] < next[..])
    }
}

/// id 16, time 6, length 6, CRC-32C 4, hash of the envelope 8.
fn encode(end: &Finished) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let parts: [&[u8]; 5] = [
        &end.queue_id.to_bytes(),
        &end.at.as_millis().to_be_bytes()[2..],
        &end.digest.len.to_be_bytes()[2..],
        &end.digest.crc32c.to_be_bytes(),
        &end.digest.envelope.to_be_bytes(),
    ];
    let octets = parts.into_iter().flatten();
    entry
        .iter_mut()
        .zip(octets)
        .for_each(|(to, from)| *to = *from);
    entry
}

pub(super) fn decode(block: &[u8]) -> Result<Vec<Finished>, QueueError> {
    let (entries, rest) = block.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return Err(unreadable("block of finished ids", "length"));
    }
    Ok(entries.iter().map(entry).collect())
}

fn entry(entry: &[u8; ENTRY]) -> Finished {
    let number = |from: usize, to: usize| {
        let octets = entry[from..to].iter();
        octets.fold(0_u64, |number, octet| number << 8 | u64::from(*octet))
    };
    let mut id = [0; 16];
    id.copy_from_slice(&entry[..16]);
    Finished {
        queue_id: QueueId::from_bytes(id),
        at: Timestamp::from_millis(number(16, 22)),
        digest: Digest {
            len: number(22, 28),
            crc32c: u32::try_from(number(28, 32)).unwrap_or(u32::MAX),
            envelope: number(32, 40),
        },
    }
}

#[cfg(test)]
mod tests;
