//! What can go wrong, by whose fault.

use std::io;
use std::path::PathBuf;

use postroad_dns::DnsError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration: text that is no endpoint.
    #[error(
        "{0:?} is not an endpoint, such as \"unix:/run/postroad/queue.sock\" or \"tcp:queue.example.org:7700\""
    )]
    Endpoint(String),
    /// Configuration: `common.retiring` names what `common.queue` does not.
    #[error(
        "{0} is not in common.queue; write in common.retiring what is to be taken out of that list, or leave it out"
    )]
    NotListed(String),
    /// Configuration: no node is left for new mail.
    #[error(
        "all of common.queue is in common.retiring, and no queue is left for new mail; leave one out"
    )]
    AllRetiring,
    /// Configuration: a TCP endpoint without certificates. There is no plain-text form.
    #[error("{0} needs mutual TLS: set ca_file, cert_file and key_file")]
    TlsMissing(String),
    /// Operation: another server is alive on the socket.
    #[error("another program is serving on {}; stop it first or choose another path", .0.display())]
    AlreadyServing(PathBuf),
    /// Configuration: the path of the socket is taken by something else.
    #[error("{} exists and is not a socket; choose another path or remove it", .0.display())]
    NotASocket(PathBuf),
    /// Configuration or system: the socket cannot be made.
    #[error("cannot make the socket {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Configuration or system: a host name without an address.
    #[error("no address for {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: DnsError,
    },
    /// Sockets, certificates, handshakes.
    #[error(transparent)]
    Net(#[from] postroad_net::Error),
    /// Us: descriptors that reflection cannot use.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// tonic's own.
    #[error("gRPC transport: {0}")]
    Transport(#[from] tonic::transport::Error),
}
