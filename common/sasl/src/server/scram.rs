//! SCRAM (RFC 5802, RFC 7677), the server's side.
//!
//! ```text
//! First ── client-first ─► Named ── keys ─► server-first, Final ── client-final ─► server-final │ refused
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Circumstances, SecretKind, SecretQuery, equal, named};
use crate::{Credentials, Evidence, Mechanism, ScramKeys};

/// Octets of chance in a nonce of ours.
const LEAST_NONCE: usize = 18;

/// Nothing was said.
#[derive(Debug)]
pub struct First {
    mechanism: Mechanism,
    nonce: String,
    binding: Option<Vec<u8>>,
    offers_binding: bool,
}

/// The client said who it is.
#[derive(Debug)]
pub struct Named {
    mechanism: Mechanism,
    authzid: Option<String>,
    name: String,
    /// `client-first-message-bare`.
    bare: String,
    nonce: String,
    /// What `c=` must be.
    channel: String,
}

/// The client has what it needs for a proof.
#[derive(Debug)]
pub struct Final {
    named: Named,
    keys: ScramKeys,
    /// `server-first-message`.
    first: String,
}

impl First {
    /// None: the mechanism needs what is not there.
    pub fn new(mechanism: Mechanism, circumstances: Circumstances<'_>) -> Option<Self> {
        let binding = circumstances.binding.map(<[u8]>::to_vec);
        let fits = circumstances.nonce.len() >= LEAST_NONCE
            && (binding.is_some() || mechanism != Mechanism::ScramSha256Plus);
        fits.then(|| Self {
            mechanism,
            nonce: STANDARD.encode(circumstances.nonce),
            binding,
            offers_binding: circumstances.offers_binding,
        })
    }

    /// Takes `client-first-message`.
    pub fn respond(self, text: &str) -> Option<Named> {
        let mut parts = text.splitn(3, ',');
        let (flag, authzid, bare) = (parts.next()?, parts.next()?, parts.next()?);
        let header = text.get(..flag.len() + authzid.len() + 2)?;
        let bound = match (flag, self.mechanism) {
            ("p=tls-exporter", Mechanism::ScramSha256Plus) => self.binding?,
            // Whoever can bind and was told that we cannot was told so by somebody else.
            ("y", mechanism) if mechanism != Mechanism::ScramSha256Plus && !self.offers_binding => {
                Vec::new()
            }
            ("n", mechanism) if mechanism != Mechanism::ScramSha256Plus => Vec::new(),
            _ => return None,
        };
        let authzid = match authzid {
            "" => None,
            authzid => Some(saslname(authzid.strip_prefix("a=")?)?),
        };
        // `m=`, which must be understood, stands where the name should.
        let mut attributes = bare.split(',');
        let name = saslname(attributes.next()?.strip_prefix("n=")?)?;
        let theirs = attributes.next()?.strip_prefix("r=")?;
        let printable = !theirs.is_empty() && theirs.bytes().all(|b| (b'!'..=b'~').contains(&b));
        printable.then(|| Named {
            mechanism: self.mechanism,
            authzid,
            name,
            bare: bare.to_owned(),
            nonce: format!("{theirs}{}", self.nonce),
            channel: STANDARD.encode([header.as_bytes(), &bound].concat()),
        })
    }
}

impl Named {
    pub fn query(&self) -> SecretQuery {
        SecretQuery {
            name: self.name.clone(),
            kind: SecretKind::Scram(hash_of(self.mechanism)),
        }
    }

    /// `server-first-message`, and what waits for its answer.
    pub fn answer(self, keys: &ScramKeys) -> Option<(String, Final)> {
        if keys.hash() != hash_of(self.mechanism) {
            return None;
        }
        let (nonce, salt) = (&self.nonce, STANDARD.encode(keys.salt()));
        let first = format!("r={nonce},s={salt},i={}", keys.iterations());
        let last = Final {
            named: self,
            keys: keys.clone(),
            first: first.clone(),
        };
        Some((first, last))
    }
}

impl Final {
    /// Takes `client-final-message`: `server-final-message` and whom it is about, or whom it is not.
    pub fn respond(self, text: &str) -> Option<Result<(String, Credentials), Credentials>> {
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let proof = STANDARD.decode(proof).ok()?;
        let (hash, named) = (self.keys.hash(), &self.named);
        if proof.len() != hash.octets() {
            return None;
        }
        let spoken = format!("{},{},{without_proof}", named.bare, self.first);
        let signature = hash.hmac(self.keys.stored_key(), spoken.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(p, s)| p ^ s).collect();
        let holds = equal(&hash.digest(&client_key), self.keys.stored_key())
            & equal(channel.as_bytes(), named.channel.as_bytes())
            & equal(nonce.as_bytes(), named.nonce.as_bytes());
        let credentials = Credentials {
            mechanism: named.mechanism,
            authzid: named.authzid.clone(),
            authcid: named.name.clone(),
            evidence: Evidence::Proof { holds },
        };
        if !holds {
            return Some(Err(credentials));
        }
        let ours = hash.hmac(self.keys.server_key(), spoken.as_bytes());
        Some(Ok((format!("v={}", STANDARD.encode(ours)), credentials)))
    }
}

const fn hash_of(mechanism: Mechanism) -> crate::ScramHash {
    match mechanism {
        Mechanism::ScramSha1 => crate::ScramHash::Sha1,
        _ => crate::ScramHash::Sha256,
    }
}

