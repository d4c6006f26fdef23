//! One mail on its way in: content is gathered in memory, or once it is large in a file of its own; then its record is
//! offered to the committer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroad_envelope::Envelope;
use postroad_journal::{ContentStore, ContentWriter, JournalError};
use postroad_queue::{Admission, Content, Reception};
use postroad_queue_client::{Accepted, Completion, QueueError, Submission};
use postroad_reply::{EXCEEDED_STORAGE_552, Reply, TOO_LARGE_5_3_4};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::{JoinError, spawn_blocking},
    time::timeout,
};
use tracing::error;

use crate::{
    accepted::AcceptedFacts,
    catch_up::Standing,
    clock,
    core::{Front, to_client_error},
    disk, quota,
};

/// Octets of a large mail gathered before they are written.
const WRITE: usize = 512 << 10;
/// How long a repeated submission waits for the index, at a start.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct LocalSubmission {
    core: Arc<Front>,
    /// On the heap, since it is large and handed from one future to the next.
    envelope: Box<Envelope>,
    body: Body,
    len: u64,
    /// Counts this mail among those under way, until it is dropped.
    under_way: OwnedSemaphorePermit,
    memory: Option<OwnedSemaphorePermit>,
}

enum Body {
    Memory(Vec<Bytes>),
    File {
        writer: ContentWriter,
        pending: Vec<Bytes>,
    },
    /// An earlier write failed.
    Broken,
}

impl LocalSubmission {
    pub fn begin(core: Arc<Front>, envelope: Envelope) -> Result<Self, QueueError> {
        core.takes_mail()?;
        let under_way = Arc::clone(&core.submissions)
            .try_acquire_owned()
            .map_err(|_| QueueError::Full("too many mails under way".to_owned()))?;
        let body = Body::Memory(Vec::new());
        Ok(Self {
            core,
            envelope: Box::new(envelope),
            body,
            len: 0,
            under_way,
            memory: None,
        })
    }

    /// Memory is counted, and refused when it is used up: waiting for it could last for ever.
    fn take_memory(&mut self, octets: usize) -> Result<(), QueueError> {
        let units = u32::try_from(octets.div_ceil(1024)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.core.memory)
            .try_acquire_many_owned(units)
            .map_err(|_| QueueError::Full("too much content under way".to_owned()))?;
        match &mut self.memory {
            Some(held) => held.merge(more),
            None => self.memory = Some(more),
        }
        Ok(())
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        let len = self.len + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if len > self.core.config().size_limit.as_u64() {
            return Err(too_large());
        }
        self.len = len;
        if bytes.is_empty() {
            return Ok(());
        }
        let fits = usize::try_from(len).is_ok_and(|len| len <= self.core.inline_limit);
        if fits && matches!(self.body, Body::Memory(_)) {
            self.take_memory(bytes.len())?;
            if let Body::Memory(chunks) = &mut self.body {
                chunks.push(bytes);
            }
            return Ok(());
        }
        self.spill(bytes).await
    }

    async fn complete(mut self, completion: Completion) -> Result<Accepted, QueueError> {
        if completion.size != self.len {
            return Err(QueueError::Invalid(format!(
                "{} octets arrived of {}",
                self.len, completion.size
            )));
        }
        complete(&mut self.envelope, completion);
        let Self {
            core,
            envelope,
            body,
            under_way,
            memory,
            ..
        } = self;
        let tasks = core.tasks.clone();
        // A caller that stops waiting must not stop a commit half-way.
        let stored = tasks.spawn(Box::pin(async move {
            let outcome = store(&core, envelope, body).await;
            drop((under_way, memory));
            outcome
        }));
        stored.await.map_err(task_failed)?
    }

    async fn spill(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        match std::mem::replace(&mut self.body, Body::Broken) {
            Body::Memory(mut chunks) => {
                chunks.push(bytes);
                let (store, config, folder) = (
                    self.core.contents.clone(),
                    self.core.config().disk.clone(),
                    self.core.folder.clone(),
                );
                let begun = spawn_blocking(move || {
                    if let Some(why) = disk::shortage(&folder, &config) {
                        return Err(QueueError::Full(why));
                    }
                    begin_file(&store, &chunks).map_err(file_failed)
                });
                let writer = begun.await.map_err(task_failed)??;
                self.memory = None;
                self.take_memory(WRITE)?;
                self.body = Body::File {
                    writer,
                    pending: Vec::new(),
                };
            }
            Body::File {
                writer,
                mut pending,
            } => {
                pending.push(bytes);
                let waiting: usize = pending.iter().map(Bytes::len).sum();
                self.body = if waiting < WRITE {
                    Body::File { writer, pending }
                } else {
                    let written = spawn_blocking(move || write_all(writer, &pending));
                    let writer = written.await.map_err(task_failed)?.map_err(file_failed)?;
                    Body::File {
                        writer,
                        pending: Vec::new(),
                    }
                };
            }
            Body::Broken => return Err(broken()),
        }
        Ok(())
    }
}

/// A mail whose content is all there and, if it is a file, durable; counted among those under way.
pub(crate) struct Gathered {
    pub envelope: Envelope,
    pub content: Content,
    _counted: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl LocalSubmission {
    /// For whoever inserts the mail in another way than [`Submission::finish`].
    pub async fn gathered(self) -> Result<Gathered, QueueError> {
        Ok(Gathered {
            envelope: *self.envelope,
            content: self.body.into_content().await?,
            _counted: (self.under_way, self.memory),
        })
    }
}

#[async_trait]
impl Submission for LocalSubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        let taken = self.take(bytes).await;
        taken.inspect_err(|error| self.core.counts.refused(error))
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        let core = Arc::clone(&self.core);
        let stored = self.complete(completion).await;
        stored.inspect_err(|error| core.counts.refused(error))
    }
}

