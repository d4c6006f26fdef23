//! The queue as its users see it: one trait, local or remote.
//!
//! Agents speak to the queue in the words of [`postroad_envelope`]; where the queue runs is not their business.
//! [`QueueService`] is implemented by [`RemoteQueue`] (gRPC) here and by the queue agent itself, so that the all-in-one
//! process needs no socket between them; [`QueueNodes`] is several such queues that are used as one. [`conformance`] is the
//! suite all of them pass.
//!
//! * submit: [`QueueService::admit`] before content is asked for, [`QueueService::submit`] with a [`Submission`] that is
//!   fed chunk by chunk; [`Submission::finish`] returns once the mail is durable.
//! * work: [`QueueService::work`] opens a stream of leases; [`worker::run`] keeps one open, with credits,
//!   extensions, resume and back-off, and calls a handler per lease.
//! * count: [`QueueService::count`], what all copies of an agent must know together ([`postroad_counters`]).
//! * administration: [`QueueAdmin`].
//!
//! What can fail: the queue is away or full ([`QueueError`]); both are a 4xx to an SMTP client, never a loss.
#![forbid(unsafe_code)]

mod admin;
mod backup;
pub mod conformance;
mod counts;
mod error;
mod import;
mod remote;
mod service;
mod store;
mod timeline;
pub mod wire;
mod work;
pub mod worker;

pub use admin::{
    AgentDetails, Change, Changed, CounterList, CountersQuery, DestinationStats, HoldOrder,
    HoldRuleDetails, ListPage, ListQuery, MailDetails, MailSummary, Order, QueueAdmin, QueueStats,
    RecipientDetails, Removal, Resend, Resent, RetiredFacts, SiteDetails, SiteList, SiteStats,
    SitesQuery, Usage, UsageQuery, UsageScope,
};
pub use backup::{BackupPiece, BackupStream};
pub use counts::AttemptCounts;
pub use error::QueueError;
pub use import::{ImportedMail, ImportedRecipient};
pub use postroad_counters::{Count, Counted};
pub use postroad_envelope::{Fence, Filter, JobKey, LeaseRef, MailState};
pub use remote::{QueueNodes, RemoteAdmin, RemoteQueue};
pub use service::{
    Accepted, AdmitRequest, Completion, ContentStream, QueueNode, QueueService, Submission,
    Withdrawn, collect_content,
};
pub use store::{VerifyProgress, VerifyStream};
pub use timeline::{Cursor, WatchQuery, WatchStream, Watched};
pub use work::{
    FormerStream, HandBack, HeldLease, Lease, Permit, Permitted, SettleResult, Settlement,
    SiteResult, SiteTrouble, SiteTry, Touch, WorkChannel, WorkDown, WorkHello, WorkUp,
};
