//! The other end of a TCP connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The address of a peer; an IPv4 client of a dual-stack socket appears under its IPv4 address.
///
/// ```
/// # use postroad_net::Peer;
/// let peer = Peer::new("[::ffff:192.0.2.1]:4711".parse().unwrap());
/// assert_eq!(peer.to_string(), "[192.0.2.1]:4711");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(SocketAddr);

impl Peer {
    /// The peer at `addr`, unmapped.
    pub fn new(addr: SocketAddr) -> Self {
        Self(unmapped(addr))
    }

    /// Its address and port.
    pub fn addr(&self) -> SocketAddr {
        self.0
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.0.ip()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

/// `[ip]:port` for both families, as in logs and `Received`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]:{}", self.ip(), self.port())
    }
}

/// RFC 4291 §2.5.5.2: `::ffff:a.b.c.d` is an IPv4 node.
pub(crate) fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
