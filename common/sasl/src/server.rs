use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{Credentials, Failure, MAX_RESPONSE, Mechanism, Password};

/// A server's side that waits for a response.
#[derive(Debug)]
pub struct ServerExchange(Waiting);

#[derive(Debug)]
enum Waiting {
    Plain,
    LoginName,
    LoginPassword { name: String },
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
    /// The exchange is complete; see whether they are true.
    Verify(Credentials),
    /// The exchange is over without credentials.
    Failed(Failure),
}

impl ServerExchange {
    /// Begins, with the initial response as it stood in the command (`=` for an empty one, RFC 4954 §4).
    pub fn start(mechanism: Mechanism, initial_response: Option<&str>) -> Step {
        let (first, challenge) = match mechanism {
            Mechanism::Plain => (Waiting::Plain, ""),
            Mechanism::Login => (Waiting::LoginName, "Username:"),
        };
        match initial_response {
            None => challenged(challenge, first),
            Some("=") => Self(first).respond(b""),
            Some(text) => Self(first).respond(text.as_bytes()),
        }
    }

    /// Takes the client's next line.
    pub fn respond(self, line: &[u8]) -> Step {
        let text = match decode(line) {
            Ok(text) => text,
            Err(failure) => return Step::Failed(failure),
        };
        match self.0 {
            Waiting::Plain => plain(&text),
            Waiting::LoginName if text.is_empty() => Step::Failed(Failure::Malformed),
            Waiting::LoginName => challenged(
                "Password:",
                Waiting::LoginPassword {
                    name: text.to_string(),
                },
            ),
            Waiting::LoginPassword { name } => Step::Verify(Credentials {
                mechanism: Mechanism::Login,
                authzid: None,
                authcid: name,
                password: Password::new(text.as_str()),
            }),
        }
    }
}

fn challenged(text: &str, waiting: Waiting) -> Step {
    Step::Challenge {
        text: STANDARD.encode(text),
        next: ServerExchange(waiting),
    }
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`, none of them holding NUL.
fn plain(text: &str) -> Step {
    let mut parts = text.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Step::Failed(Failure::Malformed);
    };
    if authcid.is_empty() || password.is_empty() {
        return Step::Failed(Failure::Malformed);
    }
    Step::Verify(Credentials {
        mechanism: Mechanism::Plain,
        authzid: (!authzid.is_empty()).then(|| authzid.to_owned()),
        authcid: authcid.to_owned(),
        password: Password::new(password),
    })
}

fn decode(line: &[u8]) -> Result<Zeroizing<String>, Failure> {
    if line == b"*" {
        return Err(Failure::Cancelled);
    }
    if line.len() > MAX_RESPONSE / 3 * 4 + 4 {
        return Err(Failure::TooLong);
    }
    // RFC 4648 §3: no line breaks, no foreign characters, padding required, no stray bits.
    let octets = STANDARD.decode(line).map_err(|_| Failure::Base64)?;
    match String::from_utf8(octets) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(Failure::Malformed)
        }
    }
}
