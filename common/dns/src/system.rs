//! Names of hosts around us, as this system knows them: the hosts file, then the name servers of `/etc/resolv.conf`.
//!
//! What the C library does for other programs, without its plug-ins, so that it works in an image that holds nothing
//! but ours. Mail never goes by it: whose mail hosts are looked for is told by [`HickoryResolver`] alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use tokio::time::timeout;

use crate::hickory::{RESOLV_CONF, failure, name_server};
use crate::resolv_conf::ResolvConf;
use crate::{DnsError, HostName, RecordType};

const HOSTS: &str = "/etc/hosts";
/// All servers, domains and repetitions together: whoever dials has a time-out of its own.
const DEADLINE: Duration = Duration::from_secs(8);

/// The files that are asked; both are read anew for each name, and no answer is remembered: a container that comes
/// back has another address.
#[derive(Clone, Debug)]
pub struct SystemNames {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

impl Default for SystemNames {
    fn default() -> Self {
        Self::new(HOSTS, RESOLV_CONF)
    }
}

impl SystemNames {
    /// With other files than those in `/etc`.
    pub fn new(hosts: impl Into<PathBuf>, resolv_conf: impl Into<PathBuf>) -> Self {
        Self {
            hosts: hosts.into(),
            resolv_conf: resolv_conf.into(),
        }
    }

    /// The addresses of `host`, at least one, IPv4 first; an address is its own. A name without a dot at its end is
    /// also looked for in the search domains.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let name = HostName::parse(host).map_err(|error| DnsError::NotAName {
            name: host.to_owned(),
            detail: error.to_string(),
        })?;
        let listed = in_hosts(&self.read(&self.hosts, &name).await?, &name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        // RFC 6761 §6.3: nobody else may be asked for it.
        if name.as_str() == "localhost" || name.as_str().ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let conf = ResolvConf::parse(&self.read(&self.resolv_conf, &name).await?);
        if conf.servers.is_empty() {
            let why = format!("{} names no name server", self.resolv_conf.display());
            return Err(temporary(&name, why));
        }
        ask(&name, host.ends_with('.'), conf).await
    }

    /// A file that is not there says nothing.
    async fn read(&self, path: &Path, name: &HostName) -> Result<String, DnsError> {
        match tokio::fs::read(path).await {
            Ok(octets) => Ok(String::from_utf8_lossy(&octets).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(temporary(name, format!("{}: {error}", path.display()))),
        }
    }
}

async fn ask(name: &HostName, absolute: bool, conf: ResolvConf) -> Result<Vec<IpAddr>, DnsError> {
    let mut wire_name = wire(name.as_str(), name)?;
    wire_name.set_fqdn(absolute);
    let search = conf
        .search
        .iter()
        .filter_map(|domain| wire(domain, name).ok());
    let servers = conf.servers.iter().map(name_server).collect();
    let mut builder = TokioResolver::builder_with_config(
        ResolverConfig::from_parts(None, search.collect(), servers),
        TokioRuntimeProvider::default(),
    );
    let mut opts = ResolverOpts::default();
    opts.ndots = conf.ndots;
    opts.timeout = conf.timeout;
    opts.attempts = conf.attempts;
    opts.cache_size = 0;
    opts.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    opts.use_hosts_file = ResolveHosts::Never;
    *builder.options_mut() = opts;
    let resolver = builder
        .build()
        .map_err(|error| temporary(name, error.to_string()))?;
    match timeout(DEADLINE, resolver.lookup_ip(wire_name)).await {
        Ok(Ok(found)) => match found.iter().collect::<Vec<_>>() {
            found if found.is_empty() => Err(DnsError::NoRecords {
                name: name.clone(),
                kind: RecordType::A,
            }),
            found => Ok(found),
        },
        Ok(Err(error)) => Err(failure(name, RecordType::A, error)),
        Err(_) => Err(temporary(name, "no answer in time".to_owned())),
    }
}

fn wire(text: &str, name: &HostName) -> Result<Name, DnsError> {
    Name::from_ascii(text).map_err(|error| DnsError::NotAName {
        name: name.to_string(),
        detail: error.to_string(),
    })
}

fn temporary(name: &HostName, detail: String) -> DnsError {
    DnsError::Temporary {
        name: name.clone(),
        kind: RecordType::A,
        detail,
    }
}

/// hosts(5): an address, then its names. All lines that name it count, IPv4 first.
fn in_hosts(text: &str, name: &HostName) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse::<IpAddr>().ok()?;
        let named = |word: &str| {
            let word = word.strip_suffix('.').unwrap_or(word);
            word.eq_ignore_ascii_case(name.as_str())
        };
        words.any(named).then_some(address)
    });
    let (mut v4, v6): (Vec<_>, Vec<_>) = lines.partition(IpAddr::is_ipv4);
    v4.extend(v6);
    v4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_names_hosts_in_any_case_and_more_than_once() {
        let text = "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # queued\n\
                    fd00::7 Queued queued.\n# 192.0.2.9 queued\n172.20.0.3 3f2a queued\nqueued queued\n";
        let of = |name: &str| in_hosts(text, &HostName::parse(name).unwrap());
        assert_eq!(
            of("QUEUED"),
            ["172.20.0.3", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(of("ip6-localhost"), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(of("local").is_empty());
    }
}
