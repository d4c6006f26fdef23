//! The queue as its users see it, without a socket in between.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use postroad_counters::{Count, Counted};
use postroad_daemon::Check;
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_journal::ContentReader;
use postroad_queue::{Claim, Content};
use postroad_queue_client::{
    AdmitRequest, ContentStream, QueueError, QueueService, Submission, Withdrawn, WorkChannel,
    WorkHello,
};
use tokio::{
    sync::watch,
    task::{JoinError, spawn_blocking},
    time::timeout,
};
use tracing::info;

use crate::{
    admin::failed,
    catch_up::Standing,
    core::{Core, Front, ReadError, to_client_error},
    quota,
    retired::KeptBytes,
    store::damage,
    submission::{LocalSubmission, too_large},
    withdraw, work,
};

/// How long callers wait for a queue that catches up; most starts take less.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;
/// Chunks read from a content file at once.
const READ: u64 = 512 << 10;
/// A record may be moved while it is looked for; so often in a row it cannot be.
const TRIES: usize = 5;

/// The queue of this process; clones are the same. Implements
/// [`QueueService`] and [`QueueAdmin`](postroad_queue_client::QueueAdmin).
#[derive(Clone)]
pub struct LocalQueue {
    pub(crate) front: Arc<Front>,
    /// None until the queue has caught up with its journal.
    pub(crate) live: watch::Receiver<Option<Arc<Core>>>,
}

impl LocalQueue {
    /// All of the queue. While it catches up this waits for a moment, then says how far it is.
    pub(crate) async fn core(&self) -> Result<Arc<Core>, QueueError> {
        let mut live = self.live.clone();
        let caught_up = timeout(PATIENCE, live.wait_for(Option::is_some));
        let ended = || QueueError::Unavailable("the queue has ended".to_owned());
        tokio::select! {
            caught_up = caught_up => match caught_up {
                Ok(Ok(core)) => core.clone().ok_or_else(ended),
                Ok(Err(_)) => Err(ended()),
                Err(_) => Err(QueueError::Unavailable(self.front.standing.borrow().to_string())),
            },
            () = self.front.ended.cancelled() => Err(ended()),
        }
    }

    /// What keeps it from giving mail out, for a person; none once it does.
    pub(crate) fn catching_up(&self) -> Option<String> {
        let standing = *self.front.standing.borrow();
        (standing != Standing::Live).then(|| standing.to_string())
    }

    /// Keeps a health check until the queue has caught up: it is ready, and says how far it is.
    pub async fn keep_check(&self, check: &Check) {
        let mut standing = self.front.standing.subscribe();
        while let Some(reason) = self.catching_up() {
            check.ready_but(reason);
            tokio::select! {
                changed = standing.changed() => if changed.is_err() { return },
                () = self.front.stopping.cancelled() => return,
            }
        }
        check.ready();
    }

    /// Waits until it gives mail out; ends without if it cannot any more.
    pub async fn caught_up(&self) {
        let mut live = self.live.clone();
        // The sender goes when the queue has caught up, or cannot.
        let _ = live.wait_for(Option::is_some).await;
    }
}

impl std::fmt::Debug for LocalQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalQueue")
            .field("folder", &self.front.folder)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl QueueService for LocalQueue {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        let admitted = self.room_for(request);
        admitted.inspect_err(|error| self.front.counts.refused(error))
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        let begun = LocalSubmission::begin(Arc::clone(&self.front), envelope);
        let begun = begun.inspect_err(|error| self.front.counts.refused(error))?;
        Ok(Box::new(begun))
    }

    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        work::open(self, hello).await
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.read_part(queue_id, offset, u64::MAX).await
    }

    async fn read_part(
        &self,
        queue_id: QueueId,
        offset: u64,
        length: u64,
    ) -> Result<ContentStream, QueueError> {
        let core = self.core().await?;
        let find = move || find_content(&core, queue_id)?.ok_or(QueueError::NotFound);
        let part = offset..offset.saturating_add(length);
        content_from(spawn_blocking(find).await, part)
    }

    async fn read_any(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        let core = self.core().await?;
        let find = move || match find_content(&core, queue_id)? {
            Some(found) => Ok(found),
            None => retired_content(&core, queue_id),
        };
        content_from(spawn_blocking(find).await, offset..u64::MAX)
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.front.timeline.record(events);
        Ok(())
    }

    async fn count(&self, count: Count) -> Result<Counted, QueueError> {
        let (counted, begun) = self.front.counting.count(&count);
        let kind = count.key.kind();
        self.front.counts.counted(kind);
        if let (true, Some(until)) = (begun, counted.banned_until) {
            self.front.counts.banned(kind);
            info!(event = "banned", key = %count.key, count = counted.value, until = %until);
        }
        Ok(counted)
    }

    async fn withdraw(&self, queue_id: QueueId, account: &str) -> Result<Withdrawn, QueueError> {
        withdraw::carry_out(&*self.core().await?, queue_id, account).await
    }
}

