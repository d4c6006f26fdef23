use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use postroad_envelope::{
    Envelope, Event, LeaseRef, Outcome, RecipientIndex, Route, RouteClass, StoreName, Timestamp,
};
use postroad_reply::Reply;
use tokio::sync::mpsc;

use crate::QueueError;

/// A job given to a worker for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What a settlement must name.
    pub lease: LeaseRef,
    /// How long it lasts, counted from its arrival; [`WorkUp::Extend`] prolongs it.
    pub duration: Duration,
    /// Where the job goes.
    pub route: Route,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The envelope with the recipients of this job that are still to be tried, and no others.
    pub envelope: Envelope,
    /// The whole content if it is small; else it is read with [`crate::QueueService::read`]. Edits are not applied.
    pub content: Option<Bytes>,
    /// Leave is given to connect to this site; for another the worker asks.
    pub site: Option<String>,
    /// So many leases of the same mail are the next ones on the stream; they have no content of their own.
    pub followed_by: u32,
}

/// How a worker introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkHello {
    /// Name of the agent, which its copies share: `mta@host`.
    pub agent: String,
    /// Software version of the agent.
    pub version: String,
    /// The machine it runs on, in a container its id.
    pub host: String,
    /// What it can carry out.
    pub classes: Vec<RouteClass>,
    /// Of local mail: the stores it serves; none is the default one.
    pub stores: Vec<StoreName>,
    /// Leases it still holds from before a reconnect.
    pub held: Vec<HeldLease>,
    /// The stream it comes back from: what was given there and is not held is due at once.
    pub former: Option<FormerStream>,
    /// It carries out several leases of one mail together where it can.
    pub joins: bool,
}

/// A worker's stream that broke, by the names its welcome gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormerStream {
    /// Of the queue.
    pub epoch: u64,
    /// Of the epoch.
    pub stream: u64,
}

/// A lease a worker still holds when it reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    /// The lease as it was given.
    pub lease: LeaseRef,
}

/// The result of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The lease it ends.
    pub lease: LeaseRef,
    /// One outcome for each recipient of the lease; those missing count as not tried and stay due.
    pub outcomes: Vec<(RecipientIndex, Outcome)>,
    /// The sites that were tried, in this order; none: the worker came to none.
    pub sites: Vec<SiteTry>,
    /// When the worker began.
    pub started_at: Timestamp,
    /// Recipients without an outcome that are of another store than the worker's: it has filed nothing for them, now or before.
    pub elsewhere: Vec<RecipientIndex>,
    /// Recipients that were relayed or expanded, and whose success is reported by whoever took the mail over (RFC 3461 §5.2.1): it
    /// was told of NOTIFY. Of all others the queue tells who asked.
    pub reporting: Vec<RecipientIndex>,
    /// Recipients that were relayed to a host that was told how much time is left to deliver them by (RFC 2852 §4.1.4).
    pub timed: Vec<RecipientIndex>,
}

/// A site that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTry {
    /// A set of mail hosts behind the destination, as the worker resolved it.
    pub site: String,
    /// What the try showed of it; none: the outcomes have to tell.
    pub result: Option<SiteResult>,
}

/// How a try went with a site, whatever became of the mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteResult {
    /// Connections that were opened for it; none, if one that was open was used.
    pub connections: u32,
    /// Transactions that the site answered with anything that was not against us.
    pub mails: u32,
    /// The gravest that went wrong.
    pub trouble: Option<SiteTrouble>,
    /// In what words it refused.
    pub reply: Option<Reply>,
    /// What was in the way, for people.
    pub text: String,
    /// It went with another lease of the mail, whose result tells of the site.
    pub joined: bool,
}

/// How far a worker came with a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteTrouble {
    /// Refused or lost from MAIL on.
    AtMail,
    /// Refused or lost before a mail was begun.
    AtConnect,
    /// None of its hosts could be connected to.
    Unreachable,
}

/// Asks leave to connect to a site for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// Chosen by the worker; the answer has it.
    pub request: u64,
    /// As in [`SiteTry::site`].
    pub site: String,
    /// How many connections more.
    pub connections: u32,
    /// For which; it ends with the lease.
    pub lease: LeaseRef,
}

/// The answer to a [`Permit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permitted {
    /// As asked.
    pub request: u64,
    /// How many were granted.
    pub connections: u32,
    /// When to ask again, if not all of them were.
    pub retry_after: Duration,
}

/// A lease given back untried; costs no attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandBack {
    /// The lease.
    pub lease: LeaseRef,
    /// Do not lease it again before so long.
    pub delay: Duration,
    /// Why, for a person: `limited`, `draining`.
    pub reason: String,
    /// What the worker did with it.
    pub touch: Touch,
}

/// How far a worker went with a lease that it hands back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Touch {
    /// It looked at it; whether anything was filed it cannot tell.
    #[default]
    Unclear,
    /// It did not begin.
    Untouched,
    /// All recipients are of another store than the worker's, and it has filed nothing for them, now or before.
    Elsewhere,
}

/// What a worker says on its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkUp {
    /// Room for so many more leases.
    Credits(u32),
    /// The result of a lease.
    Settle(Settlement),
    /// The worker is still at it: prolong the leases by their full duration.
    Extend(Vec<LeaseRef>),
    /// Takes a lease back untried.
    HandBack(HandBack),
    /// Asks leave to connect.
    Permit(Permit),
    /// Events for the timeline.
    Events(Vec<Event>),
    /// Last of all: the worker leaves and works on nothing. The queue takes back what is on its way to it, and ends the
    /// stream.
    Drained,
}

/// What the queue says on a worker's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkDown {
    /// First of all: the epoch, and which held leases go on under which new name (none: ended).
    Welcome {
        /// The queue's epoch.
        epoch: u64,
        /// Which of its streams this is; 0: it does not tell.
        stream: u64,
        /// It answers [`WorkUp::Permit`].
        permits: bool,
        /// Old name and new one.
        resumed: Vec<(LeaseRef, Option<LeaseRef>)>,
    },
    /// A job.
    Lease(Box<Lease>),
    /// A settlement is durable, or was refused.
    Settled {
        /// The lease that was settled.
        lease: LeaseRef,
        /// What became of the settlement.
        result: SettleResult,
    },
    /// These leases ended: stop if possible, a settlement will be refused.
    Revoked(Vec<LeaseRef>),
    /// The answer to a [`WorkUp::Permit`].
    Permitted(Permitted),
    /// The queue wants this worker to finish what it holds and take no more.
    Drain,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SettleResult {
    /// Durable.
    Durable,
    /// The lease had ended and the job has moved on; the result is kept as a late event at most.
    Stale,
}

/// Both directions of a worker's stream. Dropping it frees its leases after a short grace.
pub struct WorkChannel {
    /// To the queue; bounded.
    pub up: mpsc::Sender<WorkUp>,
    /// From the queue; yields an error and ends when the stream breaks.
    pub down: BoxStream<'static, Result<WorkDown, QueueError>>,
}
