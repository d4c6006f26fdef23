//! A retired mail goes out again, as a new mail: the same way in as any other, with content read from what was kept.

use std::sync::Arc;

use bytes::Bytes;
use postroad_address::{ForwardPath, LocalPart, Mailbox};
use postroad_directory::{Directory, Resolution};
use postroad_envelope::{
    EditPlace, Envelope, EventKind, HeaderEdit, QueueId, Recipient, RecipientIndex, Timestamp,
};
use postroad_journal::ContentReader;
use postroad_message::{MessageId, date_field, fold_structured};
use postroad_queue_client::{Completion, QueueError, Resend, Resent, Submission};
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::{
    change::{self, REASON},
    failed,
};
use crate::{
    LocalQueue, clock,
    core::{Core, ReadError},
    retired::KeptBytes,
    submission::LocalSubmission,
};

/// Octets read of a large content at one time.
const READ: u64 = 512 << 10;
const CHUNK: usize = 64 << 10;

pub(super) async fn carry_out(queue: &LocalQueue, order: Resend) -> Result<Resent, QueueError> {
    if order.reason.len() > REASON {
        return Err(QueueError::Invalid("the reason is too long".to_owned()));
    }
    if let Some((class, next_hop)) = &order.route {
        change::check_route(*class, next_hop.as_ref())?;
    }
    let core = queue.core().await?;
    core.takes_mail()?;
    let id = order.queue_id;
    let (old, content) = queue.blocking(move |core| find(core, id)).await?;
    let again = Again {
        id: clock::fresh_id(),
        now: clock::now(),
        message_id: MessageId::generate(clock::now(), rand::random(), &core.hostname),
        from: postmaster(&core)?,
    };
    let hop_count = old.hop_count;
    let envelope = again.envelope(old, &order, &core.directory.current())?;
    let recipients = addresses(&envelope);
    if order.dry_run {
        return Ok(Resent {
            queue_id: None,
            recipients,
        });
    }
    let submission = LocalSubmission::begin(Arc::clone(core.front()), envelope)?;
    submit(Box::new(submission), content, hop_count).await?;
    tell(&core, &order, again.id, &recipients);
    Ok(Resent {
        queue_id: Some(again.id),
        recipients,
    })
}

/// The mail and its content. Blocks.
fn find(core: &Core, id: QueueId) -> Result<(Envelope, KeptBytes), QueueError> {
    if core.queue.show(id).map_err(failed)?.is_some() {
        return Err(QueueError::Conflict(format!(
            "{id} is still in the queue: retry it, or reroute it to send it another way"
        )));
    }
    let Some(mail) = core.retired.find_ended(core, id).map_err(failed)? else {
        return Err(match core.queue.finished(id).map_err(failed)?.is_some() {
            true => QueueError::Conflict(format!(
                "{id} has ended, and nothing of it is kept any more (queued.retired.keep, max_size)"
            )),
            false => QueueError::NotFound,
        });
    };
    let content = core.retired.content(&mail);
    let content = content.ok_or_else(|| core.retired.no_content(&mail))?;
    Ok((mail.envelope, content))
}

fn postmaster(core: &Core) -> Result<Mailbox, QueueError> {
    let local = LocalPart::parse("postmaster");
    let local = local.map_err(|error| QueueError::Invalid(error.to_string()))?;
    Ok(Mailbox::new(local, core.hostname.clone()))
}

fn addresses(envelope: &Envelope) -> Vec<String> {
    let recipients = envelope.recipients.iter();
    recipients.map(|to| to.address.to_string()).collect()
}

/// What is new about a mail that is sent again.
struct Again {
    id: QueueId,
    now: Timestamp,
    message_id: MessageId,
    from: Mailbox,
}

