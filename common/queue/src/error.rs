use postroad_envelope::QueueId;

use crate::{JobKey, OverQuota};

/// What can go wrong, and whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Disk or a later release: bytes of the store that this release cannot read.
    #[error("a stored {what} cannot be read: {why}")]
    Unreadable {
        /// Which kind of message.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Resource: the index refused. Its handle is useless from then on: end, open anew.
    #[error("the index failed")]
    Index(#[from] sled::Error),
    /// Resource: the operating system refused.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Resource: a sync of the index failed, so nobody knows what the disk holds of it: end, make another.
    #[error("{doing}")]
    Unsynced {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Caller: there is no such mail.
    #[error("there is no mail {0}")]
    NoSuchMail(QueueId),
    /// Caller: there is no such job, or it has ended.
    #[error("there is no job {0}")]
    NoSuchJob(JobKey),
    /// Caller: a worker holds the job, or another change of it waits for its commit. Try again.
    #[error("the job {0} is busy")]
    Busy(JobKey),
    /// Caller: an envelope without recipients, or with an index twice.
    #[error("the envelope cannot be queued: {0}")]
    Envelope(&'static str),
    /// Policy: a quota has no room for the mail.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// Worker: the lease has ended, or its job has changed since.
    #[error(transparent)]
    Stale(#[from] StaleLease),
}

impl QueueError {
    /// What the operating system said, where that is why.
    pub fn refusal(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Index(sled::Error::Io(source))
            | Self::Io { source, .. }
            | Self::Unsynced { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// A settlement under a fence that no longer holds. Its result is worth an event, nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease of {job} no longer holds")]
pub struct StaleLease {
    /// The job it was for.
    pub job: JobKey,
}

pub(crate) fn unreadable(what: &'static str, why: impl ToString) -> QueueError {
    QueueError::Unreadable {
        what,
        why: why.to_string(),
    }
}
