//! Why a verb did not do what was asked.

use postroad_daemon::{ConfigError, DaemonError};
use postroad_directory::DirectoryError;
use postroad_maildir::MaildirError;
use postroad_queue_client::QueueError;

/// Why a verb did not do what was asked; the exit status follows.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It was understood and could not be done, or the answer is no: 1.
    #[error("{0}")]
    NotDone(String),
    /// It was asked in the wrong way: 2.
    #[error("{0}")]
    Usage(String),
    /// Nothing fits what was named: 3.
    #[error("{0}")]
    NoMatch(String),
    /// The agents ended: 78, 75 or 70.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The answer is no and was given on standard output already: 1.
    #[error("")]
    Told,
}

impl Fault {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotDone(_) | Self::Told => 1,
            Self::Usage(_) => 2,
            Self::NoMatch(_) => 3,
            Self::Daemon(error) => error.status(),
        }
    }

    /// It could not be done, because.
    pub fn not_done(cause: impl ToString) -> Self {
        Self::NotDone(cause.to_string())
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::not_done(error)
    }
}

impl From<DirectoryError> for Fault {
    fn from(error: DirectoryError) -> Self {
        Self::not_done(error)
    }
}

impl From<MaildirError> for Fault {
    fn from(error: MaildirError) -> Self {
        Self::not_done(error)
    }
}

impl From<QueueError> for Fault {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::NotFound => Self::NoMatch(error.to_string()),
            error => Self::not_done(error),
        }
    }
}
