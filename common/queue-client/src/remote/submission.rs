use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use postroad_envelope::Envelope;
use postroad_proto::queue::v1::{self, queue_client::QueueClient};
use tonic::transport::Channel;

use super::{large::LargeSubmission, many::SubmitStream};
use crate::{Accepted, Completion, QueueError, Submission};

/// Up to this size a mail travels as one message of a shared stream (and can be repeated if the stream breaks).
const SMALL: usize = 256 * 1024;

/// A mail that is small until it proves to be large.
pub(super) struct RemoteSubmission {
    stream: SubmitStream,
    client: QueueClient<Channel>,
    crc32c: u32,
    state: State,
}

enum State {
    Small(Gathered),
    Large(LargeSubmission),
}

impl RemoteSubmission {
    pub(super) fn new(
        envelope: Envelope,
        stream: SubmitStream,
        client: QueueClient<Channel>,
    ) -> Self {
        Self {
            stream,
            client,
            crc32c: 0,
            state: State::Small(Gathered::new(envelope)),
        }
    }
}

#[async_trait]
impl Submission for RemoteSubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        match &mut self.state {
            State::Large(large) => large.chunk(bytes).await,
            State::Small(small) if small.has_room_for(&bytes) => {
                small.push(bytes);
                Ok(())
            }
            State::Small(small) => {
                // On the heap: a chunk of a small mail has no room for it.
                let large = Box::pin(small.stream_to(self.client.clone()));
                let mut large = large.await?;
                large.chunk(bytes).await?;
                self.state = State::Large(large);
                Ok(())
            }
        }
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        let completion = completion.to_wire(self.crc32c);
        match self.state {
            State::Large(large) => Box::pin(large.finish(completion)).await,
            State::Small(small) => self.stream.submit(small.into_request(completion)).await,
        }
    }
}

/// A mail as far as it has come, whole in memory.
pub(super) struct Gathered {
    envelope: Box<Envelope>,
    chunks: Vec<Bytes>,
    size: usize,
}

impl Gathered {
    pub(super) fn new(envelope: Envelope) -> Self {
        Self {
            envelope: Box::new(envelope),
            chunks: Vec::new(),
            size: 0,
        }
    }

    /// Whether the mail stays small with these.
    pub(super) fn has_room_for(&self, bytes: &Bytes) -> bool {
        self.size + bytes.len() <= SMALL
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.size += bytes.len();
        self.chunks.push(bytes);
    }

    /// As one message.
    pub(super) fn into_request(self, completion: v1::Completion) -> Box<v1::SubmitManyRequest> {
        Box::new(v1::SubmitManyRequest {
            sequence: 0,
            envelope: Some(self.envelope.as_ref().into()),
            content: joined(self.chunks, self.size),
            completion: Some(completion),
        })
    }

    /// On a stream of its own; from then on the content is no more in memory.
    pub(super) async fn stream_to(
        &mut self,
        client: QueueClient<Channel>,
    ) -> Result<LargeSubmission, QueueError> {
        let mut large = LargeSubmission::begin(client, &self.envelope).await?;
        for chunk in std::mem::take(&mut self.chunks) {
            large.chunk(chunk).await?;
        }
        Ok(large)
    }
}

fn joined(mut chunks: Vec<Bytes>, size: usize) -> Bytes {
    if chunks.len() <= 1 {
        return chunks.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(size);
    for chunk in chunks {
        whole.extend_from_slice(&chunk);
    }
    whole.freeze()
}
