//! Authentication exchanges (RFC 4422) without sockets.
//!
//! ```text
//! server   ServerExchange::start ─► Step::Challenge ─► respond ─► Step::Ask ─► answer ─► … Step::Verify(Credentials) │ Step::Failed
//!                                                            └► Step::Call ─► answer ─► …
//! client   ClientExchange::start ─► initial response ─► respond(challenge) ─► …
//! ```
//!
//! Texts on both sides are the base64 that RFC 4954 puts on the line; the protocol around it (codes, line
//! ends) belongs to the session. The exchange ends with [`Credentials`] to be verified elsewhere; it knows no
//! accounts, and asks for the keys of one where the mechanism verifies a proof ([`Step::Ask`]). A library has the security context of
//! GSSAPI, and is called by way of the driver ([`Step::Call`]). Chance comes from outside too.
//! What can fail is the client's doing: see [`Failure`].
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
mod keys;
mod server;

use std::{fmt, str::FromStr};

pub use client::{Binding, ClientExchange};
pub use credentials::{Credentials, Evidence, Identity, Password};
pub use keys::{BadPassword, CramSecret, SCRAM_ITERATIONS, ScramHash, ScramKeys, prepare};
pub use server::{
    Asking, Calling, Circumstances, ContextAnswer, ContextCall, ContextFault, Secret, SecretKind,
    SecretQuery, SecurityContext, ServerExchange, Step,
};

/// Octets of a decoded response: a line of RFC 4954 §4 holds no more in base64, and access tokens with many rights need them.
pub const MAX_RESPONSE: usize = 9000;

/// Chance for the exchanges of one conversation, each its own: `seed` is used for nothing else.
pub fn nonce(seed: &[u8; 32], exchange: u64) -> Vec<u8> {
    let mut octets = ScramHash::Sha256.hmac(seed, &exchange.to_be_bytes());
    octets.truncate(24);
    octets
}

/// A registered mechanism we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// RFC 7677, bound to the connection by RFC 9266: whoever stands between is found out.
    ScramSha256Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 5802.
    ScramSha1,
    /// RFC 4422 appendix A: the certificate of the connection speaks.
    External,
    /// RFC 4752: a ticket of Kerberos.
    Gssapi,
    /// RFC 7628.
    OauthBearer,
    /// Google's, older than the one before, and what most clients with tokens use.
    Xoauth2,
    /// RFC 2195: old, and wants the password to be kept as it is.
    CramMd5,
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login: old, and still what many clients use.
    Login,
}

impl Mechanism {
    /// All, in the order we offer and prefer them.
    pub const ALL: [Self; 10] = [
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::External,
        Self::Gssapi,
        Self::OauthBearer,
        Self::Xoauth2,
        Self::CramMd5,
        Self::Plain,
        Self::Login,
    ];

    /// Those by which a client shows or proves a password, the strongest first. CRAM-MD5 is the last: its digest is guessed from
    /// faster than TLS is broken.
    pub const BY_PASSWORD: [Self; 6] = [
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
        Self::Login,
        Self::CramMd5,
    ];

    /// Those by which a client shows a token, the registered one first.
    pub const BY_TOKEN: [Self; 2] = [Self::OauthBearer, Self::Xoauth2];

    /// Those that show the password to whoever verifies it, so that any account with a password can use them.
    pub const PASSWORDS: [Self; 2] = [Self::Plain, Self::Login];

    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::External => "EXTERNAL",
            Self::Gssapi => "GSSAPI",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Whether something crosses the line that lets whoever reads it log in, so that it must be encrypted.
    pub const fn reveals_password(self) -> bool {
        match self {
            Self::Plain | Self::Login | Self::OauthBearer | Self::Xoauth2 => true,
            Self::ScramSha256Plus
            | Self::ScramSha256
            | Self::ScramSha1
            | Self::External
            | Self::Gssapi
            | Self::CramMd5 => false,
        }
    }

    /// Whether it shows a token, whose refusal has a step of its own.
    pub const fn shows_token(self) -> bool {
        matches!(self, Self::OauthBearer | Self::Xoauth2)
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
