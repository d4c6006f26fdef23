use std::{borrow::Cow, path::PathBuf};

use postroad_daemon::DaemonError;
use postroad_journal::JournalError;

use crate::RouteProblem;

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
    /// A route that leads nowhere, or asks for what cannot be.
    #[error("queued.routes[{at}]: {problem}")]
    Route {
        /// Its number in the list.
        at: usize,
        /// What is wrong with it, and what to do.
        problem: RouteProblem,
    },
    /// More than all leases would be promised.
    #[error("queued.priority.minimum_share is {0}; three lanes can have 33 (percent) each at most")]
    MinimumShare(u32),
    /// Of what sites take.
    #[error("queued.sites.{key} {problem}")]
    Sites {
        /// The key below it.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
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
    /// Rules of causes that cannot be followed.
    #[error("queued.cause_rules: {}: {problem}", path.display())]
    CauseRules {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A case of retries that would be for all mail, or for a domain that is none.
    #[error("queued.retry.cases: {0}")]
    RetryCase(String),
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
    pub fn key(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Route { at, .. } => return format!("queued.routes[{at}]").into(),
            Self::CauseRules { .. } => "queued.cause_rules",
            Self::RetryCase(_) => "queued.retry.cases",
            Self::MinimumShare(_) => "queued.priority.minimum_share",
            Self::Sites { key, .. } => match *key {
                "limits" => "queued.sites.limits",
                "patterns" => "queued.sites.patterns",
                "first_connections" => "queued.sites.first_connections",
                _ => "queued.sites.probe_first",
            },
            Self::Quota { .. } => "queued.quota",
            Self::NoVerifiers => "queued.accounts.verifiers_per_minute",
            Self::NoCounters(_) => "queued.counters",
            Self::NoCertificates => "queued.listen.tcp",
        })
    }
}
