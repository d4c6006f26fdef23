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
    /// DELIVERBY (RFC 2852): least seconds, 0 for none.
    DeliverBy(u64),
    /// MT-PRIORITY (RFC 6710) with its profile, if named.
    MtPriority(Option<String>),
    /// XFORWARD (Postfix's) with the attributes that are taken, in upper case.
    XForward(Vec<String>),
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
            "XFORWARD" => Self::XForward(upper_case(arguments)),
            "FUTURERELEASE" => {
                let (interval, until) = arguments.split_once(' ').unwrap_or((arguments, ""));
                match decimal(interval) {
                    Some(interval) => Self::FutureRelease(interval, until.trim().to_owned()),
                    None => Self::Other(line.to_owned()),
                }
            }
            "DELIVERBY" => Self::DeliverBy(decimal(arguments).unwrap_or(0)),
            "MT-PRIORITY" => {
                Self::MtPriority((!arguments.is_empty()).then(|| arguments.to_owned()))
            }
            "HELP" => Self::Help,
            _ => Self::Other(line.to_owned()),
        }
    }
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
            Self::XForward(attributes) => write!(f, "XFORWARD {}", attributes.join(" ")),
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
            "XFORWARD NAME ADDR",
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
            "mx.example at your service\nsize 0\npipelining\nAUTH plain  LOGIN\nAUTH=PLAIN",
        );
        let capabilities = Capabilities::from_reply(&reply);
        assert_eq!(capabilities.size(), Some(None));
        assert!(capabilities.offers(&Extension::Pipelining));
        assert!(!capabilities.offers(&Extension::StartTls));
        assert_eq!(
            capabilities.mechanisms().collect::<Vec<_>>(),
            ["PLAIN", "LOGIN"]
        );
    }
}
