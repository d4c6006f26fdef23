//! What a question can come back with instead of an answer.

use std::fmt;
use std::path::PathBuf;

use crate::HostName;

/// The types of records mail asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// IPv4 address, RFC 1035.
    A,
    /// IPv6 address, RFC 3596.
    Aaaa,
    /// Mail exchanger, RFC 1035, RFC 5321 §5.
    Mx,
    /// Pointer from an address to a name, RFC 1035.
    Ptr,
    /// Text, RFC 1035.
    Txt,
    /// What certificate a service shows, RFC 6698.
    Tlsa,
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Txt => "TXT",
            Self::Tlsa => "TLSA",
        })
    }
}

/// Why the DNS gave no usable answer. The text is for a person: name, type, what was said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// NXDOMAIN: the name does not exist, with any type (RFC 2308 §2.1). Permanent.
    #[error("{name} does not exist (asked for {kind})")]
    NoSuchDomain {
        /// The name asked for.
        name: HostName,
        /// The type asked for.
        kind: RecordType,
    },
    /// NODATA: the name exists without such records (RFC 2308 §2.2). Permanent.
    #[error("{name} has no {kind} record")]
    NoRecords {
        /// The name asked for.
        name: HostName,
        /// The type asked for.
        kind: RecordType,
    },
    /// The domain says that it takes no mail (RFC 7505). Permanent, 5.1.10 for recipients.
    #[error("{name} accepts no mail (null MX)")]
    NullMx {
        /// The domain asked for.
        name: HostName,
    },
    /// The domain publishes records nobody can use. Permanent until its owner mends them.
    #[error("{name} publishes unusable {kind} records: {detail}")]
    Malformed {
        /// The name asked for.
        name: HostName,
        /// The type asked for.
        kind: RecordType,
        /// What is wrong with them.
        detail: String,
    },
    /// SERVFAIL, REFUSED, a time-out, no server in reach: ask again later.
    #[error("cannot tell the {kind} records of {name} now: {detail}")]
    Temporary {
        /// The name asked for.
        name: HostName,
        /// The type asked for.
        kind: RecordType,
        /// What the server or the network said.
        detail: String,
    },
    /// The question itself is no DNS name (an address literal, for one): our caller's fault.
    #[error("{name:?} cannot be looked up: {detail}")]
    NotAName {
        /// What was asked for.
        name: String,
        /// Why it is not a name.
        detail: String,
    },
}

impl DnsError {
    /// Whether asking again later may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. })
    }
}

/// Why a resolver could not be set up: configuration to mend before a start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A line of the zone file is wrong.
    #[error("{}:{line}: {problem}", file.display())]
    Zone {
        /// The zone file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An option has a value that cannot work.
    #[error("common.dns.{key}: {problem}")]
    Option {
        /// The key.
        key: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// The resolver library refused its configuration.
    #[error("the resolver cannot be built: {0}")]
    Library(String),
}
