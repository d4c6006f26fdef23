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
    Small {
        envelope: Box<Envelope>,
        chunks: Vec<Bytes>,
        size: usize,
    },
    Large(LargeSubmission),
}

impl RemoteSubmission {
    pub(super) fn new(
        envelope: Envelope,
        stream: SubmitStream,
        client: QueueClient<Channel>,
    ) -> Self {
        let state = State::Small {
            envelope: Box::new(envelope),
            chunks: Vec::new(),
            size: 0,
        };
        Self {
            stream,
            client,
            crc32c: 0,
            state,
        }
    }
}

#[async_trait]
impl Submission for RemoteSubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        match &mut self.state {
            State::Large(large) => large.chunk(bytes).await,
            State::Small { chunks, size, .. } if *size + bytes.len() <= SMALL => {
                *size += bytes.len();
                chunks.push(bytes);
                Ok(())
            }
            State::Small {
                envelope, chunks, ..
            } => {
                let mut large = LargeSubmission::begin(self.client.clone(), envelope).await?;
                for chunk in std::mem::take(chunks) {
                    large.chunk(chunk).await?;
                }
                large.chunk(bytes).await?;
                self.state = State::Large(large);
                Ok(())
            }
        }
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        let completion = completion.to_wire(self.crc32c);
        match self.state {
            State::Large(large) => large.finish(completion).await,
            State::Small {
                envelope,
                chunks,
                size,
            } => {
                self.stream
                    .submit(v1::SubmitManyRequest {
                        sequence: 0,
                        envelope: Some(envelope.as_ref().into()),
                        content: joined(chunks, size),
                        completion: Some(completion),
                    })
                    .await
            }
        }
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
