use std::{fmt, str::FromStr};

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
    /// A fixed host instead of the MX.
    pub next_hop: Option<HostPort>,
    /// The rule that chose it, for people: `local domain`, `mx`, `route example.com`.
    pub rule: String,
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
