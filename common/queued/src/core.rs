//! What the parts of a running queue share.

use std::{
    fmt::{self, Display},
    iter,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use postroad_address::Domain;
use postroad_diagnosis::Rules;
use postroad_directory::{DecoyKey, DirectoryHandle};
use postroad_envelope::{
    Envelope, EventKind, QueueId, Recipient, RecipientIndex, Route, Timestamp,
};
use postroad_journal::{ContentNonce, ContentStore, JournalError, Reader, Reclaimer, SegmentInfo};
use postroad_queue::{Content, MailPlace, MailRecord, Newcomers, Queue, Quotas};
use postroad_queue_client::QueueError;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config,
    agents::Agents,
    backup::Pins,
    catch_up::Standing,
    clock,
    committer::{CommitError, Committer},
    counting::Counting,
    counts::Counts,
    dispatch::ToDispatcher,
    quota,
    retired::Retired,
    routing::Router,
    sections::Sections,
    sites::Sites,
    store, suppression,
    timeline::{Telling, Timeline},
};

/// What accepts mail, from the first moment on: also while the index is behind the journal.
pub(crate) struct Front {
    pub config: Arc<ArcSwap<Config>>,
    /// Whether there were quotas at the start: without, nobody counts.
    pub counts_quotas: bool,
    /// Mails that may be received at one time, as this start has it.
    pub max_submissions: usize,
    /// Octets of a journal segment, as this start makes them.
    pub segment: u64,
    /// Admits new mail until the queue has caught up.
    pub newcomers: Arc<Newcomers>,
    /// How far the queue is.
    pub standing: watch::Sender<Standing>,
    pub reader: Reader,
    pub reclaimer: Reclaimer,
    pub contents: ContentStore,
    pub router: ArcSwap<Router>,
    /// Why mails do not get through.
    pub causes: ArcSwap<Rules>,
    pub directory: DirectoryHandle,
    /// Of accounts that cannot log in.
    pub decoys: DecoyKey,
    pub committer: Committer,
    pub timeline: Timeline,
    pub retired: Retired,
    pub agents: Agents,
    pub sites: Sites,
    pub counts: Counts,
    /// What agents count together.
    pub counting: Counting,
    /// None: new mail is taken; else why not.
    pub admission: watch::Sender<Option<String>>,
    /// Mail of so many octets is taken from anybody while any is; 0: that depends on whose it is.
    pub unasked: watch::Sender<u64>,
    pub submissions: Arc<Semaphore>,
    /// Octets of content in memory, in units of 1 KiB.
    pub memory: Arc<Semaphore>,
    /// Content up to this size lies in the record.
    pub inline_limit: usize,
    pub trash: Arc<Trash>,
    pub store: store::Shared,
    pub pins: Arc<Pins>,
    /// Held by whoever makes a checkpoint, or must keep others from it.
    pub checkpointing: tokio::sync::Mutex<()>,
    /// Held by whoever makes the index anew.
    pub renewing: tokio::sync::Mutex<()>,
    /// Parent of every task that must come to its end.
    pub tasks: TaskTracker,
    /// Where they run when a thread of ours starts them.
    pub runtime: Handle,
    /// No new work.
    pub stopping: CancellationToken,
    pub upkeep_stop: CancellationToken,
    /// Nothing goes on.
    pub ended: CancellationToken,
    pub folder: PathBuf,
    /// What may lie in the folder.
    pub format: u32,
    pub hostname: Domain,
    /// Name of this agent in events.
    pub name: String,
}

/// A queue that has caught up with its journal.
pub(crate) struct Core {
    front: Arc<Front>,
    pub queue: Arc<Queue>,
    /// Hold rules, and what else is kept that is not a mail.
    pub sections: Sections,
    /// Recipients that are to be entered into one of them.
    pub failed: suppression::Failed,
    pub dispatcher: mpsc::Sender<ToDispatcher>,
    /// Held by whoever lets the index and the schedule follow the configuration.
    pub renewing_terms: Mutex<()>,
    /// Which start of the queue this is.
    pub epoch: u64,
    /// Nothing was given out before in this start.
    pub leases_since: Timestamp,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Deref for Core {
    type Target = Front;

    fn deref(&self) -> &Front {
        &self.front
    }
}

/// Content files nobody needs any more; unlinked away from the committer.
#[derive(Debug, Default)]
pub(crate) struct Trash(Mutex<Vec<ContentNonce>>);

impl Trash {
    pub fn add(&self, files: impl IntoIterator<Item = ContentNonce>) {
        self.lock().extend(files);
    }

    pub fn take(&self) -> Vec<ContentNonce> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ContentNonce>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    pub fn new(
        front: Arc<Front>,
        queue: Arc<Queue>,
        sections: Sections,
        dispatcher: mpsc::Sender<ToDispatcher>,
    ) -> Self {
        Self {
            epoch: queue.epoch(),
            leases_since: clock::now(),
            front,
            queue,
            sections,
            failed: suppression::Failed::default(),
            dispatcher,
            renewing_terms: Mutex::default(),
        }
    }

