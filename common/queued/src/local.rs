//! The queue as its users see it, without a socket in between.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_journal::ContentReader;
use postroad_queue::Content;
use postroad_queue_client::{
    AdmitRequest, ContentStream, QueueError, QueueService, Submission, WorkChannel, WorkHello,
};
use tokio::task::spawn_blocking;

use crate::{
    core::{Core, ReadError, to_client_error},
    submission::{LocalSubmission, too_large},
    work,
};

const CHUNK: usize = 64 << 10;
/// Chunks read from a content file at once.
const READ: u64 = 512 << 10;
/// A record may be moved while it is looked for; so often in a row it cannot be.
const TRIES: usize = 5;

/// The queue of this process; clones are the same. Implements
/// [`QueueService`] and [`QueueAdmin`](postroad_queue_client::QueueAdmin).
#[derive(Clone)]
pub struct LocalQueue {
    pub(crate) core: Arc<Core>,
}

impl std::fmt::Debug for LocalQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalQueue")
            .field("folder", &self.core.folder)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl QueueService for LocalQueue {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        let core = &self.core;
        core.takes_mail()?;
        if request
            .size
            .is_some_and(|size| size > core.config.size_limit.as_u64())
        {
            return Err(too_large());
        }
        if core.submissions.available_permits() == 0 {
            return Err(QueueError::Full("too many mails under way".to_owned()));
        }
        Ok(())
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        Ok(Box::new(LocalSubmission::begin(
            Arc::clone(&self.core),
            envelope,
        )?))
    }

    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        work::open(&self.core, hello).await
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        let core = Arc::clone(&self.core);
        let found = spawn_blocking(move || find_content(&core, queue_id)).await;
        let found = found.map_err(|_| QueueError::Unavailable("the read failed".to_owned()))??;
        Ok(match found {
            Found::Inline(bytes) => {
                let offset = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                stream::iter(chunks(bytes.slice(offset..)).map(Ok)).boxed()
            }
            Found::File(reader) => file_chunks(Arc::new(reader), offset),
        })
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.core.timeline.record(events);
        Ok(())
    }
}

enum Found {
    Inline(Bytes),
    File(ContentReader),
}

/// Blocks.
fn find_content(core: &Core, queue_id: QueueId) -> Result<Found, QueueError> {
    let mut gone = None;
    for _ in 0..TRIES {
        let summary = core
            .queue
            .show(queue_id)
            .map_err(|error| to_client_error(error.into()))?;
        let place = summary.ok_or(QueueError::NotFound)?.mail;
        let found = core
            .record_of(&place)
            .and_then(|record| match record.content {
                Content::Inline(bytes) => Ok(Found::Inline(bytes)),
                Content::File(file) => Ok(Found::File(core.contents.reader(&file)?)),
            });
        match found {
            Ok(found) => return Ok(found),
            Err(error) if error.is_gone() => gone = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(gone.map_or(QueueError::NotFound, Into::into))
}

fn chunks(bytes: Bytes) -> impl Iterator<Item = Bytes> + Send {
    (0..bytes.len())
        .step_by(CHUNK)
        .map(move |at| bytes.slice(at..(at + CHUNK).min(bytes.len())))
}

fn file_chunks(reader: Arc<ContentReader>, offset: u64) -> ContentStream {
    let pieces = stream::unfold(Some(offset), move |at| {
        let reader = Arc::clone(&reader);
        async move {
            let at = at.filter(|at| *at < reader.content().len)?;
            let read = spawn_blocking(move || reader.read_range(at..at.saturating_add(READ))).await;
            match read {
                Ok(Ok(bytes)) => {
                    let next = at + u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    Some((Ok(bytes), Some(next)))
                }
                Ok(Err(error)) => Some((Err(QueueError::from(ReadError::from(error))), None)),
                Err(_) => Some((
                    Err(QueueError::Unavailable("the read failed".to_owned())),
                    None,
                )),
            }
        }
    });
    let split = pieces.flat_map(|piece| match piece {
        Ok(bytes) => stream::iter(chunks(bytes).map(Ok)).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    split.boxed()
}
