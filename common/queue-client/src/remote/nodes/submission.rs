use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use postroad_envelope::{Envelope, QueueId};
use postroad_proto::queue::v1::SubmitManyRequest;
use postroad_rpc::serves;
use tokio::time::{Instant, sleep, timeout};

use super::{
    super::{
        large::LargeSubmission,
        many::{FIRST_PAUSE, Failure, LONGEST_PAUSE, PATIENCE},
        submission::Gathered,
    },
    Heard, Inner, NODE_PATIENCE, at_node,
};
use crate::{Accepted, Completion, QueueError, Submission};

/// A mail for one of several nodes. While it is whole in memory every node will do; one that has outgrown that belongs to the
/// node its stream leads to. One that was submitted before belongs to the node that has it, or may have it.
pub(super) struct NodesSubmission {
    inner: Arc<Inner>,
    queue_id: QueueId,
    crc32c: u32,
    state: State,
}

enum State {
    Small(Gathered),
    Large {
        node: usize,
        large: LargeSubmission,
        _under_way: UnderWay,
    },
    /// A node went away with the content that it had so far.
    Lost,
}

/// Counts a mail on its way to a node.
struct UnderWay {
    inner: Arc<Inner>,
    node: usize,
}

impl UnderWay {
    fn begin(inner: &Arc<Inner>, node: usize) -> Self {
        inner.choice().begin(node);
        let inner = Arc::clone(inner);
        Self { inner, node }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inner.choice().end(self.node);
    }
}

impl NodesSubmission {
    pub(super) fn new(inner: &Arc<Inner>, envelope: Envelope) -> Self {
        Self {
            inner: Arc::clone(inner),
            queue_id: envelope.queue_id,
            crc32c: 0,
            state: State::Small(Gathered::new(envelope)),
        }
    }
}

#[async_trait]
impl Submission for NodesSubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        match &mut self.state {
            State::Small(small) if small.has_room_for(&bytes) => {
                small.push(bytes);
                return Ok(());
            }
            State::Small(small) => {
                let node = match self.inner.holder(self.queue_id) {
                    Some((node, _)) => node,
                    None => Box::pin(answering(&self.inner)).await?,
                };
                let under_way = UnderWay::begin(&self.inner, node);
                // On the heap: a chunk of a small mail has no room for it.
                let result = Box::pin(begin(&self.inner, node, small, bytes)).await;
                // What it took of the content is no more here.
                self.state = State::Lost;
                self.state = State::Large {
                    node,
                    large: result?,
                    _under_way: under_way,
                };
                return Ok(());
            }
            State::Large { node, large, .. } => {
                let Err(error) = large.chunk(bytes).await else {
                    return Ok(());
                };
                return Err(failed(&self.inner, *node, error));
            }
            State::Lost => {}
        }
        Err(lost())
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        let completion = completion.to_wire(self.crc32c);
        let inner = self.inner;
        let (node, accepted) = match self.state {
            State::Small(small) => {
                place(&inner, self.queue_id, small.into_request(completion)).await?
            }
            State::Large { node, large, .. } => {
                // From the end of its content on it may be there.
                inner.whereabouts().saw(self.queue_id, node);
                let finished = Box::pin(large.finish(completion)).await;
                (node, finished.map_err(|error| failed(&inner, node, error))?)
            }
            State::Lost => return Err(lost()),
        };
        inner.heard(node, Heard::Done);
        inner.whereabouts().saw(self.queue_id, node);
        Ok(accepted)
    }
}

fn lost() -> QueueError {
    QueueError::Unavailable("the node that had the content went away".to_owned())
}

fn failed(inner: &Inner, node: usize, error: QueueError) -> QueueError {
    match &error {
        QueueError::Unavailable(_) => inner.heard(node, Heard::NoAnswer),
        QueueError::Full(_) => inner.heard(node, Heard::Full),
        _ => {}
    }
    named(inner, node, error)
}

fn named(inner: &Inner, node: usize, error: QueueError) -> QueueError {
    match inner.nodes.get(node) {
        Some(node) => at_node(error, &node.name),
        None => error,
    }
}

/// A node that answers right now: a large mail that begins at one that does not is lost with it.
async fn answering(inner: &Inner) -> Result<usize, QueueError> {
    let mut failure = lost();
    for (at, node) in inner.takers() {
        let answer = timeout(NODE_PATIENCE, serves(node.queue.pool.pick())).await;
        let why = match answer {
            Ok(Ok(())) => return Ok(at),
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        failure = failed(inner, at, QueueError::Unavailable(why));
    }
    Err(failure)
}

async fn begin(
    inner: &Inner,
    node: usize,
    small: &mut Gathered,
    bytes: Bytes,
) -> Result<LargeSubmission, QueueError> {
    let queue = inner.nodes.get(node).ok_or_else(lost)?;
    let begun = async {
        let mut large = small.stream_to(queue.queue.client()).await?;
        large.chunk(bytes).await?;
        Ok(large)
    };
    begun.await.map_err(|error| failed(inner, node, error))
}

/// Offers a small mail to the nodes in turn, as long as none of those before can have it. If none can be reached that goes
/// on for a time: a queue that starts again does not cost its clients a second attempt.
async fn place(
    inner: &Arc<Inner>,
    queue_id: QueueId,
    request: Box<SubmitManyRequest>,
) -> Result<(usize, Accepted), QueueError> {
    if let Some((at, node)) = inner.holder(queue_id) {
        let accepted = node.queue.streams.pick().submit(request).await;
        let accepted = accepted.map_err(|error| failed(inner, at, error));
        return Ok((at, accepted?));
    }
    let until = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let (mut full, mut unsent) = (None, None);
        for (at, node) in inner.takers() {
            let _under_way = UnderWay::begin(inner, at);
            let stream = node.queue.streams.pick();
            match stream.offer(request.clone(), NODE_PATIENCE).await {
                Ok(accepted) => return Ok((at, accepted)),
                // Said before anything is written.
                Err(Failure::Answered(error @ QueueError::Full(_))) => {
                    full = Some(failed(inner, at, error));
                }
                Err(Failure::Unsent(error)) => {
                    tracing::debug!(node = node.name, reason = %error, "a mail goes to another node");
                    unsent = Some(failed(inner, at, error));
                }
                Err(Failure::Answered(error)) => return Err(failed(inner, at, error)),
                Err(Failure::Unknown(error)) => {
                    inner.whereabouts().saw(queue_id, at);
                    return Err(failed(inner, at, error));
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        match (full, unsent) {
            (Some(full), _) => return Err(full),
            (None, Some(unsent)) if Instant::now() + pause >= until => return Err(unsent),
            (None, Some(_)) => {}
            (None, None) => return Err(lost()),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
