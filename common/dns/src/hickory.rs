//! The real DNS, asked by hickory.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as HickoryError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType as WireType};

use crate::resolv_conf::ResolvConf;
use crate::{AddressFamily, Answer, DnsError, HostName, Record, RecordType};
use crate::{Resolver, ResolverOptions, SetupError};

pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Records live no longer than this in the cache, whatever their TTL says.
const POSITIVE_MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Refusals live shorter, so that a mended domain gets its mail soon.
const NEGATIVE_MAX_TTL: Duration = Duration::from_secs(15 * 60);

/// Asks name servers over UDP, and TCP where UDP is too small; remembers answers for their TTL.
///
/// The hosts file and search domains are never used: mail goes by the public names alone.
pub struct HickoryResolver {
    inner: TokioResolver,
    prefer: AddressFamily,
    /// One question ends by then, whatever aliases and servers it met on the way.
    deadline: Duration,
    /// RFC 6840 §5.8: the AD bit of a server is believed only where nobody sits on the path to it.
    trusts_servers: bool,
}

impl HickoryResolver {
    /// Sets it up with the name servers of the options or, without any, of `/etc/resolv.conf`.
    pub fn open(options: &ResolverOptions) -> Result<Self, SetupError> {
        let servers = match options.servers.as_slice() {
            [] => system_servers()?,
            servers => servers.to_vec(),
        };
        let attempts = options.attempts.clamp(1, 10);
        let configs = servers.iter().map(name_server).collect();
        let mut builder = TokioResolver::builder_with_config(
            ResolverConfig::from_name_servers(configs),
            TokioRuntimeProvider::default(),
        );
        let mut opts = ResolverOpts::default();
        opts.timeout = options.timeout;
        opts.attempts = attempts;
        opts.cache_size = options.cache_size;
        opts.edns0 = options.edns;
        opts.use_hosts_file = ResolveHosts::Never;
        opts.positive_max_ttl = Some(POSITIVE_MAX_TTL);
        opts.negative_max_ttl = Some(NEGATIVE_MAX_TTL);
        *builder.options_mut() = opts;
        Ok(Self {
            inner: builder
                .build()
                .map_err(|error| SetupError::Library(error.to_string()))?,
            prefer: options.prefer,
            deadline: options
                .timeout
                .saturating_mul(u32::try_from(attempts + 1).unwrap_or(u32::MAX)),
            trusts_servers: servers.iter().all(|server| server.ip().is_loopback()),
        })
    }
}

#[async_trait]
impl Resolver for HickoryResolver {
    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError> {
        let mut wire_name =
            Name::from_ascii(name.as_str()).map_err(|error| DnsError::NotAName {
                name: name.to_string(),
                detail: error.to_string(),
            })?;
        wire_name.set_fqdn(true);
        let lookup = self.inner.lookup(wire_name, wire_type(kind));
        match tokio::time::timeout(self.deadline, lookup).await {
            Ok(Ok(found)) => self.answer(name, kind, &found),
            Ok(Err(error)) => Err(failure(name, kind, error)),
            Err(_) => Err(temporary(name, kind, "no answer in time".to_owned())),
        }
    }

    fn prefer(&self) -> AddressFamily {
        self.prefer
    }
}

impl HickoryResolver {
    fn answer(
        &self,
        name: &HostName,
        kind: RecordType,
        found: &Lookup,
    ) -> Result<Answer<Record>, DnsError> {
        let wanted = wire_type(kind);
        let answers = found.answers();
        let records: Vec<Record> = answers
            .iter()
            .filter(|record| record.record_type() == wanted)
            .filter_map(|record| from_wire(&record.data))
            .collect();
        if records.is_empty() {
            // An alias that leads to a name without such records.
            return Err(DnsError::NoRecords {
                name: name.clone(),
                kind,
            });
        }
        // The AD bit is that of the last message; an alias may have come in an earlier, unsigned one.
        let aliased = answers
            .iter()
            .any(|record| record.record_type() == WireType::CNAME);
        let authenticated =
            self.trusts_servers && !aliased && found.message().metadata.authentic_data;
        Ok(Answer {
            records,
            authenticated,
        })
    }
}

pub(crate) fn failure(name: &HostName, kind: RecordType, error: NetError) -> DnsError {
    let detail = match error {
        NetError::Dns(HickoryError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => {
                return DnsError::NoSuchDomain {
                    name: name.clone(),
                    kind,
                };
            }
            // A referral is no "no": a server that does not recurse must not bounce mail.
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                "the name server referred to another instead of answering".to_owned()
            }
            ResponseCode::NoError => {
                return DnsError::NoRecords {
                    name: name.clone(),
                    kind,
                };
            }
            code => format!("the name server said {code}"),
        },
        NetError::Dns(HickoryError::ResponseCode(code)) => format!("the name server said {code}"),
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        other => other.to_string(),
    };
    temporary(name, kind, detail)
}

fn temporary(name: &HostName, kind: RecordType, detail: String) -> DnsError {
    DnsError::Temporary {
        name: name.clone(),
        kind,
        detail,
    }
}

fn wire_type(kind: RecordType) -> WireType {
    match kind {
        RecordType::A => WireType::A,
        RecordType::Aaaa => WireType::AAAA,
        RecordType::Mx => WireType::MX,
        RecordType::Ptr => WireType::PTR,
        RecordType::Txt => WireType::TXT,
    }
}

fn from_wire(data: &RData) -> Option<Record> {
    Some(match data {
        RData::A(a) => Record::Address(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Record::Address(IpAddr::V6(aaaa.0)),
        RData::MX(mx) => Record::MailExchanger {
            preference: mx.preference,
            exchange: mx.exchange.to_ascii(),
        },
        RData::PTR(ptr) => Record::Pointer(ptr.0.to_ascii()),
        RData::TXT(txt) => {
            let joined = txt.txt_data.concat();
            Record::Text(String::from_utf8_lossy(&joined).into_owned())
        }
        _ => return None,
    })
}

pub(crate) fn name_server(server: &SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

fn system_servers() -> Result<Vec<SocketAddr>, SetupError> {
    let text = fs::read_to_string(RESOLV_CONF).map_err(|source| SetupError::Unreadable {
        file: RESOLV_CONF.into(),
        source,
    })?;
    let servers = ResolvConf::parse(&text).servers;
    if servers.is_empty() {
        return Err(SetupError::Option {
            key: "servers",
            problem: format!("{RESOLV_CONF} names no name server; list one here"),
        });
    }
    Ok(servers)
}
