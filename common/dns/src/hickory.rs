//! The real DNS, asked by hickory.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as HickoryError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType as WireType};

use crate::resolv_conf::ResolvConf;
use crate::{AddressFamily, Answer, DnsError, HostName, Record, RecordType, Tlsa};
use crate::{Resolver, ResolverOptions, SetupError};

pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

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
    /// Whether each answer is validated here, from the trust anchors down.
    validates: bool,
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
        opts.positive_max_ttl = Some(options.cache_max_ttl);
        opts.negative_max_ttl = Some(options.cache_max_negative_ttl);
        if options.dnssec {
            opts.validate = true;
            // What is signed does not fit into the answers of before.
            opts.edns0 = true;
            builder = builder.with_trust_anchor(Arc::new(anchors(options)?));
        }
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
            validates: options.dnssec,
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
            Ok(Err(error)) => {
                let end = end_of_aliases(&error, name, kind);
                let failed = failure(name, kind, error);
                match (&failed, end) {
                    (DnsError::NoRecords { .. }, Some(end)) if self.is_alias(&end).await => {
                        let why = "its aliases go in a circle, or in too long a row";
                        Err(temporary(name, kind, why.to_owned()))
                    }
                    _ => Err(failed),
                }
            }
            Err(_) => Err(temporary(name, kind, "no answer in time".to_owned())),
        }
    }

    fn prefer(&self) -> AddressFamily {
        self.prefer
    }

    fn forget(&self) {
        self.inner.clear_cache();
    }
}

impl HickoryResolver {
    /// Whether a name where aliases were followed no further goes on all the same.
    async fn is_alias(&self, name: &Name) -> bool {
        let lookup = self.inner.lookup(name.clone(), WireType::CNAME);
        let found = tokio::time::timeout(self.deadline, lookup).await;
        found.is_ok_and(|found| found.is_ok())
    }

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
        let ttl = answers.iter().map(|record| record.ttl).min();
        let ttl = ttl.map(|seconds| Duration::from_secs(seconds.into()));
        if self.validates {
            let mut signed = answers
                .iter()
                .filter(|record| record.record_type() != WireType::RRSIG);
            return Ok(Answer {
                records,
                authenticated: signed.all(|record| record.proof == Proof::Secure),
                ttl,
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
            ttl,
        })
    }
}

/// The library gives up aliases after some of them as if the last one had no such records. Where that was, if it may be so.
fn end_of_aliases(error: &NetError, name: &HostName, kind: RecordType) -> Option<Name> {
    let NetError::Dns(HickoryError::NoRecordsFound(none)) = error else {
        return None;
    };
    let end = none.query.name();
    let text = end.to_ascii();
    let came_back = text
        .trim_end_matches('.')
        .eq_ignore_ascii_case(name.as_str());
    // A circle may end where it began. Names without these are rare, and mail hangs on them; those without other types are not.
    let matters = matches!(kind, RecordType::Mx | RecordType::A);
    (matters || !came_back).then(|| end.clone())
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
        // A zone that is not signed, or says of names between two others nothing for certain: a "no" as before DNSSEC.
        NetError::Dns(HickoryError::Nsec {
            response, proof, ..
        }) if proof != Proof::Bogus => {
            return match response.response_code {
                ResponseCode::NXDomain => DnsError::NoSuchDomain {
                    name: name.clone(),
                    kind,
                },
                _ => DnsError::NoRecords {
                    name: name.clone(),
                    kind,
                },
            };
        }
        NetError::Dns(HickoryError::DnssecBogus | HickoryError::Nsec { .. }) => {
            "the answer is not signed as its zone says (DNSSEC)".to_owned()
        }
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
        RecordType::Tlsa => WireType::TLSA,
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
        RData::TLSA(tlsa) => Record::Tlsa(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        _ => return None,
    })
}

/// What is believed without being asked: the keys of the root zone, or those of a file.
fn anchors(options: &ResolverOptions) -> Result<TrustAnchors, SetupError> {
    let Some(file) = &options.trust_anchors else {
        return Ok(TrustAnchors::default());
    };
    let text = fs::read_to_string(file).map_err(|source| SetupError::Unreadable {
        file: file.clone(),
        source,
    })?;
    let wrong = |problem: String| SetupError::Option {
        key: "trust_anchors",
        problem: format!(
            "{}: {problem}; write one DNSKEY record on each line",
            file.display()
        ),
    };
    match TrustAnchors::from_str(&text) {
        Ok(anchors) => Ok(anchors),
        Err(error) => Err(wrong(error.to_string())),
    }
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
