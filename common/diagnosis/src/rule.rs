//! One rule: everything it names must fit.

use std::str::FromStr;

use postroad_envelope::{Cause, Stage};
use postroad_reply::EnhancedStatusCode;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, de::Error};

use crate::words::Words;

/// Octets that the patterns of a rule may take when compiled.
const PATTERNS: usize = 1 << 20;

/// A rule as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What logs and `explain` call it; its place and cause, if it has none.
    #[serde(default)]
    pub name: String,
    #[serde(deserialize_with = "word")]
    cause: Cause,
    #[serde(default)]
    by: Option<By>,
    #[serde(default, deserialize_with = "parsed")]
    code: Vec<Code>,
    #[serde(default, deserialize_with = "parsed")]
    status: Vec<Status>,
    #[serde(default, deserialize_with = "parsed")]
    stage: Vec<Stage>,
    #[serde(default, deserialize_with = "patterns")]
    host: Option<Patterns>,
    #[serde(default, deserialize_with = "patterns")]
    text: Option<Patterns>,
}

/// Who found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Host,
    Us,
}

impl Rule {
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether it names nothing that has to fit.
    pub fn is_empty(&self) -> bool {
        self.by.is_none()
            && self.code.is_empty()
            && self.status.is_empty()
            && self.stage.is_empty()
            && self.host.is_none()
            && self.text.is_none()
    }

    pub fn fits(&self, words: &Words) -> bool {
        let by = self.by.is_none_or(|by| (by == By::Host) == words.is_host);
        // The cheap ones first; most rules end here.
        by && any(&self.code, |code| code.fits(words.code))
            && any(&self.status, |status| status.fits(words.status))
            && any(&self.stage, |stage| words.stage == Some(*stage))
            && (self.host.as_ref()).is_none_or(|host| host.0.is_match(words.host.as_bytes()))
            && (self.text.as_ref()).is_none_or(|text| text.0.is_match(words.text.as_bytes()))
    }
}

/// What a rule does not name fits.
fn any<T>(named: &[T], fits: impl Fn(&T) -> bool) -> bool {
    named.is_empty() || named.iter().any(fits)
}

/// `550`, or `5` for a class.
#[derive(Debug, Clone, Copy)]
struct Code(u16);

impl Code {
    fn fits(self, code: u16) -> bool {
        self.0 == code || self.0 == code / 100
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(code @ (4 | 5 | 400..=599)) => Ok(Self(code)),
            _ => Err(format!(
                "`{text}` is no reply code of refusal: write 4, 5, or 400 to 599"
            )),
        }
    }
}

/// `5.1.1`, with `x` for any number.
#[derive(Debug, Clone, Copy)]
struct Status([Option<u16>; 3]);

impl Status {
    fn fits(self, status: EnhancedStatusCode) -> bool {
        let parts = [u16::from(status.class()), status.subject(), status.detail()];
        let mut pairs = self.0.iter().zip(parts);
        pairs.all(|(wanted, part)| wanted.is_none_or(|wanted| wanted == part))
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no enhanced status code such as 5.1.1 or x.1.x");
        let part = |part: &str| match part {
            "x" => Ok(None),
            number => number.parse().map(Some).map_err(|_| wrong()),
        };
        let parts: Vec<Option<u16>> = text.split('.').map(part).collect::<Result<_, _>>()?;
        parts.try_into().map(Self).map_err(|_| wrong())
    }
}

/// Patterns, one of which is to be found, without regard to the case of ASCII letters; as one, which is quicker.
#[derive(Debug, Clone)]
struct Patterns(Regex);

impl Patterns {
    fn new(texts: &[String]) -> Result<Self, String> {
        // Each by itself first, so that the wrong one is named.
        for text in texts {
            pattern(text).map_err(|error| format!("`{text}` is no pattern: {error}"))?;
        }
        let all = texts.iter().map(|text| format!("(?:{text})"));
        let all = pattern(&all.collect::<Vec<_>>().join("|"));
        all.map(Self)
            .map_err(|error| format!("these patterns are too many for one rule: {error}"))
    }
}

fn pattern(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .case_insensitive(true)
        .unicode(false)
        .size_limit(PATTERNS)
        .dfa_size_limit(PATTERNS)
        .build()
}

fn word<'de, D: Deserializer<'de>>(from: D) -> Result<Cause, D::Error> {
    let text = String::deserialize(from)?;
    text.parse()
        .map_err(|error| D::Error::custom(format!("`{text}` is no cause: {error}")))
}

fn patterns<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Patterns>, D::Error> {
    let texts: Vec<String> = Vec::deserialize(from)?;
    if texts.is_empty() {
        return Ok(None);
    }
    Patterns::new(&texts).map(Some).map_err(D::Error::custom)
}

fn parsed<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let texts: Vec<String> = Vec::deserialize(from)?;
    let parsed = texts.iter().map(|text| text.parse());
    parsed.collect::<Result<_, _>>().map_err(D::Error::custom)
}
