//! Carries leases out: place each recipient, file the copies, tell the queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::join_all;
use postroad_directory::DirectoryHandle;
use postroad_envelope::{Event, JobKey, LeaseRef, Outcome, Recipient, RecipientIndex, Timestamp};
use postroad_maildir::{Delivered, DeliveryId, MaildirError, Store};
use postroad_queue_client::worker::{Handler, Verdict};
use postroad_queue_client::{HandBack, Lease, QueueService, Settlement};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::filing::{Copy, Filed, FilingError, Piece, file};
use crate::place::{Place, place};
use crate::{outcome, redirect, timeline};

/// Copies written while the content is read once. Small contents are dear by their syncs instead, which threads
/// share, so those are spread.
const COPIES_PER_READ: usize = 16;
const COPIES_PER_THREAD: usize = 2;
/// Pieces of content (of 64 KiB) on their way to the disk.
const PIECES: usize = 8;
/// The queue is on this host or near; a piece that takes longer will not come.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// Before a lease that came to nothing is offered again.
const PAUSE: Duration = Duration::from_secs(5);

/// The delivery worker's [`Handler`].
pub struct Worker {
    pub store: Store,
    pub queue: Arc<dyn QueueService>,
    pub directory: DirectoryHandle,
    pub host: String,
    /// Bounds the blocking threads that file.
    pub filers: Arc<Semaphore>,
    pub timeline: mpsc::Sender<Event>,
    /// Cancelled when the store can decide nothing any more until it is opened again.
    pub store_closed: CancellationToken,
    pub decided: Decided,
}

/// Deliveries the ledger remembers until their settlement is durable.
#[derive(Default)]
pub struct Decided(Mutex<HashMap<JobKey, Vec<DeliveryId>>>);

#[async_trait]
impl Handler for Worker {
    async fn handle(&self, lease: Lease) -> Verdict {
        let started_at = Timestamp::from(SystemTime::now());
        let outcomes = self.deliver(&lease).await;
        if outcomes.is_empty() {
            return Verdict::HandBack(HandBack {
                lease: lease.lease,
                delay: PAUSE,
                reason: "the mail could not be filed now".to_owned(),
            });
        }
        Verdict::Settle(Settlement {
            lease: lease.lease,
            outcomes,
            site: None,
            started_at,
        })
    }

    /// Only now may the ledger forget: a lease can no longer come for these.
    async fn settled(&self, lease: LeaseRef) {
        let ids = self.decided.take(lease.job);
        if ids.is_empty() {
            return;
        }
        let store = self.store.clone();
        // A fault here costs room in the ledger and nothing else.
        let _ = spawn_blocking(move || ids.iter().for_each(|id| store.forget(id))).await;
    }
}

impl Worker {
    /// An outcome for each recipient whose fate is known; the others stay due.
    async fn deliver(&self, lease: &Lease) -> Vec<(RecipientIndex, Outcome)> {
        let directory = self.directory.current();
        let (mut outcomes, mut copies, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        for recipient in &lease.envelope.recipients {
            match place(&directory, &lease.envelope, recipient) {
                Place::Mailbox(copy) => copies.push(copy),
                Place::Redirect(targets) => redirects.push((recipient, targets)),
                Place::Nowhere(outcome) => {
                    self.log(lease, recipient, &outcome, None);
                    outcomes.push((recipient.index, outcome));
                }
            }
        }
        for (recipient, targets) in redirects {
            let outcome = redirect::redirect(&*self.queue, lease, recipient, targets).await;
            outcomes.extend(outcome.map(|outcome| (recipient.index, outcome)));
        }
        let per_group = match lease.content {
            Some(_) => COPIES_PER_THREAD,
            None => COPIES_PER_READ,
        };
        let groups = copies.chunks(per_group);
        let filed = join_all(groups.map(|group| self.file(lease, group.to_vec()))).await;
        for (index, result) in filed.into_iter().flatten() {
            let recipient = lease.envelope.recipient(index);
            let outcome = recipient.and_then(|recipient| self.conclude(lease, recipient, result));
            outcomes.extend(outcome.map(|outcome| (index, outcome)));
        }
        outcomes
    }

    /// Files one group of copies. Not cancelled half-way: the thread ends by itself when this is dropped.
    async fn file(&self, lease: &Lease, copies: Vec<Copy>) -> Vec<Filed> {
        let Ok(permit) = Arc::clone(&self.filers).acquire_owned().await else {
            return Vec::new();
        };
        let (feed, content) = mpsc::channel(PIECES);
        let store = self.store.clone();
        let received_sec = lease.envelope.received_at.as_secs();
        let filing = spawn_blocking(move || {
            let _permit = permit;
            file(&store, copies, received_sec, content)
        });
        self.feed(lease, feed).await;
        filing.await.unwrap_or_else(|error| {
            tracing::error!(event = "fault", queue_id = %lease.envelope.queue_id, %error, "filing ended by a fault of ours; the mail is tried again");
            Vec::new()
        })
    }

    /// Sends the content to the thread that files; without `End` nothing is filed.
    async fn feed(&self, lease: &Lease, feed: mpsc::Sender<Piece>) {
        let queue_id = lease.envelope.queue_id;
        if let Some(content) = &lease.content {
            // The receiver is gone when no copy needs the content.
            if feed.send(Piece::Octets(content.clone())).await.is_ok() {
                let _ = feed.send(Piece::End).await;
            }
            return;
        }
        let lost = |error: &dyn std::fmt::Display| {
            tracing::warn!(%queue_id, %error, "the content could not be read; the mail is tried again");
        };
        let mut stream = match self.queue.read(queue_id, 0).await {
            Ok(stream) => stream,
            Err(error) => return lost(&error),
        };
        let mut size = 0;
        loop {
            match timeout(PIECE_TIMEOUT, stream.next()).await {
                Ok(Some(Ok(octets))) => {
                    size += octets.len() as u64;
                    if feed.send(Piece::Octets(octets)).await.is_err() {
                        return;
                    }
                }
                Ok(Some(Err(error))) => return lost(&error),
                Ok(None) if size == lease.envelope.size => break,
                Ok(None) => {
                    return lost(&format_args!(
                        "{size} octets of {} came",
                        lease.envelope.size
                    ));
                }
                Err(elapsed) => return lost(&elapsed),
            }
        }
        let _ = feed.send(Piece::End).await;
    }

    /// What the queue is told of a recipient; none: it stays due.
    fn conclude(
        &self,
        lease: &Lease,
        recipient: &Recipient,
        result: Result<Delivered, FilingError>,
    ) -> Option<Outcome> {
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
        self.log(lease, recipient, &outcome, delivered.as_ref());
        Some(outcome)
    }

    /// One line, and one event of the timeline.
    fn log(
        &self,
        lease: &Lease,
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
        let event = timeline::event(&self.host, lease, recipient, outcome, path.as_deref(), now);
        // A full channel means that the queue is slow or away: the mail matters more than its story.
        let _ = self.timeline.try_send(event);
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
