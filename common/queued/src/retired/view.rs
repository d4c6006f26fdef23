//! What operators see of retired mails.

use std::ops::ControlFlow;

use bytes::Bytes;
use postroad_envelope::{Filter, MailState, MailTraits, Outcome, QueueId, Route};
use postroad_journal::{Location, Lsn, SegmentInfo};
use postroad_queue::{Progress, RetiredContent, RetiredMail};
use postroad_queue_client::{
    ListPage, ListQuery, MailDetails, MailSummary, QueueError, RecipientDetails, RetiredFacts,
};

use super::{Kept, Retired};
use crate::{admin::header, core::Core};

/// Mails looked at for one page; it may hold fewer than were asked for, even none.
const SCANNED: usize = 10_000;

/// One page of retired mails for which the query holds, those first that ended last. Blocks.
pub(crate) fn list(core: &Core, query: &ListQuery, limit: usize) -> Result<ListPage, QueueError> {
    let mut page = ListPage::default();
    let Some(kept) = &core.retired.kept else {
        return Ok(page);
    };
    let from = match query.after {
        Some(id) => Some(kept.mails.find(id).ok_or(QueueError::NotFound)?),
        None => None,
    };
    let filter = query.filter.clone().folded();
    let (mut last, mut scanned) = (None, 0);
    for (segment, records) in from_newest(kept, from) {
        for (lsn, payload) in records.into_iter().rev() {
            if from.is_some_and(|from| lsn >= from.lsn) {
                continue;
            }
            let Some(mail) = kept.decode(&payload, segment.number) else {
                continue;
            };
            if page.mails.len() == limit || scanned >= SCANNED {
                page.next = last;
                return Ok(page);
            }
            scanned += 1;
            page.scanned += 1;
            last = Some(mail.envelope.queue_id);
            let summary = summary(&core.retired, &mail);
            if !kept.is_over(&mail) && matches(&filter, &mail, &summary) {
                page.mails.push(summary);
            }
        }
    }
    Ok(page)
}

type Records = Vec<(Lsn, Bytes)>;

/// The records of each segment, the newest segment first, from the one with this place on.
fn from_newest(
    kept: &Kept,
    from: Option<Location>,
) -> impl Iterator<Item = (SegmentInfo, Records)> + '_ {
    let segments = kept.mails.segments().into_iter();
    let wanted =
        segments.filter(move |segment| from.is_none_or(|from| segment.number <= from.segment));
    wanted.map(|segment| {
        let mut records = Records::new();
        kept.mails.each(segment.number, |seen, _, _| {
            records.push((seen.lsn, Bytes::copy_from_slice(seen.payload)));
            ControlFlow::Continue(())
        });
        (segment, records)
    })
}

/// Whether a mail fits a folded filter. Its jobs have ended: parts about jobs are asked of where they went and what they
/// were told last.
fn matches(filter: &Filter, mail: &RetiredMail, summary: &MailSummary) -> bool {
    let envelope = &mail.envelope;
    let of_mail = MailTraits {
        queue_id: envelope.queue_id,
        sender: &summary.sender,
        size: summary.size,
        tenant: &envelope.tenant,
        account: envelope.account.as_deref(),
        tags: &envelope.tags,
    };
    let goes_to = |wanted: &Option<String>| {
        let wanted = wanted.as_ref();
        wanted.is_none_or(|to| mail.jobs.iter().any(|job| job.destination == *to))
    };
    let reason = filter.reason_contains.as_ref();
    filter.fits_mail(&of_mail)
        && goes_to(&filter.destination)
        && goes_to(&filter.recipient_domain)
        && reason.is_none_or(|part| summary.reason.to_lowercase().contains(part))
        && filter.hold_rule.is_none()
}

/// Everything about a retired mail. Blocks.
pub(crate) fn details(core: &Core, queue_id: QueueId) -> Result<MailDetails, QueueError> {
    let mail = core.retired.find(queue_id).ok_or(QueueError::NotFound)?;
    let mut recipients: Vec<RecipientDetails> = mail
        .jobs
        .iter()
        .flat_map(|job| job.recipients.iter().map(move |recipient| (job, recipient)))
        .map(|(job, recipient)| RecipientDetails {
            index: recipient.index,
            route: Route {
                class: job.class,
                destination: job.destination.clone(),
                next_hop: job.next_hop.clone(),
                rule: job.rule.clone(),
            },
            state: None,
            attempts: job.attempts,
            next_attempt: None,
            outcome: match &recipient.progress {
                Progress::Done(outcome) => Some(outcome.clone()),
                Progress::Pending(_) | Progress::Dropped => None,
            },
        })
        .collect();
    recipients.sort_by_key(|recipient| recipient.index);
    let (header, header_cut) = header::of_retired(core, &mail);
    Ok(MailDetails {
        header,
        header_cut,
        summary: summary(&core.retired, &mail),
        recipients,
        attempts: core.timeline.attempts(queue_id),
        envelope: mail.envelope,
    })
}

fn summary(retired: &Retired, mail: &RetiredMail) -> MailSummary {
    let envelope = &mail.envelope;
    let recipients = envelope.recipients.iter();
    let outcomes = mail.jobs.iter().flat_map(|job| &job.recipients);
    let failure = outcomes.filter_map(|recipient| match &recipient.progress {
        Progress::Done(Outcome::Failed(report)) => Some(match &report.reply {
            Some(reply) => reply.to_string(),
            None => format!("{} {}", report.status, report.text),
        }),
        _ => None,
    });
    MailSummary {
        queue_id: envelope.queue_id,
        received_at: envelope.received_at,
        size: mail.digest.len,
        sender: envelope.reverse_path.to_string(),
        open_recipients: recipients.map(|to| to.address.to_string()).collect(),
        state: MailState::Retired,
        next_attempt: None,
        reason: failure.into_iter().next().unwrap_or_default(),
        tenant: envelope.tenant.clone(),
        account: envelope.account.clone(),
        tags: envelope.tags.clone(),
        retired: Some(RetiredFacts {
            at: mail.retired_at,
            ending: mail.ending,
            has_content: retired.has_content(mail),
        }),
    }
}

impl Retired {
    /// Whether [`Retired::content`] would find something; without reading it.
    fn has_content(&self, mail: &RetiredMail) -> bool {
        let Some(kept) = &self.kept else { return false };
        match mail.content {
            RetiredContent::None => false,
            RetiredContent::Record(place) => {
                let segments = kept.contents.as_ref().map(|log| log.segments());
                let segments = segments.unwrap_or_default();
                !kept.content_is_over(mail)
                    && segments.iter().any(|known| known.number == place.segment)
            }
            RetiredContent::File(_) => self.content(mail).is_some(),
        }
    }
}
