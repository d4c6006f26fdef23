//! XCLIENT: a proxy in front of us tells for whom it speaks.
//!
//! The command is Postfix's (its XCLIENT_README; there is no RFC), and nginx, HAProxy and test programs speak it too. Where XFORWARD is
//! hearsay about one mail, this is who the client of the connection is from now on.

use std::fmt;
use std::net::IpAddr;

use crate::{
    CommandError, HeloName, Told,
    parameter::{set, split, words},
    xforward::{addr, addr_text, helo, name, port, printable, told_as, write_told},
};

const USAGE: CommandError = CommandError::Arguments(
    "XCLIENT attribute=value ..., of NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
);

/// One XCLIENT command. Absent attributes are not named in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XClient {
    /// NAME: the client's name by DNS, as the proxy found it.
    pub name: Option<Told<String>>,
    /// ADDR: the client's address.
    pub addr: Option<Told<IpAddr>>,
    /// PORT: the client's port.
    pub port: Option<Told<u16>>,
    /// PROTO: whether the client said EHLO.
    pub proto: Option<Told<ClientProtocol>>,
    /// HELO: what the client called itself.
    pub helo: Option<Told<HeloName>>,
    /// LOGIN: the account that the client proved to be, to the proxy.
    pub login: Option<Told<String>>,
    /// DESTADDR: the address that the client connected to.
    pub dest_addr: Option<Told<IpAddr>>,
    /// DESTPORT: the port that it connected to.
    pub dest_port: Option<Told<u16>>,
}

/// PROTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientProtocol {
    /// Without extensions.
    Smtp,
    /// With extensions.
    Esmtp,
}

impl XClient {
    /// The attributes we take, in the order of the reply to EHLO; LOGIN is the last.
    pub const ATTRIBUTES: [&'static str; 8] = [
        "NAME", "ADDR", "PORT", "PROTO", "HELO", "DESTADDR", "DESTPORT", "LOGIN",
    ];

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
                "LOGIN" => set(&mut told.login, "LOGIN", value, |text| {
                    told_as(text, printable)
                })?,
                "DESTADDR" => set(&mut told.dest_addr, "DESTADDR", value, |text| {
                    told_as(text, addr)
                })?,
                "DESTPORT" => set(&mut told.dest_port, "DESTPORT", value, |text| {
                    told_as(text, port)
                })?,
                _ => return Err(USAGE),
            }
        }
        if told == Self::default() {
            return Err(USAGE);
        }
        Ok(told)
    }

    /// The account, if there is one.
    pub fn account(&self) -> Option<&str> {
        match &self.login {
            Some(Told::Value(account)) => Some(account),
            _ => None,
        }
    }
}

fn proto(value: &str) -> Option<ClientProtocol> {
    match value.to_ascii_uppercase().as_str() {
        "SMTP" => Some(ClientProtocol::Smtp),
        "ESMTP" => Some(ClientProtocol::Esmtp),
        _ => None,
    }
}

impl fmt::Display for ClientProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
        })
    }
}

/// The attributes, each behind a blank.
impl fmt::Display for XClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_told(f, "NAME", self.name.as_ref(), Clone::clone)?;
        write_told(f, "ADDR", self.addr.as_ref(), addr_text)?;
        write_told(f, "PORT", self.port.as_ref(), ToString::to_string)?;
        write_told(f, "PROTO", self.proto.as_ref(), ToString::to_string)?;
        write_told(f, "HELO", self.helo.as_ref(), ToString::to_string)?;
        write_told(f, "LOGIN", self.login.as_ref(), Clone::clone)?;
        write_told(f, "DESTADDR", self.dest_addr.as_ref(), addr_text)?;
        write_told(f, "DESTPORT", self.dest_port.as_ref(), ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn told(line: &str) -> Result<XClient, CommandError> {
        match Command::parse(line.as_bytes())? {
            Command::XClient(told) => Ok(told),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_proxies_send_is_understood() {
        let line = "xclient NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PORT=40021 PROTO=esmtp HELO=a+2Bb LOGIN=alice@example.org DESTADDR=192.0.2.1 DESTPORT=25";
        let all = told(line).unwrap();
        assert_eq!(all.name, Some(Told::Unavailable));
        assert_eq!(all.addr, Some(Told::Value("2001:db8::7".parse().unwrap())));
        assert_eq!(all.port, Some(Told::Value(40021)));
        assert_eq!(all.proto, Some(Told::Value(ClientProtocol::Esmtp)));
        assert_eq!(all.helo, HeloName::parse("a+b").map(Told::Value));
        assert_eq!(all.account(), Some("alice@example.org"));
        assert_eq!(all.dest_port, Some(Told::Value(25)));
        let again = told(&format!("XCLIENT{all}")).unwrap();
        assert_eq!(again, all);
        let nothing = told("XCLIENT NAME=[tempunavail] LOGIN=[UNAVAILABLE]").unwrap();
        assert_eq!(nothing.name, Some(Told::Unavailable));
        assert_eq!(nothing.account(), None);
    }

    #[test]
    fn faults_earn_501() {
        for line in [
            "XCLIENT",
            "XCLIENT ADDR",
            "XCLIENT ADDR=",
            "XCLIENT ADDR=client.example",
            "XCLIENT ADDR=IPV6:192.0.2.7",
            "XCLIENT ADDR=192.0.2.7 ADDR=192.0.2.8",
            "XCLIENT PORT=65536",
            "XCLIENT PROTO=LMTP",
            "XCLIENT IDENT=x",
            "XCLIENT HELO=a+2",
        ] {
            let error = told(line).unwrap_err();
            assert_eq!(error.reply().code().value(), 501, "{line}: {error}");
        }
    }
}
