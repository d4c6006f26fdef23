//! MX records sorted into mail hosts.

use std::collections::HashSet;

use crate::{Answer, DnsError, HostName, MailHosts, MxHost, Record, RecordType};

/// More mail hosts than this are not looked at; nobody needs them, an attacker might.
pub const MAX_MAIL_HOSTS: usize = 20;

/// What cannot be a host is dropped with a note.
pub(super) fn sorted(domain: HostName, answer: Answer<Record>) -> Result<MailHosts, DnsError> {
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
    // RFC 7505 §3: the one MX, whose target is the root. Beside MX records that name a host it means nothing.
    if !published.is_empty() && published.iter().all(|(_, exchange)| exchange == ".") {
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
    let mut seen = HashSet::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    fn mx(preference: u16, exchange: &str) -> Record {
        Record::MailExchanger {
            preference,
            exchange: exchange.to_owned(),
        }
    }

    fn of_a_test(records: Vec<Record>) -> Result<MailHosts, DnsError> {
        sorted(
            name("a.test"),
            Answer {
                records,
                authenticated: true,
                ttl: None,
            },
        )
    }

    #[test]
    fn mail_hosts_are_sorted_grouped_and_named_once() {
        let records = vec![
            mx(20, "b.test."),
            mx(10, "C.test."),
            mx(10, "a.test."),
            mx(30, "c.test."),
        ];
        let hosts = of_a_test(records).unwrap();
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
        let hosts = of_a_test(vec![
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
        let error = of_a_test(vec![mx(10, "192.0.2.1."), mx(20, "::1")]).unwrap_err();
        assert!(matches!(&error, DnsError::Malformed { .. }), "{error}");
        assert!(!error.is_temporary());
    }

    #[test]
    fn rfc_7505_null_mx_stands_alone() {
        assert_eq!(
            of_a_test(vec![mx(0, ".")]),
            Err(DnsError::NullMx {
                name: name("a.test")
            })
        );
        let null = DnsError::NullMx {
            name: name("a.test"),
        };
        assert_eq!(of_a_test(vec![mx(10, ".")]), Err(null.clone()));
        assert_eq!(of_a_test(vec![mx(0, "."), mx(5, ".")]), Err(null));
        let beside = of_a_test(vec![mx(0, "."), mx(5, "m.test.")]).unwrap();
        assert_eq!((beside.hosts.len(), beside.dropped.len()), (1, 1));
    }

    #[test]
    fn the_number_of_mail_hosts_is_bounded() {
        let records = (0..100)
            .rev()
            .map(|n| mx(n, &format!("h{n}.test.")))
            .collect();
        let hosts = of_a_test(records).unwrap();
        assert_eq!(hosts.hosts.len(), MAX_MAIL_HOSTS);
        assert_eq!(hosts.hosts[0].name, name("h0.test"));
        assert_eq!(hosts.dropped.len(), MAX_MAIL_HOSTS);
    }
}
