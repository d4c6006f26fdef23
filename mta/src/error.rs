//! Why the agent cannot start. Once it runs, what goes wrong is a reply or an outcome.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: a listener cannot be bound.
    #[error("mta.inbound.listeners.{name}: {source}")]
    Listen {
        /// The listener.
        name: String,
        /// Why.
        #[source]
        source: postroad_net::Error,
    },
    /// Configuration: TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[source] postroad_net::Error),
    /// Configuration: we cannot call ourselves so.
    #[error(
        "mta.outbound.helo_name: {0:?} cannot be said in EHLO; write a host name of at most 255 octets"
    )]
    HeloName(String),
}