/// RFC 5802 §5.1: `=2C` and `=3D` stand for the comma and the equals sign, which stand for themselves nowhere.
fn saslname(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        name.push_str(before);
        name.push(match after.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = after.get(2..)?;
    }
    name.push_str(rest);
    named(&name).filter(|name| !name.contains('\0'))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{Failure, ScramHash, Secret, ServerExchange, Step};

    /// RFC 7677 §3. The server's part of the nonce is base64 of ours only by chance, so it is put in as it is.
    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    fn keys(hash: ScramHash) -> ScramKeys {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        ScramKeys::derive(hash, "pencil", &salt, NonZeroU32::new(4096).unwrap()).unwrap()
    }

    fn first(binding: Option<&[u8]>, offers_binding: bool, mechanism: Mechanism) -> First {
        let circumstances = Circumstances {
            nonce: &[7; 18],
            binding,
            offers_binding,
        };
        First::new(mechanism, circumstances).unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut first = first(None, false, Mechanism::ScramSha256);
        first.nonce = SERVER_NONCE.to_owned();
        let named = first
            .respond(&format!("n,,n=user,r={CLIENT_NONCE}"))
            .unwrap();
        assert_eq!(named.query().name, "user");
        let (server_first, last) = named.answer(&keys(ScramHash::Sha256)).unwrap();
        assert_eq!(
            server_first,
            format!("r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
        );
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let said = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={proof}");
        let (server_final, credentials) = last.respond(&said).unwrap().unwrap();
        assert_eq!(
            server_final,
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        assert_eq!(credentials.evidence, Evidence::Proof { holds: true });
    }

    #[test]
    fn whoever_could_bind_and_was_told_otherwise_is_refused() {
        let bare = format!("n=user,r={CLIENT_NONCE}");
        let said = |first: First, header: &str| first.respond(&format!("{header}{bare}")).is_some();
        let plain = Mechanism::ScramSha256;
        assert!(said(first(None, false, plain), "y,,"));
        assert!(!said(first(Some(b"x"), true, plain), "y,,"));
        assert!(said(first(Some(b"x"), true, plain), "n,,"));
        assert!(!said(first(Some(b"x"), true, plain), "p=tls-exporter,,"));
        let plus = Mechanism::ScramSha256Plus;
        assert!(said(first(Some(b"x"), true, plus), "p=tls-exporter,,"));
        for header in ["n,,", "y,,", "p=tls-unique,,", "p=tls-server-end-point,,"] {
            assert!(!said(first(Some(b"x"), true, plus), header), "{header}");
        }
        let none = Circumstances {
            nonce: &[7; 18],
            ..Circumstances::default()
        };
        assert!(First::new(plus, none).is_none());
    }

    #[test]
    fn what_is_no_first_message_is_malformed() {
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,n=,r=abc",
            "n,,n=user,r=",
            "n,,n=us=er,r=abc",
            "n,,n=user,r=a b",
            "n,,m=x,n=user,r=abc",
            "n,user,n=user,r=abc",
            "n,a=,n=user,r=abc",
            "x,,n=user,r=abc",
            "n,,r=abc,n=user",
        ] {
            let first = first(None, false, Mechanism::ScramSha256);
            assert!(first.respond(bad).is_none(), "{bad}");
        }
        let first = first(None, false, Mechanism::ScramSha1);
        let named = first.respond("n,a=b=2Cc,n=a=3Db,r=abc,x=more").unwrap();
        assert_eq!(named.authzid.as_deref(), Some("b,c"));
        assert_eq!(named.name, "a=b");
    }

    #[test]
    fn a_wrong_proof_nonce_or_channel_proves_nothing() {
        let named = || {
            let first = first(None, false, Mechanism::ScramSha256);
            first.respond("n,,n=user,r=abc").unwrap()
        };
        let nonce = named().nonce;
        let proof = STANDARD.encode([0; 32]);
        for said in [
            format!("c=biws,r={nonce},p={proof}"),
            format!("c=biws,r={nonce}x,p={proof}"),
            format!("c=eSws,r={nonce},p={proof}"),
        ] {
            let (_, last) = named().answer(&keys(ScramHash::Sha256)).unwrap();
            assert!(last.respond(&said).unwrap().is_err(), "{said}");
        }
        for bad in [
            "",
            "c=biws",
            "c=biws,r=x",
            "c=biws,r=x,p=",
            "c=biws,r=x,p=AAAA",
        ] {
            let (_, last) = named().answer(&keys(ScramHash::Sha256)).unwrap();
            assert!(last.respond(bad).is_none(), "{bad}");
        }
        assert!(named().answer(&keys(ScramHash::Sha1)).is_none());
    }

    #[test]
    fn success_is_said_after_the_client_has_seen_the_signature() {
        let circumstances = Circumstances {
            nonce: &[7; 18],
            ..Circumstances::default()
        };
        let said = STANDARD.encode("n,,n=user,r=abc");
        let step = ServerExchange::start(Mechanism::ScramSha256, Some(&said), circumstances);
        let Step::Ask { query, next } = step else {
            panic!("{step:?}")
        };
        assert_eq!(query.kind, SecretKind::Scram(ScramHash::Sha256));
        let step = next.answer(&Secret::Scram(keys(ScramHash::Sha256)));
        let Step::Challenge { next, .. } = step else {
            panic!("{step:?}")
        };
        assert!(matches!(
            next.respond(b"*"),
            Step::Failed(Failure::Cancelled)
        ));
    }
}
