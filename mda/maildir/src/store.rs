//! A mail store: the root, its ledger, and who may touch what.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::disk::{if_there, make_folder, make_folders, sync_folder};
use crate::error::at;
use crate::ledger::{Damage, Entry, Ledger};
use crate::path::{Target, escape_host, is_our_tmp_name};
use crate::settled::Settled;
use crate::syncs::{SyncCounts, SyncOptions, Syncs};
use crate::{DeliveryId, MaildirError};

/// Older tmp files are dead, by the Maildir convention.
const TMP_LIFETIME: Duration = Duration::from_hours(36);

/// An open mail store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What opening a store found and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Decided deliveries whose rename was missing; they are visible now.
    pub finished: usize,
    /// Ledger entries not forgotten: their settlement is still owed or was lost.
    pub unsettled: usize,
    /// Parts of the ledger that could not be read; the segments are kept as `damaged-*`.
    pub damaged: Vec<Damage>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub root: PathBuf,
    /// The host part of file names.
    pub host: String,
    pub ledger: Ledger,
    pub syncs: Syncs,
    attempts: AtomicU64,
    /// Ids some thread is delivering.
    busy: Mutex<HashSet<DeliveryId>>,
    freed: Condvar,
    /// Mailboxes whose folders are there and durable.
    pub known: Mutex<HashSet<String>>,
    pub settled: Mutex<Settled>,
    /// Held for its lock.
    _lock: File,
}

/// The right to deliver one id; the next thread gets it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    pub id: DeliveryId,
    store: Arc<Inner>,
}

impl Store {
    /// Opens the store under `root` (created when missing), locks it, reads the ledger in `<root>/.ledger`
    /// and makes every decided mail visible. The ledger lies in the store it speaks of, so that
    /// neither is ever mounted, copied or restored without the other.
    pub fn open(root: &Path, host: &str) -> Result<(Self, Recovery), MaildirError> {
        Self::open_with(root, host, SyncOptions::default())
    }

    /// The same, with other than the usual ways to sync.
    pub fn open_with(
        root: &Path,
        host: &str,
        syncs: SyncOptions,
    ) -> Result<(Self, Recovery), MaildirError> {
        let ledger_folder = root.join(".ledger");
        make_folders(&ledger_folder)?;
        let lock = lock(&ledger_folder.join("lock"))?;
        let (ledger, damaged) = Ledger::open(&ledger_folder)?;
        for damage in &damaged {
            if damage.torn_tail {
                tracing::info!(
                    reason = ?damage,
                    "dropped an unfinished append from the delivery ledger"
                );
            } else {
                tracing::error!(
                    event = "corruption",
                    error = ?damage,
                    "the delivery ledger is damaged; a mail may come twice, and after a power cut one of the last may lie in tmp/ of its mailbox, where it is removed after 36 hours"
                );
            }
        }
        let inner = Arc::new(Inner {
            root: root.to_path_buf(),
            host: escape_host(host),
            syncs: Syncs::new(root, syncs, &ledger.syncs),
            ledger,
            attempts: AtomicU64::new(0),
            busy: Mutex::default(),
            freed: Condvar::new(),
            known: Mutex::default(),
            settled: Mutex::default(),
            _lock: lock,
        });
        let living = inner.ledger.living();
        let mut recovery = Recovery {
            finished: 0,
            unsettled: living.len(),
            damaged,
        };
        for entry in living {
            match inner.finish(&entry) {
                Ok(renamed) => recovery.finished += usize::from(renamed),
                // One bad mailbox must not stop the others; its mail is leased again and finished then.
                Err(error) => tracing::warn!(%error, "a decided delivery waits"),
            }
        }
        Ok((Self { inner }, recovery))
    }

    /// The ids decided and not forgotten. After a start, those the queue does not know any more may be
    /// forgotten: their settlement is durable and only the forgetting was lost.
    pub fn unsettled(&self) -> Vec<DeliveryId> {
        self.inner
            .ledger
            .living()
            .into_iter()
            .map(|entry| entry.id)
            .collect()
    }

    /// What was synced since the store was opened; counts on.
    pub fn syncs(&self) -> Arc<SyncCounts> {
        Arc::clone(&self.inner.syncs.counts)
    }

    /// Whether deliveries that come at the same time are better brought to [`commit_all`](Self::commit_all) as one group: they share
    /// a sync then. Where each file is synced by itself, threads of their own wait for the disk at the same time.
    pub fn is_of_groups(&self) -> bool {
        self.inner.syncs.is_of_groups()
    }

    /// Where the mail of an address lies.
    pub fn maildir(&self, target: &Target) -> PathBuf {
        self.inner.root.join(&target.base)
    }

    /// Removes our own tmp files that are older than 36 hours and that no entry names; says how many.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, MaildirError> {
        let mut removed = 0;
        for domain in subfolders(&self.inner.root)? {
            for account in subfolders(&domain)? {
                let base = account.join("Maildir");
                let folders = if_there_list(subfolders(&base))?;
                let plus = folders.into_iter().filter(|folder| is_hidden(folder));
                for mailbox in std::iter::once(base).chain(plus) {
                    removed += self.inner.sweep_tmp(&mailbox.join("tmp"), now)?;
                }
            }
        }
        Ok(removed)
    }
}

