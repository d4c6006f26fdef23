//! XFORWARD: a mail system in front of us tells who its own client is.
//!
//! The command is Postfix's (its XFORWARD_README; there is no RFC), and other mail systems and filters speak it too.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::{
    CommandError, HeloName, decode_xtext, encode_xtext,
    parameter::{set, split, words},
};

const USAGE: CommandError = CommandError::Arguments(
    "XFORWARD attribute=value ..., of NAME ADDR PORT PROTO HELO IDENT SOURCE",
);
const UNAVAILABLE: &str = "[UNAVAILABLE]";
/// Octets of a value, once decoded.
const LONGEST: usize = 255;
/// Octets of the name of a protocol.
const LONGEST_PROTOCOL: usize = 64;

/// One XFORWARD command. Absent attributes are not named in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XForward {
    /// NAME: the client's name by DNS, as the neighbour found it.
    pub name: Option<Told<String>>,
    /// ADDR: the client's address.
    pub addr: Option<Told<IpAddr>>,
    /// PORT: the client's port.
    pub port: Option<Told<u16>>,
    /// PROTO: by what protocol the neighbour received the mail.
    pub proto: Option<Told<String>>,
    /// HELO: what the client called itself.
    pub helo: Option<Told<HeloName>>,
    /// IDENT: the mail's id at the neighbour.
    pub ident: Option<Told<String>>,
    /// SOURCE: whether the neighbour itself is where the mail began.
    pub source: Option<Told<ForwardSource>>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<T> {
    /// This.
    Value(T),
    /// `[UNAVAILABLE]`: the neighbour does not know it either.
    Unavailable,
}

/// SOURCE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardSource {
    /// The neighbour's own host, or one it counts as such.
    Local,
    /// Anybody else.
    Remote,
}

/// All that was told of one client: several commands add up. What was not told is not known, and never what is known
/// of the neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// The client's name by DNS.
    pub name: Option<String>,
    /// Its address.
    pub addr: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// By what protocol the neighbour received the mail.
    pub proto: Option<String>,
    /// What the client called itself.
    pub helo: Option<HeloName>,
    /// The mail's id at the neighbour.
    pub ident: Option<String>,
    /// Where the mail began.
    pub source: Option<ForwardSource>,
}

impl Forwarded {
    /// Adds what another command tells; of an attribute told twice the last counts.
    pub fn add(&mut self, told: XForward) {
        learn(&mut self.name, told.name);
        learn(&mut self.addr, told.addr);
        learn(&mut self.port, told.port);
        learn(&mut self.proto, told.proto);
        learn(&mut self.helo, told.helo);
        learn(&mut self.ident, told.ident);
        learn(&mut self.source, told.source);
    }
}

fn learn<T>(known: &mut Option<T>, told: Option<Told<T>>) {
    match told {
        Some(Told::Value(value)) => *known = Some(value),
        Some(Told::Unavailable) => *known = None,
        None => {}
    }
}

impl XForward {
    /// The attributes we take, in the order of the reply to EHLO.
    pub const ATTRIBUTES: [&'static str; 7] =
        ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

    pub(crate) fn parse(text: &str) -> Result<Self, CommandError> {
        let mut told = Self::default();
        for word in words(text) {
            let (attribute, value) = split(word).map_err(|_| USAGE)?;
            match attribute.as_str() {
                "NAME" => set(&mut told.name, "NAME", value, name)?,
                "ADDR" => set(&mut told.addr, "ADDR", value, |text| told_as(text, addr))?,
                "PORT" => set(&mut told.port, "PORT", value, |text| told_as(text, port))?,
                "PROTO" => set(&mut told.proto, "PROTO", value, |text| told_as(text, proto))?,
                "HELO" => set(&mut told.helo, "HELO", value, |text| told_as(text, helo))?,
                "IDENT" => set(&mut told.ident, "IDENT", value, |text| {
                    told_as(text, printable)
                })?,
                "SOURCE" => set(&mut told.source, "SOURCE", value, |text| {
                    told_as(text, source)
                })?,
                _ => return Err(USAGE),
            }
        }
        if told == Self::default() {
            return Err(USAGE);
        }
        Ok(told)
    }
}

/// What every attribute has in common. `[TEMPUNAVAIL]` is XCLIENT's word; somebody may say it here as well.
pub(crate) fn told_as<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Told<T>> {
    let value = decode_xtext(text)?;
    let unavailable = [UNAVAILABLE, "[TEMPUNAVAIL]"];
    if unavailable
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
    {
        return Some(Told::Unavailable);
    }
    let fits = (1..=LONGEST).contains(&value.len());
    parse(&value).filter(|_| fits).map(Told::Value)
}

/// A client without a name is called `unknown` by mail systems; no host is.
pub(crate) fn name(text: &str) -> Option<Told<String>> {
    Some(match told_as(text, printable)? {
        Told::Value(name) if name.eq_ignore_ascii_case("unknown") => Told::Unavailable,
        told => told,
    })
}

/// An IPv6 address carries a tag; one without is understood as well.
pub(crate) fn addr(value: &str) -> Option<IpAddr> {
    let tagged = value
        .split_at_checked("IPV6:".len())
        .filter(|(tag, _)| tag.eq_ignore_ascii_case("IPV6:"));
    let address = match tagged {
        Some((_, address)) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => value.parse().ok(),
    };
    address.map(|address: IpAddr| address.to_canonical())
}

pub(crate) fn port(value: &str) -> Option<u16> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|&port| digits && port > 0)
}

fn proto(value: &str) -> Option<String> {
    printable(value).filter(|proto| proto.len() <= LONGEST_PROTOCOL)
}

pub(crate) fn helo(value: &str) -> Option<HeloName> {
    HeloName::parse(&printable(value)?)
}

