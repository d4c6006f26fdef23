//! Authentication exchanges (RFC 4422) without sockets.
//!
//! ```text
//! server   ServerExchange::start ─► Step::Challenge ─► respond ─► Step::Verify(Credentials) │ Step::Failed
//! client   ClientExchange::start ─► initial response ─► respond(challenge) ─► …
//! ```
//!
//! Texts on both sides are the base64 that RFC 4954 puts on the line; the protocol around it (codes, line
//! ends) belongs to the session. The exchange ends with [`Credentials`] to be verified elsewhere; it knows no
//! accounts. What can fail is the client's doing: see [`Failure`].
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::panic
    )
)]

mod client;
mod credentials;
mod server;

use std::{fmt, str::FromStr};

pub use client::ClientExchange;
pub use credentials::{Credentials, Identity, Password};
pub use server::{ServerExchange, Step};

/// Octets of a decoded response; no name or password needs more.
pub const MAX_RESPONSE: usize = 4096;

/// A registered mechanism we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login: old, and still what many clients use.
    Login,
}

impl Mechanism {
    /// All, in the order we offer and prefer them.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Whether the password crosses the line as it is, so that it must be encrypted.
    pub const fn reveals_password(self) -> bool {
        match self {
            Self::Plain | Self::Login => true,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name of no mechanism of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this authentication mechanism is not supported")]
pub struct UnknownMechanism;

impl FromStr for Mechanism {
    type Err = UnknownMechanism;
    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownMechanism)
    }
}

/// Why an exchange came to no credentials; the other side's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// `*` (RFC 4954 §4).
    #[error("authentication cancelled")]
    Cancelled,
    /// No base64, or with characters or padding that do not belong there.
    #[error("invalid base64")]
    Base64,
    /// Longer than [`MAX_RESPONSE`].
    #[error("authentication response too long")]
    TooLong,
    /// Not what the mechanism prescribes.
    #[error("malformed authentication response")]
    Malformed,
}
