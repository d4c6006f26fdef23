//! What a reply says of the site, rather than of the mail.

use std::time::Duration;

use regex::{Regex, RegexBuilder};

/// What an attempt showed of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Nothing against it; a refusal may have been about the mail.
    Fine,
    /// Too many mails, or connections, in a time.
    Rate,
    /// Too many connections at once, as far as can be told.
    Crowded,
    /// It is there but cannot work now.
    Busy,
    /// No connection could be had.
    Unreachable,
    /// It is to be left alone for so long.
    Pause(Duration),
}

/// How far a conversation had come when something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until the host was ready for a mail.
    Connect,
    /// From MAIL on.
    Mail,
}

/// What is done about a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It is not about the site.
    Ignore,
    /// Fewer mails in a time.
    Slower,
    /// Fewer connections at once.
    FewerConnections,
    /// Nothing for so long.
    Pause(Duration),
}

/// Replies that are known by their words.
#[derive(Debug, Clone)]
pub struct Pattern {
    words: Regex,
    treatment: Treatment,
}

/// Octets that a compiled pattern may take.
const LARGEST: usize = 1 << 20;

impl Pattern {
    /// What is looked for in `code enhanced text`, lines joined by blanks; upper and lower case are alike.
    pub fn new(words: &str, treatment: Treatment) -> Result<Self, regex::Error> {
        let mut builder = RegexBuilder::new(words);
        let words = builder.case_insensitive(true).size_limit(LARGEST).build()?;
        Ok(Self { words, treatment })
    }
}

/// Replies as they are known without configuration; the first that fits is taken. Greylisting is about one mail, and waits by
/// itself.
const KNOWN: &[(&str, Treatment)] = &[
    (r"gr[ae]y-?list", Treatment::Ignore),
    (r"^4\d\d 4\.[12]\.", Treatment::Ignore),
    (
        r"^4\d\d .*(mailbox|recipient|user|quota).*(full|over|exceed)",
        Treatment::Ignore,
    ),
    (r"^45[02] .*too many recipients", Treatment::Ignore),
    (
        r"too many (concurrent |simultaneous |open )?(smtp )?(connections?|sessions?)( opened)? (from|for|already|by|per)|too many (concurrent|simultaneous)|(concurrent|simultaneous|parallel) (smtp )?(connections?|sessions?)|(maximum|max) (number of )?(concurrent )?connections|connection limit",
        Treatment::FewerConnections,
    ),
    (r"^4\d\d .*4\.7\.28\b", Treatment::Slower),
    (
        r"rate.?limit|throttl|too (much|many) (mail|message|e-?mail|request|transaction|connection)|(unusual|exceeded|high|sending|message|mail|connection).{0,20} rate|try again (more )?slow|temporarily rate",
        Treatment::Slower,
    ),
    // Microsoft: 4.7.500 server busy; 4.7.650 and its neighbours by reputation.
    (r"^451 4\.7\.(5\d\d|6\d\d)", Treatment::Slower),
    // Yahoo: complaints of its users; it asks for hours.
    (
        r"^421 4\.7\.0 .*\[TSS?0[1-9]\]",
        Treatment::Pause(Duration::from_secs(3600)),
    ),
];

/// A reply in parts.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Three digits.
    pub code: u16,
    /// RFC 3463, if it had one: class, subject, detail.
    pub enhanced: Option<(u8, u16, u16)>,
    /// Without both.
    pub text: &'a str,
}

/// What is said of sites, and what it means.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// These first, then those known without configuration.
    pub fn new(own: Vec<Pattern>) -> Self {
        let known = KNOWN.iter();
        let known = known.filter_map(|(words, treatment)| Pattern::new(words, *treatment).ok());
        Self(own.into_iter().chain(known).collect())
    }

    /// What a refusal says of the site. One for good is about the mail, unless a pattern says otherwise.
    pub fn judge(&self, stage: Stage, said: Said<'_>) -> Signal {
        let line = said.line();
        let known = self.0.iter().find(|pattern| pattern.words.is_match(&line));
        if let Some(pattern) = known {
            return match pattern.treatment {
                Treatment::Ignore => Signal::Fine,
                Treatment::Slower if said.is_transient() => Signal::Rate,
                Treatment::FewerConnections if said.is_transient() => Signal::Crowded,
                Treatment::Slower | Treatment::FewerConnections => Signal::Fine,
                Treatment::Pause(time) => Signal::Pause(time),
            };
        }
        match (said.code, said.enhanced, stage) {
            // RFC 3463 §3.5, §3.8.
            (_, Some((4, 7, _)), Stage::Connect) => Signal::Crowded,
            (_, Some((4, 7, _)), Stage::Mail) => Signal::Rate,
            (_, Some((4, 4, 5) | (4, 3, 2)), _) => Signal::Busy,
            (421, _, Stage::Connect) => Signal::Crowded,
            (421, Some((4, 4, _)), _) => Signal::Busy,
            (421, ..) => Signal::Rate,
            (400..=499, _, Stage::Connect) => Signal::Busy,
            (_, Some((4, 4, _)), _) => Signal::Busy,
            _ => Signal::Fine,
        }
    }
}

