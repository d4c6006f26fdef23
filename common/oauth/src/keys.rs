//! The keys that an issuer publishes (RFC 7517).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Octets of a set of keys; those of large issuers have some 10,000.
pub const MAX_SET: usize = 256 << 10;
/// Keys of a set that are looked at.
const MOST_KEYS: usize = 100;

/// How a token may be signed (RFC 7518 §3.1, RFC 8037 §3.1). There is no other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// By its name in a header.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            // RFC 9864 §2.2 gave it the name of its curve.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// The public keys of one issuer that can sign tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

/// Why a set of keys is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Issuer or operator: it is no JWKS.
    #[error("is no set of keys (RFC 7517): {0}")]
    Syntax(String),
    /// Issuer or operator: nothing in it can be used.
    #[error("has no public key for RS256, PS256, ES256 or EdDSA")]
    NoKey,
    /// Issuer or operator: it is too large.
    #[error("has more than {MAX_SET} octets")]
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if it says so (RFC 7517 §4.4).
    only: Option<Algorithm>,
    public: Public,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point as SEC 1 has it, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// RFC 7517 §4, and RFC 7518 §6 for what belongs to a kind. Private parts are not read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JWKS. Keys that cannot sign, or not for us, are passed over (RFC 7517 §5).
    pub fn parse(text: &[u8]) -> Result<Self, KeysError> {
        if text.len() > MAX_SET {
            return Err(KeysError::TooLarge);
        }
        let set: Set =
            serde_json::from_slice(text).map_err(|error| KeysError::Syntax(error.to_string()))?;
        let keys: Vec<Key> = set
            .keys
            .into_iter()
            .take(MOST_KEYS)
            .filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.into_key())
            .collect();
        match keys.is_empty() {
            true => Err(KeysError::NoKey),
            false => Ok(Self(keys)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; then no token counts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys that may verify it made this signature; `None` if there is no such key.
    pub(crate) fn verify(
        &self,
        (algorithm, id): (Algorithm, Option<&str>),
        signed: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| key.fits(algorithm) && (id.is_none() || key.id.as_deref() == id));
        let first = fitting.next()?;
        let mut others = fitting.peekable();
        // Without a name it must be clear which is meant: a key that is tried because it is there is no key that was chosen.
        if id.is_none() && others.peek().is_some() {
            return None;
        }
        let mut fitting = std::iter::once(first).chain(others);
        Some(fitting.any(|key| key.public.verify(algorithm, signed, signature)))
    }
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match self.public {
            Public::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
            Public::P256(_) => algorithm == Algorithm::Es256,
            Public::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        kind && self.only.is_none_or(|only| only == algorithm)
    }
}

impl Public {
    fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let verified = match (self, algorithm) {
            (Self::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                signed,
                signature,
            ),
            (Self::Rsa { n, e }, Algorithm::Ps256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, signed, signature)
            }
            (Self::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            (Self::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, key).verify(signed, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

impl Jwk {
    fn into_key(self) -> Option<Key> {
        // RFC 7517 §4.2 and §4.3.
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let only = match &self.alg {
            None => None,
            Some(name) => Some(Algorithm::parse(name)?),
        };
        let public = signs.then(|| self.public()).flatten()?;
        Some(Key {
            id: self.kid,
            only,
            public,
        })
    }

    fn public(&self) -> Option<Public> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let n = bare(octets(&self.n)?);
                let e = bare(octets(&self.e)?);
                // RFC 7518 §3.3: 2048 bits at least; ring takes 8192 at most.
                ((256..=1024).contains(&n.len()) && !e.is_empty()).then_some(Public::Rsa { n, e })
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (octets(&self.x)?, octets(&self.y)?);
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (x.len() == 32 && y.len() == 32).then_some(Public::P256(point))
            }
            ("OKP", Some("Ed25519")) => {
                let x = octets(&self.x)?;
                (x.len() == 32).then_some(Public::Ed25519(x))
            }
            // `oct` above all: whoever may read a shared secret may sign.
            _ => None,
        }
    }
}

fn octets(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()
}

/// Some issuers write a number with zeros in front of it, which RFC 7518 §2 forbids and ring refuses.
fn bare(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|octet| *octet == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_that_sign_are_taken() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}"#);
        let set = |keys: &str| KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes());
        assert_eq!(set(&good).unwrap().len(), 1);
        for useless in [
            r#"{"kty":"oct","k":"c2VjcmV0","kid":"a"}"#.to_owned(),
            good.replace("Ed25519", "X25519"),
            good.replace("OKP", "EC"),
            good.replace(r#""kid":"a""#, r#""use":"enc""#),
            good.replace(r#""kid":"a""#, r#""key_ops":["encrypt"]"#),
            good.replace(r#""kid":"a""#, r#""alg":"HS256""#),
            good.replace(&x, "AAAA"),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
            "17".to_owned(),
        ] {
            assert_eq!(set(&useless), Err(KeysError::NoKey), "{useless}");
            assert_eq!(
                set(&format!("{useless},{good}")).unwrap().len(),
                1,
                "{useless}"
            );
        }
        assert!(matches!(
            KeySet::parse(b"<html>"),
            Err(KeysError::Syntax(_))
        ));
        assert_eq!(
            KeySet::parse(&vec![b' '; MAX_SET + 1]),
            Err(KeysError::TooLarge)
        );
    }
}
