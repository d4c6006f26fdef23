//! What operators see.

use postroad_envelope::{QueueId, Route, Timestamp};
use postroad_queue::{Filter, JobState, JobSummary, MailSummary as Found, Phase, Progress};
use postroad_queue_client::{
    AgentDetails, DestinationStats, ListPage, ListQuery, MailDetails, MailState, MailSummary,
    QueueError, QueueStats, RecipientDetails,
};

use super::{AT_ONCE, failed, header};
use crate::{clock, core::Core};

const DEFAULT_PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;
const DEFAULT_STATS: usize = 1000;
const LONGEST_STATS: usize = 10_000;

/// `asked`, the default instead of 0, and never more than `longest`.
fn limited(asked: u32, default: usize, longest: usize) -> usize {
    match usize::try_from(asked).unwrap_or(longest) {
        0 => default,
        asked => asked.min(longest),
    }
}

pub(super) fn list(core: &Core, query: &ListQuery) -> Result<ListPage, QueueError> {
    let limit = limited(query.limit, DEFAULT_PAGE, LONGEST_PAGE);
    let filter = Filter {
        sender: query.sender.clone(),
        destination: query.destination.clone(),
        ..Filter::default()
    };
    let mut page = ListPage::default();
    let mut from = query.after.and_then(after);
    loop {
        let found = core.queue.list(&filter, from, AT_ONCE).map_err(failed)?;
        for mail in &found.mails {
            let state = state_of(mail, clock::now());
            if query.state.is_some_and(|wanted| Some(wanted) != state) {
                continue;
            }
            if page.mails.len() == limit {
                page.next = page.mails.last().map(|last| last.queue_id);
                return Ok(page);
            }
            // Finished, or moved, since the page was read: the next look shows it as it is.
            if let Ok((summary, _)) = summary(core, mail) {
                page.mails.push(summary);
            }
        }
        match found.next {
            Some(next) => from = Some(next),
            None => return Ok(page),
        }
    }
}

/// The id after this one.
fn after(id: QueueId) -> Option<QueueId> {
    let next = u128::from_be_bytes(id.to_bytes()).checked_add(1)?;
    Some(QueueId::from_bytes(next.to_be_bytes()))
}

fn summary(
    core: &Core,
    found: &Found,
) -> Result<(MailSummary, postroad_envelope::Envelope), QueueError> {
    let envelope = core.record_of(&found.mail)?.envelope;
    let open = envelope.recipients.iter().filter(|recipient| {
        found
            .jobs
            .iter()
            .any(|job| job.state.pending().any(|index| index == recipient.index))
    });
    let states = found.jobs.iter().map(|job| &job.state);
    let now = clock::now();
    let next_attempt = found
        .jobs
        .iter()
        .filter_map(|job| next_attempt(job, now))
        .min();
    let summary = MailSummary {
        queue_id: found.mail.queue_id,
        received_at: found.mail.received_at,
        size: found.mail.digest.len,
        sender: envelope.reverse_path.to_string(),
        open_recipients: open
            .map(|recipient| recipient.address.to_string())
            .collect(),
        state: state_of(found, now).unwrap_or(MailState::Delayed),
        next_attempt,
        reason: states.filter_map(reason_of).next().unwrap_or_default(),
    };
    Ok((summary, envelope))
}

/// Only of what is delayed: a job whose time has come is due, whether the schedule has noticed it or not.
fn next_attempt(job: &JobSummary, now: Timestamp) -> Option<Timestamp> {
    matches!(job.phase, Some((Phase::Waiting, at)) if at > now).then_some(job.state.due)
}

fn job_state(job: &JobSummary, now: Timestamp) -> Option<MailState> {
    Some(match job.phase? {
        (Phase::Leased | Phase::Resuming, _) => MailState::Leased,
        (Phase::Ready, _) => MailState::Due,
        (Phase::Waiting, at) if at <= now => MailState::Due,
        (Phase::Waiting | Phase::Owing, _) => MailState::Delayed,
        (Phase::Held, _) => MailState::Held,
    })
}

fn state_of(mail: &Found, now: Timestamp) -> Option<MailState> {
    let order = [
        MailState::Leased,
        MailState::Due,
        MailState::Delayed,
        MailState::Held,
    ];
    let states: Vec<MailState> = mail
        .jobs
        .iter()
        .filter_map(|job| job_state(job, now))
        .collect();
    order.into_iter().find(|state| states.contains(state))
}

fn reason_of(state: &JobState) -> Option<String> {
    let last = state
        .recipients
        .iter()
        .filter(|recipient| recipient.is_pending());
    let last = last.filter_map(|recipient| recipient.last_report());
    let last = last.map(|report| match &report.reply {
        Some(reply) => reply.to_string(),
        None => format!("{} {}", report.status, report.text),
    });
    state.hold.clone().or_else(|| last.into_iter().next())
}

pub(super) fn show(core: &Core, queue_id: QueueId) -> Result<MailDetails, QueueError> {
    let found = core
        .queue
        .show(queue_id)
        .map_err(failed)?
        .ok_or(QueueError::NotFound)?;
    let (summary, envelope) = summary(core, &found)?;
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
            route: Route {
                class: job.state.class,
                destination: job.state.destination.clone(),
                next_hop: job.state.next_hop.clone(),
                rule: job.state.rule.clone(),
            },
            state: job_state(job, now).filter(|_| recipient.is_pending()),
            attempts: job.state.attempts,
            next_attempt: next_attempt(job, now).filter(|_| recipient.is_pending()),
            outcome: match &recipient.progress {
                Progress::Done(outcome) => Some(outcome.clone()),
                Progress::Pending(Some(report)) => {
                    Some(postroad_envelope::Outcome::Delayed(report.clone()))
                }
                Progress::Pending(None) | Progress::Dropped => None,
            },
        })
        .collect();
    recipients.sort_by_key(|recipient| recipient.index);
    let (header, header_cut) = header::of(core, &found.mail)?;
    Ok(MailDetails {
        summary,
        envelope,
        recipients,
        attempts: core.timeline.attempts(queue_id),
        header,
        header_cut,
    })
}

pub(super) fn stats(core: &Core, limit: u32) -> Result<QueueStats, QueueError> {
    let found = core.queue.destinations(clock::now());
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let total = count(found.len());
    let shown = found
        .into_iter()
        .take(limited(limit, DEFAULT_STATS, LONGEST_STATS));
    let shown = shown.map(|stats| {
        let sample = core.queue.show(stats.sample.queue_id).map_err(failed)?;
        let jobs = sample.iter().flat_map(|mail| &mail.jobs);
        let job = jobs
            .map(|job| &job.state)
            .find(|state| state.key == stats.sample);
        Ok::<_, QueueError>(DestinationStats {
            destination: stats.destination,
            due: count(stats.due),
            delayed: count(stats.delayed),
            leased: count(stats.leased),
            held: count(stats.held),
            oldest: Some(stats.oldest.minted_at()),
            last_reply: job.and_then(reason_of).unwrap_or_default(),
        })
    });
    Ok(QueueStats {
        destinations: shown.collect::<Result<_, _>>()?,
        total,
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
            leases: leases.get(&stream).copied().unwrap_or_default(),
            settled,
            settled_last_minute,
            connected_at: agent.since,
            draining: agent.is_draining(),
        }
    })
    .collect()
}
