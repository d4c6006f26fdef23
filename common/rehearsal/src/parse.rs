//! Scripts as text. All that is wrong with one is told at once.

mod rules;
mod settings;

use std::fmt;
use std::time::Duration;

use postroad_daemon::{ByteSize, Interval};

use crate::script::{CertificateKind, Rule, Script};

/// A script that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct BadScript(pub Vec<ScriptFault>);

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFault {
    /// Which, from 1 on.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub remedy: &'static str,
}

impl fmt::Display for ScriptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}; {}", self.line, self.problem, self.remedy)
    }
}

fn lines(faults: &[ScriptFault]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// What is wrong with part of a line.
struct Wrong {
    problem: String,
    remedy: &'static str,
}

fn wrong<T>(problem: impl Into<String>, remedy: &'static str) -> Result<T, Wrong> {
    Err(Wrong {
        problem: problem.into(),
        remedy,
    })
}

impl Script {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BadScript> {
        let mut script = Self::default();
        let mut faults = Vec::new();
        let mut open: Option<Rule> = None;
        for (line, raw) in (1..).zip(text.lines()) {
            let said = raw.trim();
            if said.is_empty() || said.starts_with('#') {
                continue;
            }
            let indented = raw.starts_with([' ', '\t']);
            let read = match (&mut open, indented) {
                (Some(rule), true) => rules::action(said, rule.stage).map(|action| {
                    rule.actions.push(action);
                }),
                (None, true) => wrong(
                    "an indented line belongs to a rule, and there is none before it",
                    "begin it with `on STAGE:`, or take the blanks away",
                ),
                (_, false) => {
                    finish(&mut open, &mut script, &mut faults);
                    match said.strip_prefix("on ") {
                        Some(rest) => rules::rule(rest, line).map(|rule| open = Some(rule)),
                        None => settings::read(said, &mut script),
                    }
                }
            };
            if let Err(Wrong { problem, remedy }) = read {
                faults.push(ScriptFault {
                    line,
                    problem,
                    remedy,
                });
            }
        }
        finish(&mut open, &mut script, &mut faults);
        match faults.is_empty() {
            true => Ok(script),
            false => Err(BadScript(faults)),
        }
    }
}

fn finish(open: &mut Option<Rule>, script: &mut Script, faults: &mut Vec<ScriptFault>) {
    let Some(rule) = open.take() else {
        return;
    };
    // One whose action was no good is no empty one.
    if rule.actions.is_empty() && faults.last().is_none_or(|fault| fault.line < rule.line) {
        faults.push(ScriptFault {
            line: rule.line,
            problem: "the rule does nothing".to_owned(),
            remedy: "write an action behind the colon, or indented ones in the lines that follow",
        });
    }
    script.rules.push(rule);
}

/// A line of a reply: `451 4.7.1 text` or `250-text`.
fn reply(text: &str) -> Result<String, Wrong> {
    let code = text.get(..3).unwrap_or_default();
    let good = code.bytes().all(|octet| octet.is_ascii_digit())
        && matches!(code.as_bytes().first(), Some(b'2'..=b'5'))
        && matches!(text.as_bytes().get(3), None | Some(b' ' | b'-'));
    match good {
        true => Ok(text.to_owned()),
        false => wrong(
            format!("{text:?} is no reply"),
            "begin it with a code and a blank, such as `451 4.7.1 come again`",
        ),
    }
}

fn interval(text: &str) -> Result<Duration, Wrong> {
    match text.parse::<Interval>() {
        Ok(interval) => Ok(interval.as_duration()),
        Err(_) => wrong(
            format!("{text:?} is no time"),
            "write a number and its unit, such as `500ms`, `2s` or `1m`",
        ),
    }
}

fn size(text: &str) -> Result<u64, Wrong> {
    match text.parse::<ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => wrong(
            format!("{text:?} is no size"),
            "write a number and its unit, such as `512B`, `64KiB` or `10MiB`",
        ),
    }
}

fn number(text: &str) -> Result<u64, Wrong> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) => wrong(format!("{text:?} is no number"), "write a whole number"),
    }
}

fn certificate(text: &str) -> Result<CertificateKind, Wrong> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words.as_slice() {
        ["good"] => CertificateKind::Good,
        ["expired"] => CertificateKind::Expired,
        ["for", "another", "name"] => CertificateKind::AnotherName,
        ["of", "an", "unknown", "authority"] => CertificateKind::UnknownAuthority,
        ["files", cert, key] => CertificateKind::Files {
            cert: cert.into(),
            key: key.into(),
        },
        _ => {
            return wrong(
                format!("{text:?} is no certificate"),
                "write `good`, `expired`, `for another name`, `of an unknown authority` or `files CERT KEY`",
            );
        }
    })
}

#[cfg(test)]
mod tests;
