mod change;
mod counters;
mod hold;
mod resend;
mod retired;
mod sites;
mod usage;

use async_trait::async_trait;
pub use change::{Change, Changed, Order};
pub use counters::{CounterList, CountersQuery};
pub use hold::{HoldOrder, HoldRuleDetails, Removal};
use postroad_counters::Key;
use postroad_envelope::{
    Attempt, Envelope, Event, Filter, MailState, Outcome, QueueId, QueueIdPrefix, RecipientIndex,
    Route, RouteClass, StoreName, Suppression, Timestamp,
};
pub use resend::{Resend, Resent};
pub use retired::RetiredFacts;
pub use sites::{SiteDetails, SiteList, SitesQuery};
pub use usage::{Usage, UsageQuery, UsageScope};

use crate::{
    BackupStream, ContentStream, ImportedMail, QueueError, VerifyStream, WatchQuery, WatchStream,
};

/// The queue, for operators.
#[async_trait]
pub trait QueueAdmin: Send + Sync + 'static {
    /// One page of mails.
    async fn list(&self, query: ListQuery) -> Result<ListPage, QueueError>;
    /// The one mail that begins with this prefix.
    async fn find(&self, prefix: QueueIdPrefix) -> Result<QueueId, QueueError>;
    /// Everything about a mail but its content.
    async fn show(&self, queue_id: QueueId) -> Result<MailDetails, QueueError>;
    /// Changes mails, or with [`Order::dry_run`] tells how many it would change.
    async fn change(&self, change: Change, order: Order) -> Result<Changed, QueueError>;
    /// Sends a retired mail again as a new mail; asked twice, it is sent twice.
    async fn resend(&self, resend: Resend) -> Result<Resent, QueueError>;
    /// Forgets retired mails for good, with content and timeline, or with [`Order::dry_run`] tells how many; living ones are
    /// passed over. May take minutes. One that was cut off is finished by asking again.
    async fn purge(&self, order: Order) -> Result<Changed, QueueError>;
    /// Adds a standing rule that holds mail as it comes, or changes the one of its name. Tells how many mails that were there
    /// already it holds now, if it was to.
    async fn put_hold_rule(&self, order: HoldOrder) -> Result<Changed, QueueError>;
    /// Removes a rule. What it holds stays held, unless it is to be released: then it tells how many mails were.
    async fn remove_hold_rule(&self, removal: Removal) -> Result<Changed, QueueError>;
    /// The rules, by name.
    async fn hold_rules(&self) -> Result<Vec<HoldRuleDetails>, QueueError>;
    /// Enters an address to which mail is not tried, or changes the entry that is about the same mail.
    async fn put_suppression(&self, one: Suppression) -> Result<(), QueueError>;
    /// Mail to this address is tried again; an empty tenant means those of all. Tells of how many entries there were; not found,
    /// if none. `by` is for the record, as in [`Order::by`].
    async fn release_suppression(
        &self,
        address: &str,
        tenant: &str,
        account: Option<&str>,
        by: &str,
    ) -> Result<u64, QueueError>;
    /// The entries, by address.
    async fn suppressions(&self) -> Result<Vec<Suppression>, QueueError>;
    /// What waits for each destination, most mails first; `limit` as in [`ListQuery::limit`], by 1,000 and at most 10,000.
    async fn stats(&self, limit: u32) -> Result<QueueStats, QueueError>;
    /// What tenants, accounts and recipient domains have in the queue, against their quotas: scope by scope, the fullest first.
    async fn usage(&self, query: UsageQuery) -> Result<Vec<Usage>, QueueError>;
    /// What agents count together, or whom they ban.
    async fn counters(&self, query: CountersQuery) -> Result<CounterList, QueueError>;
    /// Forgets counters and bans of these; tells of how many there was something. `by` is for the record, as in [`Order::by`].
    async fn clear_counters(&self, keys: Vec<Key>, by: &str) -> Result<u64, QueueError>;
    /// What the sites behind destinations take, and how they stand.
    async fn sites(&self, query: SitesQuery) -> Result<SiteList, QueueError>;
    /// Lets a site, or that of a destination, be tried at once; tells how many were meant. `by` is for the record, as in [`Order::by`].
    async fn lift_site(&self, name: &str, by: &str) -> Result<u64, QueueError>;
    /// The connected workers, in the order they connected.
    async fn agents(&self) -> Result<Vec<AgentDetails>, QueueError>;
    /// Gives the workers of this name no more leases until they connect again, and tells them to finish what they hold.
    /// Tells how many there are; `by` is for the record, as in [`Order::by`].
    async fn drain_agent(&self, name: &str, by: &str) -> Result<u64, QueueError>;
    /// The timeline of a mail, oldest first.
    async fn trace(&self, queue_id: QueueId) -> Result<Vec<Event>, QueueError>;
    /// The timelines of the newest mails with this Message-ID or recipient, one after the other; at most 100 mails, 10 if
    /// `limit` is 0.
    async fn trace_by(&self, text: &str, limit: u32) -> Result<Vec<Event>, QueueError>;
    /// Events as they come. Ends when the queue stops; ask the next one from the last cursor on.
    async fn watch(&self, query: WatchQuery) -> Result<WatchStream, QueueError>;
    /// Reads all of the queue's files and compares them; mail goes on meanwhile.
    async fn verify(&self) -> Result<VerifyStream, QueueError>;
    /// A copy of the queue as it is at one moment; mail goes on meanwhile. One at a time.
    async fn backup(&self) -> Result<BackupStream, QueueError>;
    /// Takes in a mail of another queue as it stands there, under its id; returns once it is durable. Tells whether it was
    /// known already: then nothing is done and its content not read. Known by its id and another mail:
    /// [`QueueError::IdTaken`].
    async fn import(&self, mail: ImportedMail, content: ContentStream) -> Result<bool, QueueError>;
}

