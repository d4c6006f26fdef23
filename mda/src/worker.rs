//! Carries leases out: place each recipient, file the copies, tell the queue.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::join_all;
use postroad_accounts::{Accounts, Away};
use postroad_address::ForwardPath;
use postroad_envelope::{
    BodyKind, JobKey, LeaseRef, Outcome, Recipient, RecipientIndex, StoreName, Timestamp,
};
use postroad_maildir::{Delivered, DeliveryId, MaildirError, Store};
use postroad_queue_client::worker::{Desk, Handler, Verdict};
use postroad_queue_client::{
    AttemptCounts, HandBack, Lease, QueueError, QueueService, Settlement, Touch,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::filers::Filers;
use crate::filing::{Copy, Filed, FilingError, Mail, Piece, file};
use crate::place::{Place, place};
use crate::{outcome, redirect, timeline};

/// Copies written while the content is read once. Small contents are dear by their syncs instead: they go in groups with those of
/// other mails, or where that is of no use on threads that wait at the same time.
const COPIES_PER_READ: usize = 16;
const COPIES_PER_THREAD: usize = 1;
/// Pieces of content (of 64 KiB) on their way to the disk.
const PIECES: usize = 8;
/// The queue is on this host or near; a piece that takes longer will not come.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// Before a lease that came to nothing is offered again.
const PAUSE: Duration = Duration::from_secs(5);

/// The delivery worker's [`Handler`].
pub struct Worker {
    pub store: Store,
    /// The store's name: mail of accounts that are of another goes back.
    pub name: StoreName,
    pub queue: Arc<dyn QueueService>,
    pub accounts: Accounts,
    pub host: String,
    /// Bounds the blocking threads that file copies by themselves.
    pub filers: Arc<Semaphore>,
    /// Those that file copies in groups.
    pub groups: Filers,
    /// Cancelled when the store can decide nothing any more until it is opened again.
    pub store_closed: CancellationToken,
    pub decided: Decided,
    pub under_way: UnderWay,
    pub counts: AttemptCounts,
}

/// What became of the recipients of a lease; those without a word stay due.
#[derive(Default)]
struct Ended {
    /// Of each recipient whose fate is known.
    outcomes: Vec<(RecipientIndex, Outcome)>,
    /// Those of another store, with nothing filed for them here.
    elsewhere: Vec<RecipientIndex>,
}

/// What the ledger tells of a recipient.
enum Before {
    /// Filed, whatever is said of the address now.
    Served(Delivered),
    Nothing,
    /// Perhaps filed.
    Unknown,
}

/// How the content reached the thread that files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fed {
    /// All of it, or as much as was wanted.
    Whole,
    /// The queue went away.
    Cut,
    /// The queue is there, the content is not.
    Damaged,
}

/// Deliveries the ledger remembers until their settlement is durable.
#[derive(Default)]
pub struct Decided(Mutex<HashMap<JobKey, Vec<DeliveryId>>>);

/// A lease, and where its story is told.
type Work<'a> = (&'a Lease, &'a Desk);

#[async_trait]
impl Handler for Worker {
    async fn handle(&self, lease: Lease) -> Verdict {
        self.handle_at(lease, Desk::closed()).await
    }

