//! From actions to deeds.

use super::{Deed, Told};
use crate::script::{Action, CertificateKind, Rule};
use crate::tally::Tally;

/// Marks in a text of several lines what is said as one.
const LINES: char = '\n';

/// What is done at a stage.
#[derive(Debug, Default)]
pub struct Done {
    pub deeds: Vec<Deed>,
    /// The code of the last line that ended a reply.
    pub code: Option<u16>,
    /// The script takes the mail whatever was said.
    pub keeps: bool,
    /// Nothing comes after it.
    pub is_over: bool,
}

impl Done {
    /// What a good host says; nothing, if it says nothing here.
    pub fn well(text: &str) -> Self {
        let mut done = Self::default();
        if !text.is_empty() {
            done.say(text);
        }
        done.closed_by_421()
    }

    /// What a rule does.
    pub fn of_rule(rule: &Rule, well: &str, tally: &mut Tally) -> Self {
        let mut done = Self::followed(rule);
        for action in &rule.actions {
            match action {
                Action::Well if well.is_empty() => {}
                Action::Well => done.say(well),
                action => done.act(action, tally),
            }
        }
        if only_waits(rule) && !well.is_empty() {
            done.say(well);
        }
        done.after(rule)
    }

    /// What a rule does about the handshake.
    pub fn of_handshake(rule: &Rule, usual: &CertificateKind, tally: &mut Tally) -> Self {
        let mut done = Self::followed(rule);
        for action in &rule.actions {
            match action {
                Action::Well => done.deeds.push(Deed::Handshake(usual.clone())),
                action => done.act(action, tally),
            }
        }
        if only_waits(rule) {
            done.deeds.push(Deed::Handshake(usual.clone()));
        }
        done.after(rule)
    }

    fn followed(rule: &Rule) -> Self {
        let told = Told::Followed {
            line: rule.line,
            stage: rule.stage.as_str(),
        };
        Self {
            deeds: vec![Deed::Tell(told)],
            ..Self::default()
        }
    }

    fn after(mut self, rule: &Rule) -> Self {
        // Whatever is said next would be the other half.
        if let Some(Action::Half(_)) = rule.actions.last() {
            self.end(Deed::Silence);
        }
        self.closed_by_421()
    }

    /// RFC 5321 §3.8: who says 421 closes.
    fn closed_by_421(mut self) -> Self {
        if self.code == Some(421) && !self.is_over {
            self.deeds.push(Deed::Close);
            self.is_over = true;
        }
        self
    }

    fn act(&mut self, action: &Action, tally: &mut Tally) {
        match action {
            Action::Say(text) => self.say(text),
            Action::Well | Action::Plain => {}
            Action::Wait(time) => self.deeds.push(Deed::Wait(*time)),
            Action::Silence => self.end(Deed::Silence),
            Action::Deaf => self.end(Deed::Deaf),
            Action::Drip(pause, text) => {
                self.tell(text);
                let octets = format!("{text}\r\n").into_bytes();
                self.deeds.push(Deed::Drip(*pause, octets));
            }
            Action::Half(text) => {
                let half = text.len().div_ceil(2).max(2);
                let half = text.as_bytes().get(..half).unwrap_or(text.as_bytes());
                self.deeds.push(Deed::Send(half.to_vec()));
            }
            Action::Garbage(count) => {
                let mut octets = tally.garbage(*count);
                octets.extend_from_slice(b"\r\n");
                self.deeds.push(Deed::Send(octets));
            }
            Action::Octets(octets) => self.deeds.push(Deed::Send(octets.clone())),
            Action::Keep => self.keeps = true,
            Action::Close => self.end(Deed::Close),
            Action::Reset => self.end(Deed::Reset),
            Action::Show(certificate) => self.deeds.push(Deed::Handshake(certificate.clone())),
        }
    }

    fn end(&mut self, deed: Deed) {
        self.deeds.push(deed);
        self.is_over = true;
    }

    fn say(&mut self, text: &str) {
        let mut octets = Vec::new();
        for line in text.split(LINES) {
            self.tell(line);
            octets.extend_from_slice(line.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        self.deeds.push(Deed::Send(octets));
    }

    fn tell(&mut self, line: &str) {
        self.deeds.push(Deed::Tell(Told::Said(line.to_owned())));
        if line.as_bytes().get(3) != Some(&b'-') {
            self.code = line.get(..3).and_then(|code| code.parse().ok());
        }
    }

    /// Whether what was said means that it is done.
    pub fn is_positive(&self) -> bool {
        self.code.is_some_and(|code| code / 100 == 2)
    }
}

/// Who is only late does well afterwards.
fn only_waits(rule: &Rule) -> bool {
    let mut actions = rule.actions.iter();
    actions.all(|action| matches!(action, Action::Wait(_)))
}
