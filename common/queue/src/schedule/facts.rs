use std::{sync::Arc, time::Duration};

use postroad_envelope::{RouteClass, StoreName, Timestamp, fold_sender};

use super::Term;
use crate::{JobKey, JobState, Revision};

/// How long the parts of a lease's life take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTimes {
    /// From grant or extension to deadline.
    pub duration: Duration,
    /// From the loss of a stream to the end of its leases.
    pub drop_grace: Duration,
    /// How long a job leased before a restart waits for its worker to come back.
    pub resume_grace: Duration,
    /// How long failures of one mail are gathered for one report.
    pub report_gather: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(5 * 60),
            drop_grace: Duration::from_secs(10),
            resume_grace: Duration::from_secs(30),
            report_gather: Duration::from_secs(2),
        }
    }
}

/// What a job looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its time has not come.
    Waiting,
    /// Its time has come, no worker has taken it.
    Ready,
    /// A worker holds it.
    Leased,
    /// It was leased before a restart and waits for its worker.
    Resuming,
    /// Someone holds it back.
    Held,
    /// The sender is owed a report.
    Owing,
    /// The same, and someone holds the rest back.
    HeldOwing,
}

impl Phase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Ready,
        Self::Leased,
        Self::Resuming,
        Self::Held,
        Self::Owing,
        Self::HeldOwing,
    ];

    /// The word in tables, logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Resuming => "resuming",
            Self::Held => "held",
            Self::Owing => "owing",
            Self::HeldOwing => "held-owing",
        }
    }
}

/// What the schedule must know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// Which job.
    pub key: JobKey,
    /// Its durable revision.
    pub revision: Revision,
    /// How it leaves.
    pub class: RouteClass,
    /// Where to.
    pub destination: Arc<str>,
    /// Of local mail: whose worker files it.
    pub store: StoreName,
    /// Whose mail it is of.
    pub sender: SenderPrint,
    /// -9 to 9.
    pub priority: i8,
    /// What is done if it is still there at a moment.
    pub term: Term,
    /// Whether its sender is still to hear that it takes long, once it does.
    pub on_delay: bool,
    /// What it waits for.
    pub wait: Wait,
}

/// What the mail of a sender is found by among all: a checksum of the folded reverse-path. Two senders may share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderPrint(u32);

impl SenderPrint {
    /// It may be anyone's.
    pub const UNKNOWN: Self = Self(0);

    /// Of a reverse-path, folded or not.
    pub fn of(reverse_path: &str) -> Self {
        Self(crc32c::crc32c(fold_sender(reverse_path).as_bytes()).max(1))
    }

    /// Whether both may be of one sender.
    pub fn may_be(self, other: Self) -> bool {
        self == other || self == Self::UNKNOWN || other == Self::UNKNOWN
    }

    /// This one, or the other if this one is not known.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::UNKNOWN { other } else { self }
    }

    /// As it is kept.
    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    pub(crate) const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }
}

/// What a job that nobody holds waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A time.
    Due(Timestamp),
    /// Its release.
    Hold,
    /// The report owed since then.
    Report(Timestamp),
    /// The same; then its release.
    HeldReport(Timestamp),
}

impl Wait {
    /// A debt goes first: while it is open no worker gets the job, so that no settlement races the report.
    pub(crate) const fn of(is_held: bool, debt_since: Option<Timestamp>, due: Timestamp) -> Self {
        match debt_since {
            Some(since) if is_held => Self::HeldReport(since),
            Some(since) => Self::Report(since),
            None if is_held => Self::Hold,
            None => Self::Due(due),
        }
    }
}

impl JobFacts {
    /// Of a state, which does not say whose mail it is of; none if it has ended.
    pub fn of(state: &JobState) -> Option<Self> {
        if state.has_ended() {
            return None;
        }
        Some(Self {
            key: state.key,
            revision: state.revision,
            class: state.class,
            destination: state.destination.as_str().into(),
            store: state.store.clone(),
            sender: SenderPrint::UNKNOWN,
            priority: state.priority,
            term: state.term(),
            on_delay: state.hears_of_delay(),
            wait: Wait::of(state.is_held(), state.debt_since, state.due),
        })
    }
}
