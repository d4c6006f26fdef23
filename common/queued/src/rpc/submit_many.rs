//! `SubmitMany`: many small mails on one stream, answered as they become durable.

use std::sync::Arc;

use bytes::Bytes;
use postroad_envelope::Envelope;
use postroad_net::PeerIdentity;
use postroad_proto::queue::v1::{self, submit_many_response as response};
use postroad_queue_client::{Accepted, Completion, QueueError, QueueService, wire};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Admission, Gate};

/// Mails of one stream under way; further ones wait in the connection's window.
pub(super) const UNDER_WAY: usize = 256;
const LARGEST: usize = 256 << 10;

type Answers = mpsc::Sender<Result<v1::SubmitManyResponse, Status>>;

pub(super) async fn serve<S: QueueService>(
    queue: Arc<S>,
    (gate, peer): (Gate, PeerIdentity),
    mut mails: Streaming<v1::SubmitManyRequest>,
    mut admission: Admission,
    stopping: CancellationToken,
    answers: Answers,
) {
    let permits = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks = JoinSet::new();
    // A mail has no answer by a fault of ours, and may be stored.
    let mut is_unsure = false;
    // Whoever may not submit for everybody is told so at once, before there is content.
    let asks = peer.only.is_limit();
    let first = admission_message(&mut admission, asks);
    if answers.send(Ok(first)).await.is_err() {
        return;
    }
    loop {
        let mail = tokio::select! {
            mail = mails.message() => mail,
            () = changed(&mut admission) => {
                let now = admission_message(&mut admission, asks);
                if answers.send(Ok(now)).await.is_err() {
                    break;
                }
                continue;
            }
            Some(ended) = tasks.join_next() => {
                is_unsure |= ended.is_err();
                continue;
            }
            () = answers.closed() => break,
            // Clients keep the stream open for good: it ends here, and what they sent since is sent again. All that was read is
            // answered before, and clients rely on it: what has no answer then, they may give to another queue.
            () = stopping.cancelled() => break,
        };
        let Ok(Some(mail)) = mail else { break };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        let (queue, gate, peer, answers) = (
            Arc::clone(&queue),
            gate.clone(),
            peer.clone(),
            answers.clone(),
        );
        tasks.spawn(Box::pin(async move {
            let sequence = mail.sequence;
            let result = match checked(&gate, &peer, mail) {
                Ok(mail) => submit(&*queue, mail).await,
                Err(error) => Err(error),
            };
            // Whoever does not listen any more submits again, under the same id.
            let _ = answers.send(Ok(answer(sequence, result))).await;
            drop(permit);
        }));
    }
    while let Some(ended) = tasks.join_next().await {
        is_unsure |= ended.is_err();
    }
    if is_unsure {
        let why = Status::unavailable("what became of a mail is not known");
        let _ = answers.send(Err(why)).await;
    }
}

async fn submit<S: QueueService>(
    queue: &S,
    (envelope, content, completion): (Envelope, Bytes, Completion),
) -> Result<Accepted, QueueError> {
    let mut submission = queue.submit(envelope).await?;
    submission.chunk(content).await?;
    submission.finish(completion).await
}

/// A mail of somebody who may submit it, with the content that was sent.
fn checked(
    gate: &Gate,
    peer: &PeerIdentity,
    mail: v1::SubmitManyRequest,
) -> Result<(Envelope, Bytes, Completion), QueueError> {
    let missing = |what: &str| QueueError::Invalid(format!("field {what}: is missing"));
    let envelope = Envelope::try_from(mail.envelope.ok_or_else(|| missing("envelope"))?)?;
    if mail.content.len() > LARGEST {
        return Err(QueueError::Invalid(
            "too large for SubmitMany; use Submit".to_owned(),
        ));
    }
    gate.submit(peer, &envelope)
        .map_err(|status| QueueError::NotAllowed(status.message().to_owned()))?;
    let end = mail.completion.ok_or_else(|| missing("completion"))?;
    if end.crc32c != crc32c::crc32c(&mail.content) {
        return Err(QueueError::Unavailable(
            "the content does not match its checksum".to_owned(),
        ));
    }
    Ok((envelope, mail.content, Completion::try_from(end)?))
}

fn answer(sequence: u64, result: Result<Accepted, QueueError>) -> v1::SubmitManyResponse {
    use response::{Answer, answer};
    let result = match result {
        Ok(accepted) => answer::Result::Accepted(accepted.into()),
        Err(error) => answer::Result::Refusal(wire::refusal_from_error(&error)),
    };
    let answer = Answer {
        sequence,
        result: Some(result),
    };
    v1::SubmitManyResponse {
        message: Some(response::Message::Answer(answer)),
    }
}

async fn changed(admission: &mut Admission) {
    let Admission { closed, unasked } = admission;
    tokio::select! {
        Ok(()) = closed.changed() => {}
        Ok(()) = unasked.changed() => {}
        else => std::future::pending().await,
    }
}

fn admission_message(admission: &mut Admission, asks: bool) -> v1::SubmitManyResponse {
    let closed = admission.closed.borrow_and_update().clone();
    let unasked = *admission.unasked.borrow_and_update();
    let admission = v1::Admission {
        unasked: if closed.is_none() && !asks {
            unasked
        } else {
            0
        },
        open: closed.is_none(),
        reason: closed.unwrap_or_default(),
    };
    v1::SubmitManyResponse {
        message: Some(response::Message::Admission(admission)),
    }
}
