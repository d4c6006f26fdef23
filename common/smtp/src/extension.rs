use std::fmt;

use postroad_reply::Reply;

use crate::command::decimal;

/// One line of an EHLO reply (RFC 5321 §4.1.1.1), as we offer it and as hosts offer it to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// SIZE (RFC 1870); none: no fixed limit.
    Size(Option<u64>),
    /// 8BITMIME (RFC 6152).
    EightBitMime,
    /// BINARYMIME (RFC 3030).
    BinaryMime,
    /// CHUNKING (RFC 3030).
    Chunking,
    /// PIPELINING (RFC 2920).
    Pipelining,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    EnhancedStatusCodes,
    /// DSN (RFC 3461).
    Dsn,
    /// SMTPUTF8 (RFC 6531).
    SmtpUtf8,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// REQUIRETLS (RFC 8689).
    RequireTls,
    /// AUTH with its mechanisms in upper case (RFC 4954).
    Auth(Vec<String>),
    /// FUTURERELEASE (RFC 4865): longest interval in seconds, and the rest of the line.
    FutureRelease(u64, String),
    /// DELIVERBY (RFC 2852): least seconds, 0 for none; what else may stand there is for later documents.
    DeliverBy(u64),
    /// MT-PRIORITY (RFC 6710) with its profile, if named.
    MtPriority(Option<String>),
    /// LIMITS (RFC 9422): names and values, as they stand.
    Limits(Vec<(String, Option<u64>)>),
    /// XFORWARD (Postfix's) with the attributes that are taken, in upper case.
    XForward(Vec<String>),
    /// XCLIENT (Postfix's) likewise.
    XClient(Vec<String>),
    /// HELP.
    Help,
    /// A line we do not know, whole.
    Other(String),
}

impl Extension {
    /// Reads one line of a reply, tolerant as clients must be: what does not parse is [`Extension::Other`].
    pub fn parse(line: &str) -> Self {
        let (keyword, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let arguments = arguments.trim();
        match keyword.to_ascii_uppercase().as_str() {
            // RFC 1870 §4: 0 means no fixed limit.
            "SIZE" => Self::Size(decimal(arguments).filter(|&size| size > 0)),
            "8BITMIME" => Self::EightBitMime,
            "BINARYMIME" => Self::BinaryMime,
            "CHUNKING" => Self::Chunking,
            "PIPELINING" => Self::Pipelining,
            "ENHANCEDSTATUSCODES" => Self::EnhancedStatusCodes,
            "DSN" => Self::Dsn,
            "SMTPUTF8" => Self::SmtpUtf8,
            "STARTTLS" => Self::StartTls,
            "REQUIRETLS" => Self::RequireTls,
            "AUTH" => Self::Auth(upper_case(arguments)),
            "LIMITS" => Self::Limits(limits(arguments)),
            "XFORWARD" => Self::XForward(upper_case(arguments)),
            "XCLIENT" => Self::XClient(upper_case(arguments)),
            "FUTURERELEASE" => {
                let (interval, until) = arguments.split_once(' ').unwrap_or((arguments, ""));
                match decimal(interval) {
                    Some(interval) => Self::FutureRelease(interval, until.trim().to_owned()),
                    None => Self::Other(line.to_owned()),
                }
            }
            "DELIVERBY" => Self::DeliverBy(least_time(arguments)),
            "MT-PRIORITY" => {
                Self::MtPriority((!arguments.is_empty()).then(|| arguments.to_owned()))
            }
            "HELP" => Self::Help,
            _ => Self::Other(line.to_owned()),
        }
    }
}

/// RFC 9422 §4: what has no value, or none that is a number, is none of the limits we know; what has no name is none at all.
fn limits(arguments: &str) -> Vec<(String, Option<u64>)> {
    let words = arguments.split_ascii_whitespace();
    let limit = |word: &str| match word.split_once('=') {
        Some((name, value)) => (name.to_ascii_uppercase(), decimal(value)),
        None => (word.to_ascii_uppercase(), None),
    };
    let has_name = |(name, _): &(String, _)| {
        !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic())
    };
    words.map(limit).filter(has_name).collect()
}