impl Said<'_> {
    fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    fn line(&self) -> String {
        let text = self.text.replace(['\r', '\n'], " ");
        match self.enhanced {
            Some((class, subject, detail)) => {
                format!("{} {class}.{subject}.{detail} {text}", self.code)
            }
            None => format!("{} {text}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(patterns: &Patterns, stage: Stage, reply: &str) -> Signal {
        let (code, rest) = reply.split_once(' ').unwrap();
        let parts = |word: &str| {
            let mut numbers = word.split('.').map(|part| part.parse::<u16>().ok());
            let class = u8::try_from(numbers.next()??).ok()?;
            Some((class, numbers.next()??, numbers.next()??))
        };
        let (enhanced, text) = match rest.split_once(' ') {
            Some((word, text)) if parts(word).is_some() => (parts(word), text),
            _ => (None, rest),
        };
        let code = code.parse().unwrap();
        patterns.judge(
            stage,
            Said {
                code,
                enhanced,
                text,
            },
        )
    }

    #[test]
    fn what_servers_say_is_understood() {
        let patterns = Patterns::new(Vec::new());
        assert_eq!(patterns.0.len(), KNOWN.len(), "all of them compile");
        let hour = Signal::Pause(Duration::from_secs(3600));
        use Stage::{Connect, Mail};
        for (stage, reply, expected) in [
            (
                Connect,
                "421 4.7.0 mx.test Error: too many connections from 192.0.2.1",
                Signal::Crowded,
            ),
            (
                Connect,
                "421 Too many concurrent SMTP connections; please try again later",
                Signal::Crowded,
            ),
            (
                Connect,
                "421 mx.test Service not available",
                Signal::Crowded,
            ),
            (Connect, "554 5.7.1 no service for you", Signal::Fine),
            (Connect, "450 come later", Signal::Busy),
            (
                Mail,
                "450 4.7.1 Error: too much mail from 192.0.2.1",
                Signal::Rate,
            ),
            (
                Mail,
                "450 4.7.1 <a@b.test>: Recipient address rejected: Greylisted, see help",
                Signal::Fine,
            ),
            (Mail, "451 4.7.1 Greylisting in action", Signal::Fine),
            (
                Mail,
                "421 4.7.28 Our system has detected an unusual rate of unsolicited mail",
                Signal::Rate,
            ),
            (
                Mail,
                "451 4.7.500 Server busy. Please try again later",
                Signal::Rate,
            ),
            (
                Mail,
                "421 4.7.0 [TSS04] Messages temporarily deferred due to user complaints",
                hour,
            ),
            (Mail, "452 4.2.2 Mailbox full", Signal::Fine),
            (Mail, "452 4.5.3 Error: too many recipients", Signal::Fine),
            (
                Mail,
                "450 4.2.1 The user is receiving mail at a rate that prevents this",
                Signal::Fine,
            ),
            (Mail, "421 4.4.2 connection timed out", Signal::Busy),
            (Mail, "421 4.3.2 shutting down", Signal::Busy),
            (Mail, "451 try again", Signal::Fine),
            (Mail, "550 5.1.1 unknown user", Signal::Fine),
            (Mail, "550 5.7.1 sending rate too high", Signal::Fine),
        ] {
            assert_eq!(judge(&patterns, stage, reply), expected, "{reply}");
        }
    }

    #[test]
    fn own_patterns_come_first() {
        let minute = Duration::from_secs(60);
        let pattern = Pattern::new("^4.. .*greylist", Treatment::Pause(minute)).unwrap();
        let patterns = Patterns::new(vec![pattern]);
        let said = judge(&patterns, Stage::Mail, "451 4.7.1 Greylisting in action");
        assert_eq!(said, Signal::Pause(minute));
        assert!(Pattern::new("(", Treatment::Slower).is_err());
        assert!(Pattern::new("((a{99}){99}){99}", Treatment::Slower).is_err());
    }
}
