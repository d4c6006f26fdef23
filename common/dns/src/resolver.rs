//! The trait, and what mail means by DNS records.

use std::net::IpAddr;

use async_trait::async_trait;
use postroad_address::Domain;

use crate::{Answer, DnsError, HostName, MailHosts, MxHost, Prefer, Record, RecordType};

/// More mail hosts than this are not looked at; nobody needs them, an attacker might.
pub const MAX_MAIL_HOSTS: usize = 20;
/// More addresses of one host than this are not looked at.
pub const MAX_ADDRESSES: usize = 16;
/// More names of one address than this are not confirmed.
const MAX_POINTERS: usize = 4;
/// More text records of one name than this are not handed out.
const MAX_TEXTS: usize = 64;

/// Answers the questions mail asks the DNS.
///
/// An implementation gives [`lookup`](Self::lookup) and [`prefer`](Self::prefer).
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The records of one type, aliases (CNAME) followed; never an empty answer.
    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError>;

    /// Which address family comes first in [`addresses`](Self::addresses).
    fn prefer(&self) -> Prefer;

    /// The hosts that take mail for a domain, by its MX records or, without any, itself.
    async fn mail_hosts(&self, domain: &Domain) -> Result<MailHosts, DnsError> {
        let domain = HostName::try_from(domain)?;
        match self.lookup(&domain, RecordType::Mx).await {
            Ok(answer) => mail_hosts_from(domain, answer),
            // RFC 5321 §5.1: "If an empty list of MXs is returned, the address is treated as if it
            // was associated with an implicit MX RR, with a preference of 0, pointing to that host."
            Err(DnsError::NoRecords { .. }) => Ok(MailHosts {
                hosts: vec![MxHost {
                    preference: 0,
                    name: domain,
                }],
                implicit: true,
                authenticated: false,
                dropped: Vec::new(),
            }),
            Err(error) => Err(error),
        }
    }

    /// The addresses of a host, both families, the preferred one first.
    ///
    /// One family that answers is enough; only if neither does is the failure of one a failure.
    async fn addresses(&self, host: &HostName) -> Result<Answer<IpAddr>, DnsError> {
        let (v6, v4) = tokio::join!(
            self.lookup(host, RecordType::Aaaa),
            self.lookup(host, RecordType::A)
        );
        let (first, second) = match self.prefer() {
            Prefer::Ipv6 => (v6, v4),
            Prefer::Ipv4 => (v4, v6),
        };
        let answer = match (first, second) {
            (Ok(mut first), Ok(second)) => {
                // The cap must not let one family crowd out the other.
                first.records.truncate(MAX_ADDRESSES / 2);
                first.records.extend(second.records);
                first.authenticated &= second.authenticated;
                first
            }
            (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => answer,
            (Err(first), Err(second)) => return Err(worse(first, second)),
        };
        let mut records: Vec<IpAddr> = Vec::new();
        for record in answer.records {
            match record {
                Record::Address(ip) if !records.contains(&ip) => records.push(ip),
                _ => {}
            }
        }
        records.truncate(MAX_ADDRESSES);
        Ok(Answer {
            records,
            authenticated: answer.authenticated,
        })
    }

    /// The name of an address, only if that name leads back to the address.
    ///
    /// An unconfirmed or missing name is `None`; an error is always temporary.
    async fn reverse(&self, address: IpAddr) -> Result<Option<HostName>, DnsError> {
        let address = address.to_canonical();
        let answer = match self
            .lookup(&HostName::pointer(address), RecordType::Ptr)
            .await
        {
            Ok(answer) => answer,
            Err(error) if error.is_temporary() => return Err(error),
            Err(_) => return Ok(None),
        };
        let kind = if address.is_ipv4() {
            RecordType::A
        } else {
            RecordType::Aaaa
        };
        let mut postponed = None;
        for record in answer.records.into_iter().take(MAX_POINTERS) {
            let Record::Pointer(target) = record else {
                continue;
            };
            let Ok(name) = HostName::parse(&target) else {
                continue;
            };
            match self.lookup(&name, kind).await {
                Ok(forward) if forward.records.contains(&Record::Address(address)) => {
                    return Ok(Some(name));
                }
                Err(error) if error.is_temporary() => postponed = Some(error),
                _ => {}
            }
        }
        postponed.map_or(Ok(None), Err)
    }

    /// The text records of a name, each with its strings joined.
    async fn txt(&self, name: &HostName) -> Result<Answer<String>, DnsError> {
        let answer = self.lookup(name, RecordType::Txt).await?;
        let texts = answer
            .records
            .into_iter()
            .filter_map(|record| match record {
                Record::Text(text) => Some(text),
                _ => None,
            });
        Ok(Answer {
            records: texts.take(MAX_TEXTS).collect(),
            authenticated: answer.authenticated,
        })
    }
}

/// Sorts MX records into mail hosts; what cannot be a host is dropped with a note.
fn mail_hosts_from(domain: HostName, answer: Answer<Record>) -> Result<MailHosts, DnsError> {
    let mut published: Vec<(u16, String)> = Vec::new();
    for record in answer.records {
        if let Record::MailExchanger {
            preference,
            exchange,
        } = record
        {
            published.push((preference, exchange));
        }
    }
    // RFC 7505 §3: a single MX whose target is the root. Beside other MX records it means nothing.
    if matches!(published.as_slice(), [(_, exchange)] if exchange == ".") {
        return Err(DnsError::NullMx { name: domain });
    }
    let mut hosts: Vec<MxHost> = Vec::new();
    let mut dropped = Vec::new();
    for (preference, exchange) in published {
        match HostName::parse(&exchange) {
            Ok(name) => hosts.push(MxHost { preference, name }),
            Err(error) => dropped.push(format!("MX {preference} {exchange:?}: {error}")),
        }
    }
    hosts.sort_by(|a, b| (a.preference, &a.name).cmp(&(b.preference, &b.name)));
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.name.clone()));
    for host in hosts.iter().skip(MAX_MAIL_HOSTS) {
        dropped.push(format!("MX {} {}: too many", host.preference, host.name));
    }
    hosts.truncate(MAX_MAIL_HOSTS);
    dropped.truncate(MAX_MAIL_HOSTS);
    if hosts.is_empty() {
        return Err(DnsError::Malformed {
            name: domain,
            kind: RecordType::Mx,
            detail: dropped.join("; "),
        });
    }
    Ok(MailHosts {
        hosts,
        implicit: false,
        authenticated: answer.authenticated,
        dropped,
    })
}

/// Of two failures the one that decides: what may pass away outweighs what is certain.
fn worse(first: DnsError, second: DnsError) -> DnsError {
    let weight = |error: &DnsError| match error {
        DnsError::Temporary { .. } => 2,
        DnsError::NoSuchDomain { .. } => 1,
        _ => 0,
    };
    if weight(&second) > weight(&first) {
        second
    } else {
        first
    }
}
