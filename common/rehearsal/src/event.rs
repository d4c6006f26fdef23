//! What a host tells of what happened.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, from the start of the host.
    pub at: Duration,
    /// On which connection, from 1 on.
    pub connection: u64,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A client has connected; at a Unix socket it has no address.
    Connected(Option<SocketAddr>),
    /// TLS has begun, of this version.
    Encrypted(String),
    /// TLS was tried in vain.
    NotEncrypted(String),
    /// Somebody has logged in.
    LoggedIn {
        /// The account.
        name: String,
        /// By what mechanism.
        mechanism: String,
    },
    /// A command; what logs somebody in is left out.
    Heard(String),
    /// A line.
    Said(String),
    /// A rule of the script was followed.
    Followed {
        /// Its line.
        line: usize,
        /// Where in the conversation.
        stage: &'static str,
    },
    /// A limit of the script was reached, and this was said.
    Limited(String),
    /// A mail was taken.
    Taken(Arc<Taken>),
    /// The connection is over.
    Closed(Ended),
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client, or the line broke.
    ByClient,
    /// This host.
    ByHost,
    /// This host by RST.
    Reset,
}

/// A mail that was taken.
#[derive(Clone, PartialEq, Eq)]
pub struct Taken {
    /// The number of its MAIL among all.
    pub number: u64,
    /// The sender, without brackets.
    pub from: String,
    /// The recipients, without brackets.
    pub to: Vec<String>,
    /// Octets of content.
    pub size: usize,
    /// The content without dot-stuffing, if it is kept.
    pub content: Vec<u8>,
    /// Whether it came under TLS.
    pub tls: bool,
    /// Who was logged in.
    pub login: Option<String>,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number, from, to, ..
        } = self;
        write!(
            f,
            "mail {number} from <{from}> to {to:?}, {} octets",
            self.size
        )
    }
}

impl Event {
    /// As an object.
    pub fn to_json(&self) -> Value {
        let mut object = self.kind.to_json();
        if let Some(fields) = object.as_object_mut() {
            let millis = u64::try_from(self.at.as_millis()).unwrap_or(u64::MAX);
            fields.insert("at_ms".to_owned(), Value::from(millis));
            fields.insert("connection".to_owned(), Value::from(self.connection));
        }
        object
    }
}

impl EventKind {
    fn to_json(&self) -> Value {
        match self {
            Self::Connected(from) => json!({
                "event": "connected", "from": from.map(|from| from.to_string()),
            }),
            Self::Encrypted(version) => json!({ "event": "encrypted", "version": version }),
            Self::NotEncrypted(why) => json!({ "event": "not_encrypted", "why": why }),
            Self::LoggedIn { name, mechanism } => json!({
                "event": "logged_in", "name": name, "mechanism": mechanism,
            }),
            Self::Heard(line) => json!({ "event": "heard", "line": line }),
            Self::Said(line) => json!({ "event": "said", "line": line }),
            Self::Followed { line, stage } => json!({
                "event": "followed", "rule": line, "stage": stage,
            }),
            Self::Limited(reply) => json!({ "event": "limited", "reply": reply }),
            Self::Taken(taken) => json!({
                "event": "taken", "mail": taken.number, "from": taken.from, "to": taken.to,
                "size": taken.size, "tls": taken.tls, "login": taken.login,
            }),
            Self::Closed(ended) => json!({ "event": "closed", "by": ended.to_string() }),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByClient => "client",
            Self::ByHost => "host",
            Self::Reset => "reset",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9.3}  {:>4}  {}",
            self.at.as_secs_f64(),
            self.connection,
            self.kind
        )
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(Some(from)) => write!(f, "connected from {from}"),
            Self::Connected(None) => f.write_str("connected at the socket"),
            Self::Encrypted(version) => write!(f, "encrypted by {version}"),
            Self::NotEncrypted(why) => write!(f, "not encrypted: {why}"),
            Self::LoggedIn { name, mechanism } => write!(f, "logged in as {name} by {mechanism}"),
            Self::Heard(line) => write!(f, "C: {line}"),
            Self::Said(line) => write!(f, "S: {line}"),
            Self::Followed { line, stage } => write!(f, "line {line} of the script, at {stage}"),
            Self::Limited(reply) => write!(f, "a limit is reached: {reply}"),
            Self::Taken(taken) => write!(f, "taken: {taken:?}"),
            Self::Closed(Ended::ByClient) => f.write_str("the client is gone"),
            Self::Closed(Ended::ByHost) => f.write_str("closed"),
            Self::Closed(Ended::Reset) => f.write_str("reset"),
        }
    }
}
