//! Mail of another queue, taken in as it stands there. Its id goes with it, so nothing is taken in twice.

use std::sync::Arc;

use futures::StreamExt as _;
use postroad_envelope::{Envelope, EventKind, QueueId};
use postroad_metrics::labels::Source;
use postroad_queue::{Admission, Content, Progress, Queue, Standing};
use postroad_queue_client::{
    Accepted, ContentStream, ImportedMail, ImportedRecipient, QueueError, Submission as _,
};
use tracing::info;

use super::failed;
use crate::{
    LocalQueue,
    accepted::AcceptedFacts,
    clock,
    core::{Core, to_client_error},
    submission::{Gathered, LocalSubmission, is_unwanted, task_failed},
};

/// Octets of a reason that are kept: it goes into states of bounded size.
const REASON: usize = 500;

pub(super) async fn take_in(
    queue: &LocalQueue,
    mail: ImportedMail,
    mut content: ContentStream,
) -> Result<bool, QueueError> {
    check(&mail)?;
    let core = queue.core().await?;
    let digest = Queue::digest_of(&mail.envelope, mail.envelope.size, mail.crc32c);
    let id = mail.envelope.queue_id;
    let known = queue.blocking(move |core| core.queue.known(id).map_err(failed));
    match known.await? {
        Some(known) if known == digest => return Ok(true),
        Some(_) => return Err(QueueError::IdTaken),
        None if mail.dry_run => return Ok(false),
        None => {}
    }
    let ImportedMail {
        envelope,
        crc32c,
        recipients,
        by,
        ..
    } = mail;
    let mut submission = LocalSubmission::begin(Arc::clone(&queue.front), envelope)?;
    while let Some(chunk) = content.next().await {
        submission.chunk(chunk?).await?;
    }
    let mail = submission.gathered().await?;
    let (len, crc) = (mail.content.len(), mail.content.crc32c());
    if (len, crc) != (mail.envelope.size, crc32c) {
        let file = mail.content.file();
        core.trash.add(file.map(|file| file.nonce));
        let why = "the content is not the one the envelope goes with";
        return Err(QueueError::Invalid(why.to_owned()));
    }
    let standing: Vec<Standing> = recipients.into_iter().map(standing_of).collect();
    // A caller that stops waiting must not stop a commit half-way.
    let tasks = core.tasks.clone();
    let inserted = tasks.spawn(async move { insert(&core, mail, &standing, &by).await });
    Ok(inserted.await.map_err(task_failed)??.duplicate)
}

fn check(mail: &ImportedMail) -> Result<(), QueueError> {
    let invalid = |why: &str| Err(QueueError::Invalid(why.to_owned()));
    let known = |recipient: &ImportedRecipient| {
        let (envelope, index) = (&mail.envelope, recipient.index);
        envelope.recipient(index).is_some()
    };
    let long = |recipient: &ImportedRecipient| {
        let hold = recipient.hold.as_ref();
        hold.is_some_and(|why| why.len() > REASON)
    };
    match &mail.recipients {
        all if !all.iter().all(known) => invalid("a recipient that is not in the envelope"),
        all if all.iter().any(long) => invalid("the reason of a hold is too long"),
        _ => Ok(()),
    }
}

fn standing_of(recipient: ImportedRecipient) -> Standing {
    let progress = match recipient.dropped {
        true => Progress::Dropped,
        false => Standing::progress_of(recipient.outcome),
    };
    Standing {
        index: recipient.index,
        progress,
        owed: recipient.owed,
        attempts: recipient.attempts,
        due: recipient.next_attempt,
        hold: recipient.hold,
        priority: recipient.priority,
    }
}

async fn insert(
    core: &Core,
    mail: Gathered,
    standing: &[Standing],
    by: &str,
) -> Result<Accepted, QueueError> {
    let file = mail.content.file();
    let outcome = offer(core, &mail, standing, by).await;
    if is_unwanted(&outcome) {
        core.trash.add(file.map(|file| file.nonce));
    }
    outcome
}

async fn offer(
    core: &Core,
    mail: &Gathered,
    standing: &[Standing],
    by: &str,
) -> Result<Accepted, QueueError> {
    let queue_id = mail.envelope.queue_id;
    let mut rounds = core.committer.rounds();
    loop {
        rounds.mark_unchanged();
        let text = told(&mail.envelope, standing);
        let mut facts = AcceptedFacts::of(core, &mail.envelope, Source::Imported, text);
        let (envelope, content): (_, Content) = (mail.envelope.clone(), mail.content.clone());
        let (now, routes) = (clock::now(), core.routes());
        let admission = core
            .queue
            .prepare_import(envelope, content, standing, now, &routes);
        let duplicate = match admission.map_err(failed)? {
            Admission::New(prepared) => {
                facts.held(core, prepared.holds());
                let committed = core.committer.insert(prepared).await;
                committed.map_err(to_client_error)?;
                info!(event = "admin", %queue_id, verb = "import", by);
                facts.record(core);
                tell(core, queue_id, by);
                false
            }
            Admission::Known => true,
            Admission::Conflict => return Err(QueueError::IdTaken),
            Admission::InFlight(..) => {
                let ended = || QueueError::Unavailable("the queue has ended".to_owned());
                rounds.changed().await.map_err(|_| ended())?;
                continue;
            }
        };
        return Ok(Accepted {
            queue_id,
            duplicate,
        });
    }
}

/// What was done for the mail before.
fn told(envelope: &Envelope, standing: &[Standing]) -> String {
    let done = standing
        .iter()
        .filter(|one| !matches!(one.progress, Progress::Pending(_)));
    let (all, done) = (envelope.recipients.len(), done.count());
    match done {
        0 => format!("imported, recipients: {all}"),
        done => format!("imported, recipients: {all}, of which done: {done}"),
    }
}

/// Who did it.
fn tell(core: &Core, queue_id: QueueId, by: &str) {
    let who = if by.is_empty() { "an operator" } else { by };
    let fields = [("verb", "import"), ("by", by)];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let text = format!("import, by {who}");
    core.tell(queue_id, EventKind::Admin, &[], text, fields);
}
