//! Mails of ours, and submitting them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream;
use postroad_proto::queue::v1::{
    Accepted, Completion, Envelope, Origin, Recipient, SubmitRequest, queue_client::QueueClient,
    submit_request::Part,
};
use tonic::{Code, Status};

use super::Target;
use crate::Problem;

/// Ours are known by it.
pub const TAG: &str = "conformance";
/// The largest chunk.
const CHUNK: usize = 64 << 10;

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A UUID of version 7 (RFC 9562).
pub fn new_id() -> Bytes {
    let mut id: [u8; 16] = rand::random();
    id[..6].copy_from_slice(&now_ms().to_be_bytes()[2..]);
    id[6] = id[6] & 0x0f | 0x70;
    id[8] = id[8] & 0x3f | 0x80;
    Bytes::copy_from_slice(&id)
}

/// A mail of the account, to one recipient.
pub fn envelope(target: &Target) -> Envelope {
    envelope_to(target, &[&target.recipient])
}

pub fn envelope_to(target: &Target, recipients: &[&str]) -> Envelope {
    let recipients = (0..).zip(recipients).map(|(index, address)| Recipient {
        index,
        address: (*address).to_owned(),
        ..Recipient::default()
    });
    Envelope {
        queue_id: new_id(),
        reverse_path: target.account.clone(),
        recipients: recipients.collect(),
        tenant: "default".to_owned(),
        account: Some(target.account.clone()),
        tags: vec![TAG.to_owned()],
        received_at_ms: now_ms(),
        origin: Some(Origin {
            account: Some(target.account.clone()),
            protocol: "internal".to_owned(),
            ..Origin::default()
        }),
        ..Envelope::default()
    }
}

pub fn content(subject: &str) -> Bytes {
    format!("Subject: {subject}\r\n\r\nA mail that tries the contract.\r\n").into()
}

pub fn completion(content: &[u8]) -> Completion {
    Completion {
        size: u64::try_from(content.len()).unwrap_or(u64::MAX),
        crc32c: crc32c::crc32c(content),
        ..Completion::default()
    }
}

pub fn begin(envelope: &Envelope) -> SubmitRequest {
    part(Part::Begin(envelope.clone()))
}

pub fn part(part: Part) -> SubmitRequest {
    SubmitRequest { part: Some(part) }
}

/// All parts of a submission.
pub fn parts(envelope: &Envelope, content: &Bytes, end: Completion) -> Vec<SubmitRequest> {
    let mut parts = vec![begin(envelope)];
    let mut rest = content.clone();
    while !rest.is_empty() {
        let chunk = rest.split_to(CHUNK.min(rest.len()));
        parts.push(part(Part::Chunk(chunk)));
    }
    parts.push(part(Part::End(end)));
    parts
}

pub async fn submit_parts(target: &Target, parts: Vec<SubmitRequest>) -> Result<Accepted, Status> {
    let mut client = QueueClient::new(target.msa.clone());
    let answer = client.submit(stream::iter(parts)).await?;
    Ok(answer.into_inner())
}

/// Must be accepted, under its id.
pub async fn submit(
    target: &Target,
    envelope: &Envelope,
    content: &Bytes,
) -> Result<Accepted, Problem> {
    let all = parts(envelope, content, completion(content));
    let accepted = submit_parts(target, all).await?;
    if accepted.queue_id != envelope.queue_id {
        return Problem::broken("Accepted names another queue id");
    }
    Ok(accepted)
}

/// Must be refused in this way.
pub fn refused<T>(answer: Result<T, Status>, codes: &[Code]) -> Result<(), Problem> {
    match answer {
        Ok(_) => Problem::broken(format!("it was taken; {codes:?} was expected")),
        Err(status) if codes.contains(&status.code()) => Ok(()),
        Err(status) => Problem::broken(format!(
            "{:?} ({}) instead of {codes:?}",
            status.code(),
            status.message()
        )),
    }
}