impl Inner {
    /// Waits until no other thread delivers this id.
    pub(crate) fn turn(self: &Arc<Self>, id: DeliveryId) -> Turn {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(id.clone()) {
            busy = self
                .freed
                .wait(busy)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn {
            id,
            store: Arc::clone(self),
        }
    }

    /// None while another thread delivers this id.
    pub(crate) fn try_turn(self: &Arc<Self>, id: DeliveryId) -> Option<Turn> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(id.clone()).then(|| Turn {
            id,
            store: Arc::clone(self),
        })
    }

    pub(crate) fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    /// Brings a delivery to its end that was decided a moment ago, by whoever wrote its file.
    pub(crate) fn show(&self, entry: &Entry) -> Result<(), MaildirError> {
        let mailbox = self.root.join(&entry.mailbox);
        let new = mailbox.join("new").join(&entry.final_name);
        let renamed = fs::rename(mailbox.join("tmp").join(&entry.tmp_name), &new);
        match if_there(renamed).map_err(at("rename to", &new))? {
            Some(()) => Ok(()),
            // Somebody else was there meanwhile, or removed new/.
            None => self.finish(entry).map(drop),
        }
    }

    /// Brings a decided delivery to its end, from wherever it stopped; says whether the rename was missing. A power cut may undo the
    /// rename until the name in new/ is synced, which is owed before the entry may be forgotten.
    pub(crate) fn finish(&self, entry: &Entry) -> Result<bool, MaildirError> {
        let mailbox = self.root.join(&entry.mailbox);
        let tmp = mailbox.join("tmp").join(&entry.tmp_name);
        let meta = if_there(fs::symlink_metadata(&tmp)).map_err(at("look for", &tmp))?;
        let renamed = meta.is_some();
        match meta {
            // Gone from tmp is delivered: a reader may have moved or removed it. No trace to look for.
            None => {}
            // A power cut tore the rename on a file system that does not keep both names in one
            // transaction: the mail is in the mailbox already, under whatever name. rename(2) would do
            // nothing here, or make a second name. (A link elsewhere, of a backup, does not count.)
            Some(meta) if meta.nlink() > 1 && holds_inode(&mailbox, meta.ino())? => {
                fs::remove_file(&tmp).map_err(at("remove", &tmp))?;
            }
            Some(_) => {
                let new = mailbox.join("new").join(&entry.final_name);
                let renamed = match if_there(fs::rename(&tmp, &new)) {
                    // Somebody removed new/, which an ordinary delivery need not look for.
                    Ok(None) => {
                        if make_folder(&mailbox.join("new"))? {
                            sync_folder(&mailbox)?;
                        }
                        fs::rename(&tmp, &new)
                    }
                    other => other.map(drop),
                };
                renamed.map_err(at("rename to", &new))?;
            }
        }
        Ok(renamed)
    }

    fn sweep_tmp(&self, tmp: &Path, now: SystemTime) -> Result<usize, MaildirError> {
        let Some(files) = if_there(fs::read_dir(tmp)).map_err(at("list", tmp))? else {
            return Ok(0);
        };
        // One look is enough: an entry recorded from now on names a file that is being written today.
        let named: HashSet<String> = self
            .ledger
            .living()
            .into_iter()
            .map(|entry| entry.tmp_name)
            .collect();
        let mut removed = 0;
        for file in files {
            let file = file.map_err(at("list", tmp))?;
            let Ok(name) = file.file_name().into_string() else {
                continue;
            };
            if !is_our_tmp_name(&name) || named.contains(&name) {
                continue;
            }
            let path = file.path();
            let Some(meta) = if_there(file.metadata()).map_err(at("look at", &path))? else {
                continue;
            };
            let age = meta
                .modified()
                .ok()
                .and_then(|then| now.duration_since(then).ok());
            if age.is_some_and(|age| age > TMP_LIFETIME) {
                if_there(fs::remove_file(&path)).map_err(at("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.store
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
        self.store.freed.notify_all();
    }
}

fn lock(path: &Path) -> Result<File, MaildirError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.map_err(at("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(MaildirError::Locked {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
    }
}

/// Whether new/ or cur/ has a file with this inode.
fn holds_inode(mailbox: &Path, inode: u64) -> Result<bool, MaildirError> {
    for leaf in ["new", "cur"] {
        let leaf = mailbox.join(leaf);
        let Some(files) = if_there(fs::read_dir(&leaf)).map_err(at("list", &leaf))? else {
            continue;
        };
        for file in files {
            if file.map_err(at("list", &leaf))?.ino() == inode {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, MaildirError> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).map_err(at("list", folder))? {
        let file = file.map_err(at("list", folder))?;
        if file.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(file.path());
        }
    }
    Ok(found)
}

fn if_there_list(found: Result<Vec<PathBuf>, MaildirError>) -> Result<Vec<PathBuf>, MaildirError> {
    match found {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        other => other,
    }
}

fn is_hidden(folder: &Path) -> bool {
    folder
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
