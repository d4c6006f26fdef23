//! A tree in sled that can be copied elsewhere while it is used.

use std::{
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use sled::{IVec, Iter, Result};

pub struct Store(RwLock<Pair>);

struct Pair {
    now: sled::Tree,
    /// While it is copied, every change is made there too.
    next: Option<sled::Tree>,
    #[cfg(test)]
    fails: bool,
}

impl Store {
    pub const fn new(now: sled::Tree) -> Self {
        Self(RwLock::new(Pair {
            now,
            next: None,
            #[cfg(test)]
            fails: false,
        }))
    }

    /// Whether nothing can be changed from now on.
    #[cfg(test)]
    pub fn fail(&self, fails: bool) {
        self.write().fails = fails;
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>> {
        self.read().now.get(key)
    }

    pub fn range(&self, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Iter {
        self.read().now.range::<&[u8], _>(range)
    }

    pub fn scan_prefix(&self, prefix: &[u8]) -> Iter {
        self.read().now.scan_prefix(prefix)
    }

    /// None removes it. Tells what was there before.
    pub fn put(&self, key: &[u8], value: Option<&IVec>) -> Result<Option<IVec>> {
        let make = |tree: &sled::Tree| match value {
            Some(value) => tree.insert(key, value),
            None => tree.remove(key),
        };
        {
            let pair = self.read();
            #[cfg(test)]
            if pair.fails {
                return Err(sled::Error::Unsupported("as asked".to_owned()));
            }
            if pair.next.is_none() {
                return make(&pair.now);
            }
        }
        // One after the other, so that both trees see the changes of a key in one order.
        let pair = self.write();
        if let Some(next) = &pair.next {
            make(next)?;
        }
        make(&pair.now)
    }

    /// From now on every change is made in both.
    pub fn begin_copy(&self, next: sled::Tree) {
        self.write().next = Some(next);
    }

    /// Copies at most so many entries behind a key; tells the last, none: that was all.
    pub fn copy_some(&self, after: Option<&IVec>, most: usize) -> Result<Option<IVec>> {
        let pair = self.write();
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
        let (mut last, mut copied) = (None, 0);
        let behind = pair.now.range::<&[u8], _>((from, Bound::Unbounded));
        for item in behind.take(most) {
            let (key, value) = item?;
            if let Some(next) = &pair.next {
                next.insert(&key, value)?;
            }
            copied += 1;
            last = Some(key);
        }
        Ok(last.filter(|_| copied == most))
    }

    /// The copy takes the place of the tree.
    pub fn take_copy(&self) {
        let mut pair = self.write();
        if let Some(next) = pair.next.take() {
            pair.now = next;
        }
    }

    pub fn give_up_copy(&self) {
        self.write().next = None;
    }

    fn read(&self) -> RwLockReadGuard<'_, Pair> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pair> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
