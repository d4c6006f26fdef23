//! The policy at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 §3.2).

use std::fmt;

/// Octets of a policy; more is none (RFC 8461 §3.3 leaves the limit to us and proposes this one).
pub const MAX_POLICY: usize = 64 << 10;
/// RFC 8461 §3.2: a year and a quarter of a day.
const MAX_AGE: u64 = 31_557_600;
/// Patterns that are looked at; nobody needs them all, an attacker might.
const MAX_PATTERNS: usize = 100;

/// What becomes of mail that cannot be sent as the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It waits.
    Enforce,
    /// It is sent, and told of in reports (RFC 8460).
    Testing,
    /// There is no policy any more.
    None,
}

/// A policy that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How strict.
    pub mode: Mode,
    /// Seconds that it may be remembered.
    pub max_age: u64,
    /// Names of mail hosts, in lower case; `*.` stands for one label.
    pub mx: Vec<String>,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPolicy {
    /// It is too long, or not text.
    #[error("it is over 64 KiB, or not UTF-8")]
    NoText,
    /// A line has no colon.
    #[error("line {0} is not `key: value`")]
    Line(usize),
    /// A field that must be there is missing or wrong.
    #[error("{0} is missing or wrong")]
    Field(&'static str),
}

impl Policy {
    /// Reads a policy as it was fetched.
    pub fn parse(octets: &[u8]) -> Result<Self, NoPolicy> {
        if octets.len() > MAX_POLICY {
            return Err(NoPolicy::NoText);
        }
        let text = std::str::from_utf8(octets).map_err(|_| NoPolicy::NoText)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(NoPolicy::Line(number))?;
            let value = value.trim();
            // Of a field that stands twice the first counts; what is unknown means nothing.
            match key.trim() {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if mx.len() < MAX_PATTERNS => mx.push(pattern(value)?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(NoPolicy::Field("version"));
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(NoPolicy::Field("mode")),
        };
        let digits = max_age.filter(|text| text.len() <= 10);
        let max_age = digits.and_then(|text| text.parse::<u64>().ok());
        let max_age = max_age.ok_or(NoPolicy::Field("max_age"))?;
        if mx.is_empty() && mode != Mode::None {
            return Err(NoPolicy::Field("mx"));
        }
        Ok(Self {
            mode,
            max_age: max_age.min(MAX_AGE),
            mx,
        })
    }

    /// Whether it names this mail host (RFC 8461 §4.1).
    pub fn names(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.mx.iter().any(|pattern| {
            match pattern.strip_prefix("*.") {
                // The star stands for exactly one label, the left-most.
                Some(below) => host.split_once('.').is_some_and(|(_, rest)| rest == below),
                None => *pattern == host,
            }
        })
    }
}

/// As it would be published, without what we do not know.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: STSv1\nmode: {}", self.mode)?;
        self.mx.iter().try_for_each(|mx| writeln!(f, "mx: {mx}"))?;
        writeln!(f, "max_age: {}", self.max_age)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        })
    }
}

fn pattern(text: &str) -> Result<String, NoPolicy> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match labels.len() <= 253 && labels.split('.').all(label) {
        true => Ok(name),
        false => Err(NoPolicy::Field("mx")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.Example.NET\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";

    #[test]
    fn the_sample_of_the_rfc_is_read() {
        let policy = Policy::parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
        for host in [
            "mail.example.com",
            "MAIL.example.com.",
            "a.example.net",
            "backupmx.example.com",
        ] {
            assert!(policy.names(host), "{host}");
        }
        for host in [
            "example.net",
            "a.b.example.net",
            "xmail.example.com",
            "mail.example.com.evil.test",
            "*.example.net.",
            "",
        ] {
            assert!(!policy.names(host) || host.starts_with('*'), "{host}");
        }
        assert_eq!(Policy::parse(policy.to_string().as_bytes()), Ok(policy));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let lines = |text: &str| Policy::parse(text.as_bytes());
        for (text, told) in [
            ("", "version"),
            ("version: STSv2\nmode: none\nmax_age: 1\n", "version"),
            ("mode: none\nmax_age: 1\n", "version"),
            (
                "version: STSv1\nmode: strict\nmx: a.test\nmax_age: 1\n",
                "mode",
            ),
            ("version: STSv1\nmode: enforce\nmax_age: 1\n", "mx"),
            (
                "version: STSv1\nmode: enforce\nmx: a..test\nmax_age: 1\n",
                "mx",
            ),
            (
                "version: STSv1\nmode: enforce\nmx: a.*.test\nmax_age: 1\n",
                "mx",
            ),
            ("version: STSv1\nmode: enforce\nmx: a.test\n", "max_age"),
            (
                "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -1\n",
                "max_age",
            ),
            (
                "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 99999999999\n",
                "max_age",
            ),
            ("version: STSv1\n<html>\n", "line 2"),
        ] {
            let error = lines(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text:?}: {error}");
        }
        let none = lines("version: STSv1\nmode: none\nmax_age: 9999999999\n").unwrap();
        assert_eq!((none.mode, none.max_age), (Mode::None, MAX_AGE));
        let twice =
            lines("version: STSv1\nmode: testing\nmode: none\nmx: a.test\nmax_age: 1\nnew: x\n");
        assert_eq!(twice.unwrap().mode, Mode::Testing);
        assert_eq!(
            Policy::parse(&vec![b'a'; MAX_POLICY + 1]),
            Err(NoPolicy::NoText)
        );
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets: Vec<u8>) {
            if let Ok(policy) = Policy::parse(&octets) {
                prop_assert!(policy.max_age <= MAX_AGE);
            }
        }

        #[test]
        fn what_is_read_is_read_again(lines in proptest::collection::vec("(version: STSv1|mode: (enforce|testing|none)|mx: [*a-c.]{1,9}|max_age: [0-9]{1,9}|[a-c: ]{0,9})", 0..9)) {
            if let Ok(policy) = Policy::parse(lines.join("\n").as_bytes()) {
                prop_assert_eq!(Policy::parse(policy.to_string().as_bytes()), Ok(policy));
            }
        }
    }
}
