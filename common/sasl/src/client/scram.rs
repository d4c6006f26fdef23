//! SCRAM (RFC 5802, RFC 7677), the client's side.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::Binding;
use crate::{Credentials, Failure, Mechanism, ScramHash, prepare, server::equal};

/// A server that wants more rounds wants us to be busy with it.
const MOST_ITERATIONS: u32 = 1_000_000;
/// RFC 5802 §5.1: fewer are asked for by a server that wants the proof to be easy to guess from.
const LEAST_ITERATIONS: u32 = 4096;

#[derive(Debug)]
pub struct Client {
    hash: ScramHash,
    /// `gs2-header`.
    header: &'static str,
    /// What `c=` is.
    channel: String,
    /// `client-first-message-bare`.
    bare: String,
    nonce: String,
    password: Zeroizing<String>,
    awaited: Awaited,
}

#[derive(Debug)]
enum Awaited {
    /// The server's first message, or an empty challenge before ours.
    First {
        asked: bool,
    },
    /// That it knows the password.
    Signature(Zeroizing<Vec<u8>>),
    Nothing,
}

impl Client {
    pub fn new(
        credentials: &Credentials,
        nonce: &[u8],
        binding: Binding<'_>,
    ) -> Result<Self, Failure> {
        let plus = credentials.mechanism == Mechanism::ScramSha256Plus;
        let (header, bound): (_, &[u8]) = match binding {
            Binding::Unused if !plus => ("n,,", &[]),
            Binding::NotOffered if !plus => ("y,,", &[]),
            Binding::To(bound) if plus => ("p=tls-exporter,,", bound),
            _ => return Err(Failure::Malformed),
        };
        let password = credentials.password().ok_or(Failure::Malformed)?;
        let password = prepare(password.reveal()).map_err(|_| Failure::Malformed)?;
        let nonce = STANDARD.encode(nonce);
        Ok(Self {
            hash: match credentials.mechanism {
                Mechanism::ScramSha1 => ScramHash::Sha1,
                _ => ScramHash::Sha256,
            },
            header,
            channel: STANDARD.encode([header.as_bytes(), bound].concat()),
            bare: format!("n={},r={nonce}", saslname(&credentials.authcid)),
            nonce,
            password,
            awaited: Awaited::First { asked: false },
        })
    }

    pub fn first_message(&self) -> String {
        format!("{}{}", self.header, self.bare)
    }

    pub fn respond(&mut self, challenge: &str) -> Result<String, Failure> {
        match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
            Awaited::First { asked: false } if challenge.is_empty() => {
                self.awaited = Awaited::First { asked: true };
                Ok(self.first_message())
            }
            Awaited::First { .. } => self.prove(challenge).ok_or(Failure::Malformed),
            Awaited::Signature(wanted) => {
                let said = challenge.strip_prefix("v=").unwrap_or_default();
                let said = said.split(',').next().unwrap_or_default();
                let said = STANDARD.decode(said).map_err(|_| Failure::Malformed)?;
                match equal(&said, &wanted) {
                    true => Ok(String::new()),
                    false => Err(Failure::Malformed),
                }
            }
            Awaited::Nothing => Err(Failure::Malformed),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.awaited, Awaited::Nothing)
    }

    fn prove(&mut self, first: &str) -> Option<String> {
        let mut attributes = first.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = STANDARD
            .decode(attributes.next()?.strip_prefix("s=")?)
            .ok()?;
        let iterations: NonZeroU32 = attributes.next()?.strip_prefix("i=")?.parse().ok()?;
        let bounds = LEAST_ITERATIONS..=MOST_ITERATIONS;
        if !nonce.starts_with(&self.nonce)
            || nonce.len() <= self.nonce.len()
            || !bounds.contains(&iterations.get())
        {
            return None;
        }
        let hash = self.hash;
        let salted = hash.salted(self.password.as_bytes(), &salt, iterations);
        let client_key = Zeroizing::new(hash.hmac(&salted, b"Client Key"));
        let without_proof = format!("c={},r={nonce}", self.channel);
        let spoken = format!("{},{first},{without_proof}", self.bare);
        let signature = hash.hmac(&hash.digest(&client_key), spoken.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(k, s)| k ^ s)
            .collect();
        let server_key = Zeroizing::new(hash.hmac(&salted, b"Server Key"));
        let wanted = hash.hmac(&server_key, spoken.as_bytes());
        self.awaited = Awaited::Signature(Zeroizing::new(wanted));
        Some(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }
}

/// RFC 5802 §5.1.
pub fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evidence, Password};

    fn client() -> Client {
        let credentials = Credentials {
            mechanism: Mechanism::ScramSha256,
            authzid: None,
            authcid: "user".to_owned(),
            evidence: Evidence::Password(Password::new("pencil")),
        };
        let mut client = Client::new(&credentials, &[7; 18], Binding::Unused).unwrap();
        client.nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        client.bare = format!("n=user,r={}", client.nonce);
        client
    }

    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_example_of_rfc_7677() {
        let mut client = client();
        assert_eq!(
            client.respond("").unwrap(),
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
        );
        let last = client.respond(FIRST).unwrap();
        assert!(
            last.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="),
            "{last}"
        );
        assert!(!client.is_done());
        let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(client.respond(signature).unwrap(), "");
        assert!(client.is_done() && client.respond(signature).is_err());
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        for (first, last) in [
            (FIRST.replace("rOpr", "xOpr"), ""),
            (FIRST.replace("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""), ""),
            (FIRST.replace("4096", "4095"), ""),
            (FIRST.replace("4096", "2000000"), ""),
            (
                FIRST.to_owned(),
                "v=AAAATRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
            (FIRST.to_owned(), "e=other-error"),
            (FIRST.to_owned(), ""),
        ] {
            let mut client = client();
            let said = client.respond(&first).and_then(|_| client.respond(last));
            assert_eq!(said, Err(Failure::Malformed), "{first} {last}");
        }
    }
}
