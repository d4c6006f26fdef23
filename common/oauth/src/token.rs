//! A token as it was sent: its parts (RFC 7515 §3.1, RFC 7519 §3), believed by nobody yet.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::keys::Algorithm;
use crate::{MAX_TOKEN, Rejection};

/// One token, its parts decoded.
pub struct Token<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub payload: Payload,
    /// What was signed.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// RFC 7519 §4.1, RFC 9068 §2.2.
#[derive(Deserialize)]
pub struct Payload {
    pub iss: String,
    #[serde(default, deserialize_with = "one_or_more")]
    pub aud: Vec<String>,
    #[serde(default, deserialize_with = "date")]
    pub exp: Option<f64>,
    #[serde(default, deserialize_with = "date")]
    pub nbf: Option<f64>,
    #[serde(default, deserialize_with = "words")]
    pub scope: Vec<String>,
    /// The same at some issuers.
    #[serde(default, deserialize_with = "words")]
    pub scp: Vec<String>,
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Takes it apart.
    pub fn parse(text: &'a str) -> Result<Self, Rejection> {
        if text.len() > MAX_TOKEN {
            return Err(Rejection::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Rejection::Malformed)?;
        if payload.contains('.') {
            // Five parts: it is encrypted (RFC 7516).
            return Err(Rejection::Malformed);
        }
        let header: Header = json(header)?;
        let algorithm = Algorithm::parse(&header.alg).ok_or(Rejection::Algorithm)?;
        // RFC 7515 §4.1.11: there is something in it that must be understood, and is not.
        if header.crit.is_some() {
            return Err(Rejection::Malformed);
        }
        // RFC 8725 §3.11: what was signed for another purpose by the same key is no access token. Many issuers write `JWT`.
        let typ = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
        if !matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt") {
            return Err(Rejection::Kind);
        }
        Ok(Self {
            algorithm,
            kid: header.kid,
            payload: json(payload)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Rejection::Malformed)
}

fn json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Rejection> {
    serde_json::from_slice(&decode(text)?).map_err(|_| Rejection::Malformed)
}

/// RFC 7519 §4.1.3: one text, or an array of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(one) => Ok(vec![one]),
        Value::Array(several) => several
            .into_iter()
            .map(|value| match value {
                Value::String(one) => Ok(one),
                _ => Err(D::Error::custom("no text")),
            })
            .collect(),
        _ => Err(D::Error::custom("neither a text nor an array")),
    }
}

/// RFC 8693 §4.2: texts with a space between; some issuers send an array.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = one_or_more(deserializer)?;
    let words = texts.iter().flat_map(|text| text.split(' '));
    Ok(words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect())
}

/// RFC 7519 §2, NumericDate: seconds, which may have a fraction. One that is not finite would never run out.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    match seconds.is_finite() {
        true => Ok(Some(seconds)),
        false => Err(D::Error::custom("no date")),
    }
}
