//! The content of a leased mail as it goes out: header edits applied to the header, the body streamed.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_envelope::{HeaderEdit, QueueId};
use postroad_message::{HeaderSplitter, HeaderTooLong, Split, apply_edits, split};
use postroad_queue_client::{ContentStream, Lease, QueueError, QueueService};

/// Octets of a header that can be edited; the edge takes far less.
const HEADER_LIMIT: usize = 4 << 20;

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
}

enum Body {
    Here(Bytes),
    InQueue {
        queue: Arc<dyn QueueService>,
        queue_id: QueueId,
        offset: u64,
    },
}

impl Content {
    /// Reads as far as the header goes, no further.
    pub async fn open(queue: &Arc<dyn QueueService>, lease: &Lease) -> Result<Self, ContentError> {
        let edits = &lease.envelope.header_edits;
        if let Some(content) = &lease.content {
            let (header, _) = split(content);
            let body = content.slice(header.len()..);
            return Ok(Self::new(header, edits, length(&body), Body::Here(body)));
        }
        let queue_id = lease.envelope.queue_id;
        let header = read_header(queue.read(queue_id, 0).await?).await?;
        let offset = length(&header);
        let body = Body::InQueue {
            queue: Arc::clone(queue),
            queue_id,
            offset,
        };
        let rest = lease.envelope.size.saturating_sub(offset);
        Ok(Self::new(&header, edits, rest, body))
    }

    fn new(header: &[u8], edits: &[HeaderEdit], rest: u64, body: Body) -> Self {
        let header = Bytes::from(apply_edits(header, edits));
        let size = length(&header) + rest;
        Self { header, body, size }
    }

    /// Octets in all, edits applied.
    pub fn size(&self) -> u64 {
        self.size
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
            } => header.chain(queue.read(*queue_id, *offset).await?).boxed(),
        })
    }
}

async fn read_header(mut content: ContentStream) -> Result<Bytes, ContentError> {
    let mut splitter = HeaderSplitter::new(HEADER_LIMIT);
    while let Some(chunk) = content.next().await {
        if let Split::Complete { header, .. } = splitter.push(&chunk?)? {
            return Ok(header);
        }
    }
    Ok(splitter.finish().0)
}

fn length(octets: &[u8]) -> u64 {
    u64::try_from(octets.len()).unwrap_or(u64::MAX)
}
