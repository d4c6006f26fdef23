use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use postroad_address::Mailbox;
use postroad_counters::{Count, Counted};
use postroad_envelope::{Envelope, Event, HeaderEdit, QueueId};

use crate::{QueueError, WorkChannel, WorkHello};

/// Content in order, in chunks of at most 64 KiB.
pub type ContentStream = BoxStream<'static, Result<Bytes, QueueError>>;

/// The queue, for agents.
#[async_trait]
pub trait QueueService: Send + Sync + 'static {
    /// Asks for quota and space before the client is asked for content. A yes is no promise.
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError>;

    /// Begins a submission. Its id makes it idempotent: submitting the same mail again is acknowledged again.
    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError>;

    /// The same for a mail that follows from one of the queue under an id that follows from that one's: only where that one
    /// is can it be known that this one was submitted before.
    async fn submit_beside(
        &self,
        _mail: QueueId,
        envelope: Envelope,
    ) -> Result<Box<dyn Submission>, QueueError> {
        self.submit(envelope).await
    }

    /// Opens a stream of leases for a worker.
    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError>;

    /// The content of a living mail as received, from `offset`, header edits not applied.
    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError>;

    /// The same for one who wants `length` octets at most; more may come from a queue that does not know how to end there.
    async fn read_part(
        &self,
        queue_id: QueueId,
        offset: u64,
        _length: u64,
    ) -> Result<ContentStream, QueueError> {
        self.read(queue_id, offset).await
    }

    /// All from `offset`, also of a retired mail whose content is kept: for operators, not for agents.
    async fn read_any(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.read(queue_id, offset).await
    }

    /// Records events of the timeline; may be lost in a power cut.
    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError>;

    /// Counts for all copies of an agent together. Whoever counts of one key must ask the same queue, so this is not asked again
    /// elsewhere: an agent that gets no answer counts by itself.
    async fn count(&self, count: Count) -> Result<Counted, QueueError>;

    /// Takes a mail back for its account, if nothing of it was tried yet. Asked again after an answer that never came, it may say
    /// `Unknown` of a mail that it took out before.
    async fn withdraw(&self, _queue_id: QueueId, _account: &str) -> Result<Withdrawn, QueueError> {
        Err(QueueError::Unsupported("withdraw".to_owned()))
    }

    /// The nodes it is made of, each a queue for itself; none: it is one. Leases are taken from each.
    fn nodes(&self) -> Vec<QueueNode> {
        Vec::new()
    }
}

/// What became of a mail that its account wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing of it was sent, nothing will be, and nobody is told.
    Done,
    /// Some of it was tried, or is being tried: it goes on unchanged.
    TooLate,
    /// There is no such mail of this account, or it has ended.
    Unknown,
}

/// One of several queues that are used as one.
pub struct QueueNode {
    /// What people call it.
    pub name: String,
    /// It alone.
    pub queue: Arc<dyn QueueService>,
}

/// One mail on its way into the queue. Dropping it leaves nothing behind.
#[async_trait]
pub trait Submission: Send {
    /// Hands over the next octets; returns when there is room for more.
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError>;

    /// Ends the content and returns once the mail is durable: the moment at which 250 may be said.
    ///
    /// Must not be dropped half-way if the caller wants to know; the mail may be stored either way.
    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError>;
}

/// See [`QueueService::admit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmitRequest {
    /// Tenant that pays for the mail.
    pub tenant: String,
    /// Account that submits, if any.
    pub account: Option<String>,
    /// Octets the client announced (SIZE), if it did.
    pub size: Option<u64>,
    /// Who shall get it.
    pub recipients: Vec<Mailbox>,
}

/// What is known only when the last octet is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completion {
    /// Octets handed over; a mismatch means that the content was cut and nothing is stored.
    pub size: u64,
    /// Edits to append to those of the envelope.
    pub header_edits: Vec<HeaderEdit>,
    /// Verdicts to add to those of the envelope.
    pub verdicts: BTreeMap<String, String>,
    /// Received fields counted in the header.
    pub hop_count: u32,
    /// Facts to add to those of the envelope, e.g. `message_id`.
    pub facts: BTreeMap<String, String>,
}

/// The mail is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub queue_id: QueueId,
    /// It was there already: this submission repeats an earlier one.
    pub duplicate: bool,
}

/// Gathers a whole content; refuses more than `limit` octets.
pub async fn collect_content(mut stream: ContentStream, limit: usize) -> Result<Bytes, QueueError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if whole.len() + chunk.len() > limit {
            return Err(QueueError::Conflict(format!(
                "the content is larger than {limit} octets"
            )));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}
