//! The reading side, for the command line and for tests. It takes no locks and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::MaildirError;
use crate::disk::if_there;
use crate::error::at;
use crate::folder::display;

/// A mail in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name in new/ or cur/.
    pub file_name: String,
    /// The Maildir++ folder as people read it (`Lists/Rust`); `None` is the inbox.
    pub folder: Option<String>,
    /// Where the file was when it was listed.
    pub path: PathBuf,
    /// Octets on disk.
    pub size: u64,
    /// Not yet seen by any reader: it lies in new/.
    pub recent: bool,
    /// The flags after `:2,`, such as `RS`.
    pub flags: String,
    /// When the mail was received, as its name says (else as its file says), in Unix seconds.
    pub received_sec: u64,
}

/// All mails of a mailbox (`…/Maildir`), oldest first; none if it does not exist yet.
pub fn list(maildir: &Path) -> Result<Vec<Entry>, MaildirError> {
    let mut found = Vec::new();
    list_mailbox(maildir, None, &mut found)?;
    if let Some(files) = if_there(fs::read_dir(maildir)).map_err(at("list", maildir))? {
        for file in files {
            let file = file.map_err(at("list", maildir))?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && file.file_type().is_ok_and(|kind| kind.is_dir()) {
                list_mailbox(&file.path(), Some(&display(&name)), &mut found)?;
            }
        }
    }
    found.sort_by(|a, b| (a.received_sec, &a.file_name).cmp(&(b.received_sec, &b.file_name)));
    Ok(found)
}

/// The whole mail; `None` if it is gone. A reader may have moved it or changed its flags since the listing.
pub fn read(entry: &Entry) -> Result<Option<Vec<u8>>, MaildirError> {
    let content = if_there(fs::read(&entry.path)).map_err(at("read", &entry.path))?;
    let Some(mailbox) = entry
        .path
        .parent()
        .and_then(Path::parent)
        .filter(|_| content.is_none())
    else {
        return Ok(content);
    };
    let mut now = Vec::new();
    list_mailbox(mailbox, entry.folder.as_deref(), &mut now)?;
    let Some(moved) = now
        .iter()
        .find(|now| base(&now.file_name) == base(&entry.file_name))
    else {
        return Ok(None);
    };
    if_there(fs::read(&moved.path)).map_err(at("read", &moved.path))
}

fn list_mailbox(
    mailbox: &Path,
    folder: Option<&str>,
    found: &mut Vec<Entry>,
) -> Result<(), MaildirError> {
    for leaf in ["new", "cur"] {
        let leaf_path = mailbox.join(leaf);
        let Some(files) = if_there(fs::read_dir(&leaf_path)).map_err(at("list", &leaf_path))?
        else {
            continue;
        };
        for file in files {
            let file = file.map_err(at("list", &leaf_path))?;
            let path = file.path();
            let Ok(file_name) = file.file_name().into_string() else {
                continue;
            };
            let Some(meta) = if_there(file.metadata()).map_err(at("look at", &path))? else {
                continue;
            };
            if file_name.starts_with('.') || !meta.is_file() {
                continue;
            }
            let flags = file_name
                .split_once(":2,")
                .map_or("", |(_, flags)| flags)
                .to_owned();
            let named = file_name
                .split('.')
                .next()
                .and_then(|seconds| seconds.parse().ok());
            let modified = || meta.modified().ok()?.duration_since(UNIX_EPOCH).ok();
            let received_sec =
                named.unwrap_or_else(|| modified().map_or(0, |since| since.as_secs()));
            found.push(Entry {
                file_name,
                folder: folder.map(str::to_owned),
                path,
                size: meta.len(),
                recent: leaf == "new",
                flags,
                received_sec,
            });
        }
    }
    Ok(())
}

/// The name without flags, which never changes.
fn base(file_name: &str) -> &str {
    file_name.split(':').next().unwrap_or(file_name)
}