    /// What there is of it from the first moment on.
    pub fn front(&self) -> &Arc<Front> {
        &self.front
    }
}

impl Front {
    /// Up to which size mail is the same whoever sends it.
    pub fn unasked_of(config: &Config, quotas: &Quotas) -> u64 {
        match quotas.are_none() {
            true => config.size_limit.as_u64(),
            false => 0,
        }
    }

    /// Whether new mail is taken now.
    pub fn takes_mail(&self) -> Result<(), QueueError> {
        if self.stopping.is_cancelled() {
            return Err(QueueError::Unavailable("the queue is stopping".to_owned()));
        }
        self.admission
            .borrow()
            .clone()
            .map_or(Ok(()), |why| Err(QueueError::Full(why)))
    }

    /// Where recipients' mail goes, all under one snapshot of the directory.
    pub fn routes(&self) -> impl Fn(&Envelope, &Recipient) -> Route + '_ {
        let (directory, router) = (self.directory.current(), self.router());
        move |mail, recipient| router.choose(&directory, mail, recipient).route
    }

    /// What is configured now. Taken once for each deed.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The routing table now.
    pub fn router(&self) -> Arc<Router> {
        self.router.load_full()
    }

    /// The record of a mail, without its jobs. Blocks.
    pub fn record_of(&self, mail: &MailPlace) -> Result<MailRecord, ReadError> {
        let payload = self.reader.read(&mail.location)?;
        Ok(MailRecord::decode_mail(payload)?)
    }

    /// Content, or as much of it as `limit` allows. Blocks.
    pub fn content_of(&self, content: &Content, limit: u64) -> Result<Bytes, ReadError> {
        match content {
            Content::Inline(bytes) => {
                let end = usize::try_from(limit)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                Ok(bytes.slice(..end))
            }
            Content::File(file) => Ok(self.contents.reader(file)?.read_range(0..limit)?),
        }
    }

    /// An event of our own for the timeline, now.
    pub fn tell(
        &self,
        queue_id: QueueId,
        kind: EventKind,
        recipients: &[RecipientIndex],
        text: impl Display,
        fields: impl IntoIterator<Item = (&'static str, impl Display)>,
    ) {
        self.timeline.record(iter::once_with(|| {
            let event = self.event(clock::now(), queue_id, kind, recipients);
            fields
                .into_iter()
                .fold(event.text(text), |event, (name, value)| {
                    event.field(name, value)
                })
        }));
    }

    /// An event of our own, whose text and fields are still to be told.
    pub fn event(
        &self,
        at: Timestamp,
        queue_id: QueueId,
        kind: EventKind,
        recipients: &[RecipientIndex],
    ) -> Telling {
        Telling::new(at, queue_id, &self.name, kind, recipients)
    }

    /// The segments of the journal, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.reader.segments()
    }

    /// Octets these take on the disk: each has its full length from the beginning on, however little lies in it.
    pub fn room_taken(&self, segments: &[SegmentInfo]) -> u64 {
        let count = u64::try_from(segments.len()).unwrap_or(u64::MAX);
        count.saturating_mul(self.segment)
    }
}

/// Why stored mail cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Queue(#[from] postroad_queue::QueueError),
    #[error("the content file {0} is not there")]
    NoContent(ContentNonce),
    #[error("the content file {0} is damaged")]
    DamagedContent(ContentNonce),
}

impl ReadError {
    /// The place was given up between asking for it and reading it: ask again.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Gone))
    }
}

impl From<ReadError> for QueueError {
    fn from(error: ReadError) -> Self {
        tracing::error!(event = "corruption", error = %error, "stored mail cannot be read");
        Self::Unavailable("stored mail cannot be read".to_owned())
    }
}

/// What callers are told; causes that are ours are in the log.
pub(crate) fn to_client_error(error: CommitError) -> QueueError {
    use postroad_queue::QueueError as Inner;
    match error {
        CommitError::Full => QueueError::Full("the disk is full".to_owned()),
        CommitError::Ended => QueueError::Unavailable("the queue has ended".to_owned()),
        CommitError::Behind => QueueError::Unavailable(error.to_string()),
        CommitError::TooLarge => QueueError::Invalid("the envelope is too large".to_owned()),
        CommitError::Queue(inner) => match inner {
            Inner::Envelope(why) => QueueError::Invalid(why.to_owned()),
            Inner::NoSuchMail(_) | Inner::NoSuchJob(_) => QueueError::NotFound,
            Inner::OverQuota(over) => quota::refused(&over, None),
            Inner::Busy(_) | Inner::Stale(_) => QueueError::Conflict(inner.to_string()),
            Inner::Unreadable { .. }
            | Inner::Index(_)
            | Inner::Io { .. }
            | Inner::Unsynced { .. } => {
                tracing::error!(event = "fault", error = %inner, "the index failed");
                QueueError::Unavailable("the index failed".to_owned())
            }
        },
    }
}
