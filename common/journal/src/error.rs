//! What can go wrong, and whose fault it is.
use crate::record::{Location, SegmentNumber};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, JournalError>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Operator: another process has this folder open.
    #[error("{} is in use by another process ({holder})", folder.display())]
    Locked {
        /// The queue folder.
        folder: PathBuf,
        /// What the holder wrote into the lock file.
        holder: String,
    },
    /// Operator: the folder was written by another release, or is not a journal.
    #[error("{} is not a journal this release can read: {found}", folder.display())]
    Format {
        /// The queue folder.
        folder: PathBuf,
        /// What its FORMAT file says.
        found: String,
    },
    /// Operator: a later release, or an upgrade of the format, wrote this.
    #[error(
        "{} is in format {format}, and this release knows formats up to {newest}: start the release that wrote it, or a later one",
        folder.display()
    )]
    LaterFormat {
        /// The folder.
        folder: PathBuf,
        /// What its FORMAT file says.
        format: u32,
        /// The newest that is known.
        newest: u32,
    },
    /// Caller: a record that fits into no segment. Nothing was written.
    #[error("a record of {len} bytes does not fit into a segment (at most {max})")]
    TooLarge {
        /// Length of the payload.
        len: usize,
        /// Longest payload that fits.
        max: usize,
    },
    /// Resource: no new segment could be prepared. Nothing was written; later calls may succeed.
    #[error("no room for a new segment")]
    NoSegment(#[source] io::Error),
    /// Resource: the operating system refused. When it comes from an append, the journal is poisoned.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Resource: an earlier write or sync failed; what is on disk is known only after opening anew.
    #[error("the journal is closed after an earlier failure of its disk")]
    Poisoned,
    /// Caller: the journal that this belongs to was closed; its folder may belong to another one.
    #[error("the journal is closed")]
    Closed,
    /// Caller: the segment or content file was given up; the index that named it is out of date.
    #[error("what lay there has been given up")]
    Gone,
    /// Disk: the record at this place is not what was written.
    #[error("the record {} in segment {} at {} is damaged", .0.lsn, .0.segment, .0.offset)]
    Damaged(Location),
    /// Disk: a content file is not what was written.
    #[error("the content file {} is damaged", .0.display())]
    DamagedContent(PathBuf),
    /// Caller: no such segment.
    #[error("there is no segment {0}")]
    NoSuchSegment(SegmentNumber),
}

/// Names the act and the path of a failed system call.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io {
        doing,
        path,
        source,
    }
}
