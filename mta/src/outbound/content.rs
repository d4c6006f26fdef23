//! The content of a leased mail as it goes out: header edits applied to the header, the body streamed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_envelope::{HeaderEdit, QueueId};
use postroad_message::{HeaderBlock, HeaderSplitter, HeaderTooLong, Split, apply_edits, split};
use postroad_queue_client::{ContentStream, Lease, QueueError, QueueService};
use postroad_smtp::{ContentChecker, ContentFault};
use tokio::time::timeout;

/// Octets of a header that can be edited; the edge takes far less.
const HEADER_LIMIT: usize = 4 << 20;
/// Most headers are far smaller.
const HEADER_PIECE: u64 = 64 << 10;
/// Octets of a report that is rewritten for a host without 8BITMIME; ours are far smaller.
const REPORT_LIMIT: u64 = 4 << 20;
/// The queue is on this host or near; a piece that takes longer will not come.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why content cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The queue does not give it.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// Its header is beyond all measure.
    #[error("{0}")]
    Header(#[from] HeaderTooLong),
}

/// Content that can be read as often as hosts are tried.
pub struct Content {
    header: Bytes,
    body: Body,
    size: u64,
    /// Why its lines cannot leave as lines, as far as it is here.
    fault: Option<ContentFault>,
}

enum Body {
    Here(Bytes),
    InQueue {
        queue: Arc<dyn QueueService>,
        queue_id: QueueId,
        offset: u64,
        len: u64,
    },
}

impl Content {
    /// Reads as far as the header goes, no further.
    pub async fn open(queue: &Arc<dyn QueueService>, lease: &Lease) -> Result<Self, ContentError> {
        let edits = &lease.envelope.header_edits;
        if let Some(content) = &lease.content {
            return Ok(Self::here(content, edits));
        }
        let queue_id = lease.envelope.queue_id;
        let header = read_header(queue, queue_id).await?;
        let offset = length(&header);
        let len = lease.envelope.size.saturating_sub(offset);
        let body = Body::InQueue {
            queue: Arc::clone(queue),
            queue_id,
            offset,
            len,
        };
        Ok(Self::new(&header, edits, len, body))
    }

    /// Content that is here as a whole.
    pub fn here(content: &Bytes, edits: &[HeaderEdit]) -> Self {
        let (header, _) = split(content);
        let body = content.slice(header.len()..);
        Self::new(header, edits, length(&body), Body::Here(body))
    }

    fn new(header: &[u8], edits: &[HeaderEdit], rest: u64, body: Body) -> Self {
        let header = Bytes::from(apply_edits(header, edits));
        let size = length(&header) + rest;
        let fault = fault_in(&header, &body);
        Self {
            header,
            body,
            size,
            fault,
        }
    }

    /// Why it cannot be sent as lines, if that can be told before all of it was read.
    pub fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// Octets in all, edits applied.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the header holds more than ASCII (RFC 6532), edits applied.
    pub fn has_utf8_header(&self) -> bool {
        !self.header.is_ascii()
    }

    /// Whether the sender says that the wishes of the recipients' side for TLS do not count (RFC 8689 §5).
    pub fn waives_tls(&self) -> bool {
        let said = HeaderBlock::parse(&self.header).first("TLS-Required");
        said.is_some_and(|value| value.trim().eq_ignore_ascii_case("no"))
    }

    /// A report in ASCII (RFC 6152 §3): without it a host that takes no 8-bit content could not be told. None for what is no
    /// report that can be said so.
    pub async fn report_in_ascii(&self) -> Result<Option<Self>, QueueError> {
        if self.size > REPORT_LIMIT {
            return Ok(None);
        }
        let mut stream = self.stream().await?;
        let mut content = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        while let Some(chunk) = stream.next().await {
            content.extend_from_slice(&chunk?);
        }
        let report = postroad_dsn::seven_bit(&content).map(Bytes::from);
        Ok(report.map(|report| Self::here(&report, &[])))
    }

    /// The content from its first octet.
    pub async fn stream(&self) -> Result<ContentStream, QueueError> {
        let header = stream::iter([Ok(self.header.clone())]);
        Ok(match &self.body {
            Body::Here(body) => header.chain(stream::iter([Ok(body.clone())])).boxed(),
            Body::InQueue {
                queue,
                queue_id,
                offset,
                len,
            } => {
                let body = opened(queue, *queue_id, *offset).await?;
                header.chain(whole(body, *len)).boxed()
            }
        })
    }
}

fn fault_in(header: &[u8], body: &Body) -> Option<ContentFault> {
    let mut checker = ContentChecker::new(usize::MAX);
    let in_header = checker.check(header);
    match body {
        Body::Here(body) => {
            checker.check(body);
            checker.finish()
        }
        Body::InQueue { .. } => in_header,
    }
}

async fn opened(
    queue: &Arc<dyn QueueService>,
    queue_id: QueueId,
    offset: u64,
) -> Result<ContentStream, QueueError> {
    in_time(queue.read(queue_id, offset)).await
}

async fn in_time(
    read: impl Future<Output = Result<ContentStream, QueueError>>,
) -> Result<ContentStream, QueueError> {
    let read = timeout(PIECE_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(cut_short("no answer in time")))
}

async fn next(content: &mut ContentStream) -> Option<Result<Bytes, QueueError>> {
    let next = timeout(PIECE_TIMEOUT, content.next()).await;
    next.unwrap_or_else(|_| Some(Err(cut_short("no answer in time"))))
}

/// Exactly `len` octets, or an error: content that was cut must never be ended as if it were whole.
fn whole(content: ContentStream, len: u64) -> ContentStream {
    let counted = stream::unfold(Some((content, len)), |state| async move {
        let (mut content, left) = state?;
        match next(&mut content).await {
            Some(Ok(chunk)) => match left.checked_sub(length(&chunk)) {
                Some(left) => Some((Ok(chunk), Some((content, left)))),
                None => Some((Err(cut_short("more came than the mail has")), None)),
            },
            None if left == 0 => None,
            None => Some((Err(cut_short("its end is missing")), None)),
            Some(Err(error)) => Some((Err(error), None)),
        }
    });
    counted.boxed()
}

fn cut_short(why: &str) -> QueueError {
    QueueError::Unavailable(why.to_owned())
}

/// In pieces, so that the queue does not send what is read when a host wants it.
async fn read_header(
    queue: &Arc<dyn QueueService>,
    queue_id: QueueId,
) -> Result<Bytes, ContentError> {
    let (mut splitter, mut offset) = (HeaderSplitter::new(HEADER_LIMIT), 0);
    loop {
        let piece = queue.read_part(queue_id, offset, HEADER_PIECE);
        let mut content = in_time(piece).await?;
        let end = offset + HEADER_PIECE;
        while let Some(chunk) = next(&mut content).await {
            let chunk = chunk?;
            offset += length(&chunk);
            if let Split::Complete { header, .. } = splitter.push(&chunk)? {
                return Ok(header);
            }
        }
        if offset < end {
            return Ok(splitter.finish().0);
        }
    }
}

fn length(octets: &[u8]) -> u64 {
    u64::try_from(octets.len()).unwrap_or(u64::MAX)
}
