//! The trait, and what mail means by DNS records.

use std::net::IpAddr;

use async_trait::async_trait;
use postroad_address::Domain;

use crate::{AddressFamily, Answer, DnsError, HostName, MailHosts, MxHost, Record, RecordType};

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
    fn prefer(&self) -> AddressFamily;

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
            AddressFamily::Ipv6 => (v6, v4),
            AddressFamily::Ipv4 => (v4, v6),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What each question about one name comes back with.
    struct Scripted {
        v4: Result<Vec<IpAddr>, DnsError>,
        v6: Result<Vec<IpAddr>, DnsError>,
        prefer: AddressFamily,
    }

    #[async_trait]
    impl Resolver for Scripted {
        async fn lookup(&self, _: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError> {
            let found = if kind == RecordType::A {
                &self.v4
            } else {
                &self.v6
            };
            let records = found.clone()?.into_iter().map(Record::Address).collect();
            Ok(Answer {
                records,
                authenticated: kind == RecordType::A,
            })
        }

        fn prefer(&self) -> AddressFamily {
            self.prefer
        }
    }

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    fn none() -> DnsError {
        DnsError::NoRecords {
            name: name("a.test"),
            kind: RecordType::A,
        }
    }

    fn missing() -> DnsError {
        DnsError::NoSuchDomain {
            name: name("a.test"),
            kind: RecordType::A,
        }
    }

    fn later() -> DnsError {
        let detail = "no answer in time".to_owned();
        DnsError::Temporary {
            name: name("a.test"),
            kind: RecordType::A,
            detail,
        }
    }

    fn ips(prefix: &str, count: usize) -> Vec<IpAddr> {
        (1..=count)
            .map(|n| format!("{prefix}{n}").parse().unwrap())
            .collect()
    }

    fn mx(preference: u16, exchange: &str) -> Record {
        Record::MailExchanger {
            preference,
            exchange: exchange.to_owned(),
        }
    }

    fn sorted(records: Vec<Record>) -> Result<MailHosts, DnsError> {
        mail_hosts_from(
            name("a.test"),
            Answer {
                records,
                authenticated: true,
            },
        )
    }

    #[tokio::test]
    async fn one_family_is_enough_and_a_temporary_failure_outweighs_a_lack() {
        let (one4, one6) = (ips("192.0.2.", 1), ips("2001:db8::", 1));
        let both = [one6.clone(), one4.clone()].concat();
        for (v6, v4, expected) in [
            (Ok(one6.clone()), Ok(one4.clone()), Ok(both)),
            (Err(later()), Ok(one4.clone()), Ok(one4)),
            (Ok(one6.clone()), Err(none()), Ok(one6)),
            (Err(none()), Err(later()), Err(later())),
            (Err(later()), Err(missing()), Err(later())),
            (Err(none()), Err(none()), Err(none())),
            (Err(missing()), Err(none()), Err(missing())),
        ] {
            let resolver = Scripted {
                v4,
                v6,
                prefer: AddressFamily::Ipv6,
            };
            let found = resolver
                .addresses(&name("a.test"))
                .await
                .map(|answer| answer.records);
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn no_family_crowds_out_the_other() {
        for (prefer, first) in [
            (AddressFamily::Ipv6, "2001:db8::1"),
            (AddressFamily::Ipv4, "192.0.2.1"),
        ] {
            let (v4, v6) = (Ok(ips("192.0.2.", 40)), Ok(ips("2001:db8::", 40)));
            let answer = Scripted { v4, v6, prefer }
                .addresses(&name("a.test"))
                .await
                .unwrap();
            assert_eq!(answer.records.len(), MAX_ADDRESSES);
            assert_eq!(answer.records[0], first.parse::<IpAddr>().unwrap());
            assert_eq!(
                answer.records.iter().filter(|ip| ip.is_ipv4()).count(),
                MAX_ADDRESSES / 2
            );
            assert!(!answer.authenticated, "AAAA was not vouched for");
        }
    }

    #[test]
    fn mail_hosts_are_sorted_grouped_and_named_once() {
        let records = vec![
            mx(20, "b.test."),
            mx(10, "C.test."),
            mx(10, "a.test."),
            mx(30, "c.test."),
        ];
        let hosts = sorted(records).unwrap();
        let groups: Vec<Vec<&str>> = hosts
            .groups()
            .map(|g| g.iter().map(|h| h.name.as_str()).collect())
            .collect();
        assert_eq!(groups, [vec!["a.test", "c.test"], vec!["b.test"]]);
        assert!(hosts.authenticated && !hosts.implicit && hosts.dropped.is_empty());
    }

    #[test]
    fn a_target_that_is_no_host_is_dropped_with_a_note() {
        let long = "a.".repeat(200);
        let hosts = sorted(vec![
            mx(1, "192.0.2.1."),
            mx(2, "."),
            mx(3, &long),
            mx(4, "ok.test."),
        ])
        .unwrap();
        assert_eq!(
            hosts.hosts,
            [MxHost {
                preference: 4,
                name: name("ok.test")
            }]
        );
        assert_eq!(hosts.dropped.len(), 3);
        assert_eq!(
            hosts.dropped[0],
            "MX 1 \"192.0.2.1.\": an IP address is not a host name"
        );
    }

    #[test]
    fn nothing_but_unusable_targets_is_the_domains_fault() {
        let error = sorted(vec![mx(10, "192.0.2.1."), mx(20, "::1")]).unwrap_err();
        assert!(matches!(&error, DnsError::Malformed { .. }), "{error}");
        assert!(!error.is_temporary());
    }

    #[test]
    fn rfc_7505_null_mx_stands_alone() {
        assert_eq!(
            sorted(vec![mx(0, ".")]),
            Err(DnsError::NullMx {
                name: name("a.test")
            })
        );
        assert_eq!(
            sorted(vec![mx(0, "."), mx(5, "m.test.")])
                .unwrap()
                .hosts
                .len(),
            1
        );
    }

    #[test]
    fn the_number_of_mail_hosts_is_bounded() {
        let records = (0..100)
            .rev()
            .map(|n| mx(n, &format!("h{n}.test.")))
            .collect();
        let hosts = sorted(records).unwrap();
        assert_eq!(hosts.hosts.len(), MAX_MAIL_HOSTS);
        assert_eq!(hosts.hosts[0].name, name("h0.test"));
        assert_eq!(hosts.dropped.len(), MAX_MAIL_HOSTS);
    }
}
