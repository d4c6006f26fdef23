//! Why a mail did not get through: of thousands of ways to say it, one [`Cause`].
//!
//! ```text
//! StatusReport (code, enhanced status, text, stage, host) ──► Rules::diagnose ──► Diagnosis { cause, rule }
//! ```
//!
//! * The rules are a table in TOML ([`Rules::builtin`]); a user's own file is asked before it ([`Rules::with_file`]).
//! * The first rule that fits names the cause. What no rule knows is [`Cause::Other`].
//! * Patterns take time that grows with the text alone, and the text that is looked at is bounded.
//!
//! Only a rules file can be wrong ([`RulesError`]); a reply, whatever it holds, has a cause.
#![forbid(unsafe_code)]

mod rule;
mod words;

use postroad_envelope::{Cause, StatusReport};
use serde::Deserialize;

use rule::Rule;
use words::Words;

/// Rules a file may have.
pub const MOST_RULES: usize = 1000;
/// Octets a file may have.
pub const LONGEST_FILE: usize = 1 << 20;

const BUILTIN: &str = include_str!("rules.toml");

/// The rules, in the order in which they are asked.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// What the rules found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnosis<'a> {
    /// Why.
    pub cause: Cause,
    /// The name of the rule that said so: its own, or its place. None: no rule knew.
    pub rule: Option<&'a str>,
}

/// Why a file of rules cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// It is no such table, or a rule in it is wrong; with the line.
    #[error("{0}")]
    Unreadable(String),
    /// A rule would fit everything, or nothing.
    #[error(
        "rule {0}: it names nothing that has to fit; give it `text`, `status`, `code`, `stage` or `host`"
    )]
    Empty(String),
    /// There are too many.
    #[error("it has more than {MOST_RULES} rules, or more than {LONGEST_FILE} octets")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Rule>,
}

impl Rules {
    /// The rules that come with Postroad.
    pub fn builtin() -> Self {
        // The table is our own, and a test reads it.
        Self::parse(BUILTIN, "builtin").unwrap_or_default()
    }

    /// The rules of a user's file, and behind them our own.
    pub fn with_file(text: &str) -> Result<Self, RulesError> {
        let mut rules = Self::parse(text, "own")?;
        rules.0.extend(Self::builtin().0);
        Ok(rules)
    }

    fn parse(text: &str, source: &str) -> Result<Self, RulesError> {
        if text.len() > LONGEST_FILE {
            return Err(RulesError::TooMany);
        }
        let file: File =
            toml::from_str(text).map_err(|error| RulesError::Unreadable(error.to_string()))?;
        if file.rule.len() > MOST_RULES {
            return Err(RulesError::TooMany);
        }
        let mut rules = file.rule;
        for (rule, number) in rules.iter_mut().zip(1..) {
            if rule.name.is_empty() {
                rule.name = format!("{source} {number} ({})", rule.cause());
            }
            if rule.is_empty() {
                return Err(RulesError::Empty(rule.name.clone()));
            }
        }
        Ok(Self(rules))
    }

    /// Why a recipient did not get a mail, or not yet.
    pub fn diagnose(&self, report: &StatusReport) -> Diagnosis<'_> {
        let words = Words::of(report);
        match self.0.iter().find(|rule| rule.fits(&words)) {
            Some(rule) => Diagnosis {
                cause: rule.cause(),
                rule: Some(&rule.name),
            },
            None => Diagnosis {
                cause: Cause::Other,
                rule: None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
