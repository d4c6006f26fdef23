//! How deliveries become durable: those that wait at the same time are synced together.
//!
//! ```text
//! sync(wishes) ─┬ nobody is at it ─► at once ──────────────┬ large enough ─► one syncfs for all of the group
//!               └ somebody is ─► wait for the next group ─┴ smaller ─► each file alone, a folder once for all who wait for it
//! ```
//!
//! Nobody is told of a sync that began before their wish came, and a sync that fails is a failure of all it was for. Where
//! syncfs cannot be trusted (an old kernel, another file system, one failure), is not wanted or is slow, each is alone.

mod together;
mod whole;

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::together::{Fate, Fault, Part, Together};
pub use self::whole::FileSystem;
use self::whole::Whole;
use crate::MaildirError;
use crate::error::at;

/// How deliveries that wait for the disk at the same time are synced together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncOptions {
    /// So many share one sync of the whole file system,
    pub from: usize,
    /// if it is one of these.
    pub on: Vec<FileSystem>,
    /// If that takes longer, others write much to the same disk,
    pub slow: Duration,
    /// and for so long nobody asks for it.
    pub pause: Duration,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            from: 4,
            on: vec![FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs],
            slow: Duration::from_millis(100),
            pause: Duration::from_secs(10),
        }
    }
}

/// Syncs of a store since it was opened.
#[derive(Debug, Default)]
pub struct SyncCounts {
    files: AtomicU64,
    folders: AtomicU64,
    file_systems: AtomicU64,
    ledger: Arc<AtomicU64>,
    shared: AtomicU64,
}

/// What is to be durable.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    /// Folders, for the names in them.
    pub folders: &'a [PathBuf],
    /// The device that all of it is on; none: it is on several, or nobody knows.
    pub device: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Syncs {
    options: SyncOptions,
    whole: Option<Whole>,
    rounds: Together<()>,
    folders: Together<PathBuf>,
    pub counts: Arc<SyncCounts>,
}

impl Syncs {
    /// Of a store whose root is there, and whose ledger counts its own.
    pub(crate) fn new(root: &Path, options: SyncOptions, ledger: &Arc<AtomicU64>) -> Self {
        Self {
            whole: Whole::of(root, &options.on),
            options,
            rounds: Together::default(),
            folders: Together::default(),
            counts: Arc::new(SyncCounts {
                ledger: Arc::clone(ledger),
                ..SyncCounts::default()
            }),
        }
    }

    /// The device of the root, if what is on it may be synced as a whole.
    pub(crate) fn device(&self) -> Option<u64> {
        self.whole.as_ref().map(|whole| whole.device)
    }

    /// Whether those that come at the same time are better brought as one group.
    pub(crate) fn is_of_groups(&self) -> bool {
        self.whole.as_ref().is_some_and(Whole::is_ready)
    }

