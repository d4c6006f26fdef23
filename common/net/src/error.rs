//! What can go wrong, by whose fault.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::RefusedCertificate;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: text that is no address, network or role.
    #[error("{text:?} is not {expected}")]
    Syntax {
        /// The text as it was given.
        text: String,
        /// What it should have been, with an example.
        expected: &'static str,
    },
    /// Configuration: an address that cannot be listened on.
    #[error("{reason}")]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What is wrong and what to do, for a person.
        reason: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Configuration: a certificate, key or CA file that cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, for a person.
        problem: String,
    },
    /// Configuration: TLS settings that do not fit together.
    #[error("TLS configuration: {0}")]
    Tls(String),
    /// Us: a host name that TLS cannot use.
    #[error("{0:?} is not a host name or address that a certificate could name")]
    ServerName(String),
    /// Us: a stream asked to start TLS that already speaks it, or is no TCP stream.
    #[error("TLS can be started only once, and only over TCP")]
    NotUpgradable,
    /// Peer: octets sent after STARTTLS and before the handshake (RFC 3207 §6, command injection).
    #[error("{0} octets of plain text after STARTTLS")]
    PlaintextAfterStartTls(usize),
    /// Peer: the TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// Peer: a certificate that does not count.
    #[error(transparent)]
    Refused(#[from] RefusedCertificate),
    /// Peer: a certificate without the names we need.
    #[error("peer certificate: {0}")]
    PeerCertificate(String),
    /// Peer or network: no answer in time.
    #[error("{0}: time-out")]
    TimedOut(&'static str),
    /// Network: the system's own error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>, problem: impl ToString) -> Self {
        Self::File {
            path: path.into(),
            problem: problem.to_string(),
        }
    }
}