fn source(value: &str) -> Option<ForwardSource> {
    match value.to_ascii_uppercase().as_str() {
        "LOCAL" => Some(ForwardSource::Local),
        "REMOTE" => Some(ForwardSource::Remote),
        _ => None,
    }
}

/// The neighbour's client chose some of these texts, and what it chose must not cost the neighbour its command.
pub(crate) fn printable(value: &str) -> Option<String> {
    let harmless = |c: char| match c {
        c if c.is_whitespace() || c.is_control() => '?',
        c => c,
    };
    Some(value.chars().map(harmless).collect())
}

impl fmt::Display for ForwardSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "LOCAL",
            Self::Remote => "REMOTE",
        })
    }
}

/// The attributes, each behind a blank.
impl fmt::Display for XForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_told(f, "NAME", self.name.as_ref(), Clone::clone)?;
        write_told(f, "ADDR", self.addr.as_ref(), addr_text)?;
        write_told(f, "PORT", self.port.as_ref(), ToString::to_string)?;
        write_told(f, "PROTO", self.proto.as_ref(), Clone::clone)?;
        write_told(f, "HELO", self.helo.as_ref(), ToString::to_string)?;
        write_told(f, "IDENT", self.ident.as_ref(), Clone::clone)?;
        write_told(f, "SOURCE", self.source.as_ref(), ToString::to_string)
    }
}

pub(crate) fn addr_text(addr: &IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => addr.to_string(),
        IpAddr::V6(addr) => format!("IPV6:{addr}"),
    }
}

pub(crate) fn write_told<T>(
    f: &mut fmt::Formatter<'_>,
    attribute: &str,
    told: Option<&Told<T>>,
    text: impl FnOnce(&T) -> String,
) -> fmt::Result {
    match told {
        None => Ok(()),
        Some(Told::Unavailable) => write!(f, " {attribute}={UNAVAILABLE}"),
        Some(Told::Value(value)) => write!(f, " {attribute}={}", encode_xtext(&text(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn told(line: &str) -> Result<XForward, CommandError> {
        match Command::parse(line.as_bytes())? {
            Command::XForward(told) => Ok(told),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_postfix_sends_is_understood() {
        let mut forwarded = Forwarded::default();
        for line in [
            "XFORWARD NAME=mail.client.example ADDR=192.0.2.7 PORT=40021",
            "XFORWARD PROTO=ESMTP HELO=mail.client.example IDENT=4Sh0Wk2Z1lz5 SOURCE=REMOTE",
        ] {
            forwarded.add(told(line).unwrap());
        }
        assert_eq!(
            forwarded,
            Forwarded {
                name: Some("mail.client.example".into()),
                addr: Some("192.0.2.7".parse().unwrap()),
                port: Some(40021),
                proto: Some("ESMTP".into()),
                helo: HeloName::parse("mail.client.example"),
                ident: Some("4Sh0Wk2Z1lz5".into()),
                source: Some(ForwardSource::Remote),
            }
        );
        let local = "xforward name=localhost addr=[unavailable] port=[Unavailable] helo=[UNAVAILABLE] source=local";
        forwarded.add(told(local).unwrap());
        assert_eq!(
            (forwarded.addr, forwarded.port, forwarded.helo),
            (None, None, None)
        );
        assert_eq!(forwarded.source, Some(ForwardSource::Local));
        assert!(forwarded.ident.is_some(), "not named, so not touched");
    }

    #[test]
    fn addresses_of_both_families() {
        for (text, address) in [
            ("192.0.2.7", "192.0.2.7"),
            ("IPV6:2001:db8::7", "2001:db8::7"),
            ("IPv6:2001:DB8::7", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("IPV6:::ffff:192.0.2.7", "192.0.2.7"),
        ] {
            let told = told(&format!("XFORWARD ADDR={text}")).unwrap();
            assert_eq!(told.addr, Some(Told::Value(address.parse().unwrap())));
        }
    }

    #[test]
    fn texts_of_clients_lose_what_could_do_harm() {
        let all = told("XFORWARD NAME=Unknown HELO=a+20b+0D+0AQUIT IDENT=+07").unwrap();
        assert_eq!(all.name, Some(Told::Unavailable));
        assert_eq!(
            all.helo,
            HeloName::parse("a?b??QUIT").map(Told::Value),
            "{all:?}"
        );
        assert_eq!(all.ident, Some(Told::Value("?".into())));
    }

    #[test]
    fn faults_earn_501() {
        let long = format!("XFORWARD HELO={}", "x".repeat(256));
        let protocol = format!("XFORWARD PROTO={}", "x".repeat(65));
        for line in [
            "XFORWARD",
            "XFORWARD NAME",
            "XFORWARD NAME=",
            "XFORWARD NAME=a=b",
            "XFORWARD NAME=a NAME=b",
            "XFORWARD LOGIN=bob",
            "XFORWARD ADDR=host.example",
            "XFORWARD ADDR=[192.0.2.7]",
            "XFORWARD ADDR=IPV6:192.0.2.7",
            "XFORWARD ADDR=192.0.2.7:25",
            "XFORWARD PORT=0",
            "XFORWARD PORT=65536",
            "XFORWARD PORT=+2B1",
            "XFORWARD SOURCE=elsewhere",
            "XFORWARD HELO=+FF",
            "XFORWARD HELO=+a",
            long.as_str(),
            protocol.as_str(),
        ] {
            let error = told(line).unwrap_err();
            assert_eq!(error.reply().code().value(), 501, "{line}: {error}");
        }
        let endless = format!("XFORWARD NAME={}", "x".repeat(600));
        assert_eq!(told(&endless), Err(CommandError::TooLong));
    }
}