fn complete(envelope: &mut Envelope, completion: Completion) {
    envelope.size = completion.size;
    envelope.hop_count = completion.hop_count;
    envelope.header_edits.extend(completion.header_edits);
    envelope.verdicts.extend(completion.verdicts);
    envelope.facts.extend(completion.facts);
}

impl Body {
    async fn into_content(self) -> Result<Content, QueueError> {
        Ok(match self {
            Self::Memory(chunks) => Content::Inline(joined(chunks)),
            Self::File { writer, pending } => {
                let finish = move || write_all(writer, &pending)?.finish();
                let file = spawn_blocking(finish).await.map_err(task_failed)?;
                Content::File(file.map_err(file_failed)?)
            }
            Self::Broken => return Err(broken()),
        })
    }
}

async fn store(
    core: &Arc<Front>,
    envelope: Box<Envelope>,
    body: Body,
) -> Result<Accepted, QueueError> {
    let content = body.into_content().await?;
    let file = content.file();
    let outcome = insert(core, envelope, content).await;
    if is_unwanted(&outcome) {
        core.trash.add(file.map(|file| file.nonce));
    }
    outcome
}

/// Whether nobody needs the file of a mail that came to this end: it was refused, or had been stored before. Where the
/// queue ended meanwhile its record may be durable all the same; then only the next start can tell.
pub(crate) fn is_unwanted(outcome: &Result<Accepted, QueueError>) -> bool {
    match outcome {
        Ok(accepted) => accepted.duplicate,
        Err(error) => !matches!(error, QueueError::Unavailable(_)),
    }
}

/// Offers the mail. One that repeats a mail on its way waits for that one's commit; one of which only the index can tell
/// whether it is known waits for that, for a time.
pub(crate) async fn insert(
    core: &Arc<Front>,
    envelope: Box<Envelope>,
    content: Content,
) -> Result<Accepted, QueueError> {
    let queue_id = envelope.queue_id;
    let account = envelope.account.clone();
    let mut rounds = core.committer.rounds();
    let (mut envelope, mut content) = (envelope, content);
    loop {
        rounds.mark_unchanged();
        let mut facts = AcceptedFacts::submitted(core, &envelope);
        let (now, routes) = (clock::now(), core.routes());
        let admission = match core.newcomers.queue() {
            Some(queue) => queue
                .prepare_insert(*envelope, content, now, &routes)
                .map(Reception::Answer),
            None => core
                .newcomers
                .prepare_insert(*envelope, content, now, &routes),
        };
        let admission = admission.map_err(|error| match error {
            postroad_queue::QueueError::OverQuota(over) => {
                quota::refused(&over, account.as_deref())
            }
            other => to_client_error(other.into()),
        });
        (envelope, content) = match admission? {
            Reception::Answer(Admission::New(prepared)) => {
                facts.held(core, prepared.holds());
                facts.suppressed(core, prepared.suppressed());
                core.committer
                    .insert(prepared)
                    .await
                    .map_err(to_client_error)?;
                facts.tell(core);
                return Ok(Accepted {
                    queue_id,
                    duplicate: false,
                });
            }
            Reception::Answer(Admission::Known) => {
                return Ok(Accepted {
                    queue_id,
                    duplicate: true,
                });
            }
            Reception::Answer(Admission::Conflict) => return Err(QueueError::IdTaken),
            Reception::Answer(Admission::InFlight(envelope, content)) => {
                let ended = || QueueError::Unavailable("the queue has ended".to_owned());
                rounds.changed().await.map_err(|_| ended())?;
                (envelope, content)
            }
            Reception::Unsure(envelope, content) => {
                caught_up(core).await?;
                (envelope, content)
            }
            Reception::CaughtUp(envelope, content) => (envelope, content),
        };
    }
}

/// Waits for the index to be level with the journal.
async fn caught_up(core: &Front) -> Result<(), QueueError> {
    let mut standing = core.standing.subscribe();
    let level = standing.wait_for(|standing| *standing == Standing::Live);
    let behind = || QueueError::Unavailable(core.standing.borrow().to_string());
    tokio::select! {
        level = timeout(PATIENCE, level) => match level {
            Ok(Ok(_)) => Ok(()),
            _ => Err(behind()),
        },
        () = core.stopping.cancelled() => Err(behind()),
    }
}

fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() < 2 {
        return chunks.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks
        .iter()
        .for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
}

fn begin_file(store: &ContentStore, chunks: &[Bytes]) -> Result<ContentWriter, JournalError> {
    write_all(store.create()?, chunks)
}

fn write_all(mut writer: ContentWriter, chunks: &[Bytes]) -> Result<ContentWriter, JournalError> {
    chunks.iter().try_for_each(|chunk| writer.write(chunk))?;
    Ok(writer)
}

pub(crate) fn too_large() -> QueueError {
    let reply = Reply::new(
        EXCEEDED_STORAGE_552,
        TOO_LARGE_5_3_4,
        "the mail is too large",
    );
    QueueError::Refused(reply)
}

/// A content file that failed concerns one mail only; the journal has not seen it.
fn file_failed(failed: JournalError) -> QueueError {
    let out_of_room = matches!(
        &failed,
        JournalError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull
    );
    if out_of_room {
        return QueueError::Full("the disk is full".to_owned());
    }
    error!(event = "disk_failed", error = %failed, "a content file cannot be written");
    QueueError::Unavailable("the content cannot be kept".to_owned())
}

fn broken() -> QueueError {
    QueueError::Unavailable("the content could not be kept".to_owned())
}

pub(crate) fn task_failed(error: JoinError) -> QueueError {
    error!(event = "fault", error = %error);
    QueueError::Unavailable("the queue failed".to_owned())
}
