//! What the server must say.

use std::fmt;

use crate::expand::{self, Piece};

/// A line with gaps.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `…`
    Any,
    /// `{queue-id}`
    QueueId,
    /// `{number}`
    Number,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        for piece in expand::pieces(text)? {
            match piece {
                Piece::Holder("queue-id") => parts.push(Part::QueueId),
                Piece::Holder("number") => parts.push(Part::Number),
                Piece::Holder(name) => {
                    let value = expand::known(name)?;
                    parts.push(Part::Text(String::from_utf8_lossy(&value).into_owned()));
                }
                Piece::Text(text) => {
                    for (number, text) in text.split('…').enumerate() {
                        if number > 0 {
                            parts.push(Part::Any);
                        }
                        if !text.is_empty() {
                            parts.push(Part::Text(text.to_owned()));
                        }
                    }
                }
            }
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// Whether `said` is this; the id of a mail in it, if one was expected.
    pub fn matches(&self, said: &str) -> Option<Option<String>> {
        let mut id = None;
        fits(&self.parts, said, &mut id).then_some(id)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn fits(parts: &[Part], said: &str, id: &mut Option<String>) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return said.is_empty();
    };
    match part {
        Part::Text(text) => said
            .strip_prefix(text.as_str())
            .is_some_and(|said| fits(rest, said, id)),
        Part::Any => said
            .char_indices()
            .map(|(at, _)| at)
            .chain([said.len()])
            .any(|at| fits(rest, said.get(at..).unwrap_or_default(), id)),
        Part::QueueId => {
            let (found, said) = said.split_at_checked(26).unwrap_or(("", ""));
            let sound =
                |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b.is_ascii_uppercase();
            if found.is_empty() || !found.bytes().all(sound) || !fits(rest, said, id) {
                return false;
            }
            *id = Some(found.to_owned());
            true
        }
        Part::Number => {
            let digits = said.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && fits(rest, said.get(digits..).unwrap_or_default(), id)
        }
    }
}

/// A whole reply: its code, lines it has, lines it has not.
#[derive(Debug, Clone)]
pub struct ReplyPattern {
    text: String,
    code: String,
    with: Vec<Pattern>,
    without: Vec<Pattern>,
}

impl ReplyPattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        if code.len() != 3 || !code.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("no code: {code:?}"));
        }
        let mut pattern = Self {
            text: text.to_owned(),
            code: code.to_owned(),
            with: Vec::new(),
            without: Vec::new(),
        };
        let mut rest = rest;
        while !rest.is_empty() {
            let (sign, more) = rest.split_at_checked(1).unwrap_or_default();
            let end = [more.find(" +"), more.find(" -")]
                .into_iter()
                .flatten()
                .min();
            let (line, after) = more
                .split_at_checked(end.unwrap_or(more.len()))
                .unwrap_or_default();
            let line = Pattern::parse(line)?;
            match sign {
                "+" => pattern.with.push(line),
                "-" => pattern.without.push(line),
                _ => return Err(format!("neither + nor -: {rest:?}")),
            }
            rest = after.trim_start();
        }
        Ok(pattern)
    }

    pub fn code(&self) -> &str {
        &self.code
    }

    /// What is wrong with a whole reply.
    pub fn fault(&self, lines: &[String]) -> Option<String> {
        if let Some(other) = lines.iter().find(|line| !line.starts_with(&self.code)) {
            return Some(format!("{other:?} has not the code {}", self.code));
        }
        let texts: Vec<&str> = lines.iter().filter_map(|line| line.get(4..)).collect();
        let said = |pattern: &Pattern| texts.iter().any(|text| pattern.matches(text).is_some());
        if let Some(missing) = self.with.iter().find(|pattern| !said(pattern)) {
            return Some(format!("no line is {:?}", missing.text));
        }
        // A keyword that must not be there must not be there with arguments either.
        let names = |pattern: &Pattern| {
            said(pattern)
                || texts
                    .iter()
                    .any(|text| text.split(' ').next() == Some(&*pattern.text))
        };
        let surplus = self.without.iter().find(|pattern| names(pattern))?;
        Some(format!("a line is {:?}", surplus.text))
    }
}

impl fmt::Display for ReplyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
