//! Sockets with limits: accept, TLS, mutual TLS, time-outs.
//!
//! The only crate that names rustls. Whoever talks over a socket takes it from here:
//!
//! ```text
//! Listener::bind ─► serve ─► Connection { stream, peer, … } ─► upgrade_server (implicit TLS or STARTTLS)
//!   (behind a balancer: PROXY header first)
//! connect_tcp / connect_unix ─► Stream ─► upgrade_client
//! ```
//!
//! * [`Listener`] accepts under [`Limits`]: over them a peer gets a short farewell and is closed. Each connection
//!   is one task of `serve`, which ends only when they have ended.
//! * Behind a balancer that is trusted ([`Listener::behind`]) each connection begins with a header of the PROXY
//!   protocol, and the client it names is the peer: for limits, policy, logs and whatever else asks.
//! * [`Stream`] is one type over TCP, both ends of TLS, and Unix sockets. [`TlsInfo`] says what TLS gave.
//! * [`ServerTls`] and [`ClientTls`] read PEM files and read them again when they change; a bad new file leaves
//!   the old certificate in use. TLS 1.2 is the least we speak, with the `ring` provider, never a global one.
//! * Other mail servers prove who they are by a name that the configuration has: hosts in [`ClientTls::to_hosts`], clients
//!   of a listener by [`TrustedClients`]. [`TlsInfo::verified`] is that name.
//! * Of a host whose certificate the DNS vouches for ([`Dane`]) nothing else counts.
//! * Between agents a certificate counts while its authority's signature and its time hold, it is not among the
//!   [`Revocations`], and it names a role. Why another does not is a [`RefusedCertificate`] for our log.
//! * [`PeerIdentity`] is who calls: the URI names `postroad://role/<role>` of a verified certificate, or the
//!   uid and gid at the other end of a Unix socket.
//! * [`is_forbidden_destination`] and [`Networks`] keep outgoing mail from being aimed at private networks.
//!
//! What can fail: see [`Error`]; each variant says whose fault it is. Messages about addresses and files are
//! written for the person who has to repair them.
#![forbid(unsafe_code)]

mod admission;
mod connect;
mod destination;
mod error;
mod identity;
mod limits;
mod listener;
mod networks;
mod peer;
mod proxy;
mod stream;
mod tls;
mod users;

pub use admission::Place;
pub use connect::{connect_tcp, connect_unix};
pub use destination::is_forbidden_destination;
pub use error::Error;
pub use identity::{OnlyAccounts, PeerIdentity, PeerRole, Roles, Transport, UnixRole, UnixRoles};
pub use limits::{Limits, LiveLimits};
pub use listener::{Connection, ListenAddr, Listener};
pub use networks::Networks;
pub use peer::Peer;
pub use proxy::{Carried, HeaderError as ProxyHeaderError, read_header as read_proxy_header};
pub use stream::Stream;
pub use tls::CERTIFICATE_WATCH;
pub use tls::client::{ClientTls, TlsGeneration, Trust};
pub use tls::dane::{Dane, DaneRecord};
pub use tls::files::CertFiles;
pub use tls::info::{PeerCertificate, TlsInfo, TlsVersion};
pub use tls::neighbour::{Fingerprint, KnownClient, TrustedClients};
pub use tls::revoked::{Revocations, Serial};
pub use tls::server::ServerTls;
pub use tls::verify::RefusedCertificate;
pub use users::{group_id, user_id, user_name};
