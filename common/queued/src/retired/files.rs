//! Contents of retired mails that are too large for a record: files of their own, the oldest of which go first.

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    time::{Duration, SystemTime},
};

use postroad_envelope::Timestamp;
use postroad_journal::{ContentNonce, ContentRef, ContentStore, JournalError};
use tracing::warn;

use crate::clock;

#[derive(Debug)]
pub struct Files {
    pub store: ContentStore,
    /// By age.
    known: BTreeSet<(Timestamp, ContentNonce, u64)>,
    octets: u64,
}

impl Files {
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let store = ContentStore::open(folder, clock::entropy())?;
        let known = store.ages()?.into_iter();
        let known: BTreeSet<_> = known
            .map(|(nonce, len, since)| (Timestamp::from(since), nonce, len))
            .collect();
        let octets = known.iter().map(|(.., len)| len).sum();
        Ok(Self {
            store,
            known,
            octets,
        })
    }

    /// Takes over the file of a mail. Durable when this returns.
    pub fn adopt(
        &mut self,
        from: &ContentStore,
        file: ContentRef,
        at: Timestamp,
    ) -> Result<(), JournalError> {
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(at.as_millis());
        self.store.adopt(from, file.nonce, since)?;
        self.count(file, at);
        Ok(())
    }

    /// Writes a file. Durable when this returns.
    pub fn write(&mut self, content: &[u8], at: Timestamp) -> Result<ContentRef, JournalError> {
        let mut writer = self.store.create()?;
        writer.write(content)?;
        let file = writer.finish()?;
        self.count(file, at);
        Ok(file)
    }

    pub const fn octets(&self) -> u64 {
        self.octets
    }

    pub fn oldest(&self) -> Option<Timestamp> {
        self.known.first().map(|(at, ..)| *at)
    }

    pub fn give_up_older(&mut self, now: Timestamp, keep: Duration) {
        while self.oldest().is_some_and(|at| now.since(at) > keep) {
            self.give_up_oldest();
        }
    }

    pub fn give_up_oldest(&mut self) {
        if let Some((_, nonce, len)) = self.known.pop_first() {
            self.octets = self.octets.saturating_sub(len);
            self.unlink(nonce);
        }
    }

    /// Removes these. Durable when this returns.
    pub fn remove(&mut self, unwanted: &HashSet<ContentNonce>) -> Result<(), JournalError> {
        let (go, stay): (BTreeSet<_>, _) = std::mem::take(&mut self.known)
            .into_iter()
            .partition(|(_, nonce, _)| unwanted.contains(nonce));
        self.known = stay;
        for (at, nonce, len) in go {
            if let Err(error) = self.store.remove(nonce) {
                self.known.insert((at, nonce, len));
                return Err(error);
            }
            self.octets = self.octets.saturating_sub(len);
        }
        self.store.sync()
    }

    fn unlink(&self, nonce: ContentNonce) {
        if let Err(error) = self.store.remove(nonce) {
            warn!(event = "fault", error = %error, "the content file of a retired mail stays until the next start");
        }
    }

    fn count(&mut self, file: ContentRef, at: Timestamp) {
        if self.known.insert((at, file.nonce, file.len)) {
            self.octets = self.octets.saturating_add(file.len);
        }
    }
}