impl Again {
    /// The envelope as it was, but for its times and whatever the order says. It expires as if it had come now.
    fn envelope(
        &self,
        old: Envelope,
        order: &Resend,
        directory: &Directory,
    ) -> Result<Envelope, QueueError> {
        let mut recipients = Vec::new();
        for address in &order.recipients {
            let named = match &order.route {
                // The address may be known there only.
                Some(_) => vec![known(&old, address).unwrap_or_else(|| plain(address.clone()))],
                None => named(&old, address, directory)?,
            };
            recipients.extend(named);
        }
        if order.recipients.is_empty() {
            recipients.clone_from(&old.recipients);
        }
        let mut new = Envelope {
            queue_id: self.id,
            recipients: numbered(recipients),
            received_at: self.now,
            not_before: None,
            expires_at: None,
            // Its moment has passed.
            deliver_by: None,
            trace_context: None,
            listener: "resend".to_owned(),
            resent_of: Some(old.queue_id),
            ..old
        };
        if let Some(route) = &order.route {
            for recipient in &mut new.recipients {
                recipient.route_override = Some(route.clone());
            }
        }
        new.smtputf8 |= !order.recipients.iter().all(fits_ascii);
        new.header_edits.extend(self.fields(&order.recipients));
        Ok(new)
    }

    /// RFC 5322 §3.6.6: one block above all else; `Add` at the top stacks upwards.
    fn fields(&self, to: &[Mailbox]) -> Vec<HeaderEdit> {
        let id = format!("Resent-Message-ID: {}\r\n", self.message_id).into_bytes();
        let from = format!("Resent-From: <{}>\r\n", self.from).into_bytes();
        let date = [b"Resent-", date_field(self.now).as_slice()].concat();
        let fields = [id, resent_to(to), from, date];
        let at_top = fields.map(|field| HeaderEdit::Add {
            place: EditPlace::Top,
            field,
        });
        at_top.into()
    }
}

/// Those whom the operator named. Who got it the first time may have been hidden from the others.
fn resent_to(named: &[Mailbox]) -> Vec<u8> {
    let mut parts: Vec<String> = named.iter().map(shown).collect();
    let last = parts.len().saturating_sub(1);
    parts.iter_mut().take(last).for_each(|part| part.push(','));
    match parts.is_empty() {
        true => b"Resent-To: undisclosed-recipients:;\r\n".to_vec(),
        false => fold_structured("Resent-To", parts.iter().map(String::as_str)),
    }
}

/// In ASCII wherever that can be.
fn shown(address: &Mailbox) -> String {
    match fits_ascii(address) {
        true => format!("{}@{}", address.local_part(), address.domain().a_label()),
        false => address.to_string(),
    }
}

fn fits_ascii(address: &Mailbox) -> bool {
    address.local_part().as_str().is_ascii()
}

/// A recipient who was to get it the first time.
fn known(old: &Envelope, address: &Mailbox) -> Option<Recipient> {
    let folded = address.folded();
    let mut recipients = old.recipients.iter();
    recipients.find(|to| to.address.folded() == folded).cloned()
}

/// Those for whom an address stands now.
fn named(
    old: &Envelope,
    address: &Mailbox,
    directory: &Directory,
) -> Result<Vec<Recipient>, QueueError> {
    if let Some(known) = known(old, address) {
        return Ok(vec![known]);
    }
    let refused = |why: &str| Err(QueueError::Invalid(format!("{address} {why}")));
    match directory.resolve(&ForwardPath::Mailbox(address.clone())) {
        Resolution::Local(all) => Ok(all
            .into_iter()
            .map(|one| Recipient {
                original: one.original,
                ..plain(one.address)
            })
            .collect()),
        Resolution::ForeignDomain => Ok(vec![plain(address.clone())]),
        Resolution::UnknownRecipient => refused("is in a domain of ours and does not exist"),
        Resolution::Disabled => refused("does not receive mail"),
        Resolution::AliasLoop | Resolution::TooManyTargets => {
            refused("is an alias that leads nowhere, or to too many")
        }
    }
}

fn plain(address: Mailbox) -> Recipient {
    Recipient::new(RecipientIndex(0), address)
}

/// Each once.
fn numbered(recipients: Vec<Recipient>) -> Vec<Recipient> {
    let mut seen = std::collections::HashSet::new();
    let once = recipients
        .into_iter()
        .filter(|to| seen.insert(to.address.folded()));
    let numbered = (0..).zip(once).map(|(index, to)| Recipient {
        index: RecipientIndex(index),
        ..to
    });
    numbered.collect()
}

async fn submit(
    mut submission: Box<LocalSubmission>,
    content: KeptBytes,
    hop_count: u32,
) -> Result<(), QueueError> {
    let size = match content {
        KeptBytes::Record(bytes) => hand_over(&mut submission, &bytes).await?,
        KeptBytes::File(reader) => copy(&mut submission, Arc::new(reader)).await?,
    };
    let completion = Completion {
        size,
        hop_count,
        ..Completion::default()
    };
    submission.finish(completion).await.map(drop)
}

