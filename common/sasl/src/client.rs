mod scram;

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{CramSecret, Credentials, Evidence, Failure, Mechanism, server::cram};

/// What a client does about channel binding (RFC 5802 §6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Binding<'a> {
    /// It cannot bind, or need not.
    #[default]
    Unused,
    /// It could, and was not offered it; a server that did offer it learns so that somebody is between.
    NotOffered,
    /// It binds to what names this connection alone, `tls-exporter` (RFC 9266).
    To(&'a [u8]),
}

/// A client's side of an exchange.
#[derive(Debug)]
pub struct ClientExchange {
    credentials: Credentials,
    answered: u8,
    scram: Option<scram::Client>,
}

impl ClientExchange {
    /// Begins by the mechanism of the credentials, unbound; also gives the initial response (base64), where there is one. `nonce` is
    /// chance, never used before: 18 octets or more.
    ///
    /// # Errors
    ///
    /// [`Failure::Malformed`]: these credentials cannot be used by this mechanism.
    pub fn start(
        credentials: Credentials,
        nonce: &[u8],
    ) -> Result<(Self, Option<Zeroizing<String>>), Failure> {
        Self::start_bound(credentials, nonce, Binding::Unused)
    }

    /// Begins as [`start`](Self::start) does, on a connection of which more is known.
    ///
    /// # Errors
    ///
    /// [`Failure::Malformed`]: these credentials cannot be used by this mechanism, or it does not bind so.
    pub fn start_bound(
        credentials: Credentials,
        nonce: &[u8],
        binding: Binding<'_>,
    ) -> Result<(Self, Option<Zeroizing<String>>), Failure> {
        let mut exchange = Self {
            credentials,
            answered: 0,
            scram: None,
        };
        let credentials = &exchange.credentials;
        let initial = match (credentials.mechanism, &credentials.evidence) {
            (Mechanism::Plain, Evidence::Password(_)) => Some(plain(credentials)),
            (Mechanism::Login | Mechanism::CramMd5, Evidence::Password(_)) => None,
            (
                Mechanism::ScramSha256Plus | Mechanism::ScramSha256 | Mechanism::ScramSha1,
                Evidence::Password(_),
            ) => {
                let scram = scram::Client::new(credentials, nonce, binding)?;
                let first = scram.first_message();
                exchange.scram = Some(scram);
                Some(encoded(&first))
            }
            (Mechanism::Xoauth2 | Mechanism::OauthBearer, Evidence::Token(token)) => {
                Some(bearer(credentials, token.reveal()))
            }
            (Mechanism::External, Evidence::Certificate) => Some(encoded(authzid(credentials))),
            _ => return Err(Failure::Malformed),
        };
        Ok((exchange, initial))
    }

    /// Answers a challenge (base64, the text of a 334) with the next line (base64).
    ///
    /// LOGIN servers word their prompts as they like, so the order counts, not the text.
    ///
    /// # Errors
    ///
    /// The server said something that the mechanism does not have, or, of SCRAM, does not know the password itself.
    pub fn respond(&mut self, challenge: &str) -> Result<Zeroizing<String>, Failure> {
        let credentials = &self.credentials;
        let password = || {
            let password = credentials.password().ok_or(Failure::Malformed)?;
            Ok::<_, Failure>(password.reveal())
        };
        let answer = match (credentials.mechanism, self.answered) {
            (Mechanism::Plain, 0) => plain(credentials),
            (Mechanism::Login, 0) => encoded(&credentials.authcid),
            (Mechanism::Login, 1) => encoded(password()?),
            (Mechanism::CramMd5, 0) => {
                let secret = CramSecret::new(password()?.as_bytes());
                let digest = cram::digest(&secret, &decoded(challenge)?);
                encoded(&format!("{} {digest}", credentials.authcid))
            }
            (Mechanism::External, 0) => encoded(authzid(credentials)),
            // The server says why the token is refused, and wants to hear that it was heard (RFC 7628 §3.2.3).
            (Mechanism::OauthBearer, 0) => encoded("\u{1}"),
            (Mechanism::Xoauth2, 0) => encoded(""),
            (_, 0..=2) => {
                let scram = self.scram.as_mut().ok_or(Failure::Malformed)?;
                encoded(&scram.respond(&decoded_or_empty(challenge)?)?)
            }
            _ => return Err(Failure::Malformed),
        };
        self.answered += 1;
        Ok(answer)
    }

    /// Whether the server may say now that all went well. Of SCRAM it must have shown before that it knows the password too.
    pub fn may_end(&self) -> bool {
        self.scram.as_ref().is_none_or(scram::Client::is_done)
    }
}

fn plain(credentials: &Credentials) -> Zeroizing<String> {
    let authcid = &credentials.authcid;
    let password = credentials.password().map_or("", |known| known.reveal());
    let text = Zeroizing::new(format!("{}\0{authcid}\0{password}", authzid(credentials)));
    encoded(&text)
}

fn bearer(credentials: &Credentials, token: &str) -> Zeroizing<String> {
    let name = &credentials.authcid;
    let whom = match credentials.mechanism {
        Mechanism::Xoauth2 => format!("user={name}"),
        _ => format!("n,a={},", scram::saslname(name)),
    };
    let text = Zeroizing::new(format!("{whom}\u{1}auth=Bearer {token}\u{1}\u{1}"));
    encoded(&text)
}

fn authzid(credentials: &Credentials) -> &str {
    credentials.authzid.as_deref().unwrap_or_default()
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text.as_bytes()))
}

fn decoded(challenge: &str) -> Result<String, Failure> {
    let octets = STANDARD.decode(challenge).map_err(|_| Failure::Base64)?;
    String::from_utf8(octets).map_err(|_| Failure::Malformed)
}

/// A server without an initial response begins with an empty challenge, and some put words there.
fn decoded_or_empty(challenge: &str) -> Result<String, Failure> {
    match challenge.trim() {
        "" => Ok(String::new()),
        text => decoded(text),
    }
}

#[cfg(test)]
mod tests;
