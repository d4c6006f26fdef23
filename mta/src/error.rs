//! Why the agent cannot start. Once it runs, what goes wrong is a reply or an outcome.

use std::io::ErrorKind;

use postroad_daemon::DaemonError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration, or another process that has the port: a listener cannot be bound.
    #[error("mta.inbound.listeners.{name}: {source}")]
    Listen {
        /// The listener.
        name: String,
        /// Why.
        #[source]
        source: postroad_net::Error,
    },
    /// Configuration: the certificates cannot be used.
    #[error("mta.inbound.certificates: {0}")]
    Certificates(#[source] postroad_net::Error),
    /// Configuration: what is said of a next hop cannot be used.
    #[error("mta.outbound.hosts: {host}: {source}")]
    Host {
        /// The next hop.
        host: String,
        /// Why.
        #[source]
        source: postroad_net::Error,
    },
    /// Configuration: the keys of bounce addresses cannot be used.
    #[error("{key}: {source}")]
    BounceKey {
        /// Where the file is named.
        key: &'static str,
        /// Why.
        #[source]
        source: postroad_bounce_address::KeyError,
    },
    /// Configuration: nobody can give us a token for a next hop.
    #[error("mta.outbound.hosts: {host}: {source}")]
    Grant {
        /// The next hop.
        host: String,
        /// Why.
        #[source]
        source: postroad_oauth::GrantError,
    },
    /// Us: TLS for outgoing connections cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[source] postroad_net::Error),
    /// Configuration: we cannot call ourselves so.
    #[error(
        "mta.outbound.helo_name: {0:?} cannot be said in EHLO; write a host name of at most 255 octets"
    )]
    HeloName(String),
}

impl From<Error> for DaemonError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Listen {
                source: postroad_net::Error::Bind { source, .. },
                ..
            } if source.kind() == ErrorKind::AddrInUse => Self::temporary(error),
            Error::Listen { .. }
            | Error::Certificates(_)
            | Error::HeloName(_)
            | Error::BounceKey { .. }
            | Error::Host { .. }
            | Error::Grant { .. } => Self::config(error),
            Error::Tls(_) => Self::software(error),
        }
    }
}
