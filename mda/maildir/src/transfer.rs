//! A mailbox on its way to another store: [`export`] there, [`import`] here, [`remove`] there of what is durable here.
//!
//! ```text
//! old store                                              new store
//! export ── stream: folders, mails with checksums ─────► import: tmp, sync, link to new or cur, sync, its list of imports
//! remove ◄── receipt: which mails are durable there ────┘
//! ```
//!
//! * Each step may be interrupted at any moment and repeated: a mail is in the new store once, and leaves the old one only
//!   after a receipt has named it, by name, size and checksum.
//! * A mail is known again by the name that Maildir gives it for good, and ours also by queue id and recipient, if the new
//!   store's own agent has filed it. What a reader removed or moved in the new store meanwhile does not come back.
//! * All three work beside a delivery agent that runs, and beside readers. Two of them at one mailbox are refused.
//! * Contents are streamed. Names are kept in memory, some 200 octets for a mail.
//!
//! Kept are folders, flags, whether a mail is new, the time of the file, subscriptions, and Dovecot's keywords. Not kept are
//! indexes and UIDs, which readers make anew.

mod export;
mod import;
mod log;
mod names;
mod receipt;
mod remove;
mod stream;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

pub use export::{Exported, export};
pub use import::{Imported, import};
pub use remove::{Removed, remove};

use crate::MaildirError;
use crate::error::at;

/// How far a step is, in mails.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Why a step did not come to its end. What it had done until then holds; repeat it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The disk, or who owns the mailbox.
    #[error(transparent)]
    Maildir(#[from] MaildirError),
    /// The other end: what comes in is no such stream, or damaged, or cut.
    #[error("{0}")]
    Damaged(String),
    /// It is of another mailbox.
    #[error("this is of {theirs}, and not of {ours}")]
    OtherAccount {
        /// Whose it is.
        theirs: String,
        /// Who was named.
        ours: String,
    },
    /// Another step is at this mailbox.
    #[error("another export, import or removal is at this mailbox")]
    Busy,
    /// Standard input or output.
    #[error("{what}: {source}")]
    Pipe {
        /// Which end.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl TransferError {
    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }

    fn reading(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                Self::damaged("the stream ends before its end: it was cut")
            }
            _ => Self::Pipe {
                what: "cannot read the stream",
                source,
            },
        }
    }

    fn writing(source: io::Error) -> Self {
        Self::Pipe {
            what: "cannot write the stream",
            source,
        }
    }
}

/// Held by one step at a time, and by nobody else.
fn lock(maildir: &Path) -> Result<File, TransferError> {
    let folder = File::open(maildir).map_err(at("open", maildir))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(TransferError::Busy),
        Err(TryLockError::Error(error)) => Err(at("lock", maildir)(error).into()),
    }
}

/// Size and checksum of a file.
fn measure(path: &Path) -> io::Result<(u64, u32)> {
    let (mut size, mut crc) = (0_u64, 0);
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE];
    loop {
        match io::Read::read(&mut file, &mut piece)? {
            0 => return Ok((size, crc)),
            read => {
                size += read as u64;
                crc = crc32c::crc32c_append(crc, piece.get(..read).unwrap_or_default());
            }
        }
    }
}

/// Whether there is a mailbox at all.
pub(crate) fn exists(maildir: &Path) -> bool {
    fs::metadata(maildir).is_ok_and(|meta| meta.is_dir())
}

/// Octets read or written at once.
const PIECE: usize = 64 * 1024;

#[cfg(test)]
mod tests;
