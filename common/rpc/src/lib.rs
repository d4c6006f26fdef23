//! gRPC plumbing: serve, dial, health, reflection.
//!
//! Two transports and no third: Unix sockets within a host, TCP with mutual TLS (loopback included) otherwise.
//! tonic is built without TLS of its own; streams come from `postroad-net`, with the caller's
//! [`PeerIdentity`](postroad_net::PeerIdentity) established before the first request.
//!
//! ```text
//! Server::bind(endpoint, …) ─► .serve(routes, shutdown)     health and reflection are added
//! dial / dial_pool(endpoint, …) ─► Channel, ChannelPool     lazy: connects at the first call, and again after a loss
//! nodes(&common) ─► the endpoints and their names            a queue may be several nodes
//! serves(channel)                                           whether somebody answers there, by the health service
//! handler: require_role(&request, &[PeerRole::Mta])?        who may call
//! ```
//!
//! Both ends use streams of 1 MiB and connections of 8 MiB in flight, frames of 68 KiB and a keep-alive every 20 s.
//! Shutdown stops accepting, lets calls end within the grace period, then cuts the connections.
//!
//! What can fail: binding (a live server on the socket, a busy port, bad certificate files), all before serving
//! begins; afterwards only calls, with tonic's `Status`.
#![forbid(unsafe_code)]

mod dial;
mod endpoint;
mod error;
mod incoming;
mod node;
mod peer;
mod probe;
mod server;
mod unix;

use std::time::Duration;

pub use dial::{ChannelPool, dial, dial_pool};
pub use endpoint::Endpoint;
pub use error::Error;
pub use node::{Node, nodes};
pub use peer::{peer_identity, require_agent, require_role};
pub use postroad_daemon::TlsFiles;
pub use probe::{serves, with_cause};
pub use server::{ServeOptions, Server, serve};
pub use tonic_health::ServingStatus;
pub use tonic_health::server::HealthReporter;
pub use unix::UnixOptions;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A chunk of 64 KiB and what is around it, which would else be a second frame of a few octets.
const MAX_FRAME: u32 = 68 << 10;
const MAX_HEADERS: u32 = 16 << 10;
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 as the application protocol (RFC 9113 §3.1).
const ALPN: &[&[u8]] = &[b"h2"];
