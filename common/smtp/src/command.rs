use std::fmt;

use bytes::BytesMut;
use postroad_address::{ForwardPath, ReversePath};

use crate::{
    CommandError, MAX_AUTH_LINE, MAX_COMMAND_LINE, MailParams, RcptParams, XClient, XForward,
};

/// A command with its arguments (RFC 5321 §4.1, RFC 2033, 3030, 3207, 4954).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO (§4.1.1.1).
    Ehlo(HeloName),
    /// HELO (§4.1.1.1).
    Helo(HeloName),
    /// LHLO (RFC 2033 §4.1).
    Lhlo(HeloName),
    /// MAIL (§4.1.1.2).
    Mail {
        /// FROM.
        reverse_path: ReversePath,
        /// What follows it.
        params: MailParams,
    },
    /// RCPT (§4.1.1.3).
    Rcpt {
        /// TO.
        forward_path: ForwardPath,
        /// What follows it.
        params: RcptParams,
    },
    /// DATA (§4.1.1.4).
    Data,
    /// BDAT (RFC 3030 §2): so many octets follow the line.
    Bdat {
        /// How many.
        size: u64,
        /// LAST: they end the content.
        last: bool,
    },
    /// AUTH (RFC 4954 §4).
    Auth {
        /// The mechanism's name in upper case.
        mechanism: String,
        /// The initial response, still in base64; `=` stands for an empty one.
        initial_response: Option<String>,
    },
    /// STARTTLS (RFC 3207).
    StartTls,
    /// XFORWARD (Postfix's): who the client of the client is.
    XForward(XForward),
    /// XCLIENT (Postfix's): for whom a proxy speaks from now on.
    XClient(XClient),
    /// RSET (§4.1.1.5).
    Rset,
    /// VRFY (§4.1.1.6), with what it asks for.
    Vrfy(String),
    /// EXPN (§4.1.1.7), with what it asks for.
    Expn(String),
    /// HELP (§4.1.1.8), with its topic if it has one.
    Help(Option<String>),
    /// ETRN (RFC 1985), which a server may have and we do not.
    Etrn,
    /// NOOP (§4.1.1.9).
    Noop,
    /// QUIT (§4.1.1.10).
    Quit,
}

/// What a client calls itself in EHLO, HELO or LHLO: printable, without blanks, at most 255 octets.
///
/// RFC 5321 §4.1.1.1 wants a domain or address literal; real clients send bare addresses and names with
/// characters no domain has, and nothing may depend on it (§4.1.4), so the form is not enforced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeloName(String);

impl HeloName {
    /// Takes a name a client gave, or ours.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=255).contains(&text.len())
            && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Command {
    /// Parses a line without its CRLF.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let text = str::from_utf8(line).map_err(|_| CommandError::Unprintable)?;
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(CommandError::Unprintable);
        }
        // RFC 5321 §4.1.1: trailing white space is tolerated.
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, arguments) = text.split_once(' ').unwrap_or((text, ""));
        let arguments = arguments.trim_start_matches(' ');
        let verb = verb.to_ascii_uppercase();
        if line.len() + 2 > longest(&verb) {
            return Err(CommandError::TooLong);
        }
        match verb.as_str() {
            "EHLO" => helo(arguments, "EHLO domain").map(Self::Ehlo),
            "HELO" => helo(arguments, "HELO domain").map(Self::Helo),
            "LHLO" => helo(arguments, "LHLO domain").map(Self::Lhlo),
            "MAIL" => mail(arguments),
            "RCPT" => rcpt(arguments),
            "DATA" => alone(arguments, "DATA", Self::Data),
            "BDAT" => bdat(arguments),
            "AUTH" => auth(arguments),
            "STARTTLS" => alone(arguments, "STARTTLS", Self::StartTls),
            "XFORWARD" => XForward::parse(arguments).map(Self::XForward),
            "XCLIENT" => XClient::parse(arguments).map(Self::XClient),
            "RSET" => alone(arguments, "RSET", Self::Rset),
            "QUIT" => alone(arguments, "QUIT", Self::Quit),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help(topic(arguments))),
            "VRFY" => topic(arguments)
                .map(Self::Vrfy)
                .ok_or(CommandError::Arguments("VRFY name")),
            "EXPN" => topic(arguments)
                .map(Self::Expn)
                .ok_or(CommandError::Arguments("EXPN list")),
            "ETRN" if !arguments.is_empty() => Ok(Self::Etrn),
            "ETRN" => Err(CommandError::Arguments("ETRN domain")),
            // RFC 5321 Appendix F.2 and F.6: known, and not to be had.
            "TURN" | "ATRN" | "SEND" | "SOML" | "SAML" => Err(CommandError::NotImplemented),
            _ => Err(CommandError::Unknown),
        }
    }

    /// Appends the line with its CRLF.
    pub fn write_to(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// RFC 5321 §4.5.3.1.4 and what each extension allows on top.
fn longest(verb: &str) -> usize {
    match verb {
        // SIZE 26, 8BITMIME 17, AUTH 500, DSN 107, SMTPUTF8 10, DELIVERBY 17, FUTURERELEASE 34,
        // MT-PRIORITY 15, REQUIRETLS 11.
        "MAIL" => MAX_COMMAND_LINE + 26 + 17 + 500 + 107 + 10 + 17 + 34 + 15 + 11,
        // DSN, RFC 3461 §5.
        "RCPT" => MAX_COMMAND_LINE + 500,
        "AUTH" => MAX_AUTH_LINE,
        _ => MAX_COMMAND_LINE,
    }
}

fn alone(arguments: &str, usage: &'static str, command: Command) -> Result<Command, CommandError> {
    if arguments.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Arguments(usage))
    }
}

