//! Mails, and comparing what was sent with what arrived.

use std::time::SystemTime;

use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::{Envelope, QueueId, Recipient, RecipientIndex, Timestamp};
use postroad_queue_client::{Accepted, Completion, QueueError, QueueService as _, RemoteQueue};

/// A complete mail of these lines; `body` has its line ends already.
pub fn mail(subject: &str, body: &str) -> Vec<u8> {
    mail_of("alice@demo.test", subject, body)
}

/// The same, from somebody else.
pub fn mail_of(from: &str, subject: &str, body: &str) -> Vec<u8> {
    let id = subject.replace(|c: char| !c.is_ascii_alphanumeric(), ".");
    format!(
        "From: <{from}>\r\nTo: undisclosed-recipients:;\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: <{id}@client.test>\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Hands a mail to the queue as an agent does, under an id that may be used again.
pub async fn submit(
    queue: &RemoteQueue,
    envelope: &Envelope,
    content: &[u8],
) -> Result<Accepted, QueueError> {
    let mut submission = queue.submit(envelope.clone()).await?;
    submission.chunk(content.to_vec().into()).await?;
    let completion = Completion {
        size: content.len() as u64,
        ..Completion::default()
    };
    submission.finish(completion).await
}

/// A mail of alice to these addresses, which came just now.
pub fn envelope(to: &[&str]) -> anyhow::Result<Envelope> {
    let now = Timestamp::from(SystemTime::now());
    let id = QueueId::mint(now, rand::random());
    let mut envelope = Envelope::new(id, ReversePath::parse("alice@demo.test")?, now);
    envelope.account = Some("alice@demo.test".to_owned());
    for (index, address) in (0..).zip(to) {
        let address = Mailbox::parse(address)?;
        envelope
            .recipients
            .push(Recipient::new(RecipientIndex(index), address));
    }
    Ok(envelope)
}

/// What follows the header block.
pub fn body(mail: &[u8]) -> &[u8] {
    for end in [&b"\r\n\r\n"[..], b"\n\n"] {
        if let Some(at) = mail.windows(end.len()).position(|window| window == end) {
            return &mail[at + end.len()..];
        }
    }
    &[]
}

/// As a Maildir keeps it: lines end with LF alone.
pub fn unwired(wire: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(wire.len());
    for (at, &octet) in wire.iter().enumerate() {
        if octet != b'\r' || wire.get(at + 1) != Some(&b'\n') {
            kept.push(octet);
        }
    }
    kept
}

/// Whether `delivered` is `sent` with header fields added before it, line ends apart: byte for byte.
pub fn is_same_mail(sent: &[u8], delivered: &[u8]) -> bool {
    let sent = unwired(sent);
    let Some(added) = delivered.len().checked_sub(sent.len()) else {
        return false;
    };
    let (added, rest) = delivered.split_at(added);
    rest == sent && added.ends_with(b"\n") && !added.windows(2).any(|pair| pair == b"\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_before_the_mail_may_differ() {
        let sent = b"Subject: a\r\n\r\n.b\r\n";
        assert!(is_same_mail(sent, b"Received: x\n\ty\nSubject: a\n\n.b\n"));
        assert!(!is_same_mail(sent, b"Received: x\nSubject: a\n\nb\n"));
        assert!(!is_same_mail(sent, b"Received: x\n\nSubject: a\n\n.b\n"));
        assert!(!is_same_mail(sent, b"Received: x Subject: a\n\n.b\n"));
        assert_eq!(body(sent), b".b\r\n");
        assert_eq!(body(b"Subject: a\n\n.b\n"), b".b\n");
    }
}
