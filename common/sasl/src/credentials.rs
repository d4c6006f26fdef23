use std::fmt;

use zeroize::Zeroizing;

use crate::Mechanism;

/// What a client says it is, and what speaks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// By what mechanism it said so.
    pub mechanism: Mechanism,
    /// Whom it wants to act as, if somebody else (RFC 4422 §2).
    pub authzid: Option<String>,
    /// Who it is; empty where the evidence says it.
    pub authcid: String,
    /// What speaks for it.
    pub evidence: Evidence,
}

impl Credentials {
    /// The password, if that is what it shows.
    pub const fn password(&self) -> Option<&Password> {
        match &self.evidence {
            Evidence::Password(password) => Some(password),
            Evidence::Proof { .. }
            | Evidence::Token(_)
            | Evidence::Certificate
            | Evidence::Ticket => None,
        }
    }
}

/// What speaks for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// What it knows, still to be verified.
    Password(Password),
    /// That it knows its password, verified by keys that were asked for.
    Proof {
        /// Whether it does.
        holds: bool,
    },
    /// A token of somebody else, still to be verified (RFC 6750).
    Token(Password),
    /// The certificate of its connection, which others have seen.
    Certificate,
    /// A ticket of Kerberos, which was accepted: `authcid` is its principal.
    Ticket,
}

/// A secret text: wiped from memory when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the verifier alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Who a client is, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: String,
    /// By what mechanism it was shown.
    pub mechanism: Mechanism,
}
