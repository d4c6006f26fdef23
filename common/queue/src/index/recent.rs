//! The newest of mails, in memory. Most come and go within moments: what has gone again by then never reaches sled, where a change
//! costs ten times as much.
//!
//! Nothing depends on it that did not depend on sled before: what sled holds is durable from a checkpoint on only, and a checkpoint
//! puts all of this into sled first. A crash leaves each mail in sled as it was at the last checkpoint or as it became later, and a
//! replay from there makes all changes again.

use std::{
    collections::HashMap,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sled::{IVec, Result};

use super::store::Store;

/// Changed keys that are kept here. While there are more, those of further mails go to sled at once.
const KEYS: usize = 8192;
/// Octets of their values, likewise.
const OCTETS: usize = 4 << 20;
/// All keys of a mail begin with its id.
const ID: usize = 16;
/// Mails written while others wait, in a checkpoint.
const AT_ONCE: usize = 64;

/// A key, and its value; none: it was removed.
pub type Newest = (IVec, Option<IVec>);

pub struct Recent(Mutex<Window>);

struct Window {
    most_keys: usize,
    most_octets: usize,
    /// By their numbers.
    stores: Vec<Arc<Store>>,
    mails: HashMap<IVec, Vec<Entry>>,
    keys: usize,
    octets: usize,
}

struct Entry {
    tree: usize,
    key: IVec,
    /// None: it was removed.
    value: Option<IVec>,
    /// Whether sled has the key, or may have it.
    is_stored: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self::of(KEYS, OCTETS)
    }
}

impl Recent {
    fn of(most_keys: usize, most_octets: usize) -> Self {
        Self(Mutex::new(Window {
            most_keys,
            most_octets,
            stores: Vec::new(),
            mails: HashMap::new(),
            keys: 0,
            octets: 0,
        }))
    }

    #[cfg(test)]
    pub fn narrow(&self, most_keys: usize, most_octets: usize) {
        let mut window = self.lock();
        (window.most_keys, window.most_octets) = (most_keys, most_octets);
    }

    /// Keeps the changes of this tree from now on; tells its number here.
    pub fn admit(&self, store: Arc<Store>) -> usize {
        let mut window = self.lock();
        window.stores.push(store);
        window.stores.len() - 1
    }

    /// None: nothing is known of this key here.
    pub fn get(&self, tree: usize, key: &[u8]) -> Option<Option<IVec>> {
        let window = self.lock();
        let mail = window.mails.get(id(key))?;
        let entry = mail.iter().find(|entry| entry.is(tree, key))?;
        Some(entry.value.clone())
    }

    /// What is known of the keys in this range, by ascending key.
    pub fn within(&self, tree: usize, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Vec<Newest> {
        let window = self.lock();
        let all = window.mails.values().flatten();
        sorted(all.filter(|entry| {
            entry.tree == tree && RangeBounds::<[u8]>::contains(&range, &*entry.key)
        }))
    }

    /// The same for keys that begin with a mail's id.
    pub fn of_mail(&self, tree: usize, mail: &[u8]) -> Vec<Newest> {
        let window = self.lock();
        let mail = window.mails.get(mail);
        sorted(
            mail.into_iter()
                .flatten()
                .filter(|entry| entry.tree == tree),
        )
    }

    /// None removes it. Tells what was there before.
    pub fn put(&self, tree: usize, key: &[u8], value: Option<IVec>) -> Result<Option<IVec>> {
        self.lock().put(tree, key, value)
    }

    /// Removes all keys of a mail from these trees, in this order. What is kept here goes to sled before all of it or after.
    pub fn forget(&self, trees: &[usize], mail: &[u8]) -> Result<()> {
        let mut window = self.lock();
        for &tree in trees {
            for key in window.keys_of(tree, mail)? {
                window.put(tree, &key, None)?;
            }
        }
        Ok(())
    }

    /// Puts all into sled that was changed up to now. Others wait for a little of it at a time.
    pub fn store_all(&self) -> Result<()> {
        let mails: Vec<IVec> = self.lock().mails.keys().cloned().collect();
        for some in mails.chunks(AT_ONCE) {
            let mut window = self.lock();
            for mail in some {
                window.store_mail(mail)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn is_full(&self) -> bool {
        self.keys >= self.most_keys || self.octets >= self.most_octets
    }

    fn put(&mut self, tree: usize, key: &[u8], value: Option<IVec>) -> Result<Option<IVec>> {
        let id = id(key);
        let known = self.mails.get_mut(id).and_then(|mail| {
            let at = mail.iter().position(|entry| entry.is(tree, key))?;
            Some((mail, at))
        });
        if let Some((mail, at)) = known {
            let entry = &mut mail[at];
            let before = std::mem::replace(&mut entry.value, value);
            self.octets = self.octets - len(before.as_ref()) + len(entry.value.as_ref());
            if entry.value.is_none() && !entry.is_stored {
                mail.swap_remove(at);
                self.keys -= 1;
                if mail.is_empty() {
                    self.mails.remove(id);
                }
            }
            return Ok(before);
        }
        let Some(store) = self.stores.get(tree) else {
            return Ok(None);
        };
        if self.is_full() && !self.mails.contains_key(id) {
            return store.put(key, value.as_ref());
        }
        let before = store.get(key)?;
        if value.is_some() || before.is_some() {
            self.keys += 1;
            self.octets += len(value.as_ref());
            self.mails.entry(id.into()).or_default().push(Entry {
                tree,
                key: key.into(),
                value,
                is_stored: before.is_some(),
            });
        }
        Ok(before)
    }

    fn keys_of(&self, tree: usize, id: &[u8]) -> Result<Vec<IVec>> {
        let newest = self.mails.get(id).into_iter().flatten();
        let newest = newest.filter(|entry| entry.tree == tree);
        let mut keys: Vec<IVec> = newest.map(|entry| entry.key.clone()).collect();
        if let Some(store) = self.stores.get(tree) {
            for key in store.scan_prefix(id).keys() {
                let key = key?;
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// Additions before removals, and of these the last tree last: a crash in between leaves nothing half forgotten. What
    /// cannot be written stays here.
    fn store_mail(&mut self, id: &[u8]) -> Result<()> {
        let Some(mail) = self.mails.get_mut(id) else {
            return Ok(());
        };
        mail.sort_unstable_by_key(|entry| match entry.value {
            Some(_) => (false, usize::MAX - entry.tree),
            None => (true, entry.tree),
        });
        // Also if one of them fails: what goes later must go from there too.
        mail.iter_mut().for_each(|entry| entry.is_stored = true);
        for Entry {
            tree, key, value, ..
        } in &*mail
        {
            if let Some(store) = self.stores.get(*tree) {
                store.put(key, value.as_ref())?;
            }
        }
        self.keys -= mail.len();
        self.octets -= mail
            .iter()
            .map(|entry| len(entry.value.as_ref()))
            .sum::<usize>();
        self.mails.remove(id);
        Ok(())
    }
}

impl Entry {
    fn is(&self, tree: usize, key: &[u8]) -> bool {
        self.tree == tree && self.key == key
    }
}

/// Of the mail a key is of.
fn id(key: &[u8]) -> &[u8] {
    key.get(..ID).unwrap_or(key)
}

fn len(value: Option<&IVec>) -> usize {
    value.map_or(0, |value| value.len())
}

fn sorted<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Newest> {
    let mut newest: Vec<Newest> = entries
        .map(|entry| (entry.key.clone(), entry.value.clone()))
        .collect();
    newest.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    newest
}

#[cfg(test)]
mod tests;