    /// Returns when all is durable, with each that is, or why not; what failed before comes back as it is. The names are there
    /// already.
    pub(crate) fn sync<T>(
        &self,
        all: Vec<Result<T, MaildirError>>,
        wish_of: impl for<'a> Fn(&'a T) -> Wish<'a>,
    ) -> Vec<Result<T, MaildirError>> {
        let whole = self.whole.as_ref().filter(|whole| whole.is_ready());
        let is_part = |wish: &Wish<'_>| whole.is_some_and(|w| wish.device == Some(w.device));
        let parts = all.iter().flatten();
        let parts = parts.filter(|one| is_part(&wish_of(one))).count();
        let together = whole.and_then(|whole| self.together(whole, parts));
        let mut folders = HashMap::new();
        let each = all.into_iter().map(|one| {
            let one = one?;
            let wish = wish_of(&one);
            match together.filter(|_| is_part(&wish)) {
                Some(fate) => fate.map_err(|fault| wish.failed(fault))?,
                None => self.alone(&wish, &mut folders)?,
            }
            Ok(one)
        });
        each.collect()
    }

    /// With whoever waits at the same time; none: there are too few, and each is to be synced by itself.
    fn together(&self, whole: &Whole, parts: usize) -> Option<Fate> {
        if parts == 0 {
            return None;
        }
        let mut lead = match self.rounds.join(&(), parts) {
            Part::Lead(lead) => lead,
            Part::Done(fate) => return Some(fate),
            Part::Alone => return None,
        };
        // The group before may have found it slow, or broken.
        if lead.size() < self.options.from || !whole.is_ready() {
            lead.release();
            return None;
        }
        let synced = whole.sync(self.options.slow, self.options.pause);
        let fate: Fate = synced.as_ref().map_err(Fault::from).copied();
        count(&self.counts.file_systems, 1);
        count(&self.counts.shared, lead.tell(fate) + parts - 1);
        Some(fate)
    }

    /// `folders`: those that were synced for others of the same call.
    fn alone(
        &self,
        wish: &Wish<'_>,
        folders: &mut HashMap<PathBuf, Fate>,
    ) -> Result<(), MaildirError> {
        count(&self.counts.files, 1);
        wish.file.sync_all().map_err(at("sync", wish.path))?;
        for folder in wish.folders {
            let fate = match folders.get(folder) {
                Some(fate) => {
                    count(&self.counts.shared, 1);
                    *fate
                }
                None => self.folder(folder),
            };
            folders.insert(folder.clone(), fate);
            fate.map_err(|fault| at("sync folder", folder)(fault.into()))?;
        }
        Ok(())
    }

    /// The names in each of several folders below the root, on whatever devices. Of one that is gone, or was moved, that is the nearest
    /// above that is left: it was in there, and what was done in it before is durable no later than its going.
    pub(crate) fn folders(&self, folders: &[PathBuf]) -> Vec<Result<(), MaildirError>> {
        let whole = self.whole.as_ref().filter(|whole| whole.is_ready());
        let is_part = |folder: &Path| {
            let device = fs::metadata(folder).map(|meta| meta.dev());
            whole.is_some_and(|whole| device.is_ok_and(|device| device == whole.device))
        };
        let parts: Vec<_> = folders.iter().map(|folder| is_part(folder)).collect();
        let count_of_parts = parts.iter().filter(|is_part| **is_part).count();
        let all = whole.filter(|_| count_of_parts >= self.options.from);
        let synced = all.is_some_and(|whole| {
            count(&self.counts.file_systems, 1);
            whole.sync(self.options.slow, self.options.pause).is_ok()
        });
        let each = folders.iter().zip(parts);
        each.map(|(folder, is_part)| match synced && is_part {
            true => Ok(()),
            false => self.what_is_left_of(folder),
        })
        .collect()
    }

    fn what_is_left_of(&self, folder: &PathBuf) -> Result<(), MaildirError> {
        let synced = self.folder(folder);
        let synced = synced.map_err(|fault| at("sync folder", folder)(fault.into()));
        match (synced, folder.parent()) {
            (Err(error), Some(above)) if error.is_missing() => {
                self.what_is_left_of(&above.to_path_buf())
            }
            (synced, _) => synced,
        }
    }

    /// Once for all who wait for it.
    fn folder(&self, folder: &PathBuf) -> Fate {
        let sync = || {
            count(&self.counts.folders, 1);
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| Fault::from(&error))
        };
        match self.folders.join(folder, 1) {
            Part::Done(fate) => fate,
            Part::Alone => sync(),
            Part::Lead(mut lead) => {
                let fate = sync();
                count(&self.counts.shared, lead.tell(fate));
                fate
            }
        }
    }
}

impl Wish<'_> {
    fn failed(&self, fault: Fault) -> MaildirError {
        at("sync", self.path)(fault.into())
    }
}

impl SyncCounts {
    /// Files that were synced by themselves.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Folders that were synced, each time for all who waited for it.
    pub fn folders(&self) -> u64 {
        self.folders.load(Ordering::Relaxed)
    }

    /// Syncs of the whole file system.
    pub fn file_systems(&self) -> u64 {
        self.file_systems.load(Ordering::Relaxed)
    }

    /// Syncs of the ledger, each for all entries that waited.
    pub fn ledger(&self) -> u64 {
        self.ledger.load(Ordering::Relaxed)
    }

    /// How often a delivery needed no sync of its own, since another's was for it too.
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }
}

fn count(number: &AtomicU64, more: usize) {
    number.fetch_add(u64::try_from(more).unwrap_or_default(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
