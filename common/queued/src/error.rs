use std::path::PathBuf;

use postroad_daemon::DaemonError;
use postroad_journal::JournalError;

/// Why the queue agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Operator: the configuration cannot be followed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Operator or resource: the folder of the queue cannot be opened.
    #[error("the queue in {} cannot be opened", folder.display())]
    Open {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        #[source]
        source: JournalError,
    },
    /// Resource: the index can neither be opened nor built anew.
    #[error("the index cannot be opened")]
    Index(#[from] postroad_queue::QueueError),
    /// Resource: a write or sync failed. Nothing is tried again on the same files: start anew.
    #[error("the disk failed, nothing more can be accepted; start again once it is mended: {0}")]
    Disk(String),
    /// Resource: a sync of the index failed. The next start makes another: what of this one is on the disk nobody knows.
    #[error("the index cannot be made durable; start again once the disk is mended")]
    IndexUnsynced(#[source] postroad_queue::QueueError),
    /// Operator: a socket cannot be served.
    #[error(transparent)]
    Rpc(#[from] postroad_rpc::Error),
    /// Resource: a thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// Us: a task ended that must not.
    #[error("a task of the queue ended unexpectedly: {0}")]
    Task(String),
}

impl ServeError {
    /// The status a process ends with: 78 for the configuration, 75 for what a restart may mend.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Open {
                source: JournalError::Format { .. } | JournalError::LaterFormat { .. },
                ..
            } => 78,
            _ => 75,
        }
    }

    /// As a program's end.
    pub fn into_daemon_error(self) -> DaemonError {
        match self.exit_status() {
            78 => DaemonError::config(self),
            _ => DaemonError::temporary(self),
        }
    }
}

/// A configuration that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A route by a name that is none.
    #[error("queued.routes: {0:?} is not a domain; name a domain or \"*\"")]
    NotADomain(String),
    /// LMTP without a host.
    #[error(
        "queued.routes: the LMTP route for {0:?} needs next_hop = \"host:port\" or \"unix:/path\""
    )]
    NoNextHop(String),
    /// A socket of the host for another class than LMTP.
    #[error(
        "queued.routes: the route for {0:?} names a Unix socket, and by a socket mail goes by LMTP alone; write class = \"lmtp\", or a host with its port"
    )]
    SocketWithoutLmtp(String),
    /// More than all leases would be promised.
    #[error("queued.priority.minimum_share is {0}; three lanes can have 33 (percent) each at most")]
    MinimumShare(u32),
    /// A limit that would have to be counted by a rule instead of a domain.
    #[error(
        "queued.routes: max_leases is for a route of one domain; for all others write queued.destination.max_leases"
    )]
    MaxLeasesOfAny,
    /// A quota for someone who cannot be.
    #[error("queued.quota.{key}: {name:?} {problem}")]
    Quota {
        /// The list it stands in.
        key: &'static str,
        /// Whose it was to be.
        name: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Nobody could log in at agents that ask.
    #[error("queued.accounts.verifiers_per_minute is 0; write at least 1")]
    NoVerifiers,
    /// Nothing could be counted.
    #[error("queued.counters.{0} is 0; write at least 1")]
    NoCounters(&'static str),
    /// A TCP listener without certificates.
    #[error("queued.listen.tcp needs the certificates of common.tls")]
    NoCertificates,
}

impl ConfigError {
    /// The key that is to blame.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NotADomain(_)
            | Self::NoNextHop(_)
            | Self::SocketWithoutLmtp(_)
            | Self::MaxLeasesOfAny => "queued.routes",
            Self::MinimumShare(_) => "queued.priority.minimum_share",
            Self::Quota { .. } => "queued.quota",
            Self::NoVerifiers => "queued.accounts.verifiers_per_minute",
            Self::NoCounters(_) => "queued.counters",
            Self::NoCertificates => "queued.listen.tcp",
        }
    }
}
