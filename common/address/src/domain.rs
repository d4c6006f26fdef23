use std::{fmt, hash, net::IpAddr, str::FromStr};

use crate::{AddressError, MAX_DOMAIN};

/// A domain name or address literal (RFC 5321 §4.1.2 and §4.1.3).
///
/// Keeps the text it was given for display; compares and hashes by its lower-case A-label form, so
/// `BÜCHER.example` and `xn--bcher-kva.example` are the same domain.
#[derive(Debug, Clone)]
pub struct Domain {
    text: String,
    a_label: String,
    literal: Option<IpAddr>,
}

impl Domain {
    /// Parses a name (`example.com`, U-labels allowed) or a literal (`[192.0.2.1]`, `[IPv6:2001:db8::1]`).
    ///
    /// A trailing dot is refused as SMTP has none.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_DOMAIN {
            return Err(AddressError::TooLong("domain"));
        }
        if let Some(inner) = text.strip_prefix('[') {
            return Self::parse_literal(text, inner.strip_suffix(']'));
        }
        let a_label = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| AddressError::Domain)?
        };
        if !is_host_name(&a_label) {
            return Err(AddressError::Domain);
        }
        Ok(Self {
            text: text.to_owned(),
            a_label,
            literal: None,
        })
    }

    fn parse_literal(text: &str, inner: Option<&str>) -> Result<Self, AddressError> {
        let inner = inner.ok_or(AddressError::Literal)?;
        // RFC 5321 §4.1.3: IPv6 literals carry a tag, IPv4 literals none.
        let tagged = inner
            .get(..5)
            .is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let ip: IpAddr = match inner.get(5..) {
            Some(v6) if tagged => IpAddr::V6(v6.parse().map_err(|_| AddressError::Literal)?),
            _ => IpAddr::V4(inner.parse().map_err(|_| AddressError::Literal)?),
        };
        Ok(Self::from_literal_text(text.to_owned(), ip))
    }

    /// The literal of an address: `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn from_ip(ip: IpAddr) -> Self {
        Self::from_literal_text(literal_text(ip), ip)
    }

    fn from_literal_text(text: String, ip: IpAddr) -> Self {
        Self {
            text,
            a_label: literal_text(ip).to_ascii_lowercase(),
            literal: Some(ip),
        }
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The lower-case ASCII form (RFC 5890 A-labels), or the canonical literal in brackets.
    pub fn a_label(&self) -> &str {
        &self.a_label
    }

    /// The address, if this is an address literal.
    pub fn literal(&self) -> Option<IpAddr> {
        self.literal
    }

    /// Whether this is an address literal.
    pub fn is_literal(&self) -> bool {
        self.literal.is_some()
    }
}

fn literal_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// Letters, digits, hyphens (RFC 1123 §2.1) and underscores, which real host names have.
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
        // A name whose last label is all digits would read as an IPv4 address.
        && name.rsplit('.').next().is_some_and(|top| !top.bytes().all(|b| b.is_ascii_digit()))
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.a_label == other.a_label
    }
}

impl Eq for Domain {}

impl hash::Hash for Domain {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.a_label.hash(state);
    }
}

impl PartialOrd for Domain {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Domain {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.a_label.cmp(&other.a_label)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_by_a_label() {
        assert_eq!(
            Domain::parse("BÜCHER.example"),
            Domain::parse("xn--bcher-kva.EXAMPLE")
        );
        assert_eq!(
            Domain::parse("Example.COM").unwrap().as_str(),
            "Example.COM"
        );
        assert_eq!(
            Domain::parse("Example.COM").unwrap().a_label(),
            "example.com"
        );
    }

    #[test]
    fn literals_are_tagged_as_rfc_5321_4_1_3_says() {
        assert_eq!(
            Domain::parse("[IPv6:2001:db8::1]").unwrap().literal(),
            Some("2001:db8::1".parse().unwrap())
        );
        assert_eq!(
            Domain::parse("[192.0.2.1]").unwrap().to_string(),
            "[192.0.2.1]"
        );
        assert_eq!(Domain::parse("[2001:db8::1]"), Err(AddressError::Literal));
        assert_eq!(Domain::parse("[192.0.2.1"), Err(AddressError::Literal));
    }

    #[test]
    fn refuses_what_is_no_host_name() {
        for bad in [
            "a..b",
            ".a",
            "a.",
            "-a.b",
            "a b",
            "192.0.2.1",
            "a/b",
            "a\0",
            "a\u{7f}.b",
            "b\u{202e}.x",
        ] {
            assert_eq!(Domain::parse(bad), Err(AddressError::Domain), "{bad:?}");
        }
        assert_eq!(
            Domain::parse(&"a".repeat(256)),
            Err(AddressError::TooLong("domain"))
        );
    }
}
