use bytes::Bytes;
use postroad_envelope::Envelope;
use postroad_proto::queue::v1::{self, queue_client::QueueClient, submit_request::Part};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Response, Status, transport::Channel};

use crate::{Accepted, QueueError, wire::from_status};

/// Octets of one message: the size at which streams run fastest.
const CHUNK: usize = 64 * 1024;
/// Chunks under way before the sender waits, so that content in memory stays below 1 MiB a mail.
const BACKLOG: usize = 8;

/// A mail with a stream of its own. Dropped before `finish`, the stream has no end and nothing is stored.
pub(super) struct LargeSubmission {
    parts: mpsc::Sender<v1::SubmitRequest>,
    call: AbortOnDropHandle<Result<Response<v1::Accepted>, Status>>,
}

impl LargeSubmission {
    pub(super) async fn begin(
        mut client: QueueClient<Channel>,
        envelope: &Envelope,
    ) -> Result<Self, QueueError> {
        let (parts, stream) = mpsc::channel(BACKLOG);
        let call = tokio::spawn(async move { client.submit(ReceiverStream::new(stream)).await });
        let mut submission = Self {
            parts,
            call: AbortOnDropHandle::new(call),
        };
        submission.send(Part::Begin(envelope.into())).await?;
        Ok(submission)
    }

    pub(super) async fn chunk(&mut self, mut bytes: Bytes) -> Result<(), QueueError> {
        while !bytes.is_empty() {
            let head = bytes.split_to(bytes.len().min(CHUNK));
            self.send(Part::Chunk(head)).await?;
        }
        Ok(())
    }

    pub(super) async fn finish(
        mut self,
        completion: v1::Completion,
    ) -> Result<Accepted, QueueError> {
        self.send(Part::End(completion)).await?;
        let Self { parts, call } = self;
        drop(parts);
        match call.await {
            Ok(Ok(accepted)) => Ok(accepted.into_inner().try_into()?),
            Ok(Err(status)) => Err(from_status(&status)),
            Err(_) => Err(QueueError::Unavailable(
                "the call to the queue was given up".to_owned(),
            )),
        }
    }

    async fn send(&mut self, part: Part) -> Result<(), QueueError> {
        let message = v1::SubmitRequest { part: Some(part) };
        if self.parts.send(message).await.is_ok() {
            return Ok(());
        }
        // The stream is gone, so the call has ended: it knows why.
        Err(match (&mut self.call).await {
            Ok(Err(status)) => from_status(&status),
            _ => QueueError::Unavailable("the queue ended the submission".to_owned()),
        })
    }
}
