//! How outgoing connections are protected, as it is configured.

use std::fmt;
use std::str::FromStr;

use postroad_address::Domain;
use postroad_daemon::Interval;
use postroad_dns::HostName;
use serde::{Deserialize, Serialize};

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    /// In plain text.
    None,
    /// As the recipients' domain wishes by DANE (RFC 7672) or MTA-STS (RFC 8461). Of others: STARTTLS where it is offered, any
    /// certificate, plain text where it is not offered or fails (RFC 7435).
    #[default]
    #[serde(alias = "opportunistic")]
    May,
    /// The same, but without TLS mail waits.
    #[serde(alias = "required")]
    Encrypt,
    /// Mail waits unless the certificate is of a known authority and for a name that the configuration or the recipients'
    /// address gave.
    #[serde(alias = "verified")]
    Verify,
    /// Mail waits unless the DNS vouches for the certificate.
    Dane,
}

/// `example.org`, or `.example.org` for all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainPattern {
    /// In the form of the DNS.
    name: String,
    below: bool,
}

/// A text that names no domain.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no domain, such as \"example.org\", or \".example.org\" for all below it")]
pub struct NoDomain(String);

impl DomainPattern {
    /// How well it fits a domain in the form of the DNS: more is better, `None` not at all.
    pub fn fits(&self, domain: &str) -> Option<usize> {
        let rest = domain.strip_suffix(self.name.as_str())?;
        let fits = match self.below {
            true => rest.len() > 1 && rest.ends_with('.'),
            false => rest.is_empty(),
        };
        fits.then_some(self.name.len())
    }
}

impl FromStr for DomainPattern {
    type Err = NoDomain;

    fn from_str(text: &str) -> Result<Self, NoDomain> {
        let wrong = || NoDomain(text.to_owned());
        let below = text.starts_with('.');
        let bare = text.strip_prefix('.').unwrap_or(text);
        let domain = Domain::parse(bare).map_err(|_| wrong())?;
        let name = HostName::parse(domain.a_label()).map_err(|_| wrong())?;
        Ok(Self {
            name: name.to_string(),
            below,
        })
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "." } else { "" }, self.name)
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = NoDomain;

    fn try_from(text: String) -> Result<Self, NoDomain> {
        text.parse()
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}

/// `[mta.outbound.mta_sts]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StsConfig {
    /// Whether policies are looked for.
    pub enabled: bool,
    /// The port of the hosts that have them. Another than 443 is for rehearsals.
    pub port: u16,
    /// How long one may take to come.
    pub timeout: Interval,
    /// Policies that are kept; of more the oldest go.
    pub keep_most: usize,
}

impl Default for StsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 443,
            timeout: Interval::minutes(1),
            keep_most: 10_000,
        }
    }
}

/// `[mta.outbound.tls_reports]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportsConfig {
    /// Whether connections are counted, and whoever wants to hear of them is told the day after.
    pub enabled: bool,
    /// Reports go out at some time between the end of their day in UTC and so long after it.
    pub spread: Interval,
}

impl Default for ReportsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            spread: Interval::hours(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_before_are_understood() {
        for (word, policy) in [
            ("none", TlsPolicy::None),
            ("may", TlsPolicy::May),
            ("opportunistic", TlsPolicy::May),
            ("encrypt", TlsPolicy::Encrypt),
            ("required", TlsPolicy::Encrypt),
            ("verify", TlsPolicy::Verify),
            ("verified", TlsPolicy::Verify),
            ("dane", TlsPolicy::Dane),
        ] {
            let text = format!("\"{word}\"");
            assert_eq!(serde_json::from_str::<TlsPolicy>(&text).unwrap(), policy);
        }
        assert!(serde_json::from_str::<TlsPolicy>("\"always\"").is_err());
    }

    #[test]
    fn a_domain_fits_as_it_is_or_below_a_dot() {
        let fits = |pattern: &str, domain: &str| {
            let pattern: DomainPattern = pattern.parse().unwrap();
            pattern.fits(domain).is_some()
        };
        assert!(fits("Example.ORG", "example.org"));
        assert!(fits("b\u{fc}cher.example", "xn--bcher-kva.example"));
        assert!(!fits("example.org", "a.example.org"));
        assert!(fits(".example.org", "a.b.example.org"));
        assert!(!fits(".example.org", "example.org"));
        assert!(!fits(".example.org", "badexample.org"));
        for bad in ["", ".", "a b", "[192.0.2.1]", "..example.org"] {
            let error = bad.parse::<DomainPattern>().unwrap_err().to_string();
            assert!(error.contains("such as"), "{error}");
        }
    }
}
