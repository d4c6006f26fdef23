use std::{fmt, path::Path, str::FromStr};

use crate::{SourceName, StoreName, WeightedHop};

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
    /// A fixed place instead of the MX; of several the one that comes first.
    pub next_hop: Option<NextHop>,
    /// Several places to choose among at each attempt, the first of them `next_hop`; none where there is one, or the MX.
    pub next_hops: Vec<WeightedHop>,
    /// The pool of addresses to send from; none: the one for all mail.
    pub source: Option<SourceName>,
    /// The rule that chose it, for people: `local domain`, `mx`, `route example.com`.
    pub rule: String,
}

impl Route {
    /// To the mail hosts of a destination, or what else its class does with it.
    pub fn new(class: RouteClass, destination: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            class,
            destination: destination.into(),
            store: StoreName::default(),
            next_hop: None,
            next_hops: Vec::new(),
            source: None,
            rule: rule.into(),
        }
    }

    /// Through one place, or several: the first of the lowest preference is the one for whoever knows of one alone.
    #[must_use]
    pub fn through(mut self, mut hops: Vec<WeightedHop>) -> Self {
        hops.sort_by_key(|hop| hop.preference);
        self.next_hop = hops.first().map(|first| first.hop.clone());
        self.next_hops = if hops.len() > 1 { hops } else { Vec::new() };
        self
    }

    /// Whether mail takes the same way by both, whatever chose them.
    pub fn leads_like(&self, other: &Self) -> bool {
        self.class == other.class
            && self.store == other.store
            && self.next_hop == other.next_hop
            && self.next_hops == other.next_hops
            && self.source == other.source
    }

    /// Where it leads, for a person: the places it names, or the destination.
    pub fn aim(&self) -> String {
        match (&self.next_hop, self.next_hops.as_slice()) {
            (None, _) => self.destination.clone(),
            (Some(only), []) => only.to_string(),
            (_, several) => {
                let several: Vec<String> = several.iter().map(ToString::to_string).collect();
                several.join(" or ")
            }
        }
    }
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
    fn of_several_places_the_first_is_the_one_for_whoever_knows_of_one() {
        let hop = |text: &str, preference| WeightedHop {
            preference,
            ..WeightedHop::new(text.parse().unwrap())
        };
        let route = Route::new(RouteClass::Relay, "far.test", "route far.test");
        assert_eq!(route.aim(), "far.test");
        let one = route.clone().through(vec![hop("a.test:25", 7)]);
        assert_eq!((one.aim().as_str(), one.next_hops.len()), ("a.test:25", 0));
        let two = route.through(vec![hop("b.test:25", 10), hop("a.test:25", 0)]);
        assert_eq!(two.next_hop, one.next_hop);
        assert_eq!(two.aim(), "a.test:25 or b.test:25 preference 10");
        assert!(two.leads_like(&two) && !two.leads_like(&one));
    }

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