async fn hand_over(submission: &mut LocalSubmission, bytes: &Bytes) -> Result<u64, QueueError> {
    for at in (0..bytes.len()).step_by(CHUNK) {
        let end = bytes.len().min(at + CHUNK);
        submission.chunk(bytes.slice(at..end)).await?;
    }
    Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Piece by piece; what is kept stays where it is.
async fn copy(
    submission: &mut LocalSubmission,
    reader: Arc<ContentReader>,
) -> Result<u64, QueueError> {
    let content = *reader.content();
    let (mut at, mut crc) = (0, 0);
    while at < content.len {
        let reading = Arc::clone(&reader);
        let read = move || reading.read_range(at..at.saturating_add(READ));
        let piece = spawn_blocking(read).await;
        let piece = piece.map_err(|error| QueueError::Unavailable(error.to_string()))?;
        let piece = piece.map_err(ReadError::from)?;
        if piece.is_empty() {
            break;
        }
        crc = crc32c::crc32c_append(crc, &piece);
        at += hand_over(submission, &piece).await?;
    }
    if (at, crc) != (content.len, content.crc) {
        error!(event = "corruption", path = %content.nonce, "the kept content of a retired mail is damaged");
        return Err(QueueError::Conflict(
            "its content is damaged and cannot be sent again".to_owned(),
        ));
    }
    Ok(at)
}

/// In the log, and in the timelines of both.
fn tell(core: &Core, order: &Resend, new: QueueId, recipients: &[String]) {
    let (old, by, reason) = (order.queue_id, &order.by, &order.reason);
    info!(event = "resent", queue_id = %new, resent_of = %old, recipients = recipients.len(), by, reason);
    let who = if by.is_empty() { "an operator" } else { by };
    let why = match reason.as_str() {
        "" => format!("by {who}"),
        reason => format!("by {who}: {reason}"),
    };
    let many = match recipients.len() {
        1 => "1 recipient".to_owned(),
        many => format!("{many} recipients"),
    };
    let fields = |name: &'static str, id: QueueId| {
        let fields = [
            (name, id.to_string()),
            ("by", by.clone()),
            ("reason", reason.clone()),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_empty())
    };
    let text = format!("sent again as {new} to {many}, {why}");
    let kind = EventKind::Resent;
    core.tell(old, kind, &[], text, fields("resent_as", new));
    let text = format!("{old} sent again, {why}");
    core.tell(new, kind, &[], text, fields("resent_of", old));
}

#[cfg(test)]
mod tests {
    use postroad_message::apply_edits;

    use super::*;

    fn again() -> Again {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let host = "mail.local.test".parse().unwrap();
        Again {
            id: QueueId::from_bytes([9; 16]),
            now,
            message_id: MessageId::generate(now, [1; 10], &host),
            from: "postmaster@mail.local.test".parse().unwrap(),
        }
    }

    fn header(to: &[&str]) -> String {
        let to: Vec<Mailbox> = to.iter().map(|to| to.parse().unwrap()).collect();
        let received = HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"Received: by us\r\n".to_vec(),
        };
        let edits = [vec![received], again().fields(&to)].concat();
        String::from_utf8(apply_edits(b"Subject: hi\r\n\r\n", &edits)).unwrap()
    }

    #[test]
    fn the_block_stands_above_all_and_shows_only_who_was_named() {
        assert_eq!(
            header(&["a@one.test", "b@bücher.test"]),
            "Resent-Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n\
             Resent-From: <postmaster@mail.local.test>\r\n\
             Resent-To: a@one.test, b@xn--bcher-kva.test\r\n\
             Resent-Message-ID: <18bcfe56800.01010101010101010101@mail.local.test>\r\n\
             Received: by us\r\nSubject: hi\r\n\r\n"
        );
        assert!(header(&[]).contains("\r\nResent-To: undisclosed-recipients:;\r\n"));
    }

    #[test]
    fn each_gets_it_once_under_a_number_of_its_own() {
        let all = ["a@one.test", "b@one.test", "a@ONE.test"].map(|to| plain(to.parse().unwrap()));
        let numbers = numbered(all.to_vec());
        let numbers: Vec<u32> = numbers.iter().map(|to| to.index.0).collect();
        assert_eq!(numbers, [0, 1]);
    }
}
