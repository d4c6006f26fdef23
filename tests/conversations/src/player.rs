//! One conversation, step by step.

use std::{fmt, vec};

use postroad_sasl::ClientExchange;

use crate::{Listener, Step, Transcript, What, pattern::Pattern};

/// A conversation under way. The runner does what [`Player::next`] says until it is over.
#[derive(Debug)]
pub struct Player {
    name: String,
    listener: Listener,
    steps: vec::IntoIter<Step>,
    hearing: Option<Step>,
    /// A log-in under way, and what it says next.
    exchange: Option<ClientExchange>,
    answer: Option<String>,
    /// Lines of a reply that goes on.
    reply: Vec<String>,
    sent: String,
    /// The id of each mail accepted.
    ids: Vec<String>,
}

/// What the runner does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Vec<u8>),
    /// Take a line of the server, without its CRLF, and give it to [`Player::heard`].
    Hear,
    /// Make the TLS handshake.
    StartTls,
    /// Compare with what the mail accepted last has become; its id.
    Mail(Vec<u8>, Option<String>),
    /// End the client's side.
    HalfClose,
    /// See that the server has closed.
    AwaitClose,
}

/// The server said something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    place: String,
    expected: String,
    said: String,
    sent: String,
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            expected,
            said,
            sent,
        } = self;
        write!(f, "{place}\n    C {sent}\n  - S {expected}\n  + S {said}")
    }
}

impl Player {
    pub(crate) fn new(transcript: &Transcript, listener: Listener, steps: Vec<Step>) -> Self {
        Self {
            name: transcript.name.clone(),
            listener,
            steps: steps.into_iter(),
            hearing: None,
            exchange: None,
            answer: None,
            reply: Vec::new(),
            sent: String::new(),
            ids: Vec::new(),
        }
    }

    pub(crate) fn into_steps(self) -> vec::IntoIter<Step> {
        self.steps
    }

    /// What comes next; none: the conversation is over, and the server must not have said anything more.
    #[allow(
        clippy::should_implement_trait,
        reason = "what was heard comes between two calls"
    )]
    pub fn next(&mut self) -> Option<Action> {
        if let Some(answer) = self.answer.take() {
            return Some(Action::Send(format!("{answer}\r\n").into_bytes()));
        }
        if self.hearing.is_some() || self.exchange.is_some() {
            return Some(Action::Hear);
        }
        let step = self.steps.next()?;
        Some(match &step.what {
            What::Client(octets) => {
                self.sent = excerpt(octets);
                Action::Send(octets.clone())
            }
            What::LogIn(login) => {
                // What cannot begin says nothing, and the server will be found to be silent.
                let (command, exchange) = login.begin().ok()?;
                self.sent = format!("AUTH …, then answers to challenges ({command:.20})");
                self.exchange = Some(exchange);
                Action::Send(command.into_bytes())
            }
            What::Line(_) | What::Reply(_) => {
                self.hearing = Some(step);
                Action::Hear
            }
            What::Tls => Action::StartTls,
            What::Mail(content) => Action::Mail(content.clone(), self.ids.last().cloned()),
            What::ClientCloses => Action::HalfClose,
            What::ServerCloses => Action::AwaitClose,
        })
    }

    /// Takes what the server said; none: it closed the connection, or has nothing to say.
    ///
    /// # Errors
    ///
    /// That is not what the file says.
    pub fn heard(&mut self, said: Option<&str>) -> Result<(), Mismatch> {
        if let Some(mut exchange) = self.exchange.take() {
            let challenge = said.and_then(|said| said.strip_prefix("334 "));
            let answer = challenge.and_then(|text| exchange.respond(text).ok());
            if let Some(answer) = answer {
                (self.answer, self.exchange) = (Some(answer.to_string()), Some(exchange));
                return Ok(());
            }
            if said.is_some_and(|said| said.starts_with("235")) && !exchange.may_end() {
                let said = said.unwrap_or_default();
                return Err(self.mismatch(0, "a proof of the server's", said));
            }
            self.hearing = self.steps.next();
        }
        let Some(step) = self.hearing.take() else {
            return Err(self.mismatch(0, "nothing", said.unwrap_or("(closed)")));
        };
        let Some(said) = said else {
            let expected = match &step.what {
                What::Reply(reply) => format!("{reply}, behind {:?}", self.reply),
                What::Line(line) => line.to_string(),
                _ => String::new(),
            };
            return Err(self.mismatch(step.line, &expected, "(nothing more)"));
        };
        match &step.what {
            What::Line(line) => self.heard_line(step.line, line, said),
            What::Reply(reply) => {
                self.reply.push(said.to_owned());
                if said.as_bytes().get(3) == Some(&b'-') {
                    self.hearing = Some(step);
                    return Ok(());
                }
                let lines = std::mem::take(&mut self.reply);
                match reply.fault(&lines) {
                    None => Ok(()),
                    Some(fault) => {
                        let said = format!("{} ({fault})", lines.join(" / "));
                        Err(self.mismatch(step.line, &reply.to_string(), &said))
                    }
                }
            }
            _ => Ok(()),
        }
    }

    fn heard_line(&mut self, line: usize, pattern: &Pattern, said: &str) -> Result<(), Mismatch> {
        match pattern.matches(said) {
            Some(id) => {
                self.ids.extend(id);
                Ok(())
            }
            None => Err(self.mismatch(line, &pattern.to_string(), said)),
        }
    }

    /// What a runner found otherwise, such as a connection that is still open.
    pub fn failed(&self, expected: &str, found: &str) -> Mismatch {
        self.mismatch(0, expected, found)
    }

    /// The ids of mails the server took on itself, in order.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    fn mismatch(&self, line: usize, expected: &str, said: &str) -> Mismatch {
        let line = match (line, self.steps.as_slice().first()) {
            (0, Some(next)) => format!("before line {}", next.line),
            (0, None) => "at the end".to_owned(),
            (line, _) => line.to_string(),
        };
        Mismatch {
            place: format!(
                "tests/conversations/{}:{line} at {}",
                self.name, self.listener
            ),
            expected: expected.to_owned(),
            said: said.to_owned(),
            sent: self.sent.clone(),
        }
    }
}

/// The last line of what was sent.
fn excerpt(octets: &[u8]) -> String {
    let text = octets.escape_ascii().to_string();
    let line = text.trim_end_matches("\\r\\n");
    let line = line.rsplit("\\r\\n").next().unwrap_or(line);
    line.chars().take(100).collect()
}
