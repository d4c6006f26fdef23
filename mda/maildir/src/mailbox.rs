//! A mailbox on disk: its folders, made when the first mail comes, and durable before it is delivered.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use crate::MaildirError;
use crate::disk::make_folder;
use crate::error::at;
use crate::path::Target;
use crate::store::Inner;

/// How many mailboxes we remember as complete; forgetting them only costs some syncs.
const KNOWN_MAILBOXES: usize = 65_536;

/// A mailbox that is there.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Its folder below the root.
    pub name: String,
    /// Folders whose names must be durable before anything in it is; none: they are.
    pub unsynced: Vec<PathBuf>,
    /// Whether these are all on one device with the root.
    pub is_on_one_device: bool,
}

impl Inner {
    /// Makes what is missing of a mailbox. It is durable once what is told to be unsynced was synced; then call
    /// [`learn`](Inner::learn).
    ///
    /// A folder that is there may still be unsynced (made a moment ago, or before a crash), so the first
    /// visit of each process syncs every level.
    pub(crate) fn ensure(&self, target: &Target) -> Result<Mailbox, MaildirError> {
        let mut mailbox = Mailbox {
            name: target.mailbox(),
            unsynced: Vec::new(),
            is_on_one_device: true,
        };
        if self.known().contains(&mailbox.name) {
            return Ok(mailbox);
        }
        let base = self.root.join(&target.base);
        let levels = base.ancestors().take(3).map(Path::to_path_buf);
        let levels: Vec<PathBuf> = levels.collect();
        for level in levels.iter().rev() {
            make_folder(level)?;
        }
        make_leaves(&base)?;
        if let Some(name) = &target.folder {
            let folder = base.join(name.on_disk());
            let made = make_folder(&folder)?;
            make_leaves(&folder)?;
            mark_folder(&folder.join("maildirfolder"))?;
            if made {
                let subscriptions = base.join("subscriptions");
                // The mail matters more than the list.
                if let Err(error) = subscribe(&subscriptions, |tabs| name.subscription(tabs)) {
                    tracing::warn!(path = %subscriptions.display(), %error, "not subscribed");
                }
            }
            mailbox.unsynced.push(folder);
        }
        mailbox.unsynced.extend(levels);
        mailbox.unsynced.push(self.root.clone());
        let device = self.syncs.device();
        let is_there = |folder: &PathBuf| fs::metadata(folder).ok().map(|meta| meta.dev());
        mailbox.is_on_one_device = mailbox.unsynced.iter().map(is_there).all(|on| on == device);
        Ok(mailbox)
    }

    /// What was unsynced of a mailbox is durable.
    pub(crate) fn learn(&self, mailbox: &str) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAILBOXES {
            known.clear();
        }
        known.insert(mailbox.to_owned());
    }

    /// Somebody removed a folder of this mailbox.
    pub(crate) fn unlearn(&self, mailbox: &str) {
        self.known().remove(mailbox);
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// tmp, new and cur. They are durable once the mailbox is synced.
pub(crate) fn make_leaves(mailbox: &Path) -> Result<(), MaildirError> {
    for leaf in ["tmp", "new", "cur"] {
        make_folder(&mailbox.join(leaf))?;
    }
    Ok(())
}

/// Maildir++: an empty file `maildirfolder` says that this is a folder and not a mailbox of its own.
pub(crate) fn mark_folder(path: &Path) -> Result<(), MaildirError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    file.map(drop).map_err(at("create", path))
}

/// One folder a line, or Dovecot's second version, which starts with `V\t2` and parts levels with tabs.
fn subscribe(path: &Path, line: impl FnOnce(bool) -> String) -> io::Result<()> {
    let options = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    let mut file = options?;
    let mut old = String::new();
    file.read_to_string(&mut old)?;
    let line = line(old.starts_with("V\t2"));
    if old.lines().any(|old| old == line) {
        return Ok(());
    }
    let gap = if old.is_empty() || old.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    file.write_all(format!("{gap}{line}\n").as_bytes())?;
    file.sync_all()
}
