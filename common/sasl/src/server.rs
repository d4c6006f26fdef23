pub(crate) mod cram;
mod gssapi;
mod scram;
mod token;

use base64::{Engine, engine::general_purpose::STANDARD};
pub use gssapi::{ContextAnswer, ContextCall, ContextFault, SecurityContext};
use zeroize::Zeroizing;

use crate::{
    CramSecret, Credentials, Evidence, Failure, MAX_RESPONSE, Mechanism, Password, ScramHash,
    ScramKeys,
};

/// What a server knows when an exchange begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// Chance, never used before: 18 octets or more.
    pub nonce: &'a [u8],
    /// What names this connection alone, under TLS 1.3: 32 octets by `tls-exporter` (RFC 9266).
    pub binding: Option<&'a [u8]>,
    /// Whether a mechanism that binds was offered: who says that it was not was lied to by somebody between (RFC 5802 §6).
    pub offers_binding: bool,
}

/// A server's side that waits for a response.
#[derive(Debug)]
pub struct ServerExchange(Waiting);

#[derive(Debug)]
enum Waiting {
    Plain,
    LoginName,
    LoginPassword { name: String },
    Scram(Box<scram::First>),
    ScramProof(Box<scram::Final>),
    ScramEnd(Credentials),
    Cram { challenge: String },
    Token(Mechanism),
    External,
    Gssapi(gssapi::Waiting),
}

/// A server's side that waits for what it asked for.
#[derive(Debug)]
pub struct Asking(Asked);

#[derive(Debug)]
enum Asked {
    Scram(Box<scram::Named>),
    Cram(cram::Answered),
}

/// A server's side that waits for what a security context makes of something.
#[derive(Debug)]
pub struct Calling(gssapi::Calling);

/// What an exchange has to know of an account. Of one that is not there, something is given too, and looks no different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretQuery {
    /// The name that the client gave.
    pub name: String,
    /// What of it.
    pub kind: SecretKind,
}

/// Of what kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// [`ScramKeys`] of this hash.
    Scram(ScramHash),
    /// A [`CramSecret`].
    Cram,
}

/// The answer to a [`SecretQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// To [`SecretKind::Scram`].
    Scram(ScramKeys),
    /// To [`SecretKind::Cram`].
    Cram(CramSecret),
}

/// What follows from a response.
#[derive(Debug)]
pub enum Step {
    /// Send this (base64), and give the response to `next`.
    Challenge {
        /// Text of the 334.
        text: String,
        /// Takes the response.
        next: ServerExchange,
    },
    /// Find this out, and give it to `next`.
    Ask {
        /// What.
        query: SecretQuery,
        /// Takes the answer.
        next: Asking,
    },
    /// Have the security context of this exchange do this, and give what comes of it to `next`.
    Call {
        /// What.
        call: ContextCall,
        /// Takes what comes of it.
        next: Calling,
    },
    /// The exchange is complete; see whether they are true.
    Verify(Credentials),
    /// The exchange is over without credentials.
    Failed(Failure),
}

impl ServerExchange {
    /// Begins, with the initial response as it stood in the command (`=` for an empty one, RFC 4954 §4).
    pub fn start(
        mechanism: Mechanism,
        initial_response: Option<&str>,
        circumstances: Circumstances<'_>,
    ) -> Step {
        let (first, challenge) = match mechanism {
            Mechanism::Plain => (Waiting::Plain, String::new()),
            Mechanism::Login => (Waiting::LoginName, "Username:".to_owned()),
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 | Mechanism::ScramSha1 => {
                match scram::First::new(mechanism, circumstances) {
                    Some(first) => (Waiting::Scram(Box::new(first)), String::new()),
                    None => return Step::Failed(Failure::Malformed),
                }
            }
            Mechanism::CramMd5 => {
                // RFC 2195 §2: the server speaks first, always.
                if initial_response.is_some() {
                    return Step::Failed(Failure::Malformed);
                }
                let challenge = cram::challenge(circumstances.nonce);
                let waiting = Waiting::Cram {
                    challenge: challenge.clone(),
                };
                (waiting, challenge)
            }
            Mechanism::OauthBearer | Mechanism::Xoauth2 => {
                (Waiting::Token(mechanism), String::new())
            }
            Mechanism::External => (Waiting::External, String::new()),
            Mechanism::Gssapi => (Waiting::Gssapi(gssapi::Waiting::new()), String::new()),
        };
        match initial_response {
            None => challenged(&challenge, first),
            Some("=") => Self(first).respond(b""),
            Some(text) => Self(first).respond(text.as_bytes()),
        }
    }

