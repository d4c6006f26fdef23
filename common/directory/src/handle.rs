use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{Directory, DirectoryError};

/// What tells one state of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// What [`DirectoryHandle::reload`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files are as they were.
    Unchanged,
    /// A new snapshot is in force.
    Replaced,
}

/// The snapshot in force, and how it is replaced. Clones share it.
#[derive(Debug, Clone)]
pub struct DirectoryHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    current: watch::Sender<Arc<Directory>>,
    /// The files as they were read last, none after an error; locked while a reload runs, so that only one does.
    last_read: Mutex<Vec<(PathBuf, Option<Stamp>)>>,
}

impl DirectoryHandle {
    /// Reads the directory. Blocks.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let directory = Directory::load(path)?;
        announce(&directory);
        Ok(Self::holding(path.to_owned(), directory))
    }

    /// A handle over a snapshot that was made otherwise; it reloads from the file the snapshot names.
    pub fn from_directory(directory: Directory) -> Self {
        Self::holding(directory.file.clone(), directory)
    }

    fn holding(path: PathBuf, mut directory: Directory) -> Self {
        directory.generation = generation_after(0);
        Self {
            shared: Arc::new(Shared {
                path,
                last_read: Mutex::new(directory.sources.clone()),
                current: watch::Sender::new(Arc::new(directory)),
            }),
        }
    }

    /// The snapshot in force. Take it once per transaction, so that one mail sees one directory.
    pub fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// The snapshot in force, and those that replace it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Directory>> {
        self.shared.current.subscribe()
    }

    /// Reads the files again if they changed; after an error the old snapshot stays. Blocks.
    pub fn reload(&self) -> Result<Reload, DirectoryError> {
        let mut last_read = match self.shared.last_read.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
        let changed = |(path, stamp): &(PathBuf, Option<Stamp>)| Stamp::at(path) != *stamp;
        if !last_read.is_empty() && !last_read.iter().any(changed) {
            return Ok(Reload::Unchanged);
        }
        match Directory::load(&self.shared.path) {
            Ok(mut directory) => {
                let before = self.current();
                directory.generation = generation_after(before.generation);
                directory.keep_chance_of(&before);
                last_read.clone_from(&directory.sources);
                announce(&directory);
                self.shared.current.send_replace(Arc::new(directory));
                Ok(Reload::Replaced)
            }
            Err(error) => {
                // Read again each time until it is good: what mends it may be a file that was not there to watch.
                last_read.clear();
                Err(error)
            }
        }
    }

    /// Looks at the files every so often and reloads them when they changed, until cancelled. A bad file is logged
    /// once, as ERROR.
    pub async fn watch(self, every: Duration, cancelled: CancellationToken) {
        let mut told = String::new();
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                _ = tick.tick() => {}
            }
            let handle = self.clone();
            let fault = match tokio::task::spawn_blocking(move || handle.reload()).await {
                Ok(Ok(_)) => String::new(),
                Ok(Err(fault)) => fault.to_string(),
                Err(fault) => fault.to_string(),
            };
            if !fault.is_empty() && fault != told {
                error!(
                    event = "reload_failed",
                    path = %self.shared.path.display(),
                    "{fault}; the directory that was read before stays in force"
                );
            }
            told = fault;
        }
    }
}

/// Microseconds since 1970, so that it grows over a restart; always more than the last one, whatever the clock does.
fn generation_after(last: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
    micros.max(last.saturating_add(1))
}

fn announce(directory: &Directory) {
    info!(
        event = "directory_loaded",
        path = %directory.file.display(),
        domains = directory.domains.len(),
        accounts = directory.accounts.len(),
        aliases = directory.aliases.len(),
    );
    for problem in directory.check() {
        warn!(event = "directory_problem", "{problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
    }

    fn domains(handle: &DirectoryHandle) -> Vec<String> {
        handle
            .current()
            .domains()
            .map(|domain| domain.name.to_string())
            .collect()
    }

    #[test]
    fn a_bad_file_keeps_the_old_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        replace(&path, "[[domain]]\nname = \"a.example\"\n");
        let handle = DirectoryHandle::open(&path).unwrap();
        assert_eq!(handle.reload().unwrap(), Reload::Unchanged);

        replace(
            &path,
            "[[domain]]\nname = \"b.example\"\n[[domain]]\nname = 5\n",
        );
        assert!(
            handle
                .reload()
                .unwrap_err()
                .to_string()
                .contains("directory.toml:4:")
        );
        assert!(handle.reload().is_err(), "bad until it is mended");
        assert_eq!(domains(&handle), ["a.example"]);

        fs::remove_file(&path).unwrap();
        assert!(handle.reload().is_err());
        replace(&path, "[[domain]]\nname = \"b.example\"\n");
        assert_eq!(handle.reload().unwrap(), Reload::Replaced);
        assert_eq!(domains(&handle), ["b.example"]);
    }

    #[tokio::test]
    async fn the_watcher_replaces_the_snapshot_and_ends_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.toml");
        replace(&path, "[[domain]]\nname = \"a.example\"\n");
        let handle = DirectoryHandle::open(&path).unwrap();
        let cancelled = CancellationToken::new();
        let watcher = tokio::spawn(
            handle
                .clone()
                .watch(Duration::from_millis(5), cancelled.clone()),
        );
        replace(&path, "[[domain]]\nname = \"b.example\"\n");
        let replaced = async {
            while domains(&handle) != ["b.example"] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), replaced)
            .await
            .unwrap();
        cancelled.cancel();
        watcher.await.unwrap();
    }
}