/// See [`QueueAdmin::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Which mails.
    pub filter: Filter,
    /// Mails after this one, in the order of the list.
    pub after: Option<QueueId>,
    /// Most mails on the page; 0 means the server's default (100); at most 1,000.
    pub limit: u32,
    /// Begin with the newest mail instead of the oldest.
    pub newest_first: bool,
}

impl From<Filter> for ListQuery {
    fn from(filter: Filter) -> Self {
        Self {
            filter,
            after: None,
            limit: 0,
            newest_first: false,
        }
    }
}

impl Default for ListQuery {
    /// The first page of all mails.
    fn default() -> Self {
        Filter::all().into()
    }
}

/// One page of a listing. It may hold fewer mails than asked for, even none, and not be the last: what is looked at for one
/// page is bounded in time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// The mails.
    pub mails: Vec<MailSummary>,
    /// Ask again after this one; none: that was all.
    pub next: Option<QueueId>,
    /// What was looked at for this page.
    pub scanned: u64,
}

/// A line of `queue list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSummary {
    /// Its id.
    pub queue_id: QueueId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Octets of content.
    pub size: u64,
    /// MAIL FROM; empty text for the null path.
    pub sender: String,
    /// Recipients still open; of a retired mail, all.
    pub open_recipients: Vec<String>,
    /// The most telling state among its jobs; in a list by state that one.
    pub state: MailState,
    /// The earliest next attempt of its delayed jobs.
    pub next_attempt: Option<Timestamp>,
    /// The last reply or reason of a delay, hold or failure.
    pub reason: String,
    /// Who pays for it.
    pub tenant: String,
    /// The account that submitted it.
    pub account: Option<String>,
    /// Words it carries for selection.
    pub tags: Vec<String>,
    /// Only of retired mails.
    pub retired: Option<RetiredFacts>,
}

/// All of `queue show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailDetails {
    /// The line of the list.
    pub summary: MailSummary,
    /// The envelope with every recipient.
    pub envelope: Envelope,
    /// One entry per recipient.
    pub recipients: Vec<RecipientDetails>,
    /// Attempts so far, oldest first; bounded.
    pub attempts: Vec<Attempt>,
    /// The header as it would leave, with what agents add and remove; at most 64 KiB.
    pub header: Vec<u8>,
    /// The header is longer than that.
    pub header_cut: bool,
}

/// Where one recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientDetails {
    /// Which one.
    pub index: RecipientIndex,
    /// Where its mail goes and why.
    pub route: Route,
    /// The state of its job; none if it is done.
    pub state: Option<MailState>,
    /// Attempts made.
    pub attempts: u32,
    /// When it is tried next.
    pub next_attempt: Option<Timestamp>,
    /// The last outcome.
    pub outcome: Option<Outcome>,
}

/// See [`QueueAdmin::stats`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Those with the most jobs.
    pub destinations: Vec<DestinationStats>,
    /// How many destinations there are.
    pub total: u64,
    /// The sites behind them, as far as they are known, those with the most jobs first; as many as destinations at most.
    pub sites: Vec<SiteStats>,
}

/// What waits for the destinations behind one set of mail hosts, in jobs. A site is known once a worker tried one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteStats {
    /// Its mail hosts.
    pub site: String,
    /// How many destinations it has in the queue.
    pub destinations: u64,
    /// As of a destination, all together.
    pub due: u64,
    /// Waiting for their next attempt.
    pub delayed: u64,
    /// With workers.
    pub leased: u64,
    /// Kept until released.
    pub held: u64,
    /// When the oldest of their mails got its id.
    pub oldest: Option<Timestamp>,
    /// The last reply for one of the destinations with the most jobs.
    pub last_reply: String,
}

/// What waits for one destination, in jobs: a mail has one for each route and recipient domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DestinationStats {
    /// Which one.
    pub destination: String,
    /// The mail hosts behind it, once a worker tried it.
    pub site: Option<String>,
    /// Waiting for a worker.
    pub due: u64,
    /// Waiting for their next attempt.
    pub delayed: u64,
    /// With workers.
    pub leased: u64,
    /// Kept until released.
    pub held: u64,
    /// When the oldest of their mails got its id.
    pub oldest: Option<Timestamp>,
    /// The last reply or reason for the mail that waits longest for its next attempt; empty if there is none.
    pub last_reply: String,
}

/// A connected worker: one stream of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDetails {
    /// What it calls itself: `mta@host`.
    pub name: String,
    /// Its software.
    pub version: String,
    /// Where it runs.
    pub host: String,
    /// What it carries out.
    pub classes: Vec<RouteClass>,
    /// Of local mail: the stores it serves; none unless it carries out local mail.
    pub stores: Vec<StoreName>,
    /// Jobs it holds now.
    pub leases: u32,
    /// Results it gave since it connected.
    pub settled: u64,
    /// Of these in the last minute.
    pub settled_last_minute: u64,
    /// When it connected.
    pub connected_at: Timestamp,
    /// Whether it gets no more leases.
    pub draining: bool,
}