impl LocalQueue {
    fn room_for(&self, request: AdmitRequest) -> Result<(), QueueError> {
        let core = &self.front;
        core.takes_mail()?;
        if request
            .size
            .is_some_and(|size| size > core.config().size_limit.as_u64())
        {
            return Err(too_large());
        }
        if core.submissions.available_permits() == 0 {
            return Err(QueueError::Full("too many mails under way".to_owned()));
        }
        let account = request.account.as_deref();
        let domains = request.recipients.iter().map(|to| to.domain().a_label());
        let claim = Claim::announced(&request.tenant, account, request.size, domains);
        let room = core.newcomers.admit(&claim);
        room.map_err(|over| quota::refused(&over, account))
    }
}

enum Found {
    Inline(Bytes),
    File(ContentReader),
}

fn content_from(
    found: Result<Result<Found, QueueError>, JoinError>,
    part: Range<u64>,
) -> Result<ContentStream, QueueError> {
    let found = found.map_err(|_| QueueError::Unavailable("the read failed".to_owned()))??;
    Ok(match found {
        Found::Inline(bytes) => {
            let place = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            let part = place(part.start)..place(part.end);
            stream::iter(chunks(bytes.slice(part)).map(Ok)).boxed()
        }
        Found::File(reader) => file_chunks(Arc::new(reader), part),
    })
}

/// The content of a living mail. Blocks.
fn find_content(core: &Core, queue_id: QueueId) -> Result<Option<Found>, QueueError> {
    let mut gone = None;
    for _ in 0..TRIES {
        let summary = core
            .queue
            .show(queue_id)
            .map_err(|error| to_client_error(error.into()))?;
        let Some(place) = summary.map(|found| found.mail) else {
            return Ok(None);
        };
        let found = core
            .record_of(&place)
            .and_then(|record| match record.content {
                Content::Inline(bytes) => Ok(Found::Inline(bytes)),
                Content::File(file) => Ok(Found::File(damage::whole(core, queue_id, &file)?)),
            });
        match found {
            Ok(found) => return Ok(Some(found)),
            Err(error) if error.is_gone() => gone = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(gone.map_or(QueueError::NotFound, Into::into))
}

/// Blocks.
fn retired_content(core: &Core, queue_id: QueueId) -> Result<Found, QueueError> {
    let mail = core.retired.find_ended(core, queue_id).map_err(failed)?;
    let mail = mail.ok_or(QueueError::NotFound)?;
    match core.retired.content(&mail) {
        Some(KeptBytes::Record(bytes)) => Ok(Found::Inline(bytes)),
        Some(KeptBytes::File(reader)) => Ok(Found::File(reader)),
        None => Err(core.retired.no_content(&mail)),
    }
}

fn chunks(bytes: Bytes) -> impl Iterator<Item = Bytes> + Send {
    (0..bytes.len())
        .step_by(CHUNK)
        .map(move |at| bytes.slice(at..(at + CHUNK).min(bytes.len())))
}

fn file_chunks(reader: Arc<ContentReader>, part: Range<u64>) -> ContentStream {
    let end = part.end.min(reader.content().len);
    let pieces = stream::unfold(Some(part.start), move |at| {
        let reader = Arc::clone(&reader);
        async move {
            let at = at.filter(|at| *at < end)?;
            let piece = at..at.saturating_add(READ).min(end);
            let read = spawn_blocking(move || reader.read_range(piece)).await;
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