/// RFC 2852 §2 (3): the first of a list; anything else says nothing of a least time.
fn least_time(arguments: &str) -> u64 {
    let first = arguments.split(',').next().unwrap_or_default();
    decimal(first.trim()).unwrap_or(0)
}

fn upper_case(words: &str) -> Vec<String> {
    let words = words.split_ascii_whitespace();
    words.map(str::to_ascii_uppercase).collect()
}

/// The line as it stands in the reply.
impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(None) => f.write_str("SIZE"),
            Self::Size(Some(size)) => write!(f, "SIZE {size}"),
            Self::EightBitMime => f.write_str("8BITMIME"),
            Self::BinaryMime => f.write_str("BINARYMIME"),
            Self::Chunking => f.write_str("CHUNKING"),
            Self::Pipelining => f.write_str("PIPELINING"),
            Self::EnhancedStatusCodes => f.write_str("ENHANCEDSTATUSCODES"),
            Self::Dsn => f.write_str("DSN"),
            Self::SmtpUtf8 => f.write_str("SMTPUTF8"),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::RequireTls => f.write_str("REQUIRETLS"),
            Self::Auth(mechanisms) => write!(f, "AUTH {}", mechanisms.join(" ")),
            Self::FutureRelease(interval, until) => {
                write!(
                    f,
                    "{}",
                    format!("FUTURERELEASE {interval} {until}").trim_end()
                )
            }
            Self::DeliverBy(0) => f.write_str("DELIVERBY"),
            Self::DeliverBy(least) => write!(f, "DELIVERBY {least}"),
            Self::MtPriority(None) => f.write_str("MT-PRIORITY"),
            Self::MtPriority(Some(profile)) => write!(f, "MT-PRIORITY {profile}"),
            Self::Limits(limits) => {
                f.write_str("LIMITS")?;
                for (name, value) in limits {
                    match value {
                        Some(value) => write!(f, " {name}={value}")?,
                        None => write!(f, " {name}")?,
                    }
                }
                Ok(())
            }
            Self::XForward(attributes) => write!(f, "XFORWARD {}", attributes.join(" ")),
            Self::XClient(attributes) => write!(f, "XCLIENT {}", attributes.join(" ")),
            Self::Help => f.write_str("HELP"),
            Self::Other(line) => f.write_str(line),
        }
    }
}

/// What a host offered in its reply to EHLO or LHLO; empty after HELO.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    extensions: Vec<Extension>,
}

impl Capabilities {
    /// Reads a reply to EHLO: every line but the first, which is the host's name.
    pub fn from_reply(reply: &Reply) -> Self {
        let extensions = reply.text().split('\n').skip(1).map(Extension::parse);
        Self {
            extensions: extensions.collect(),
        }
    }

    /// Whether exactly this was offered; for extensions without arguments.
    pub fn offers(&self, extension: &Extension) -> bool {
        self.extensions.contains(extension)
    }

    /// The SIZE limit: not offered, offered without a limit, or so many octets.
    pub fn size(&self) -> Option<Option<u64>> {
        self.extensions
            .iter()
            .find_map(|extension| match extension {
                Extension::Size(limit) => Some(*limit),
                _ => None,
            })
    }

    /// The mechanisms of AUTH.
    pub fn mechanisms(&self) -> impl Iterator<Item = &str> {
        self.extensions
            .iter()
            .flat_map(|extension| match extension {
                Extension::Auth(mechanisms) => mechanisms.as_slice(),
                _ => &[],
            })
            .map(String::as_str)
    }

