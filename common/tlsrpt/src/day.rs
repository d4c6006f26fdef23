//! What is counted of one day in UTC, and the report of it (RFC 8460 §4).

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Domains that are counted in a day.
pub const MAX_DOMAINS: usize = 10_000;
/// Policies of one domain: a policy changes rarely.
const MAX_POLICIES: usize = 8;
/// Kinds of failures of one policy.
const MAX_FAILURES: usize = 32;
/// Mail hosts and lines of one policy.
const MAX_TEXTS: usize = 32;
/// Octets of a text that came from outside.
const MAX_TEXT: usize = 512;

/// One day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    domains: BTreeMap<String, Vec<Counted>>,
}

/// What was found for a domain under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    policy: PolicyText,
    successes: u64,
    failures: Vec<(Failure, u64)>,
}

/// By what a domain says how TLS should be (RFC 8460 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyKind {
    /// TLSA records.
    #[serde(rename = "tlsa")]
    Tlsa,
    /// MTA-STS.
    #[serde(rename = "sts")]
    Sts,
    /// It does not.
    #[serde(rename = "no-policy-found")]
    None,
}

/// A policy as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText {
    /// Of which kind.
    pub kind: PolicyKind,
    /// Its lines, or its records.
    pub lines: Vec<String>,
    /// The mail hosts it names.
    pub hosts: Vec<String>,
}

/// What went wrong, and with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A word of RFC 8460 §4.3, such as `certificate-expired`.
    pub kind: String,
    /// From where we connected.
    pub from: Option<IpAddr>,
    /// The host's name.
    pub host: Option<String>,
    /// Its address.
    pub to: Option<IpAddr>,
    /// For a person.
    pub detail: Option<String>,
}

/// Who reports.
#[derive(Clone, Debug)]
pub struct Submitter<'a> {
    /// The organisation: our domain.
    pub organisation: &'a str,
    /// Whom to ask.
    pub contact: &'a str,
}

impl Day {
    /// Counts one connection to a mail host of `domain`.
    pub fn count(&mut self, domain: &str, policy: &PolicyText, failure: Option<Failure>) {
        if !self.domains.contains_key(domain) && self.domains.len() >= MAX_DOMAINS {
            return;
        }
        let counted = self.domains.entry(domain.to_owned()).or_default();
        let policy = policy.bounded();
        let position = counted.iter().position(|one| one.policy == policy);
        let position = position.unwrap_or_else(|| {
            if counted.len() >= MAX_POLICIES {
                return counted.len();
            }
            counted.push(Counted {
                policy,
                successes: 0,
                failures: Vec::new(),
            });
            counted.len() - 1
        });
        if let Some(one) = counted.get_mut(position) {
            one.count(failure);
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The domains that were counted.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// Successes and failures of a domain.
    pub fn totals(&self, domain: &str) -> (u64, u64) {
        let counted = self.domains.get(domain).map_or(&[][..], Vec::as_slice);
        let successes = counted.iter().map(|one| one.successes).sum();
        (successes, counted.iter().map(Counted::failed).sum())
    }

    /// The report to a domain; none if nothing was counted of it.
    pub fn report(
        &self,
        domain: &str,
        date: Date,
        by: &Submitter<'_>,
        report_id: &str,
    ) -> Option<Value> {
        let policies: Vec<Value> = self
            .domains
            .get(domain)?
            .iter()
            .map(|one| one.report(domain))
            .collect();
        Some(json!({
            "organization-name": by.organisation,
            "date-range": {
                "start-datetime": format!("{date}T00:00:00Z"),
                "end-datetime": format!("{date}T23:59:59Z"),
            },
            "contact-info": by.contact,
            "report-id": report_id,
            "policies": policies,
        }))
    }
}

impl Counted {
    fn count(&mut self, failure: Option<Failure>) {
        let Some(failure) = failure.map(Failure::bounded) else {
            self.successes = self.successes.saturating_add(1);
            return;
        };
        let room = self.failures.len() < MAX_FAILURES;
        let known = self
            .failures
            .iter_mut()
            .find(|(known, _)| *known == failure);
        match known {
            Some((_, count)) => *count = count.saturating_add(1),
            None if room => self.failures.push((failure, 1)),
            None => {}
        }
    }

    fn failed(&self) -> u64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }

    fn report(&self, domain: &str) -> Value {
        let details: Vec<Value> = self
            .failures
            .iter()
            .map(|(failure, count)| failure.report(*count))
            .collect();
        let mut policy = json!({
            "policy-type": self.policy.kind,
            "policy-domain": domain,
        });
        if let Some(policy) = policy.as_object_mut() {
            for (key, texts) in [
                ("policy-string", &self.policy.lines),
                ("mx-host", &self.policy.hosts),
            ] {
                if !texts.is_empty() {
                    policy.insert(key.to_owned(), json!(texts));
                }
            }
        }
        json!({
            "policy": policy,
            "summary": {
                "total-successful-session-count": self.successes,
                "total-failure-session-count": self.failed(),
            },
            "failure-details": details,
        })
    }
}

impl PolicyText {
    fn bounded(&self) -> Self {
        let cut = |texts: &[String]| {
            let texts = texts.iter().take(MAX_TEXTS);
            texts.map(|text| shortened(text)).collect()
        };
        Self {
            kind: self.kind,
            lines: cut(&self.lines),
            hosts: cut(&self.hosts),
        }
    }
}

impl Failure {
    fn bounded(self) -> Self {
        let cut = |text: Option<String>| text.map(|text| shortened(&text));
        Self {
            host: cut(self.host),
            detail: cut(self.detail),
            ..self
        }
    }

