//! One conversation without socket and clock: octets in, deeds out.

mod commands;
mod content;
mod deeds;
mod login;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postroad_sasl::ServerExchange;

use crate::event::{EventKind, Taken};
use crate::script::{CertificateKind, Protocol, Script, Stage, Tls};
use crate::tally::{Facts, Tally};
use content::Content;
use deeds::Done;

/// Octets of a line.
const LONGEST_LINE: usize = 64 << 10;

/// What is to be done next on the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Deed {
    Send(Vec<u8>),
    /// An octet at a time, with pauses.
    Drip(Duration, Vec<u8>),
    Wait(Duration),
    /// Reads on and says nothing until the client is gone.
    Silence,
    /// Does nothing until the host goes down.
    Deaf,
    /// Begins TLS; what was read before it counts no more.
    Handshake(CertificateKind),
    Keep(Box<Taken>),
    Close,
    Reset,
    Tell(Told),
}

/// An event to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Heard(String),
    Said(String),
    Followed { line: usize, stage: &'static str },
    Limited(String),
    LoggedIn { name: String, mechanism: String },
}

impl From<Told> for EventKind {
    fn from(told: Told) -> Self {
        match told {
            Told::Heard(line) => Self::Heard(line),
            Told::Said(line) => Self::Said(line),
            Told::Followed { line, stage } => Self::Followed { line, stage },
            Told::Limited(reply) => Self::Limited(reply),
            Told::LoggedIn { name, mechanism } => Self::LoggedIn { name, mechanism },
        }
    }
}

/// What is known of the present and counted for all.
pub struct Around<'a> {
    pub tally: &'a mut Tally,
    pub now: Duration,
}

/// The conversation.
pub struct Session {
    script: Arc<Script>,
    connection: u64,
    seed: [u8; 32],
    exchanges: u64,
    tls: bool,
    login: Option<String>,
    greeted: bool,
    mails: u64,
    mail: Option<Mail>,
    state: State,
}

/// A transaction.
#[derive(Default)]
struct Mail {
    number: u64,
    from: String,
    to: Vec<String>,
    content: Content,
}

enum State {
    Commands,
    /// A log-in that goes on with the client's next line.
    Login(Box<ServerExchange>, String),
    /// A token was refused; whatever the client says next, this is answered.
    TokenRefused,
    /// After DATA.
    Content,
    /// So many octets of a chunk are to come.
    Chunk {
        left: u64,
        last: bool,
    },
}

impl Session {
    /// A connection that was just accepted, the so manieth. `seed` is chance, for log-ins.
    pub fn new(script: Arc<Script>, connection: u64, seed: [u8; 32]) -> Self {
        Self {
            script,
            connection,
            seed,
            exchanges: 0,
            tls: false,
            login: None,
            greeted: false,
            mails: 0,
            mail: None,
            state: State::Commands,
        }
    }

    /// What is done before the client says anything.
    pub fn begin(&mut self, around: &mut Around<'_>) -> Vec<Deed> {
        let mut done = self.at(Stage::Connect, None, "", around);
        let mut deeds = std::mem::take(&mut done.deeds);
        if done.is_over {
            return deeds;
        }
        if self.script.tls == Tls::AtOnce {
            let handshake = self.handshake(around);
            deeds.extend(handshake.deeds);
            if handshake.is_over {
                return deeds;
            }
        }
        let script = Arc::clone(&self.script);
        if let Some(reply) = around.tally.connect(&script, around.now) {
            deeds.extend(limited(reply));
            if deeds.last() != Some(&Deed::Close) {
                deeds.push(Deed::Close);
            }
            return deeds;
        }
        let ready = format!("220 {} ESMTP", script.name);
        deeds.extend(self.at(Stage::Greeting, None, &ready, around).deeds);
        deeds
    }

    /// What follows from what was read; none: more is needed. What was used is taken off.
    pub fn receive(&mut self, input: &mut BytesMut, around: &mut Around<'_>) -> Option<Vec<Deed>> {
        match &self.state {
            State::Content => self.content(input, around),
            State::Chunk { .. } => self.chunk(input, around),
            State::Commands | State::Login(..) | State::TokenRefused => {
                let Some(end) = input.iter().position(|&octet| octet == b'\n') else {
                    let too_long = input.len() > LONGEST_LINE;
                    return too_long.then(|| vec![Deed::Close]);
                };
                let line = input.split_to(end + 1);
                let line = String::from_utf8_lossy(&line);
                Some(self.line(line.trim_end_matches(['\r', '\n']), around))
            }
        }
    }

    fn line(&mut self, line: &str, around: &mut Around<'_>) -> Vec<Deed> {
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Login(exchange, mechanism) => {
                let mut deeds = vec![Deed::Tell(Told::Heard("…".to_owned()))];
                let step = exchange.respond(line.as_bytes());
                deeds.extend(self.log_in(step, mechanism, around));
                deeds
            }
            State::TokenRefused => self.refuse_login(around).deeds,
            _ => {
                let shown = match line.split_once(' ') {
                    Some((verb, _)) if verb.eq_ignore_ascii_case("AUTH") => "AUTH …",
                    _ => line,
                };
                let mut deeds = vec![Deed::Tell(Told::Heard(shown.to_owned()))];
                deeds.extend(self.command(line, around));
                deeds
            }
        }
    }

    /// What the script does here, else what a good host says.
    fn at(&mut self, stage: Stage, to: Option<&str>, well: &str, around: &mut Around<'_>) -> Done {
        let named;
        let to: &[String] = match (to, &self.mail) {
            (Some(to), _) => {
                named = [to.to_owned()];
                &named
            }
            (None, Some(mail)) => &mail.to,
            (None, None) => &[],
        };
        let facts = Facts {
            connection: self.connection,
            mail: self
                .mail
                .as_ref()
                .map_or(around.tally.mails, |mail| mail.number),
            from: self.mail.as_ref().map(|mail| mail.from.as_str()),
            to,
            tls: self.tls,
            login: self.login.is_some(),
            octets: self.mail.as_ref().map_or(0, |mail| mail.content.octets()),
        };
        let rule = around.tally.rule(&self.script, stage, facts);
        match rule {
            Some(rule) => Done::of_rule(rule, well, around.tally),
            None => Done::well(well),
        }
    }

    /// What happens between the words about TLS and its first octet.
    fn handshake(&mut self, around: &mut Around<'_>) -> Done {
        let facts = Facts {
            connection: self.connection,
            ..Facts::default()
        };
        let script = Arc::clone(&self.script);
        let rule = around.tally.rule(&script, Stage::Handshake, facts);
        let done = match rule {
            Some(rule) => Done::of_handshake(rule, &script.certificate, around.tally),
            None => Done {
                deeds: vec![Deed::Handshake(script.certificate.clone())],
                ..Done::default()
            },
        };
        let begun = |deed: &Deed| matches!(deed, Deed::Handshake(_));
        self.tls = done.deeds.iter().any(begun);
        done
    }

    fn is_lmtp(&self) -> bool {
        self.script.protocol == Protocol::Lmtp
    }
}

/// What a limit says.
fn limited(reply: &str) -> Vec<Deed> {
    let mut deeds = vec![Deed::Tell(Told::Limited(reply.to_owned()))];
    deeds.extend(Done::well(reply).deeds);
    deeds
}

#[cfg(test)]
mod tests;