fn topic(arguments: &str) -> Option<String> {
    (!arguments.is_empty()).then(|| arguments.to_owned())
}

fn helo(arguments: &str, usage: &'static str) -> Result<HeloName, CommandError> {
    HeloName::parse(arguments).ok_or(CommandError::Arguments(usage))
}

fn mail(arguments: &str) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Arguments("MAIL FROM:<address> [parameters]");
    let (path, params) = path(arguments, "FROM:").ok_or(USAGE)?;
    Ok(Command::Mail {
        reverse_path: ReversePath::parse(path).map_err(CommandError::Sender)?,
        params: MailParams::parse(params)?,
    })
}

fn rcpt(arguments: &str) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Arguments("RCPT TO:<address> [parameters]");
    let (path, params) = path(arguments, "TO:").ok_or(USAGE)?;
    Ok(Command::Rcpt {
        forward_path: ForwardPath::parse(path).map_err(CommandError::Recipient)?,
        params: RcptParams::parse(params)?,
    })
}

/// Splits `FROM:<path> parameters`. A blank after the colon is no grammar but common, and harmless.
fn path<'a>(arguments: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = arguments.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest.trim_start_matches(' ').strip_prefix('<')?;
    let (path, params) = rest.split_at_checked(end_of_path(rest)?)?;
    let params = params.strip_prefix('>')?;
    (params.is_empty() || params.starts_with(' ')).then_some((path, params))
}

/// Where the first `>` outside a quoted string stands.
fn end_of_path(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn bdat(arguments: &str) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Arguments("BDAT size [LAST]");
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let size = words.next().and_then(decimal).ok_or(USAGE)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(USAGE),
    };
    match words.next() {
        None => Ok(Command::Bdat { size, last }),
        Some(_) => Err(USAGE),
    }
}

fn auth(arguments: &str) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Arguments("AUTH mechanism [initial-response]");
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or(USAGE)?.to_ascii_uppercase();
    let initial_response = words.next().map(str::to_owned);
    // RFC 4422 §3.1.
    let named = mechanism.len() <= 20
        && mechanism
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !named || words.next().is_some() {
        return Err(USAGE);
    }
    Ok(Command::Auth {
        mechanism,
        initial_response,
    })
}

/// At most 20 digits and nothing else, so no sign.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The line without CRLF. AUTH prints its initial response, so this is for the wire, not for logs.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ehlo(name) => write!(f, "EHLO {name}"),
            Self::Helo(name) => write!(f, "HELO {name}"),
            Self::Lhlo(name) => write!(f, "LHLO {name}"),
            Self::Mail {
                reverse_path,
                params,
            } => write!(f, "MAIL FROM:<{reverse_path}>{params}"),
            Self::Rcpt {
                forward_path,
                params,
            } => write!(f, "RCPT TO:<{forward_path}>{params}"),
            Self::Data => f.write_str("DATA"),
            Self::Bdat { size, last } => {
                write!(f, "BDAT {size}{}", if *last { " LAST" } else { "" })
            }
            Self::Auth {
                mechanism,
                initial_response: None,
            } => write!(f, "AUTH {mechanism}"),
            Self::Auth {
                mechanism,
                initial_response: Some(response),
            } => write!(f, "AUTH {mechanism} {response}"),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::XForward(told) => write!(f, "XFORWARD{told}"),
            Self::XClient(told) => write!(f, "XCLIENT{told}"),
            Self::Rset => f.write_str("RSET"),
            Self::Vrfy(name) => write!(f, "VRFY {name}"),
            Self::Expn(name) => write!(f, "EXPN {name}"),
            Self::Help(None) => f.write_str("HELP"),
            Self::Help(Some(topic)) => write!(f, "HELP {topic}"),
            // Without its argument, since we never ask.
            Self::Etrn => f.write_str("ETRN ?"),
            Self::Noop => f.write_str("NOOP"),
            Self::Quit => f.write_str("QUIT"),
        }
    }
}

#[cfg(test)]
mod tests;
