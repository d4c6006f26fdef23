//! What answers are made of.

use std::net::IpAddr;

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
}

/// Records of one kind, never none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records.
    pub records: Vec<T>,
    /// DNSSEC vouches for them: a validating resolver on this host said so (RFC 6840 §5.8).
    pub authenticated: bool,
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
