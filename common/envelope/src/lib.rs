//! All the queue knows of a mail without looking inside.
//!
//! An [`Envelope`] is made at the edge (submission, port 25, LMTP, a report of our own), travels with the content
//! into the queue, and comes out of it with each lease. The content itself is immutable: what an agent adds or
//! removes is an ordered list of [`HeaderEdit`]s in the envelope, applied when the content is read.
//!
//! The words of a mail's way through the queue live here too, because agents, queue and reports share them:
//! [`Route`], [`StoreName`], [`Outcome`], [`Attempt`], [`Event`], [`LeaseRef`], and [`Filter`], which says which mails are meant.
#![forbid(unsafe_code)]

mod cause;
mod edit;
mod ending;
mod event;
mod filter;
mod hop;
mod lease;
mod origin;
mod outcome;
mod queue_id;
mod recipient;
mod route;
mod store;
mod suppression;
mod timestamp;

use std::collections::BTreeMap;

pub use cause::{Cause, NotInList, Stage};
pub use edit::{EditPlace, HeaderEdit};
pub use ending::Ending;
pub use event::{Event, EventKind};
pub use filter::{Filter, JobTraits, MailState, MailTraits, fold_sender, held_by};
pub use hop::{InvalidSourceName, MAX_NEXT_HOPS, MAX_NEXT_HOPS_TEXT, SourceName, WeightedHop};
pub use lease::{Fence, JobKey, LeaseRef};
pub use origin::{Origin, Protocol, TlsFacts};
pub use outcome::{Attempt, Outcome, RemoteHost, StatusReport};
use postroad_address::ReversePath;
pub use queue_id::{InvalidQueueId, QueueId, QueueIdPrefix};
pub use recipient::{Notify, OriginalRecipient, Recipient, RecipientIndex, RouteOverride};
pub use route::{
    HostPort, InvalidHostPort, InvalidNextHop, NextHop, Route, RouteClass, SocketPath,
};
pub use store::{InvalidStoreName, StoreName};
pub use suppression::Suppression;
pub use timestamp::Timestamp;

/// Most tags a mail may carry.
pub const MAX_TAGS: usize = 16;
/// Most octets of one tag.
pub const MAX_TAG: usize = 64;
/// Most facts the edge may extract, and octets of each key and value.
pub const MAX_FACTS: usize = 32;
/// Octets of one fact's value.
pub const MAX_FACT: usize = 256;

/// The priority of mail that says of itself that it goes to many, unless the sender's terms say otherwise.
pub const BULK_PRIORITY: i8 = -5;

/// A mail as the queue knows it (version 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Minted at the edge; the same text in the 250, Received, logs and file names.
    pub queue_id: QueueId,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO after alias expansion; indices are unique and never change.
    pub recipients: Vec<Recipient>,
    /// From the entry of the domain; `default` if it names none.
    pub tenant: String,
    /// The authenticated account that submitted, if any.
    pub account: Option<String>,
    /// Words for later selection (RFC-less): at most [`MAX_TAGS`] of at most [`MAX_TAG`] octets.
    pub tags: Vec<String>,
    /// What the edge extracted, e.g. `message_id`, `subject_hash`; bounded by [`MAX_FACTS`].
    pub facts: BTreeMap<String, String>,
    /// Name of the listener that took the mail.
    pub listener: String,
    /// -9 (least) to 9 (most urgent) as in MT-PRIORITY (RFC 6710); 0 is ordinary.
    pub priority: i8,
    /// When the last octet arrived.
    pub received_at: Timestamp,
    /// FUTURERELEASE (RFC 4865): not leased before.
    pub not_before: Option<Timestamp>,
    /// When undelivered recipients fail; set by the queue from its schedule if absent.
    pub expires_at: Option<Timestamp>,
    /// DELIVERBY (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// BODY parameter (RFC 6152, RFC 3030).
    pub body: BodyKind,
    /// SMTPUTF8 was asked for (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS was asked for (RFC 8689).
    pub requiretls: bool,
    /// ENVID (RFC 3461 §4.4), decoded.
    pub envid: Option<String>,
    /// RET (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// AUTH parameter of MAIL (RFC 4954 §5), decoded; `<>` is the empty text.
    pub auth: Option<String>,
    /// Octets of the content as received, before edits.
    pub size: u64,
    /// Results of checks by name, e.g. `spf` → `pass`.
    pub verdicts: BTreeMap<String, String>,
    /// W3C trace context of the submission, if the edge has one.
    pub trace_context: Option<String>,
    /// Received fields counted at the edge (RFC 5321 §6.3).
    pub hop_count: u32,
    /// The mail this one repeats, if an operator sent it again.
    pub resent_of: Option<QueueId>,
    /// What is to be added or removed when the content is read, in order.
    pub header_edits: Vec<HeaderEdit>,
    /// Who gave us the mail, and how.
    pub origin: Origin,
}

impl Envelope {
    /// An ordinary mail: everything optional absent, tenant `default`, priority 0.
    pub fn new(queue_id: QueueId, reverse_path: ReversePath, received_at: Timestamp) -> Self {
        Self {
            queue_id,
            reverse_path,
            recipients: Vec::new(),
            tenant: "default".to_owned(),
            account: None,
            tags: Vec::new(),
            facts: BTreeMap::new(),
            listener: String::new(),
            priority: 0,
            received_at,
            not_before: None,
            expires_at: None,
            deliver_by: None,
            body: BodyKind::SevenBit,
            smtputf8: false,
            requiretls: false,
            envid: None,
            ret: None,
            auth: None,
            size: 0,
            verdicts: BTreeMap::new(),
            trace_context: None,
            hop_count: 0,
            resent_of: None,
            header_edits: Vec::new(),
            origin: Origin::default(),
        }
    }

    /// The recipient with this index.
    pub fn recipient(&self, index: RecipientIndex) -> Option<&Recipient> {
        self.recipients
            .iter()
            .find(|recipient| recipient.index == index)
    }
}

/// BODY= of MAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BodyKind {
    /// 7BIT, or nothing said.
    #[default]
    SevenBit,
    /// 8BITMIME (RFC 6152).
    EightBitMime,
    /// BINARYMIME (RFC 3030).
    BinaryMime,
}

/// RET= of MAIL (RFC 3461 §4.3): what of the mail a failure report returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ret {
    /// The whole content.
    Full,
    /// The header only.
    Headers,
}

/// BY= of MAIL (RFC 2852).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliverBy {
    /// The absolute time made of the seconds the client gave.
    pub at: Timestamp,
    /// `R`: return it after that time; else (`N`) only notify.
    pub return_after: bool,
    /// `T`: a trace of each hop is asked for.
    pub trace: bool,
}
