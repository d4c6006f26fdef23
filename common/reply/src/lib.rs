//! The numbers and text every party answers with (RFC 5321 §4.2, RFC 2034, RFC 3463).
//!
//! A [`Reply`] is what goes over the wire: a [`ReplyCode`], an optional [`EnhancedStatusCode`] and lines of
//! text. Replies we send are built here; replies of others are parsed by `postroad-smtp` into the same type.
#![forbid(unsafe_code)]

use std::{fmt, str::FromStr};

mod codes;
pub use codes::*;

/// Three digits, the first of which decides (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyCode(u16);

/// What the first digit of a reply means for the one who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 2yz: done.
    Completion,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: not now, try again.
    Transient,
    /// 5yz: never in this form.
    Permanent,
}

/// A number or text that is no reply code or enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct InvalidCode(&'static str);

impl ReplyCode {
    /// A code from 200 to 599.
    pub const fn new(code: u16) -> Result<Self, InvalidCode> {
        if code >= 200 && code < 600 {
            Ok(Self(code))
        } else {
            Err(InvalidCode("reply code"))
        }
    }

    /// The number.
    pub const fn value(self) -> u16 {
        self.0
    }

    /// What the first digit says.
    pub const fn severity(self) -> Severity {
        match self.0 / 100 {
            2 => Severity::Completion,
            3 => Severity::Intermediate,
            4 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// `class.subject.detail` (RFC 3463 §2): class 2, 4 or 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedStatusCode {
    class: u8,
    subject: u16,
    detail: u16,
}

impl EnhancedStatusCode {
    /// Class 2, 4 or 5; subject and detail up to 999.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Result<Self, InvalidCode> {
        match class {
            2 | 4 | 5 if subject < 1000 && detail < 1000 => Ok(Self {
                class,
                subject,
                detail,
            }),
            _ => Err(InvalidCode("enhanced status code")),
        }
    }

    /// The first number: 2 success, 4 persistent transient failure, 5 permanent failure.
    pub const fn class(self) -> u8 {
        self.class
    }

    /// The second number: what the status is about.
    pub const fn subject(self) -> u16 {
        self.subject
    }

    /// The third number.
    pub const fn detail(self) -> u16 {
        self.detail
    }

    /// The same subject and detail as a transient failure: the fault is ours to mend, and the mail waits.
    pub const fn as_transient(self) -> Self {
        Self { class: 4, ..self }
    }

    /// The same subject and detail as a permanent failure, as when time has run out.
    pub const fn as_permanent(self) -> Self {
        Self { class: 5, ..self }
    }
}

impl fmt::Display for EnhancedStatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatusCode {
    type Err = InvalidCode;
    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let number = |part: Option<&str>| {
            part.filter(|p| matches!(p.len(), 1..=3) && p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse::<u16>().ok())
                .ok_or(InvalidCode("enhanced status code"))
        };
        let mut parts = text.split('.');
        let (class, subject, detail) = (
            number(parts.next())?,
            number(parts.next())?,
            number(parts.next())?,
        );
        match (u8::try_from(class), parts.next()) {
            (Ok(class), None) => Self::new(class, subject, detail),
            _ => Err(InvalidCode("enhanced status code")),
        }
    }
}

/// An answer: code, enhanced status code, lines of text.
///
/// The text never holds control characters: they are replaced when the reply is made, so that nothing a peer
/// sent can end a line of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: ReplyCode,
    enhanced: Option<EnhancedStatusCode>,
    text: String,
}

impl Reply {
    /// A reply with an enhanced status code; `\n` in `text` separates lines.
    pub fn new(code: ReplyCode, enhanced: EnhancedStatusCode, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: clean(text.into()),
        }
    }

    /// A reply without one: greetings, EHLO, 354, 334 (RFC 2034 §4), and those of old servers.
    pub fn plain(code: ReplyCode, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: None,
            text: clean(text.into()),
        }
    }

    /// The three digits.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// The enhanced status code, if there was one.
    pub fn enhanced(&self) -> Option<EnhancedStatusCode> {
        self.enhanced
    }

    /// The text without codes; lines separated by `\n`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the first digit says.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// Whether the answer is 2yz.
    pub fn is_positive(&self) -> bool {
        self.severity() == Severity::Completion
    }

    /// The octets on the wire, lines ended by CRLF, long text folded into several lines of at most 512 octets
    /// (RFC 5321 §4.5.3.1.5).
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.text.len() + 16);
        let lines: Vec<&str> = self.text.split('\n').flat_map(fold).collect();
        for (at, line) in lines.iter().enumerate() {
            let separator = if at + 1 == lines.len() { ' ' } else { '-' };
            wire.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if let Some(enhanced) = self.enhanced {
                wire.extend_from_slice(format!("{enhanced} ").as_bytes());
            }
            wire.extend_from_slice(line.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        wire
    }
}

/// On one line, as logs and reports show it: `550 5.1.1 no such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text.replace('\n', " "))?;
        }
        Ok(())
    }
}

fn clean(text: String) -> String {
    if text.chars().any(|c| c.is_control() && c != '\n') {
        text.chars()
            .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
            .collect()
    } else {
        text
    }
}

/// Cuts a line at character borders so that codes, text and CRLF stay within 512 octets.
fn fold(line: &str) -> Vec<&str> {
    const ROOM: usize = 490;
    let (mut rest, mut parts) = (line, Vec::with_capacity(1));
    while rest.len() > ROOM {
        let cut = rest
            .char_indices()
            .take_while(|(at, c)| at + c.len_utf8() <= ROOM)
            .last()
            .map_or(rest.len(), |(at, c)| at + c.len_utf8());
        let (head, tail) = rest.split_at(cut);
        parts.push(head);
        rest = tail;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_of_rfc_5321_4_2_1() {
        let reply = Reply::new(
            MAILBOX_UNAVAILABLE_550,
            BAD_MAILBOX_5_1_1,
            "no such user\nsorry",
        );
        assert_eq!(
            reply.to_wire(),
            b"550-5.1.1 no such user\r\n550 5.1.1 sorry\r\n"
        );
        assert_eq!(reply.to_string(), "550 5.1.1 no such user sorry");
        assert_eq!(
            Reply::plain(START_MAIL_INPUT_354, "go").to_wire(),
            b"354 go\r\n"
        );
    }

    #[test]
    fn nothing_can_smuggle_a_line_end() {
        let reply = Reply::plain(OK_250, "a\r\0b");
        assert_eq!(reply.to_wire(), b"250 a??b\r\n");
    }

    #[test]
    fn long_text_is_folded() {
        let wire = Reply::new(OK_250, SUCCESS_2_0_0, "ä".repeat(600)).to_wire();
        let text = String::from_utf8(wire).unwrap();
        assert!(text.split("\r\n").all(|line| line.len() + 2 <= 512));
        assert_eq!(text.matches('ä').count(), 600);
    }

    #[test]
    fn enhanced_codes_parse_strictly() {
        assert_eq!("5.7.1".parse(), EnhancedStatusCode::new(5, 7, 1));
        for bad in ["", "5.7", "3.0.0", "5.7.1.1", "5.7.1000", "5..1", "+5.7.1"] {
            assert!(bad.parse::<EnhancedStatusCode>().is_err(), "{bad}");
        }
    }
}