    /// Takes the client's next line.
    pub fn respond(self, line: &[u8]) -> Step {
        let octets = match decode(line) {
            Ok(octets) => octets,
            Err(failure) => return Step::Failed(failure),
        };
        let waiting = match self.0 {
            // All others speak in words.
            Waiting::Gssapi(waiting) => {
                let step = waiting.respond(&octets);
                return step.unwrap_or(Step::Failed(Failure::Malformed));
            }
            waiting => waiting,
        };
        let Ok(text) = words(octets) else {
            return Step::Failed(Failure::Malformed);
        };
        let step = match waiting {
            Waiting::Plain => plain(&text),
            Waiting::LoginName if text.is_empty() => None,
            Waiting::LoginName => Some(challenged(
                "Password:",
                Waiting::LoginPassword {
                    name: text.to_string(),
                },
            )),
            Waiting::LoginPassword { name } => Some(Step::Verify(Credentials {
                mechanism: Mechanism::Login,
                authzid: None,
                authcid: name,
                evidence: Evidence::Password(Password::new(text.as_str())),
            })),
            Waiting::Scram(first) => first.respond(&text).map(|named| Step::Ask {
                query: named.query(),
                next: Asking(Asked::Scram(Box::new(named))),
            }),
            Waiting::ScramProof(last) => last.respond(&text).map(|proved| match proved {
                Ok((signature, credentials)) => {
                    challenged(&signature, Waiting::ScramEnd(credentials))
                }
                Err(credentials) => Step::Verify(credentials),
            }),
            // RFC 5802 §3, RFC 4954 §4: success says nothing, so the signature went in a challenge of its own.
            Waiting::ScramEnd(credentials) if text.is_empty() => Some(Step::Verify(credentials)),
            Waiting::ScramEnd(_) => None,
            Waiting::Cram { challenge } => {
                cram::Answered::parse(challenge, &text).map(|answered| Step::Ask {
                    query: answered.query(),
                    next: Asking(Asked::Cram(answered)),
                })
            }
            Waiting::Token(mechanism) => token::parse(mechanism, &text).map(Step::Verify),
            Waiting::External => external(&text).map(Step::Verify),
            Waiting::Gssapi(_) => None,
        };
        step.unwrap_or(Step::Failed(Failure::Malformed))
    }
}

impl Asking {
    /// Goes on with what was asked for; something else ends the exchange.
    pub fn answer(self, secret: &Secret) -> Step {
        match (self.0, secret) {
            (Asked::Scram(named), Secret::Scram(keys)) => match named.answer(keys) {
                Some((text, last)) => challenged(&text, Waiting::ScramProof(Box::new(last))),
                None => Step::Failed(Failure::Malformed),
            },
            (Asked::Cram(answered), Secret::Cram(secret)) => Step::Verify(answered.verify(secret)),
            _ => Step::Failed(Failure::Malformed),
        }
    }
}

impl Calling {
    /// Goes on with what the context made of it; something that does not belong there ends the exchange.
    pub fn answer(self, answer: ContextAnswer) -> Step {
        let step = self.0.answer(answer);
        step.unwrap_or(Step::Failed(Failure::Malformed))
    }
}

fn challenged(octets: impl AsRef<[u8]>, waiting: Waiting) -> Step {
    Step::Challenge {
        text: STANDARD.encode(octets),
        next: ServerExchange(waiting),
    }
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`, none of them holding NUL.
fn plain(text: &str) -> Option<Step> {
    let mut parts = text.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if authcid.is_empty() || password.is_empty() {
        return None;
    }
    Some(Step::Verify(Credentials {
        mechanism: Mechanism::Plain,
        authzid: named(authzid),
        authcid: authcid.to_owned(),
        evidence: Evidence::Password(Password::new(password)),
    }))
}

/// RFC 4422 appendix A: whom to act as, or nothing.
fn external(text: &str) -> Option<Credentials> {
    (!text.contains('\0')).then(|| Credentials {
        mechanism: Mechanism::External,
        authzid: named(text),
        authcid: String::new(),
        evidence: Evidence::Certificate,
    })
}

fn named(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Whether they are equal, in a time that does not depend on where they differ.
pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    one.ct_eq(other).into()
}

fn decode(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if line == b"*" {
        return Err(Failure::Cancelled);
    }
    if line.len() > MAX_RESPONSE / 3 * 4 + 4 {
        return Err(Failure::TooLong);
    }
    // RFC 4648 §3: no line breaks, no foreign characters, padding required, no stray bits.
    let octets = STANDARD.decode(line).map_err(|_| Failure::Base64)?;
    Ok(Zeroizing::new(octets))
}

fn words(mut octets: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, Failure> {
    match String::from_utf8(std::mem::take(&mut *octets)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(Failure::Malformed)
        }
    }
}
