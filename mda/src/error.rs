use postroad_daemon::DaemonError;
use postroad_maildir::MaildirError;

/// Why the delivery agent cannot work.
#[derive(Debug, thiserror::Error)]
pub enum MdaError {
    /// The mail store cannot be opened: the operator's fault, or a resource's.
    #[error("the mail store cannot be opened: {0}")]
    Store(#[source] MaildirError),
    /// The ledger of the store failed while we worked; a restart reads what is on the disk.
    #[error("the ledger of the mail store failed; it must be opened again")]
    StoreClosed,
    /// The configuration: no store is called so.
    #[error("mda.store: {0}")]
    StoreName(#[source] postroad_envelope::InvalidStoreName),
    /// The surroundings or the configuration: an LMTP port or socket cannot be had.
    #[error("mda.lmtp.listeners.{name}: {source}")]
    Listen {
        /// The listener.
        name: String,
        /// Why.
        #[source]
        source: postroad_net::Error,
    },
    /// A task of ours ended by a fault.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<MdaError> for DaemonError {
    fn from(error: MdaError) -> Self {
        match error {
            MdaError::Store(MaildirError::Permission { .. }) | MdaError::StoreName(_) => {
                Self::config(error)
            }
            MdaError::Store(_) | MdaError::StoreClosed | MdaError::Listen { .. } => {
                Self::temporary(error)
            }
            MdaError::Task(_) => Self::software(error),
        }
    }
}
