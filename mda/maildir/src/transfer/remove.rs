//! What another store has goes from this one.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::BufRead;
use std::path::Path;

use super::log::{Known, Log};
use super::names::{Listed, Listing};
use super::{Progress, TransferError, exists, lock, measure, receipt};
use crate::disk::{if_there, sync_folder};
use crate::error::at;

/// Mails removed together.
const GROUP: usize = 512;

/// What was removed, and what was not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Mails that the receipt names and that are gone from here.
    pub mails: u64,
    /// Mails here that it does not name, or names with another content.
    pub left: u64,
    /// Files in tmp: mails that the delivery agent is just filing, or left by one that was killed. Whatever becomes a mail of
    /// them is in the queue until then.
    pub under_way: u64,
}

/// Removes from a mailbox (`…/Maildir`) each mail that a receipt names, with its size and checksum, and no other. Folders and
/// what else is there stay. The receipt is read to its end before anything is removed.
pub fn remove(
    maildir: &Path,
    account: &str,
    from: impl BufRead,
    progress: Progress<'_>,
) -> Result<Removed, TransferError> {
    let there = receipt::read(from, account)?;
    let mut removed = Removed::default();
    if !exists(maildir) {
        return Ok(removed);
    }
    let _turn = lock(maildir)?;
    let listing = Listing::of(maildir)?;
    let copies = listing.copies();
    let mut leaving: Vec<&Listed> = Vec::new();
    for mail in &listing.mails {
        let path = mail.path(maildir);
        // A reader that renamed or removed it meanwhile leaves it for the next time, or nothing.
        let Some((size, crc)) = if_there(measure(&path)).map_err(at("read", &path))? else {
            removed.left += 1;
            continue;
        };
        let known = Known {
            folder: mail.folder.clone(),
            base: mail.base().to_owned(),
            size,
            crc,
        };
        let copies = copies.get(mail.base()).copied().unwrap_or(1);
        match there.has(&known, copies) {
            true => leaving.push(mail),
            false => removed.left += 1,
        }
        progress(removed.left + leaving.len() as u64);
    }
    // First of all: a mail that comes back to this store one day must not be taken for one that was imported before.
    let bases: HashSet<&str> = leaving.iter().map(|mail| mail.base()).collect();
    Log::forget(maildir, &bases)?;
    for group in leaving.chunks(GROUP) {
        let mut leaves = BTreeSet::new();
        for mail in group {
            let path = mail.path(maildir);
            let gone = if_there(fs::remove_file(&path)).map_err(at("remove", &path))?;
            match gone {
                Some(()) => removed.mails += 1,
                None => removed.left += 1,
            }
            leaves.extend(path.parent().map(Path::to_owned));
        }
        for leaf in &leaves {
            sync_folder(leaf)?;
        }
    }
    removed.under_way = listing.under_way;
    Ok(removed)
}
