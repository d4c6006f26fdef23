//! What operators see of retired mails.

use std::ops::ControlFlow;

use bytes::Bytes;
use postroad_envelope::{Filter, MailState, MailTraits, Outcome, QueueId};
use postroad_journal::{Location, Lsn, SegmentInfo};
use postroad_queue::{Progress, RetiredContent, RetiredMail};
use postroad_queue_client::{
    ListPage, ListQuery, MailDetails, MailSummary, QueueError, RecipientDetails, RetiredFacts,
};

use super::{Kept, Retired};
use crate::{
    admin::{failed, header},
    core::Core,
};

/// Mails looked at for one page; it may hold fewer than were asked for, even none.
const SCANNED: usize = 10_000;

/// One page of retired mails for which the query holds, in the order of their end: those first that ended first, or last
/// with `newest_first`. Blocks.
pub(crate) fn list(core: &Core, query: &ListQuery, limit: usize) -> Result<ListPage, QueueError> {
    let mut page = ListPage::default();
    let Some(kept) = &core.retired.kept else {
        return Ok(page);
    };
    if query.after.is_none() {
        // Those too that ended a moment ago.
        core.retired.retire(core).map_err(failed)?;
    }
    let from = match query.after {
        Some(id) => Some(kept.mails.find(id).ok_or(QueueError::NotFound)?),
        None => None,
    };
    let filter = query.filter.clone().folded();
    let (mut last, mut scanned) = (None, 0);
    for segment in ordered(kept, query.newest_first) {
        for payload in records(kept, &segment, from, query.newest_first) {
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

/// The segments in the order of the list.
fn ordered(kept: &Kept, newest_first: bool) -> Vec<SegmentInfo> {
    let mut segments = kept.mails.segments();
    if !newest_first {
        segments.reverse();
    }
    segments
}

/// The records of a segment behind this place, in the order of the list.
fn records(
    kept: &Kept,
    segment: &SegmentInfo,
    from: Option<Location>,
    newest_first: bool,
) -> Vec<Bytes> {
    let mut records = Vec::new();
    let is_behind = |lsn: Lsn| match from {
        Some(from) if newest_first => lsn < from.lsn,
        Some(from) => lsn > from.lsn,
        None => true,
    };
    let has_some = match newest_first {
        true => is_behind(segment.first_lsn),
        false => is_behind(segment.last_lsn),
    };
    if has_some {
        kept.mails.each(segment.number, |seen, _, _| {
            if is_behind(seen.lsn) {
                records.push(Bytes::copy_from_slice(seen.payload));
            }
            ControlFlow::Continue(())
        });
    }
    if newest_first {
        records.reverse();
    }
    records
}

/// Whether a mail fits a folded filter. Its jobs have ended: parts about jobs are asked of where they went and what they
/// were told last.
pub(super) fn matches(filter: &Filter, mail: &RetiredMail, summary: &MailSummary) -> bool {
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
        && filter.site.is_none()
}

/// Everything about a retired mail. Blocks.
pub(crate) fn details(core: &Core, queue_id: QueueId) -> Result<MailDetails, QueueError> {
    let mail = core.retired.find_ended(core, queue_id).map_err(failed)?;
    let mail = mail.ok_or(QueueError::NotFound)?;
    let mut recipients: Vec<RecipientDetails> = mail
        .jobs
        .iter()
        .flat_map(|job| job.recipients.iter().map(move |recipient| (job, recipient)))
        .map(|(job, recipient)| RecipientDetails {
            index: recipient.index,
            route: job.route(),
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

pub(super) fn summary(retired: &Retired, mail: &RetiredMail) -> MailSummary {
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