    fn report(&self, count: u64) -> Value {
        let mut told = serde_json::Map::new();
        let mut tell = |key: &str, value: Option<String>| {
            told.extend(value.map(|value| (key.to_owned(), json!(value))));
        };
        tell("result-type", Some(self.kind.clone()));
        tell("sending-mta-ip", self.from.map(|ip| ip.to_string()));
        tell("receiving-mx-hostname", self.host.clone());
        tell("receiving-ip", self.to.map(|ip| ip.to_string()));
        tell("additional-information", None);
        tell("failure-reason-code", self.detail.clone());
        told.insert("failed-session-count".to_owned(), json!(count));
        Value::Object(told)
    }
}

fn shortened(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sts() -> PolicyText {
        PolicyText {
            kind: PolicyKind::Sts,
            lines: vec!["version: STSv1".to_owned(), "mode: testing".to_owned()],
            hosts: vec!["*.mail.a.test".to_owned()],
        }
    }

    fn expired() -> Failure {
        Failure {
            kind: "certificate-expired".to_owned(),
            from: Some("192.0.2.1".parse().unwrap()),
            host: Some("mx1.mail.a.test".to_owned()),
            to: Some("198.51.100.1".parse().unwrap()),
            detail: None,
        }
    }

    const BY: Submitter<'static> = Submitter {
        organisation: "ours.test",
        contact: "postmaster@ours.test",
    };

    #[test]
    fn a_day_is_told_as_the_rfc_has_it() {
        let mut day = Day::default();
        for failure in [None, Some(expired()), None, Some(expired())] {
            day.count("a.test", &sts(), failure);
        }
        assert_eq!(day.totals("a.test"), (2, 2));
        let date = jiff::civil::date(2026, 4, 1);
        let report = day.report("a.test", date, &BY, "1@ours.test").unwrap();
        assert_eq!(
            report,
            json!({
                "organization-name": "ours.test",
                "date-range": {
                    "start-datetime": "2026-04-01T00:00:00Z",
                    "end-datetime": "2026-04-01T23:59:59Z",
                },
                "contact-info": "postmaster@ours.test",
                "report-id": "1@ours.test",
                "policies": [{
                    "policy": {
                        "policy-type": "sts",
                        "policy-string": ["version: STSv1", "mode: testing"],
                        "policy-domain": "a.test",
                        "mx-host": ["*.mail.a.test"],
                    },
                    "summary": {
                        "total-successful-session-count": 2,
                        "total-failure-session-count": 2,
                    },
                    "failure-details": [{
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "192.0.2.1",
                        "receiving-mx-hostname": "mx1.mail.a.test",
                        "receiving-ip": "198.51.100.1",
                        "failed-session-count": 2,
                    }],
                }],
            })
        );
        assert_eq!(day.report("b.test", date, &BY, "2"), None);
        let kept = serde_json::to_string(&day).unwrap();
        assert_eq!(serde_json::from_str::<Day>(&kept).unwrap(), day);
    }

    #[test]
    fn what_strangers_can_make_grow_is_bounded() {
        let mut day = Day::default();
        for n in 0..1000 {
            let mut failure = expired();
            failure.detail = Some(format!("{n}{}", "é".repeat(1000)));
            let mut policy = sts();
            policy.lines = vec![format!("id: {n}"); 1000];
            day.count("a.test", &policy, Some(failure.clone()));
            day.count("a.test", &sts(), Some(failure));
        }
        let size = serde_json::to_string(&day).unwrap().len();
        assert!(size < 300_000, "{size}");
        for n in 0..MAX_DOMAINS + 5 {
            day.count(&format!("{n}.test"), &sts(), None);
        }
        assert_eq!(day.domains().count(), MAX_DOMAINS);
    }
}
