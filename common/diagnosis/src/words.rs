//! A report in the form that rules look at.

use std::borrow::Cow;

use postroad_envelope::{Stage, StatusReport};
use postroad_reply::EnhancedStatusCode;

/// Octets of text that patterns see.
const LONGEST: usize = 2000;

/// What rules look at.
pub struct Words<'a> {
    /// Whether a mail system said so, or we found it ourselves.
    pub is_host: bool,
    /// The reply code; of what we found ourselves its class alone.
    pub code: u16,
    pub status: EnhancedStatusCode,
    pub stage: Option<Stage>,
    pub host: &'a str,
    pub text: Cow<'a, str>,
}

impl<'a> Words<'a> {
    pub fn of(report: &'a StatusReport) -> Self {
        let (code, text) = match &report.reply {
            Some(reply) => (reply.code().value(), one_line(reply.text())),
            None => (
                u16::from(report.status.class()) * 100,
                Cow::Borrowed(bounded(&report.text)),
            ),
        };
        let host = report.remote.as_ref();
        Self {
            is_host: report.reply.is_some(),
            code,
            status: report.status,
            stage: report.stage,
            host: host.map_or("", |host| bounded(&host.name)),
            text,
        }
    }
}

/// Lines joined by a space, without the enhanced status code that begins each of them (RFC 2034 §4).
fn one_line(text: &str) -> Cow<'_, str> {
    let text = bounded(text);
    if !text.contains('\n') {
        return Cow::Borrowed(text);
    }
    let lines = text.lines().map(|line| match line.split_once(' ') {
        Some((code, rest)) if code.parse::<EnhancedStatusCode>().is_ok() => rest.trim(),
        _ => line.trim(),
    });
    Cow::Owned(lines.collect::<Vec<_>>().join(" "))
}

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST))
        .unwrap_or(text)
}
