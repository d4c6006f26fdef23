use std::{fmt, path::Path, str::FromStr};

use crate::StoreName;

/// How a recipient's mail leaves the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteClass {
    /// Filed by an MDA.
    Local,
    /// Sent by SMTP, to the MX of the domain or a named host.
    Relay,
    /// Handed to a named host by LMTP (RFC 2033).
    Lmtp,
    /// Kept until someone releases it.
    Hold,
    /// Dropped, as if delivered.
    Discard,
}

impl RouteClass {
    /// The word used in config, logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Relay => "relay",
            Self::Lmtp => "lmtp",
            Self::Hold => "hold",
            Self::Discard => "discard",
        }
    }
}

impl fmt::Display for RouteClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RouteClass {
    type Err = InvalidRouteClass;
    fn from_str(text: &str) -> Result<Self, InvalidRouteClass> {
        [
            Self::Local,
            Self::Relay,
            Self::Lmtp,
            Self::Hold,
            Self::Discard,
        ]
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or(InvalidRouteClass)
    }
}

/// A word that names no route class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a route class: local, relay, lmtp, hold or discard")]
pub struct InvalidRouteClass;

/// Where a job goes and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// How it leaves.
    pub class: RouteClass,
    /// The recipient domain (A-label) or the name of a route; jobs of one destination share limits.
    pub destination: String,
    /// Of local mail: the store whose delivery agent files it.
    pub store: StoreName,
    /// A fixed place instead of the MX.
    pub next_hop: Option<NextHop>,
    /// The rule that chose it, for people: `local domain`, `mx`, `route example.com`.
    pub rule: String,
}

/// Where mail is handed to instead of the mail hosts of its domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// A host: `mail.example:25`.
    Host(HostPort),
    /// A socket on the host of the agent that hands the mail over, for LMTP alone: `unix:/run/dovecot/lmtp`.
    Unix(SocketPath),
}

/// What a text begins with that names a socket rather than a host.
const UNIX: &str = "unix:";

impl NextHop {
    /// Whether mail of this class may be handed over there: a socket of this host has no part in the mail of the world.
    pub const fn fits(&self, class: RouteClass) -> bool {
        matches!(
            (self, class),
            (Self::Host(_), _) | (Self::Unix(_), RouteClass::Lmtp)
        )
    }
}

impl From<HostPort> for NextHop {
    fn from(host: HostPort) -> Self {
        Self::Host(host)
    }
}

/// A text that names no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected host:port, with an IPv6 address in brackets, or for LMTP unix:/path")]
pub struct InvalidNextHop;

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl FromStr for NextHop {
    type Err = InvalidNextHop;
    fn from_str(text: &str) -> Result<Self, InvalidNextHop> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => SocketPath::parse(path)
                .map(Self::Unix)
                .ok_or(InvalidNextHop),
            // A host may be called unix.
            _ => text.parse().map(Self::Host).map_err(|_| InvalidNextHop),
        }
    }
}

/// The absolute path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketPath(String);

impl SocketPath {
    /// What the system can connect to: `sun_path` has room for 108 octets with the one that ends it.
    const LONGEST: usize = 107;

    /// An absolute path without control characters, that is short enough.
    pub fn parse(path: &str) -> Option<Self> {
        let fits = path.starts_with('/')
            && (2..=Self::LONGEST).contains(&path.len())
            && !path.contains(char::is_control);
        fits.then(|| Self(path.to_owned()))
    }

    /// Where it is.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name or address with a port: `mail.example:25`, `192.0.2.1:24`, `[2001:db8::1]:25`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A text that is no `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected host:port, with an IPv6 address in brackets")]
pub struct InvalidHostPort;

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;
    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidHostPort)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or(InvalidHostPort)?,
            None if host.contains(':') => return Err(InvalidHostPort),
            None => host,
        };
        let port = port.parse().map_err(|_| InvalidHostPort)?;
        if host.is_empty() || port == 0 {
            return Err(InvalidHostPort);
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_a_host_or_a_socket() {
        for text in [
            "mail.example:25",
            "192.0.2.1:24",
            "[2001:db8::1]:2525",
            "unix:24",
            "unix:/run/dovecot/lmtp",
        ] {
            let hop: NextHop = text.parse().unwrap();
            assert_eq!(hop.to_string(), text);
            assert!(hop.fits(RouteClass::Lmtp));
            assert_eq!(hop.fits(RouteClass::Relay), !text.contains('/'), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "unix:run/lmtp",
            "unix:/",
            "unix:",
            "unix:/a\nb",
            "/run/lmtp",
            &long,
            "a",
            "",
        ] {
            assert_eq!(text.parse::<NextHop>(), Err(InvalidNextHop), "{text:?}");
        }
    }
}
