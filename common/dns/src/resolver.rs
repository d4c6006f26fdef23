//! The trait, and what mail means by DNS records.

mod mail_hosts;

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use postroad_address::Domain;
use tokio::time::timeout;

pub use self::mail_hosts::MAX_MAIL_HOSTS;
use crate::{
    AddressFamily, Answer, DnsError, HostName, MailHosts, MxHost, Record, RecordType, Tlsa,
};

/// More addresses of one host than this are not looked at.
pub const MAX_ADDRESSES: usize = 16;
/// How long AAAA is waited for once A is there. RFC 8305 §3 has 50 ms, for a person who waits. Mail waits easily, and a server that
/// walks down from the root for both is often later than that with one of them.
const RESOLUTION_DELAY: Duration = Duration::from_millis(500);
/// More names of one address than this are not confirmed.
const MAX_POINTERS: usize = 4;
/// More text records of one name than this are not handed out.
const MAX_TEXTS: usize = 64;
/// More TLSA records of one service than this are not handed out.
const MAX_TLSA: usize = 32;

/// Answers the questions mail asks the DNS.
///
/// An implementation gives [`lookup`](Self::lookup) and [`prefer`](Self::prefer).
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The records of one type, aliases (CNAME) followed; never an empty answer.
    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError>;

    /// Which address family comes first in [`addresses`](Self::addresses).
    fn prefer(&self) -> AddressFamily;

    /// Forgets what it remembers of earlier answers, if it remembers any.
    fn forget(&self) {}

    /// The hosts that take mail for a domain, by its MX records or, without any, itself.
    async fn mail_hosts(&self, domain: &Domain) -> Result<MailHosts, DnsError> {
        let domain = HostName::try_from(domain)?;
        match self.lookup(&domain, RecordType::Mx).await {
            Ok(answer) => mail_hosts::sorted(domain, answer),
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
    /// One family that answers is enough; only if neither does is the failure of one a failure. Where there are IPv4 addresses, those
    /// of IPv6 are not waited for much longer.
    async fn addresses(&self, host: &HostName) -> Result<Answer<IpAddr>, DnsError> {
        let (v6, v4) = both_families(
            host,
            self.lookup(host, RecordType::Aaaa),
            self.lookup(host, RecordType::A),
        )
        .await;
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
            ttl: answer.ttl,
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
            ttl: answer.ttl,
        })
    }

    /// What certificates a host shows at a port of TCP (RFC 6698 §3). Only records that DNSSEC vouches for mean anything.
    async fn tlsa(&self, host: &HostName, port: u16) -> Result<Answer<Tlsa>, DnsError> {
        let answer = self.lookup(&host.service(port)?, RecordType::Tlsa).await?;
        let found = answer
            .records
            .into_iter()
            .filter_map(|record| match record {
                Record::Tlsa(tlsa) => Some(tlsa),
                _ => None,
            });
        Ok(Answer {
            records: found.take(MAX_TLSA).collect(),
            authenticated: answer.authenticated,
            ttl: answer.ttl,
        })
    }
}

/// RFC 8305 §3: some name servers never answer for AAAA, and A that is there goes on without it. Not the other way round: who has no way
/// into the IPv6 world needs A, however late.
async fn both_families(
    host: &HostName,
    v6: impl Future<Output = Result<Answer<Record>, DnsError>>,
    v4: impl Future<Output = Result<Answer<Record>, DnsError>>,
) -> (
    Result<Answer<Record>, DnsError>,
    Result<Answer<Record>, DnsError>,
) {
    let (mut v6, mut v4) = (pin!(v6), pin!(v4));
    let v4 = tokio::select! {
        biased;
        v6 = &mut v6 => return (v6, v4.await),
        v4 = &mut v4 => v4,
    };
    if v4.is_err() {
        return (v6.await, v4);
    }
    let late = |_| {
        Err(DnsError::Temporary {
            name: host.clone(),
            kind: RecordType::Aaaa,
            detail: "no answer in time".to_owned(),
        })
    };
    (timeout(RESOLUTION_DELAY, v6).await.unwrap_or_else(late), v4)
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
                ttl: None,
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

    /// How long each family takes to answer.
    struct Slow {
        v4: Duration,
        v6: Duration,
    }

    #[async_trait]
    impl Resolver for Slow {
        async fn lookup(&self, _: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError> {
            let (after, ip) = match kind {
                RecordType::A => (self.v4, "192.0.2.1"),
                _ => (self.v6, "2001:db8::1"),
            };
            tokio::time::sleep(after).await;
            Ok(Answer {
                records: vec![Record::Address(ip.parse().unwrap())],
                authenticated: true,
                ttl: None,
            })
        }

        fn prefer(&self) -> AddressFamily {
            AddressFamily::Ipv6
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rfc_8305_3_silence_on_aaaa_does_not_keep_a_from_being_used() {
        // In milliseconds: when each comes, how many addresses there are, and when.
        for (v4, v6, found, at) in [
            (20, 30, 2, 30),
            (20, 519, 2, 519),
            (20, 15_000, 1, 520),
            (30, 20, 2, 30),
            // Many hosts have no way into the IPv6 world.
            (15_000, 20, 2, 15_000),
        ] {
            let [v4, v6] = [v4, v6].map(Duration::from_millis);
            let since = tokio::time::Instant::now();
            let answer = Slow { v4, v6 }.addresses(&name("a.test")).await.unwrap();
            let took = since.elapsed().as_millis();
            assert_eq!((answer.records.len(), took), (found, at), "{v4:?} {v6:?}");
            assert!(answer.records.iter().any(IpAddr::is_ipv4));
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
}
