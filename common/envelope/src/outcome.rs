use std::net::SocketAddr;

use postroad_reply::{EnhancedStatusCode, Reply};

use crate::{Cause, Stage, Timestamp, TlsFacts};

/// What became of one recipient in one attempt: the actions of RFC 3464 §2.3.3. An outcome is data, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Filed in a mailbox of ours.
    Delivered(StatusReport),
    /// Given to another system that took it.
    Relayed(StatusReport),
    /// Not now; the queue tries again.
    Delayed(StatusReport),
    /// Never; the sender is told.
    Failed(StatusReport),
    /// Replaced by several other recipients.
    Expanded(StatusReport),
}

impl Outcome {
    /// The word of RFC 3464 §2.3.3.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Relayed(_) => "relayed",
            Self::Delayed(_) => "delayed",
            Self::Failed(_) => "failed",
            Self::Expanded(_) => "expanded",
        }
    }

    /// Status, diagnostics and host.
    pub const fn report(&self) -> &StatusReport {
        match self {
            Self::Delivered(report)
            | Self::Relayed(report)
            | Self::Delayed(report)
            | Self::Failed(report)
            | Self::Expanded(report) => report,
        }
    }

    /// The same, to add to it.
    pub const fn report_mut(&mut self) -> &mut StatusReport {
        match self {
            Self::Delivered(report)
            | Self::Relayed(report)
            | Self::Delayed(report)
            | Self::Failed(report)
            | Self::Expanded(report) => report,
        }
    }

    /// Whether nothing more will be tried for this recipient.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Delayed(_))
    }
}

/// The facts of an outcome, as a DSN shows them (RFC 3464 §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReport {
    /// Status (§2.3.4).
    pub status: EnhancedStatusCode,
    /// What happened, for a person, in one line.
    pub text: String,
    /// Remote-MTA (§2.3.5).
    pub remote: Option<RemoteHost>,
    /// Diagnostic-Code (§2.3.6): the remote's own words.
    pub reply: Option<Reply>,
    /// How far the attempt had come, if whoever made it says so.
    pub stage: Option<Stage>,
    /// Why the recipient did not get the mail, as the queue found it; none: it did, or nobody looked.
    pub cause: Option<Cause>,
}

impl StatusReport {
    /// A status of our own finding, no remote involved.
    pub fn local(status: EnhancedStatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            remote: None,
            reply: None,
            stage: None,
            cause: None,
        }
    }

    /// The same, at this stage.
    #[must_use]
    pub fn at(self, stage: Stage) -> Self {
        Self {
            stage: Some(stage),
            ..self
        }
    }
}

/// The host an attempt spoke to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHost {
    /// Its name as we looked it up.
    pub name: String,
    /// Its address and port, if we got as far as that.
    pub address: Option<SocketAddr>,
    /// How the connection was encrypted.
    pub tls: Option<TlsFacts>,
    /// How it had to be protected, and why: `verify (MTA-STS policy of example.org)`.
    pub tls_policy: Option<String>,
}

/// One try for a job, as `queue show` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When the lease was granted.
    pub started_at: Timestamp,
    /// When the settlement came.
    pub ended_at: Timestamp,
    /// Name of the agent that tried.
    pub agent: String,
    /// Result per recipient index.
    pub outcomes: Vec<(crate::RecipientIndex, Outcome)>,
}
