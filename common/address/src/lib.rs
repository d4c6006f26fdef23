//! SMTP paths and their parts (RFC 5321 §4.1.2, internationalised by RFC 6531).
//!
//! A value of these types is valid: it was parsed. [`Mailbox`] is `local-part@domain`, [`ReversePath`]
//! the sender of an envelope (possibly null), [`ForwardPath`] a recipient (possibly `<postmaster>`).
//! Parsing is pure; what can fail is the text a peer or a file gave us, told by [`AddressError`].
#![forbid(unsafe_code)]

mod domain;
mod local_part;
mod path;

pub use domain::Domain;
pub use local_part::LocalPart;
pub use path::{ForwardPath, Mailbox, ReversePath};

/// Octets allowed in a path with its angle brackets (RFC 5321 §4.5.3.1.3).
pub const MAX_PATH: usize = 256;
/// Octets allowed in a local part (RFC 5321 §4.5.3.1.1).
pub const MAX_LOCAL_PART: usize = 64;
/// Octets allowed in a domain (RFC 5321 §4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;

/// Why a text is not an address; the text itself is never part of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing where an address part must stand.
    #[error("the address is empty")]
    Empty,
    /// There is no `@`, so no domain.
    #[error("the address has no domain (no \"@\")")]
    NoDomain,
    /// A part is longer than RFC 5321 §4.5.3.1 allows.
    #[error("the {0} is too long")]
    TooLong(&'static str),
    /// The local part has a character that must be quoted or is never allowed.
    #[error("the local part has a character that is not allowed there")]
    LocalPart,
    /// A quoted local part does not end, or escapes a character that must not be escaped.
    #[error("the quoted local part is malformed")]
    Quoting,
    /// The domain is no host name.
    #[error("the domain is not a valid host name")]
    Domain,
    /// The address literal in brackets is no IPv4 or IPv6 address.
    #[error("the address literal is not an IPv4 or IPv6 address")]
    Literal,
    /// Characters outside ASCII where the peer did not ask for SMTPUTF8 (RFC 6531).
    #[error("the address needs SMTPUTF8")]
    NeedsUtf8,
}
