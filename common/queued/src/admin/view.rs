//! What operators see.

use std::time::{Duration, Instant};

use postroad_envelope::{Envelope, Outcome, QueueId, Timestamp};
use postroad_queue::{
    JobState, JobSummary, Listing, MailRecord, MailSummary as Found, Phase, Progress,
};
use postroad_queue_client::{
    AgentDetails, ListPage, ListQuery, MailDetails, MailState, MailSummary, QueueError,
    RecipientDetails,
};

use super::{failed, header, sites};
use crate::{clock, core::Core, retired};

const DEFAULT_PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;

/// `asked`, the default instead of 0, and never more than `longest`.
pub(super) fn limited(asked: u32, default: usize, longest: usize) -> usize {
    match usize::try_from(asked).unwrap_or(longest) {
        0 => default,
        asked => asked.min(longest),
    }
}

/// How long one page may be looked for, so that a list shows what it has found.
const PAGE_TIME: Duration = Duration::from_millis(150);
/// A mail may be moved while it is looked for; so often in a row it cannot be.
const TRIES: usize = 5;

pub(super) fn list(core: &Core, query: &ListQuery) -> Result<ListPage, QueueError> {
    if query.filter.state == Some(MailState::Retired) {
        let limit = limited(query.limit, DEFAULT_PAGE, LONGEST_PAGE);
        return retired::list(core, query, limit);
    }
    let begun = Instant::now();
    let filter = sites::found(core, query.filter.clone().folded());
    let from = match query.after {
        None => None,
        Some(id) if query.newest_first => Some(before(id)),
        Some(id) => Some(after(id)),
    };
    if from == Some(None) {
        return Ok(ListPage::default());
    }
    let listing = Listing {
        filter: &filter,
        from: from.flatten(),
        newest_first: query.newest_first,
        limit: limited(query.limit, DEFAULT_PAGE, LONGEST_PAGE),
    };
    let in_time = || begun.elapsed() < PAGE_TIME;
    let found = core.queue.list(&listing, clock::now(), &in_time);
    let found = found.map_err(failed)?;
    let mut page = ListPage {
        mails: Vec::with_capacity(found.mails.len()),
        // The last one that was looked at is the one before that where the next page begins.
        next: found.next.and_then(|next| match query.newest_first {
            true => after(next),
            false => before(next),
        }),
        scanned: found.scanned,
    };
    for mut mail in found.mails {
        let shown = match read(core, &mut mail) {
            Ok(record) => record.map(|record| summary(core, &mail, &record.envelope)),
            Err(_) => unreadable(&mail),
        };
        if let Some(mut summary) = shown {
            summary.state = filter.state.unwrap_or(summary.state);
            page.mails.push(summary);
        }
    }
    Ok(page)
}

/// The id after this one.
fn after(id: QueueId) -> Option<QueueId> {
    let next = u128::from_be_bytes(id.to_bytes()).checked_add(1)?;
    Some(QueueId::from_bytes(next.to_be_bytes()))
}

/// The id before this one.
fn before(id: QueueId) -> Option<QueueId> {
    let next = u128::from_be_bytes(id.to_bytes()).checked_sub(1)?;
    Some(QueueId::from_bytes(next.to_be_bytes()))
}

