//! CRAM-MD5 (RFC 2195), the server's side.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

use super::{SecretKind, SecretQuery, equal};
use crate::{CramSecret, Credentials, Evidence, Mechanism};

/// A text that was never sent before, in the form of a message id.
pub fn challenge(nonce: &[u8]) -> String {
    format!("<{}@challenge.invalid>", hex(nonce))
}

/// The HMAC of a challenge, as it is sent.
pub fn digest(secret: &CramSecret, challenge: &str) -> String {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(secret.reveal()) else {
        return String::new();
    };
    mac.update(challenge.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// The client's answer, still to be verified.
#[derive(Debug)]
pub struct Answered {
    challenge: String,
    name: String,
    digest: String,
}

impl Answered {
    /// A name, a blank and 32 digits in lower case.
    pub fn parse(challenge: String, text: &str) -> Option<Self> {
        let (name, digest) = text.rsplit_once(' ')?;
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let fits = !name.is_empty() && digest.len() == 32 && digest.bytes().all(digits);
        fits.then(|| Self {
            challenge,
            name: name.to_owned(),
            digest: digest.to_owned(),
        })
    }

    pub fn query(&self) -> SecretQuery {
        SecretQuery {
            name: self.name.clone(),
            kind: SecretKind::Cram,
        }
    }

    pub fn verify(self, secret: &CramSecret) -> Credentials {
        let wanted = digest(secret, &self.challenge);
        Credentials {
            mechanism: Mechanism::CramMd5,
            authzid: None,
            authcid: self.name,
            evidence: Evidence::Proof {
                holds: !wanted.is_empty() && equal(wanted.as_bytes(), self.digest.as_bytes()),
            },
        }
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_2195() {
        let challenge = "<1896.697170952@postoffice.reston.mci.net>".to_owned();
        let said = "tim b913a602c7eda7a495b4e6e7334d3890";
        let answered = Answered::parse(challenge.clone(), said).unwrap();
        assert_eq!(answered.query().name, "tim");
        let right = answered.verify(&CramSecret::new(b"tanstaaftanstaaf"));
        assert_eq!(right.evidence, Evidence::Proof { holds: true });
        let answered = Answered::parse(challenge, said).unwrap();
        let wrong = answered.verify(&CramSecret::new(b"tanstaaf"));
        assert_eq!(wrong.evidence, Evidence::Proof { holds: false });
    }

    #[test]
    fn what_is_no_answer_is_malformed() {
        for bad in [
            "",
            "tim",
            "tim ",
            "b913a602c7eda7a495b4e6e7334d3890",
            " b913a602c7eda7a495b4e6e7334d3890",
            "tim B913A602C7EDA7A495B4E6E7334D3890",
            "tim b913a602c7eda7a495b4e6e7334d389",
        ] {
            assert!(Answered::parse(String::new(), bad).is_none(), "{bad}");
        }
    }
}