    /// A limit that the host told (RFC 9422), by its name in upper case; none: it told none, or none that is a number.
    pub fn limit(&self, name: &str) -> Option<u64> {
        let limits = self
            .extensions
            .iter()
            .filter_map(|extension| match extension {
                Extension::Limits(limits) => Some(limits),
                _ => None,
            });
        limits
            .flatten()
            .find_map(|(known, value)| value.filter(|_| known == name))
    }

    /// Whether MT-PRIORITY (RFC 6710) was offered, whatever profile was named.
    pub fn takes_priority(&self) -> bool {
        let offered = |extension: &Extension| matches!(extension, Extension::MtPriority(_));
        self.extensions.iter().any(offered)
    }

    /// The least seconds by which mail is taken that is to be returned otherwise, 0 for any; none: DELIVERBY (RFC 2852) was not offered.
    pub fn deliver_by(&self) -> Option<u64> {
        let mut extensions = self.extensions.iter();
        extensions.find_map(|extension| match extension {
            Extension::DeliverBy(least) => Some(*least),
            _ => None,
        })
    }

    /// All lines.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }
}

#[cfg(test)]
mod tests {
    use postroad_reply::OK_250;

    use super::*;

    #[test]
    fn what_we_offer_is_what_a_client_reads() {
        let lines = [
            "SIZE 1000",
            "SIZE",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "SMTPUTF8",
            "STARTTLS",
            "REQUIRETLS",
            "AUTH PLAIN LOGIN",
            "FUTURERELEASE 86400 2030-01-01T00:00:00Z",
            "DELIVERBY 120",
            "DELIVERBY",
            "MT-PRIORITY MIXER",
            "MT-PRIORITY",
            "LIMITS RCPTMAX=100 MAILMAX=5",
            "XFORWARD NAME ADDR",
            "XCLIENT NAME ADDR",
            "HELP",
            "X-ELSE a b",
        ];
        for line in lines {
            let extension = Extension::parse(line);
            assert_eq!(extension.to_string(), line);
            assert_eq!(
                matches!(extension, Extension::Other(_)),
                line.starts_with("X-")
            );
        }
    }

    #[test]
    fn capabilities_of_a_real_reply() {
        let reply = Reply::plain(
            OK_250,
            "mx.example at your service\nsize 0\npipelining\nAUTH plain  LOGIN\nAUTH=PLAIN\n\
             LIMITS rcptmax=7 MAILMAX\nMT-PRIORITY MIXER",
        );
        let capabilities = Capabilities::from_reply(&reply);
        assert_eq!(capabilities.size(), Some(None));
        assert!(capabilities.offers(&Extension::Pipelining));
        assert!(!capabilities.offers(&Extension::StartTls));
        assert_eq!(capabilities.limit("RCPTMAX"), Some(7));
        assert_eq!(capabilities.limit("MAILMAX"), None);
        assert!(capabilities.takes_priority());
        assert_eq!(
            capabilities.mechanisms().collect::<Vec<_>>(),
            ["PLAIN", "LOGIN"]
        );
    }

    #[test]
    fn the_least_time_is_the_first_of_a_list() {
        for (line, least) in [
            ("DELIVERBY", 0),
            ("deliverby 240", 240),
            ("DELIVERBY 30,LATER", 30),
            ("DELIVERBY ,LATER", 0),
            ("DELIVERBY soon", 0),
        ] {
            let reply = Reply::plain(OK_250, format!("mx.example\n{line}"));
            let capabilities = Capabilities::from_reply(&reply);
            assert_eq!(capabilities.deliver_by(), Some(least), "{line}");
        }
        let reply = Reply::plain(OK_250, "mx.example\nDSN");
        assert_eq!(Capabilities::from_reply(&reply).deliver_by(), None);
    }

    #[test]
    fn a_limit_without_a_name_is_none() {
        for (line, read) in [("LIMITS A =1", "LIMITS A"), ("LIMITS B a\x0b=", "LIMITS B")] {
            assert_eq!(Extension::parse(line).to_string(), read);
        }
    }
}