/// The record of a mail, wherever that lies now: it may have moved since the index was asked. None: it has finished.
fn read(core: &Core, found: &mut Found) -> Result<Option<MailRecord>, QueueError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match core.record_of(&found.mail) {
            Ok(record) => return Ok(Some(record)),
            Err(gone) if gone.is_gone() && tries < TRIES => {
                match core.queue.show(found.mail.queue_id).map_err(failed)? {
                    Some(now) => *found = now,
                    None => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn summary(core: &Core, found: &Found, envelope: &Envelope) -> MailSummary {
    let open = envelope.recipients.iter().filter(|recipient| {
        found
            .jobs
            .iter()
            .any(|job| job.state.pending().any(|index| index == recipient.index))
    });
    let mut jobs = found.jobs.iter();
    let now = clock::now();
    let next_attempt = found
        .jobs
        .iter()
        .filter_map(|job| next_attempt(job, now))
        .min();
    MailSummary {
        queue_id: found.mail.queue_id,
        received_at: found.mail.received_at,
        size: found.mail.digest.len,
        sender: envelope.reverse_path.to_string(),
        open_recipients: open
            .map(|recipient| recipient.address.to_string())
            .collect(),
        state: state_of(found, now).unwrap_or(MailState::Delayed),
        next_attempt,
        reason: jobs.find_map(|job| core.reason_of(job)).unwrap_or_default(),
        tenant: envelope.tenant.clone(),
        account: envelope.account.clone(),
        tags: envelope.tags.clone(),
        retired: None,
    }
}

/// What the index knows of a mail that is held since its record is damaged.
fn unreadable(found: &Found) -> Option<MailSummary> {
    let state = state_of(found, clock::now()).filter(|state| *state == MailState::Held)?;
    let mut states = found.jobs.iter().map(|job| &job.state);
    Some(MailSummary {
        queue_id: found.mail.queue_id,
        received_at: found.mail.received_at,
        size: found.mail.digest.len,
        sender: found.mail.sender.clone(),
        open_recipients: Vec::new(),
        state,
        next_attempt: None,
        reason: states.find_map(JobState::reason).unwrap_or_default(),
        tenant: String::new(),
        account: None,
        tags: Vec::new(),
        retired: None,
    })
}

/// Only of what is delayed: a job whose time has come is due, whether the schedule has noticed it or not.
fn next_attempt(job: &JobSummary, now: Timestamp) -> Option<Timestamp> {
    matches!(job.phase, Some((Phase::Waiting, at)) if at > now).then_some(job.state.due)
}

fn state_of(mail: &Found, now: Timestamp) -> Option<MailState> {
    let order = [
        MailState::Leased,
        MailState::Due,
        MailState::Delayed,
        MailState::Held,
    ];
    let states: Vec<MailState> = mail.jobs.iter().filter_map(|job| job.state(now)).collect();
    order.into_iter().find(|state| states.contains(state))
}

pub(super) fn show(core: &Core, queue_id: QueueId) -> Result<MailDetails, QueueError> {
    let Some(mut found) = core.queue.show(queue_id).map_err(failed)? else {
        return retired::details(core, queue_id);
    };
    let Some(record) = read(core, &mut found)? else {
        return retired::details(core, queue_id);
    };
    let summary = summary(core, &found, &record.envelope);
    let now = clock::now();
    let mut recipients: Vec<RecipientDetails> = found
        .jobs
        .iter()
        .flat_map(|job| {
            job.state
                .recipients
                .iter()
                .map(move |recipient| (job, recipient))
        })
        .map(|(job, recipient)| RecipientDetails {
            index: recipient.index,
            route: job.state.route(),
            state: job.state(now).filter(|_| recipient.is_pending()),
            attempts: job.state.attempts,
            next_attempt: next_attempt(job, now).filter(|_| recipient.is_pending()),
            outcome: match &recipient.progress {
                Progress::Done(outcome) => Some(outcome.clone()),
                Progress::Pending(Some(report)) => Some(Outcome::Delayed(report.clone())),
                // Nothing was tried; it may wait for its site.
                Progress::Pending(None) => core.why_waits(job).map(Outcome::Delayed),
                Progress::Dropped => None,
            },
        })
        .collect();
    recipients.sort_by_key(|recipient| recipient.index);
    let (header, header_cut) = header::of(core, &record)?;
    Ok(MailDetails {
        summary,
        envelope: record.envelope,
        recipients,
        attempts: core.timeline.attempts(queue_id),
        header,
        header_cut,
    })
}

pub(super) fn agents(core: &Core) -> Vec<AgentDetails> {
    let leases = core.queue.leases_by_stream();
    let all = core.agents.all().into_iter();
    all.map(|(stream, agent)| {
        let (settled, settled_last_minute) = agent.settled();
        AgentDetails {
            name: agent.name.clone(),
            version: agent.version.clone(),
            host: agent.host.clone(),
            classes: agent.classes.clone(),
            stores: agent.stores.clone(),
            leases: leases.get(&stream).copied().unwrap_or_default(),
            settled,
            settled_last_minute,
            connected_at: agent.since,
            draining: agent.is_draining(),
        }
    })
    .collect()
}