    async fn handle_at(&self, lease: Lease, desk: Desk) -> Verdict {
        let untried = |reason: &str, touch| {
            Verdict::HandBack(HandBack {
                lease: lease.lease,
                delay: PAUSE,
                reason: reason.to_owned(),
                touch,
            })
        };
        let Some(_turn) = self.under_way.begin(lease.lease.job) else {
            return untried("an earlier attempt at this job goes on", Touch::Unclear);
        };
        let _worked_on = self.counts.begin();
        let (began, started_at) = (Instant::now(), Timestamp::from(SystemTime::now()));
        let Ended {
            outcomes,
            elsewhere,
        } = self.deliver((&lease, &desk)).await;
        let each = outcomes.iter().map(|(_, outcome)| outcome);
        self.counts.tried(lease.route.class, each, began.elapsed());
        if outcomes.is_empty() {
            // Of all of them, or the queue must not take it for granted that nothing is filed here.
            return match elsewhere.len() == lease.envelope.recipients.len() {
                true => untried("the accounts are of another store", Touch::Elsewhere),
                false => untried("the mail could not be filed now", Touch::Unclear),
            };
        }
        let expanded = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Expanded(_)));
        Verdict::Settle(Settlement {
            timed: Vec::new(),
            reporting: expanded.map(|(index, _)| *index).collect(),
            lease: lease.lease,
            outcomes,
            sites: Vec::new(),
            started_at,
            elsewhere,
        })
    }

    /// Only now may the ledger forget: a lease can no longer come for these.
    async fn settled(&self, lease: LeaseRef) {
        let ids = self.decided.take(lease.job);
        if ids.is_empty() {
            return;
        }
        ids.iter().for_each(|id| self.store.forget(id));
        if self.store.calls_for_tidying() {
            let store = self.store.clone();
            // Nobody waits: a fault here costs room in the ledger and nothing else.
            drop(spawn_blocking(move || store.tidy()));
        }
    }
}

impl Worker {
    async fn deliver(&self, work: Work<'_>) -> Ended {
        let (lease, _) = work;
        let (mut copies, mut others) = (Vec::new(), Vec::new());
        let (mut outcomes, mut elsewhere) = (Vec::new(), Vec::new());
        let recipients = &lease.envelope.recipients;
        let resolved = join_all(recipients.iter().map(|recipient| {
            let path = ForwardPath::Mailbox(recipient.address.clone());
            async move { self.accounts.resolve_for_delivery(&path).await }
        }));
        for (recipient, resolved) in recipients.iter().zip(resolved.await) {
            let Ok(resolved) = resolved.inspect_err(|away| self.postpone(lease, recipient, away))
            else {
                continue;
            };
            match place(resolved.resolution, &lease.envelope, recipient, &self.name) {
                Place::Mailbox(copy) => copies.push(copy),
                other => others.push((recipient, other)),
            }
        }
        for (recipient, other) in others {
            let outcome = match (self.served_before(lease, recipient).await, other) {
                (Before::Nothing, Place::Elsewhere(store)) => {
                    self.moved(lease, recipient, &store);
                    elsewhere.push(recipient.index);
                    None
                }
                (before, other) => self.without_copy(work, recipient, before, other).await,
            };
            outcomes.extend(outcome.map(|outcome| (recipient.index, outcome)));
        }
        for (index, result) in self.file_all(lease, copies).await {
            let recipient = lease.envelope.recipient(index);
            let outcome = recipient.and_then(|recipient| self.conclude(work, recipient, result));
            outcomes.extend(outcome.map(|outcome| (index, outcome)));
        }
        Ended {
            outcomes,
            elsewhere,
        }
    }

    /// Of a recipient for whom nothing is to be filed here now.
    async fn without_copy(
        &self,
        work: Work<'_>,
        recipient: &Recipient,
        before: Before,
        place: Place,
    ) -> Option<Outcome> {
        match (before, place) {
            (Before::Served(delivered), _) => self.conclude(work, recipient, Ok(delivered)),
            (Before::Nothing, Place::Redirect(targets)) => {
                redirect::redirect(&*self.queue, work.0, recipient, targets).await
            }
            (Before::Nothing, Place::Nowhere(outcome)) => {
                self.log(work, recipient, &outcome, None);
                Some(outcome)
            }
            (Before::Unknown, _) | (_, Place::Elsewhere(_) | Place::Mailbox(_)) => None,
        }
    }

    /// The account has moved since the queue chose this store: nothing is filed here.
    fn moved(&self, lease: &Lease, recipient: &Recipient, store: &StoreName) {
        let queue_id = lease.envelope.queue_id;
        tracing::info!(
            %queue_id, rcpt_to = %recipient.address, store = %store,
            "the account is of another store now; its mail goes back to the queue"
        );
    }

