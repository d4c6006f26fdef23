//! A mailbox on disk: its folders, made when the first mail comes, and durable before it is delivered.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;

use crate::MaildirError;
use crate::disk::{make_folder, sync_folder};
use crate::error::at;
use crate::path::Target;
use crate::store::Inner;

/// How many mailboxes we remember as complete; forgetting them only costs some syncs.
const KNOWN_MAILBOXES: usize = 65_536;

impl Inner {
    /// Makes what is missing of a mailbox, durably, and returns its folder below the root.
    ///
    /// A folder that is there may still be unsynced (made a moment ago, or before a crash), so the first
    /// visit of each process syncs every level.
    pub(crate) fn ensure(&self, target: &Target) -> Result<String, MaildirError> {
        let mailbox = target.mailbox();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&mailbox) {
            return Ok(mailbox);
        }
        let base = self.root.join(&target.base);
        let mut levels: Vec<&Path> = base.ancestors().take(3).collect();
        levels.reverse();
        for level in &levels {
            make_folder(level)?;
        }
        make_leaves(&base)?;
        if let Some(name) = &target.folder {
            let folder = base.join(name.on_disk());
            let made = make_folder(&folder)?;
            make_leaves(&folder)?;
            mark_folder(&folder.join("maildirfolder"))?;
            sync_folder(&folder)?;
            if made {
                let subscriptions = base.join("subscriptions");
                // The mail matters more than the list.
                if let Err(error) = subscribe(&subscriptions, |tabs| name.subscription(tabs)) {
                    tracing::warn!(path = %subscriptions.display(), %error, "not subscribed");
                }
            }
        }
        for level in levels.iter().rev() {
            sync_folder(level)?;
        }
        sync_folder(&self.root)?;
        if known.len() >= KNOWN_MAILBOXES {
            known.clear();
        }
        known.insert(mailbox.clone());
        Ok(mailbox)
    }

    /// Somebody removed a folder of this mailbox.
    pub(crate) fn unlearn(&self, mailbox: &str) {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(mailbox);
    }
}

/// tmp, new and cur, durably.
pub(crate) fn make_leaves(mailbox: &Path) -> Result<(), MaildirError> {
    for leaf in ["tmp", "new", "cur"] {
        let leaf = mailbox.join(leaf);
        make_folder(&leaf)?;
        sync_folder(&leaf)?;
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
