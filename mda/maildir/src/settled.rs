//! What follows a settlement: the new names are made durable, for many deliveries at once, and then the ledger forgets them.
//!
//! Until then the ledger names them and the files that they had in tmp/. A power cut may take new names away that were not synced,
//! and then the old ones are back: opening the store brings them to their end once more.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use crate::store::Inner;
use crate::{DeliveryId, Store};

/// So many are worth a sync.
const MANY: usize = 64;

/// Deliveries that the queue will never ask of again, still in the ledger.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    ids: Vec<DeliveryId>,
    /// Of those so many could not be synced: they are tried again when there are as many more.
    failed: usize,
    /// Somebody was told that it is time.
    called: bool,
}

impl Store {
    /// The queue has durably acknowledged the settlement: this id will never be leased again. Does not block; it is carried out by
    /// [`tidy`](Self::tidy).
    pub fn forget(&self, id: &DeliveryId) {
        self.inner.settled().ids.push(id.clone());
    }

    /// Whether so many ids are to be forgotten that it is time to [`tidy`](Self::tidy): whoever is told so does it, and nobody else is
    /// told until then.
    pub fn calls_for_tidying(&self) -> bool {
        let mut settled = self.inner.settled();
        let calls = !settled.called && settled.ids.len() >= settled.failed + MANY;
        settled.called |= calls;
        calls
    }

    /// Makes the names of mails durable that are to be forgotten, and writes that they are. Blocks. Those whose folder cannot be
    /// synced stay, and take some room in the ledger.
    pub fn tidy(&self) {
        self.inner.tidy();
    }
}

impl Inner {
    pub(crate) fn tidy(&self) {
        let Settled { ids, .. } = std::mem::take(&mut *self.settled());
        let mut mails: HashMap<PathBuf, Vec<DeliveryId>> = HashMap::new();
        for entry in ids.iter().filter_map(|id| self.ledger.find(id)) {
            let folder = self.root.join(&entry.mailbox).join("new");
            mails.entry(folder).or_default().push(entry.id);
        }
        let (folders, mails): (Vec<_>, Vec<_>) = mails.into_iter().unzip();
        let mut failed = Vec::new();
        for (synced, ids) in self.syncs.folders(&folders).into_iter().zip(mails) {
            match synced {
                Ok(()) => ids.iter().for_each(|id| self.ledger.forget(id)),
                Err(error) => {
                    let count = ids.len();
                    tracing::warn!(%error, count, "delivered mails stay in the delivery ledger until their folder can be synced");
                    failed.extend(ids);
                }
            }
        }
        if !failed.is_empty() {
            let mut settled = self.settled();
            settled.failed += failed.len();
            settled.ids.append(&mut failed);
        }
        self.ledger.tidy();
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tidy();
    }
}

#[cfg(test)]
mod tests;
