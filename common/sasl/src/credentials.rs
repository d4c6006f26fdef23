use std::fmt;

use zeroize::Zeroizing;

use crate::Mechanism;

/// What a client says it is and knows, still to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// By what mechanism it said so.
    pub mechanism: Mechanism,
    /// Whom it wants to act as, if somebody else (RFC 4422 §2).
    pub authzid: Option<String>,
    /// Who it is.
    pub authcid: String,
    /// What it knows.
    pub password: Password,
}

/// A password: wiped from memory when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
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
