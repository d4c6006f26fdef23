//! What the DNS was asked, and what it said.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use postroad_daemon::AddressFamily;
use postroad_dns::{Answer, DnsError, HostName, Record, RecordType, Resolver};

/// Octets of a record that are told.
const LONGEST: usize = 300;
/// Questions that are told of one place.
const MOST: usize = 200;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// About which name.
    pub name: String,
    /// Which records.
    pub kind: String,
    /// They, or why there are none.
    pub answer: Result<Vec<String>, String>,
    /// DNSSEC vouches for them.
    pub secure: bool,
    /// How long they are remembered yet, if the DNS said so.
    pub ttl: Option<Duration>,
}

/// Asks another, and remembers.
pub struct Recorder {
    beneath: Arc<dyn Resolver>,
    asked: Mutex<Vec<Asked>>,
}

impl Recorder {
    /// Of this resolver.
    pub fn new(beneath: Arc<dyn Resolver>) -> Self {
        Self {
            beneath,
            asked: Mutex::default(),
        }
    }

    /// What was asked since the last time, each question once, in the order of their answers.
    pub fn take(&self) -> Vec<Asked> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }
}

#[async_trait]
impl Resolver for Recorder {
    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError> {
        let answer = self.beneath.lookup(name, kind).await;
        let told = Asked {
            name: name.to_string(),
            kind: kind.to_string(),
            ttl: answer.as_ref().ok().and_then(|answer| answer.ttl),
            secure: answer.as_ref().is_ok_and(|answer| answer.authenticated),
            answer: match &answer {
                Ok(answer) => Ok(answer.records.iter().map(text).collect()),
                Err(error) => Err(error.to_string()),
            },
        };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |one: &Asked| one.name == told.name && one.kind == told.kind;
        if asked.len() < MOST && !asked.iter().any(known) {
            asked.push(told);
        }
        answer
    }

    fn prefer(&self) -> AddressFamily {
        self.beneath.prefer()
    }
}

fn text(record: &Record) -> String {
    let mut text = match record {
        Record::Address(ip) => ip.to_string(),
        Record::MailExchanger {
            preference,
            exchange,
        } => format!("{preference} {}", bare(exchange)),
        Record::Pointer(name) => bare(name).to_owned(),
        Record::Text(text) => text.clone(),
        Record::Tlsa(tlsa) => tlsa.to_string(),
    };
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

/// A name without the dot at its end; the root keeps it.
fn bare(name: &str) -> &str {
    name.strip_suffix('.')
        .filter(|name| !name.is_empty())
        .unwrap_or(name)
}
