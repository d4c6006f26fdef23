//! What answers are made of.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::HostName;

/// One record, of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Of type A or AAAA.
    Address(IpAddr),
    /// Of type MX; the exchange is as published (`.` for the root), not yet a [`HostName`].
    MailExchanger {
        /// Lower is preferred.
        preference: u16,
        /// The target as published.
        exchange: String,
    },
    /// Of type PTR, as published.
    Pointer(String),
    /// Of type TXT: the strings of one record joined without spaces (RFC 7208 §3.3).
    Text(String),
    /// Of type TLSA.
    Tlsa(Tlsa),
}

/// What certificate a service shows (RFC 6698 §2.1), as published: whether it is of any use is for who compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// Certificate usage, such as 3 for DANE-EE.
    pub usage: u8,
    /// 0: the certificate; 1: its key.
    pub selector: u8,
    /// 0: as it is; 1: its SHA-256; 2: its SHA-512.
    pub matching: u8,
    /// What it must be.
    pub data: Vec<u8>,
}

/// `3 1 1 0123…`, as in a zone file.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data
            .iter()
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Records of one kind, never none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records.
    pub records: Vec<T>,
    /// DNSSEC vouches for them: we validated them, or a validating resolver on this host said so (RFC 6840 §5.8).
    pub authenticated: bool,
    /// How long they may be remembered from now on, aliases on the way included; unknown of what a file says.
    pub ttl: Option<Duration>,
}

/// The hosts that take mail for a domain (RFC 5321 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHosts {
    /// Sorted by preference, then by name; at least one, at most [`crate::MAX_MAIL_HOSTS`].
    pub hosts: Vec<MxHost>,
    /// The domain has no MX record and is itself the only host.
    pub implicit: bool,
    /// DNSSEC vouches for the list.
    pub authenticated: bool,
    /// MX records that were left out, each with the reason, for the log.
    pub dropped: Vec<String>,
}

/// One mail exchanger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// Lower is preferred; equal ones are for the caller to shuffle.
    pub preference: u16,
    /// The host.
    pub name: HostName,
}

impl MailHosts {
    /// The hosts in groups of equal preference, most preferred first.
    ///
    /// RFC 5321 §5.1: within a group the order is the sender's to randomise.
    pub fn groups(&self) -> impl Iterator<Item = &[MxHost]> {
        self.hosts.chunk_by(|a, b| a.preference == b.preference)
    }
}
