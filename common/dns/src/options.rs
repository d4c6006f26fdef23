//! What a resolver is set up with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::layered::ZoneFirst;
use crate::{FixedZone, HickoryResolver, Resolver, SetupError};

/// The address family that comes first in the addresses of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// AAAA before A.
    #[default]
    Ipv6,
    /// A before AAAA.
    Ipv4,
}

/// Plain, resolved values; the keys of `[common.dns]` are in the crate's manual page.
#[derive(Clone, Debug)]
pub struct ResolverOptions {
    /// Zone file that answers instead of the DNS.
    pub zone: Option<PathBuf>,
    /// Names the zone does not know are asked of the name servers instead of not existing.
    pub zone_falls_through: bool,
    /// Name servers; empty means those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often a question is asked before the answer is "cannot tell now"; at least 1.
    pub attempts: usize,
    /// Answers remembered.
    pub cache_size: u64,
    /// Offer larger UDP answers (RFC 6891).
    pub edns: bool,
    /// The address family that comes first.
    pub prefer: Prefer,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self {
            zone: None,
            zone_falls_through: false,
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            cache_size: 8192,
            edns: true,
            prefer: Prefer::default(),
        }
    }
}

impl ResolverOptions {
    /// Sets up the resolver these options ask for. Reads files; belongs to start-up and reload.
    pub fn open(&self) -> Result<Arc<dyn Resolver>, SetupError> {
        let zone = match &self.zone {
            Some(file) => Some(FixedZone::load(file)?.preferring(self.prefer)),
            None => None,
        };
        Ok(match zone {
            Some(zone) if self.zone_falls_through => Arc::new(ZoneFirst {
                zone,
                beneath: HickoryResolver::open(self)?,
            }),
            Some(zone) => Arc::new(zone),
            None => Arc::new(HickoryResolver::open(self)?),
        })
    }

    /// Reads one entry of `servers`: `ip`, `ip:port` or `[ip]:port`.
    pub fn name_server(text: &str) -> Result<SocketAddr, SetupError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
            (Ok(server), _) => Ok(server),
            (_, Ok(ip)) => Ok(SocketAddr::new(ip, 53)),
            _ => Err(SetupError::Option {
                key: "servers",
                problem: format!(
                    "{text:?} is no name server; write \"192.0.2.53\" or \"192.0.2.53:53\""
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_have_port_53_unless_told() {
        for (text, server) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            let parsed = ResolverOptions::name_server(text).unwrap();
            assert_eq!(parsed, server.parse::<SocketAddr>().unwrap(), "{text}");
        }
        let error = ResolverOptions::name_server("ns.example.com")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("common.dns.servers: \"ns.example.com\""),
            "{error}"
        );
    }

    #[test]
    fn a_zone_file_alone_needs_no_name_server() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a.test. A 192.0.2.1\n").unwrap();
        let options = ResolverOptions {
            zone: Some(file.path().into()),
            ..Default::default()
        };
        assert_eq!(options.open().unwrap().prefer(), Prefer::Ipv6);
    }

    #[test]
    fn a_missing_zone_file_is_named() {
        let options = ResolverOptions {
            zone: Some("/nonexistent/zone".into()),
            ..Default::default()
        };
        let error = options.open().err().unwrap().to_string();
        assert!(
            error.starts_with("cannot read /nonexistent/zone"),
            "{error}"
        );
    }
}
