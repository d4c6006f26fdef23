//! The name of a host, as the DNS asks for it.

use std::fmt;
use std::net::IpAddr;

use postroad_address::Domain;

use crate::DnsError;

/// A fully qualified DNS name: lower-case ASCII labels, no trailing dot, never an IP address.
///
/// RFC 1035 §2.3.4 bounds it; RFC 2181 §11 allows any octet, but hosts of mail use letters, digits,
/// hyphens and (in practice, for TXT and misnamed hosts) underscores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a text is not a [`HostName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or only the root.
    #[error("the name is empty")]
    Empty,
    /// Over 253 octets in all, or 63 in a label.
    #[error("the name or one of its labels is too long")]
    TooLong,
    /// An address where a name belongs (RFC 5321 §5.1: an MX names a host).
    #[error("an IP address is not a host name")]
    Address,
    /// An empty label, or a character no host name has.
    #[error("the name has an empty label or a character that is not allowed")]
    Character,
}

impl HostName {
    /// Reads a name; one trailing dot is dropped, letters are lowered.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.parse::<IpAddr>().is_ok() || name.contains(':') {
            return Err(NameError::Address);
        }
        if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
            return Err(NameError::TooLong);
        }
        if !name.split('.').all(is_label) {
            return Err(NameError::Character);
        }
        // RFC 3696 §2: a top-level label is never all digits; "10.1" would be taken for an address.
        if name
            .rsplit('.')
            .next()
            .is_some_and(|tld| tld.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(NameError::Address);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    /// The name under which the pointer of an address is found (RFC 1035 §3.5, RFC 3596 §2.5).
    pub fn pointer(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self(format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
            }
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().rev().flat_map(|o| [o & 15, o >> 4]);
                let labels: String = nibbles.map(|n| format!("{n:x}.")).collect();
                Self(labels + "ip6.arpa")
            }
        }
    }

    /// The name under which what is known of its service at a port of TCP is found (RFC 6698 §3).
    pub fn service(&self, port: u16) -> Result<Self, DnsError> {
        self.below(&format!("_{port}._tcp"))
    }

    /// The name `labels` below this one, unless it is too long for a name.
    pub fn below(&self, labels: &str) -> Result<Self, DnsError> {
        let name = format!("{labels}.{self}");
        Self::parse(&name).map_err(|error| DnsError::NotAName {
            name,
            detail: error.to_string(),
        })
    }

    /// The name without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&Domain> for HostName {
    type Error = DnsError;

    /// Every domain but an address literal is a name.
    fn try_from(domain: &Domain) -> Result<Self, DnsError> {
        Self::parse(domain.a_label()).map_err(|error| DnsError::NotAName {
            name: domain.to_string(),
            detail: match domain.is_literal() {
                true => NameError::Address.to_string(),
                false => error.to_string(),
            },
        })
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_lose_the_dot() {
        assert_eq!(
            HostName::parse("MX1.Example.COM.").unwrap().as_str(),
            "mx1.example.com"
        );
        assert_eq!(
            HostName::parse("_dmarc.example.com").unwrap().as_str(),
            "_dmarc.example.com"
        );
    }

    #[test]
    fn what_is_not_a_host_name_is_refused() {
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("10.0.0.1", NameError::Address),
            ("10.0.0.1.", NameError::Address),
            ("10.1", NameError::Address),
            ("2001:db8::1", NameError::Address),
            ("a..b", NameError::Character),
            ("a b.test", NameError::Character),
            ("-a.test", NameError::Character),
            ("bücher.test", NameError::Character),
            (&"a".repeat(64), NameError::TooLong),
        ] {
            assert_eq!(HostName::parse(text), Err(error), "{text}");
        }
        assert!(
            HostName::parse(&"a.".repeat(127)).is_ok(),
            "253 octets and the dot"
        );
        assert_eq!(HostName::parse(&"ab.".repeat(90)), Err(NameError::TooLong));
    }

    #[test]
    fn pointers_are_reversed() {
        let v4 = HostName::pointer("192.0.2.7".parse().unwrap());
        assert_eq!(v4.as_str(), "7.2.0.192.in-addr.arpa");
        let v6 = HostName::pointer("2001:db8::1".parse().unwrap());
        assert_eq!(
            v6.as_str(),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
