//! What can go wrong, sorted by whose turn it is to act.

use std::io;
use std::path::{Path, PathBuf};

/// Why a mail is not in its mailbox. None of these loses or doubles a mail: the caller keeps it queued
/// and comes again, except after [`MaildirError::InvalidTarget`].
#[derive(Debug, thiserror::Error)]
pub enum MaildirError {
    /// The sender's or the directory's fault: no mailbox of this name can exist. Permanent.
    #[error("no such mailbox can exist: {reason}")]
    InvalidTarget {
        /// What is wrong with the name.
        reason: String,
    },
    /// The resource is used up: disk full or quota exceeded.
    #[error("no space left (disk full or quota used up) at {}", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The operator's fault: owner or mode of the mail store.
    #[error("no permission for {}: it must belong to the user who runs the delivery agent and be writable", path.display())]
    Permission {
        /// The file or folder that refused.
        path: PathBuf,
    },
    /// Another process has this mail store open.
    #[error("{} is held by another process: only one delivery agent may file mail in one store", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A sync of the ledger failed earlier; what it holds is unknown until the store is opened again.
    #[error("the delivery ledger {} failed to sync and stays closed until a restart", path.display())]
    LedgerClosed {
        /// The ledger folder.
        path: PathBuf,
    },
    /// Anything else the operating system said.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb of the failed step.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl MaildirError {
    /// Whether coming again later can help.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::InvalidTarget { .. })
    }

    /// Whether what was to be used is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidTarget {
            reason: reason.into(),
        }
    }
}

/// Sorts an I/O error; for `map_err(at("write", &path))`.
pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MaildirError {
    move |source| {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                MaildirError::NoSpace { path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                MaildirError::Permission { path }
            }
            _ => MaildirError::Io {
                doing,
                path,
                source,
            },
        }
    }
}
