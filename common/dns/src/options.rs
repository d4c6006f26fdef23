//! What a resolver is set up with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postroad_daemon::{AddressFamily, DnsConfig};

use crate::layered::ZoneFirst;
use crate::{FixedZone, HickoryResolver, Resolver, SetupError};

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
    /// An answer is remembered for its TTL, and no longer than this.
    pub cache_max_ttl: Duration,
    /// The same of an answer that there is no such name or record; shorter, so that a mended domain gets its mail soon.
    pub cache_max_negative_ttl: Duration,
    /// Offer larger UDP answers (RFC 6891).
    pub edns: bool,
    /// Validate what name servers say from the trust anchors down (DNSSEC, RFC 4035).
    pub dnssec: bool,
    /// A file of DNSKEY records that are believed instead of those of the root zone.
    pub trust_anchors: Option<PathBuf>,
    /// The address family that comes first.
    pub prefer: AddressFamily,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self::from(&DnsConfig::default())
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
}

/// The section `[common.dns]`.
impl From<&DnsConfig> for ResolverOptions {
    fn from(config: &DnsConfig) -> Self {
        Self {
            zone: config.zone.clone(),
            zone_falls_through: config.zone_falls_through,
            servers: config.servers.iter().map(|server| server.0).collect(),
            timeout: config.timeout.into(),
            attempts: config.attempts,
            cache_size: config.cache_size,
            cache_max_ttl: config.cache_max_ttl.into(),
            cache_max_negative_ttl: config.cache_max_negative_ttl.into(),
            edns: config.edns,
            dnssec: config.dnssec,
            trust_anchors: config.trust_anchors.clone(),
            prefer: config.prefer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_file_alone_needs_no_name_server() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a.test. A 192.0.2.1\n").unwrap();
        let options = ResolverOptions {
            zone: Some(file.path().into()),
            ..Default::default()
        };
        assert_eq!(options.open().unwrap().prefer(), AddressFamily::Ipv6);
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
