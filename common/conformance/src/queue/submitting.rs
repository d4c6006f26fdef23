//! Rules of submission.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream;
use postroad_proto::queue::v1::{
    AdmitRequest, Event, EventKind, RecordRequest, SubmitManyRequest, SubmitManyResponse,
    queue_client::QueueClient, refusal, submit_many_response as answers, submit_request::Part,
};
use prost::Message as _;
use tokio::{sync::oneshot, time::timeout};
use tonic::{Code, Status, Streaming};

use super::{
    Outcome, Target,
    caller::{
        begin, completion, content, envelope, envelope_to, now_ms, part, parts, refused, submit,
        submit_parts,
    },
    worker::Worker,
};
use crate::{
    Problem,
    raw::{self, LATER, as_first_field},
};

/// More than fits into one chunk.
const LONG: usize = 200_000;

pub async fn serves_health(target: &Target) -> Outcome {
    let answer = postroad_rpc::serves(target.msa.clone()).await;
    answer.map_err(Problem::Broken)
}

pub async fn in_chunks(target: &Target) -> Outcome {
    let long = [&content("long")[..], &[b'x'; LONG]].concat();
    let accepted = submit(target, &envelope(target), &long.into()).await?;
    if accepted.duplicate {
        return Problem::broken("a new mail is called a duplicate");
    }
    Worker::clear(target).await
}

pub async fn begin_first(target: &Target) -> Outcome {
    let parts = vec![part(Part::Chunk(content("no envelope")))];
    refused(submit_parts(target, parts).await, &[Code::InvalidArgument])
}

pub async fn duplicate(target: &Target) -> Outcome {
    let (envelope, content) = (envelope(target), content("twice"));
    submit(target, &envelope, &content).await?;
    let again = submit(target, &envelope, &content).await?;
    if !again.duplicate {
        return Problem::broken("the second one is not called a duplicate");
    }
    let leases = Worker::clear_counting(target).await?;
    // Also when it has been delivered.
    let late = submit(target, &envelope, &content).await?;
    match (leases, late.duplicate) {
        (1, true) => Ok(()),
        (1, false) => Problem::broken("after its end it was taken as a new mail"),
        (leases, _) => Problem::broken(format!("it was given out {leases} times")),
    }
}

pub async fn id_taken(target: &Target) -> Outcome {
    let envelope = envelope(target);
    submit(target, &envelope, &content("first")).await?;
    let other = content("other");
    let parts = parts(&envelope, &other, completion(&other));
    refused(submit_parts(target, parts).await, &[Code::AlreadyExists])?;
    Worker::clear(target).await
}

pub async fn broken_stream(target: &Target) -> Outcome {
    let envelope = envelope(target);
    let parts = vec![begin(&envelope), part(Part::Chunk(content("cut")))];
    refused(
        submit_parts(target, parts).await,
        &[Code::InvalidArgument, Code::Unavailable, Code::Cancelled],
    )?;
    nothing_is_known(target, &envelope).await
}

pub async fn wrong_size(target: &Target) -> Outcome {
    let (envelope, content) = (envelope(target), content("wrong size"));
    let mut end = completion(&content);
    end.size += 1;
    let answer = submit_parts(target, parts(&envelope, &content, end)).await;
    refused(answer, &[Code::InvalidArgument])?;
    nothing_is_known(target, &envelope).await
}

pub async fn wrong_checksum(target: &Target) -> Outcome {
    let (envelope, content) = (envelope(target), content("wrong checksum"));
    let mut end = completion(&content);
    end.crc32c ^= 1;
    let answer = submit_parts(target, parts(&envelope, &content, end)).await;
    refused(answer, &[Code::Unavailable])?;
    nothing_is_known(target, &envelope).await
}

/// The id is free: another content may have it.
async fn nothing_is_known(
    target: &Target,
    envelope: &postroad_proto::queue::v1::Envelope,
) -> Outcome {
    let accepted = submit(target, envelope, &content("another content")).await?;
    if accepted.duplicate {
        return Problem::broken("something of the mail was stored");
    }
    Worker::clear(target).await
}

pub async fn unknown_field(target: &Target) -> Outcome {
    let (envelope, content) = (envelope(target), content("from a later release"));
    let later = [&envelope.encode_to_vec()[..], LATER].concat();
    let all = parts(&envelope, &content, completion(&content));
    let rest = all.iter().skip(1);
    let rest = rest.map(|part| Bytes::from([&part.encode_to_vec()[..], LATER].concat()));
    let messages: Vec<Bytes> = [as_first_field(&later)].into_iter().chain(rest).collect();
    let path = "/postroad.queue.v1.Queue/Submit";
    let accepted: postroad_proto::queue::v1::Accepted =
        raw::client_streaming(target.msa.clone(), path, stream::iter(messages)).await?;
    if accepted.queue_id != envelope.queue_id {
        return Problem::broken("Accepted names another queue id");
    }
    Worker::clear(target).await
}

