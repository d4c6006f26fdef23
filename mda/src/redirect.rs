//! An address that reached the delivery agent and stands for others: the sender of a bounced mail may be an
//! alias, and an account may have become one while its mail waited. The mail goes on to them as a new one.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_directory::Expanded;
use postroad_envelope::{
    Envelope, Origin, Outcome, QueueId, Recipient, RecipientIndex, StatusReport,
};
use postroad_queue_client::{Completion, ContentStream, Lease, QueueError, QueueService};
use postroad_reply::{SUCCESS_2_0_0, SYSTEM_4_3_0};

const CHUNK: usize = 64 * 1024;

/// Submits the mail to the targets; none: the queue did not take it, so the recipient stays due. Success is reported of the new
/// mail, or by the queue of its several recipients (RFC 3461 §5.2.7), never of the old one.
pub async fn redirect(
    queue: &dyn QueueService,
    lease: &Lease,
    recipient: &Recipient,
    targets: Vec<Expanded>,
) -> Option<Outcome> {
    let count = targets.len();
    let envelope = redirected(&lease.envelope, recipient, targets);
    let (queue_id, new_id) = (lease.envelope.queue_id, envelope.queue_id);
    match submit(queue, lease, envelope).await {
        Ok(()) => {
            let text = format!(
                "{} stands for {count} others; sent to them as {new_id}",
                recipient.address
            );
            tracing::info!(event = "attempt", %queue_id, rcpt_to = %recipient.address, outcome = "expanded", count, reason = %text);
            Some(Outcome::Expanded(StatusReport::local(SUCCESS_2_0_0, text)))
        }
        // These pass, and cost the mail no attempt.
        Err(
            error @ (QueueError::Unavailable(_) | QueueError::Full(_) | QueueError::OverQuota(_)),
        ) => {
            tracing::info!(%queue_id, rcpt_to = %recipient.address, %error, "the mail could not be handed on now");
            None
        }
        Err(error) => {
            tracing::error!(event = "fault", %queue_id, rcpt_to = %recipient.address, %error, "the queue refuses a mail that is handed on");
            let text = "the mail could not be handed on";
            Some(Outcome::Delayed(StatusReport::local(SYSTEM_4_3_0, text)))
        }
    }
}

async fn submit(
    queue: &dyn QueueService,
    lease: &Lease,
    envelope: Envelope,
) -> Result<(), QueueError> {
    let completion = Completion {
        size: envelope.size,
        hop_count: envelope.hop_count,
        ..Completion::default()
    };
    let mut content: ContentStream = match &lease.content {
        Some(content) => {
            let chunks: Vec<_> = content
                .chunks(CHUNK)
                .map(|chunk| Ok(content.slice_ref(chunk)))
                .collect();
            stream::iter::<Vec<Result<Bytes, QueueError>>>(chunks).boxed()
        }
        None => queue.read(lease.envelope.queue_id, 0).await?,
    };
    // There it is known if this is a repetition.
    let mut submission = queue
        .submit_beside(lease.envelope.queue_id, envelope)
        .await?;
    while let Some(chunk) = content.next().await {
        submission.chunk(chunk?).await?;
    }
    submission.finish(completion).await.map(drop)
}

fn redirected(envelope: &Envelope, recipient: &Recipient, targets: Vec<Expanded>) -> Envelope {
    let original = recipient.original.as_ref().unwrap_or(&recipient.address);
    let recipients = (0..).zip(targets).map(|(index, target)| Recipient {
        original: Some(original.clone()),
        notify: recipient.notify,
        orcpt: recipient.orcpt.clone(),
        ..Recipient::new(RecipientIndex(index), target.address)
    });
    Envelope {
        queue_id: redirected_id(envelope.queue_id, recipient.index),
        recipients: recipients.collect(),
        // Whoever submitted it was served; this mail is ours.
        account: None,
        origin: Origin {
            account: None,
            ..envelope.origin.clone()
        },
        ..envelope.clone()
    }
}

/// Always the same for one recipient of one mail, so that after a crash the queue knows the second submission
/// for a repetition.
fn redirected_id(id: QueueId, index: RecipientIndex) -> QueueId {
    let bytes = id.to_bytes();
    let mut random = [0; 10];
    random.copy_from_slice(&bytes[6..]);
    // The mixing of splitmix64: neighbouring indices share no bits to speak of.
    let mut mixed = (u64::from(index.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 27;
    for (byte, mask) in random.iter_mut().rev().zip(mixed.to_be_bytes()) {
        *byte ^= mask;
    }
    QueueId::mint(id.minted_at(), random)
}
