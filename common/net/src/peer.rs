//! The other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address of a peer, if it has one: a client of a Unix socket has none. An IPv4 client of a dual-stack socket
/// appears under its IPv4 address.
///
/// ```
/// # use postroad_net::Peer;
/// let peer = Peer::new("[::ffff:192.0.2.1]:4711".parse().unwrap());
/// assert_eq!(peer.to_string(), "[192.0.2.1]:4711");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(Option<SocketAddr>);

impl Peer {
    /// The peer at `addr`, unmapped.
    pub fn new(addr: SocketAddr) -> Self {
        Self(Some(unmapped(addr)))
    }

    /// The peer at the other end of a Unix socket.
    pub fn local() -> Self {
        Self(None)
    }

    /// Its address and port; none over a Unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.0
    }

    /// The address policy judges it by: who comes by a Unix socket is on this host.
    pub fn ip(&self) -> IpAddr {
        self.0.map_or(Ipv4Addr::LOCALHOST.into(), |addr| addr.ip())
    }
}

/// `[ip]:port` for both families, or `local`, as in logs.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(addr) => write!(f, "[{}]:{}", addr.ip(), addr.port()),
            None => f.write_str("local"),
        }
    }
}

/// RFC 4291 §2.5.5.2: `::ffff:a.b.c.d` is an IPv4 node.
pub(crate) fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
