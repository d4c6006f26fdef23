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
    /// There is no queue that answers: 1.
    #[error("{0}")]
    NoQueue(QueueError),
    /// The queue does not do this for us: 1.
    #[error("{0}")]
    Forbidden(QueueError),
    /// It was asked in the wrong way: 2.
    #[error("{0}")]
    Usage(String),
    /// Nothing fits what was named: 3.
    #[error("{0}")]
    NoMatch(String),
    /// The agents ended: 78, 75 or 70.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// It was told already, and this is the exit status that callers know.
    #[error("")]
    Exit(u8),
    /// The answer is no and was given on standard output already: 1.
    #[error("")]
    Told,
}

impl Fault {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::NotDone(_) | Self::NoQueue(_) | Self::Forbidden(_) | Self::Told => 1,
            Self::Exit(status) => *status,
            Self::Usage(_) => 2,
            Self::NoMatch(_) => 3,
            Self::Daemon(error) => error.status(),
        }
    }

    /// With the place of the queue that was asked.
    pub fn at(self, queue: &str) -> Self {
        match self {
            Self::NoQueue(error) => Self::NotDone(format!("{error} (asked {queue})")),
            Self::Forbidden(_) => Self::NotDone(format!(
                "the queue at {queue} does not let us administer it; its log says who we are to it. Over a socket that is the user, root may; over \
                 TCP the certificate of common.tls, which must have the role admin"
            )),
            other => other,
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
            QueueError::Unavailable(_) => Self::NoQueue(error),
            QueueError::NotAllowed(_) => Self::Forbidden(error),
            error => Self::not_done(error),
        }
    }
}