    /// Nobody can say whose the address is: the recipient stays due.
    fn postpone(&self, lease: &Lease, recipient: &Recipient, away: &Away) {
        let queue_id = lease.envelope.queue_id;
        tracing::info!(%queue_id, rcpt_to = %recipient.address, error = %away, "the mail is tried again");
    }

    async fn file_all(&self, lease: &Lease, copies: Vec<Copy>) -> Vec<Filed> {
        let per_read = match &lease.content {
            Some(content) if self.groups.are_of_use() => {
                let mail = mail_of(lease);
                let one = |copy| self.groups.file(copy, mail, content.clone());
                return join_all(copies.into_iter().map(one)).await;
            }
            Some(_) => COPIES_PER_THREAD,
            None => COPIES_PER_READ,
        };
        let groups = copies.chunks(per_read);
        let filed = join_all(groups.map(|group| self.file(lease, group.to_vec()))).await;
        filed.into_iter().flatten().collect()
    }

    /// Files copies on a thread of their own. Not cancelled half-way: the thread ends by itself when this is dropped.
    async fn file(&self, lease: &Lease, copies: Vec<Copy>) -> Vec<Filed> {
        let Ok(permit) = Arc::clone(&self.filers).acquire_owned().await else {
            return Vec::new();
        };
        let (feed, content) = mpsc::channel(PIECES);
        let store = self.store.clone();
        let mail = mail_of(lease);
        let indices: Vec<_> = copies.iter().map(|copy| copy.index).collect();
        let feed = match &lease.content {
            Some(inline) => {
                // There before the thread begins, which then waits for nothing. The channel has room for both.
                let _ = feed.try_send(Piece::Octets(inline.clone()));
                let _ = feed.try_send(Piece::End);
                None
            }
            None => Some(feed),
        };
        let filing = spawn_blocking(move || {
            let _permit = permit;
            file(&store, copies, &mail, content)
        });
        let fed = match feed {
            Some(feed) => self.feed(lease, feed).await,
            None => Fed::Whole,
        };
        let mut filed = match filing.await {
            Ok(filed) => filed,
            Err(error) => {
                let fault = |index| (index, Err(FilingError::Fault(error.to_string())));
                indices.into_iter().map(fault).collect()
            }
        };
        if fed == Fed::Damaged {
            for (_, result) in &mut filed {
                if let Err(error @ FilingError::ContentLost) = result {
                    *error = FilingError::ContentDamaged;
                }
            }
        }
        filed
    }

    /// Sends the content to the thread that files; without `End` nothing is filed.
    async fn feed(&self, lease: &Lease, feed: mpsc::Sender<Piece>) -> Fed {
        let queue_id = lease.envelope.queue_id;
        let lost = |error: QueueError| {
            tracing::warn!(%queue_id, %error, "the content could not be read; the mail is tried again");
            match error {
                QueueError::Unavailable(_) | QueueError::Full(_) => Fed::Cut,
                _ => Fed::Damaged,
            }
        };
        let mut stream = match self.queue.read(queue_id, 0).await {
            Ok(stream) => stream,
            Err(error) => return lost(error),
        };
        let mut size = 0;
        loop {
            match timeout(PIECE_TIMEOUT, stream.next()).await {
                Ok(Some(Ok(octets))) => {
                    size += octets.len() as u64;
                    if feed.send(Piece::Octets(octets)).await.is_err() {
                        return Fed::Whole;
                    }
                }
                Ok(Some(Err(error))) => return lost(error),
                Ok(None) if size == lease.envelope.size => break,
                Ok(None) => {
                    let said = lease.envelope.size;
                    return lost(QueueError::Invalid(format!("{size} octets of {said} came")));
                }
                Err(_) => return lost(QueueError::Unavailable("time-out".to_owned())),
            }
        }
        let _ = feed.send(Piece::End).await;
        Fed::Whole
    }

