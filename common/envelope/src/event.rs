use std::collections::BTreeMap;

use crate::{QueueId, RecipientIndex, Timestamp};

/// A stop in the life of a mail, recorded under its id by the agent that saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The mail.
    pub queue_id: QueueId,
    /// When it happened, by the clock of the agent's host.
    pub at: Timestamp,
    /// Name of the agent.
    pub agent: String,
    /// What happened.
    pub kind: EventKind,
    /// The recipients it is about; empty: all.
    pub recipients: Vec<RecipientIndex>,
    /// What happened, for a person, in one line; never content or secrets.
    pub text: String,
    /// Further fields by the names that logs use, e.g. `relay`, `code`, `delay_ms`.
    pub fields: BTreeMap<String, String>,
}

/// The closed list of event kinds; kinds are only ever added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EventKind {
    /// Durable in the queue.
    Accepted,
    /// A check gave its verdict.
    Verdict,
    /// A route was chosen.
    Routed,
    /// A worker took it.
    Leased,
    /// A worker tried.
    Attempt,
    /// A recipient is done.
    Settled,
    /// Filed in a mailbox.
    Delivered,
    /// A report was made.
    DsnSent,
    /// An operator did something.
    Admin,
    /// A result that came after its lease had ended.
    Late,
    /// A rule holds it.
    Held,
    /// A retired mail was sent again.
    Resent,
    /// Its account took it back before anything was tried.
    Withdrawn,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Accepted,
        Self::Verdict,
        Self::Routed,
        Self::Leased,
        Self::Attempt,
        Self::Settled,
        Self::Delivered,
        Self::DsnSent,
        Self::Admin,
        Self::Late,
        Self::Held,
        Self::Resent,
        Self::Withdrawn,
    ];

    /// The word in logs, JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Verdict => "verdict",
            Self::Routed => "routed",
            Self::Leased => "leased",
            Self::Attempt => "attempt",
            Self::Settled => "settled",
            Self::Delivered => "delivered",
            Self::DsnSent => "dsn_sent",
            Self::Admin => "admin",
            Self::Late => "late",
            Self::Held => "held",
            Self::Resent => "resent",
            Self::Withdrawn => "withdrawn",
        }
    }
}
