//! A tree of the index: what is newest in memory, the rest in sled.

use std::{
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use postroad_envelope::QueueId;
use sled::{IVec, Result};

use super::{entries::Entries, recent::Recent, store::Store};

pub struct Tree {
    pub store: Arc<Store>,
    /// With its number there; none: every change is made in sled at once.
    recent: Option<(Arc<Recent>, usize)>,
}

impl Tree {
    pub fn direct(store: Arc<Store>) -> Self {
        Self {
            store,
            recent: None,
        }
    }

    pub fn behind(recent: &Arc<Recent>, store: Arc<Store>) -> Self {
        let number = recent.admit(Arc::clone(&store));
        Self {
            store,
            recent: Some((Arc::clone(recent), number)),
        }
    }

    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>> {
        if let Some((recent, number)) = &self.recent
            && let Some(newest) = recent.get(*number, key.as_ref())
        {
            return Ok(newest);
        }
        self.store.get(key.as_ref())
    }

    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn iter(&self) -> Entries {
        self.range::<&[u8]>(..)
    }

    /// By ascending key, from either end. What changes meanwhile may be seen or not.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        let range = (octets(range.start_bound()), octets(range.end_bound()));
        // In this order: what goes to sled in between is seen there.
        let newest = match &self.recent {
            Some((recent, number)) => recent.within(*number, range),
            None => Vec::new(),
        };
        Entries::new(self.store.range(range), newest)
    }

    /// Of a mail: its key, or those of its jobs.
    pub fn of_mail(&self, id: QueueId) -> Entries {
        let id = id.to_bytes();
        let newest = match &self.recent {
            Some((recent, number)) => recent.of_mail(*number, &id),
            None => Vec::new(),
        };
        Entries::new(self.store.scan_prefix(&id), newest)
    }

    /// Tells what was there before.
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl Into<IVec>) -> Result<Option<IVec>> {
        self.put(key.as_ref(), Some(value.into()))
    }

    /// Tells what was there before.
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>> {
        self.put(key.as_ref(), None)
    }

    /// Removes all keys of a mail from trees of one memory, in this order: see [`Recent::forget`].
    pub fn forget(trees: &[&Self], mail: QueueId) -> Result<()> {
        let places: Vec<_> = trees
            .iter()
            .filter_map(|tree| tree.recent.as_ref())
            .collect();
        let Some((recent, _)) = places.first() else {
            return Ok(());
        };
        let numbers: Vec<usize> = places.iter().map(|(_, number)| *number).collect();
        recent.forget(&numbers, &mail.to_bytes())
    }

    fn put(&self, key: &[u8], value: Option<IVec>) -> Result<Option<IVec>> {
        match &self.recent {
            Some((recent, number)) => recent.put(*number, key, value),
            None => self.store.put(key, value.as_ref()),
        }
    }
}

fn octets<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<&[u8]> {
    bound.map(AsRef::as_ref)
}