    /// Whether a recipient that has no mailbox here now was served before, and only the settlement was lost.
    async fn served_before(&self, lease: &Lease, recipient: &Recipient) -> Before {
        let queue_id = lease.envelope.queue_id.to_string();
        let Ok(id) = DeliveryId::new(&queue_id, recipient.index.0) else {
            return Before::Nothing;
        };
        let store = self.store.clone();
        match spawn_blocking(move || store.decided(id)).await {
            Ok(Ok(Some(delivered))) => Before::Served(delivered),
            Ok(Ok(None)) => Before::Nothing,
            // It is decided, and the disk does not let it come to its end now; or it cannot be told.
            Ok(Err(error)) => {
                tracing::error!(event = "fault", queue_id, %error, "the mail is tried again");
                Before::Unknown
            }
            Err(_) => Before::Unknown,
        }
    }

    /// What the queue is told of a recipient; none: it stays due.
    fn conclude(
        &self,
        work: Work<'_>,
        recipient: &Recipient,
        result: Result<Delivered, FilingError>,
    ) -> Option<Outcome> {
        let (lease, _) = work;
        let (outcome, delivered) = match result {
            Ok(delivered) => {
                let id = DeliveryId::new(&lease.envelope.queue_id.to_string(), recipient.index.0);
                self.decided.add(lease.lease.job, id.ok());
                (outcome::delivered(recipient), Some(delivered))
            }
            Err(FilingError::ContentLost) => return None,
            Err(FilingError::Store(error @ MaildirError::LedgerClosed { .. })) => {
                tracing::error!(event = "disk_failed", %error);
                self.store_closed.cancel();
                return None;
            }
            Err(error) => (outcome::failed(&error), None),
        };
        self.log(work, recipient, &outcome, delivered.as_ref());
        Some(outcome)
    }

    /// One line, and one event of the timeline.
    fn log(
        &self,
        (lease, desk): Work<'_>,
        recipient: &Recipient,
        outcome: &Outcome,
        delivered: Option<&Delivered>,
    ) {
        let now = Timestamp::from(SystemTime::now());
        let envelope = &lease.envelope;
        let path = delivered.map(|filed| filed.mailbox.join("new").join(&filed.file_name));
        let report = outcome.report();
        tracing::info!(
            event = if delivered.is_some() { "delivered" } else { "attempt" },
            queue_id = %envelope.queue_id,
            mail_from = %envelope.reverse_path,
            rcpt_to = %recipient.address,
            attempt = lease.attempt,
            outcome = outcome.action(),
            enhanced = %report.status,
            reason = %report.text,
            size = envelope.size,
            path = path.as_deref().map(|path| tracing::field::display(path.display())),
            delay_ms = now.since(envelope.received_at).as_millis() as u64,
        );
        desk.tell([timeline::event(
            &self.host,
            lease,
            recipient,
            outcome,
            path.as_deref(),
            now,
        )]);
    }
}

/// Jobs an attempt is at. A lease may end while its attempt goes on (a clock that jumps is enough); were the next lease
/// settled meanwhile, the ledger would forget what the old attempt is still to file.
#[derive(Default)]
pub struct UnderWay(Mutex<HashSet<JobKey>>);

struct Turn<'a> {
    all: &'a UnderWay,
    job: JobKey,
}

impl UnderWay {
    fn begin(&self, job: JobKey) -> Option<Turn<'_>> {
        self.jobs().insert(job).then(|| Turn { all: self, job })
    }

    fn jobs(&self) -> MutexGuard<'_, HashSet<JobKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.jobs().remove(&self.job);
    }
}

fn mail_of(lease: &Lease) -> Mail {
    Mail {
        received_sec: lease.envelope.received_at.as_secs(),
        is_binary: lease.envelope.body == BodyKind::BinaryMime,
    }
}

impl Decided {
    fn add(&self, job: JobKey, id: Option<DeliveryId>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.entry(job).or_default().extend(id);
    }

    fn take(&self, job: JobKey) -> Vec<DeliveryId> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.remove(&job).unwrap_or_default()
    }
}