pub async fn recipients(target: &Target) -> Outcome {
    let content = content("to nobody");
    let nobody = envelope_to(target, &[]);
    let answer = submit_parts(target, parts(&nobody, &content, completion(&content))).await;
    refused(answer, &[Code::InvalidArgument])?;
    let mut same = envelope_to(target, &[&target.recipient, &target.account]);
    same.recipients.iter_mut().for_each(|to| to.index = 0);
    let answer = submit_parts(target, parts(&same, &content, completion(&content))).await;
    refused(answer, &[Code::InvalidArgument])
}

pub async fn oversize(target: &Target) -> Outcome {
    let envelope = envelope(target);
    let chunk = part(Part::Chunk(vec![b'x'; 5 << 20].into()));
    let answer = submit_parts(target, vec![begin(&envelope), chunk]).await;
    if answer.is_ok() {
        return Problem::broken("a message of 5 MiB was taken");
    }
    nothing_is_known(target, &envelope).await
}

/// A mail of `SubmitMany`.
fn one_of_many(target: &Target, sequence: u64, content: Bytes) -> SubmitManyRequest {
    SubmitManyRequest {
        sequence,
        envelope: Some(envelope(target)),
        completion: Some(completion(&content)),
        content,
    }
}

/// Answers, and what keeps their stream open.
type Many = (oneshot::Sender<()>, Streaming<SubmitManyResponse>);

/// Opens a stream with some mails.
async fn many(target: &Target, mails: Vec<SubmitManyRequest>) -> Result<Many, Status> {
    let mut client = QueueClient::new(target.msa.clone());
    let (hold, mails) = raw::held_open(mails);
    Ok((hold, client.submit_many(mails).await?.into_inner()))
}

async fn next(
    target: &Target,
    stream: &mut Streaming<SubmitManyResponse>,
) -> Result<answers::Message, Problem> {
    let message = timeout(target.patience, stream.message()).await;
    let message = message.map_err(|_| Problem::Broken("no answer came".to_owned()))??;
    let message = message.and_then(|message| message.message);
    message.ok_or_else(|| Problem::Broken("the stream ended".to_owned()))
}

pub async fn many_admission(target: &Target) -> Outcome {
    let (_hold, mut stream) = many(target, Vec::new()).await?;
    match next(target, &mut stream).await? {
        answers::Message::Admission(admission) if admission.open => {
            would_be_taken(target, admission.unasked).await
        }
        answers::Message::Admission(admission) => Err(Problem::NotTried(format!(
            "it is closed: {}",
            admission.reason
        ))),
        answers::Message::Answer(_) => Problem::broken("an answer to nothing came first"),
    }
}

pub async fn many_answers(target: &Target) -> Outcome {
    let numbers = || (1..=20_u64).map(|number| number * 7);
    let mails = numbers().map(|number| one_of_many(target, number, content("many")));
    let (_hold, mut stream) = many(target, mails.collect()).await?;
    let mut left: BTreeSet<u64> = numbers().collect();
    while !left.is_empty() {
        let answers::Message::Answer(answer) = next(target, &mut stream).await? else {
            continue;
        };
        let Some(answers::answer::Result::Accepted(_)) = answer.result else {
            return Problem::broken(format!("{:?}", answer.result));
        };
        if !left.remove(&answer.sequence) {
            return Problem::broken(format!("nothing waits for the answer {}", answer.sequence));
        }
    }
    Worker::clear(target).await
}

pub async fn many_oversize(target: &Target) -> Outcome {
    let large = Bytes::from(vec![b'x'; (256 << 10) + 1]);
    let (_hold, mut stream) = many(target, vec![one_of_many(target, 1, large)]).await?;
    loop {
        let answers::Message::Answer(answer) = next(target, &mut stream).await? else {
            continue;
        };
        return match answer.result {
            Some(answers::answer::Result::Refusal(refusal))
                if refusal.reason() == refusal::Reason::Invalid =>
            {
                Ok(())
            }
            other => Problem::broken(format!("{other:?} instead of REASON_INVALID")),
        };
    }
}

pub async fn admit(target: &Target) -> Outcome {
    would_be_taken(target, 1000).await
}

async fn would_be_taken(target: &Target, size: u64) -> Outcome {
    let request = AdmitRequest {
        tenant: "default".to_owned(),
        account: Some(target.account.clone()),
        size: Some(size),
        recipients: vec![target.recipient.clone()],
    };
    let mut client = QueueClient::new(target.msa.clone());
    match client.admit(request).await?.into_inner().refusal {
        None => Ok(()),
        Some(refusal) => Problem::broken(format!(
            "a mail of {size} octets is refused: {}",
            refusal.text
        )),
    }
}

pub async fn record(target: &Target) -> Outcome {
    let envelope = envelope(target);
    submit(target, &envelope, &content("with a verdict")).await?;
    let event = Event {
        queue_id: envelope.queue_id,
        at_ms: now_ms(),
        agent: "conformance".to_owned(),
        kind: EventKind::Verdict.into(),
        text: "tried".to_owned(),
        ..Event::default()
    };
    let events = RecordRequest {
        events: vec![event],
    };
    QueueClient::new(target.msa.clone()).record(events).await?;
    Worker::clear(target).await
}
