//! The queue for operators.

use std::sync::Arc;

use async_trait::async_trait;
use postroad_envelope::{Event, EventKind, QueueId, QueueIdPrefix, Route, RouteClass, Timestamp};
use postroad_queue::{
    Filter, Instruction, JobKey, JobState, JobSummary, MailSummary as Found, Phase, Progress,
};
use postroad_queue_client::{
    ListPage, ListQuery, MailDetails, MailState, MailSummary, QueueAdmin, QueueError,
    RecipientDetails, Selection,
};
use tokio::task::spawn_blocking;
use tracing::info;

use crate::{
    LocalQueue, clock,
    core::{Core, to_client_error},
    dispatch::ToDispatcher,
    routing,
    upkeep::instruct,
};

const DEFAULT_PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;
/// Mails looked at, or changed, at one time.
const AT_ONCE: usize = 500;

#[async_trait]
impl QueueAdmin for LocalQueue {
    async fn list(&self, query: ListQuery) -> Result<ListPage, QueueError> {
        self.blocking(move |core| list(core, &query)).await
    }

    async fn find(&self, prefix: QueueIdPrefix) -> Result<QueueId, QueueError> {
        let found = self
            .blocking(move |core| core.queue.find(&prefix, 2).map_err(failed))
            .await?;
        match found.as_slice() {
            [] => Err(QueueError::NotFound),
            [only] => Ok(*only),
            _ => Err(QueueError::Conflict(
                "several mails begin so; give more of the id".to_owned(),
            )),
        }
    }

    async fn show(&self, queue_id: QueueId) -> Result<MailDetails, QueueError> {
        self.blocking(move |core| show(core, queue_id)).await
    }

    async fn retry(&self, selection: Selection) -> Result<u64, QueueError> {
        self.change("retry", selection, Verb::Retry).await
    }

    async fn drop_mails(&self, selection: Selection) -> Result<u64, QueueError> {
        self.change("dropped", selection, Verb::Drop).await
    }

    async fn hold(&self, selection: Selection) -> Result<u64, QueueError> {
        self.change("held", selection, Verb::Hold).await
    }

    async fn release(&self, selection: Selection) -> Result<u64, QueueError> {
        self.change("released", selection, Verb::Release).await
    }

    async fn trace(&self, queue_id: QueueId) -> Result<Vec<Event>, QueueError> {
        let told = move |core: &Core| Ok(core.timeline.of(queue_id));
        let events = self.blocking(told).await?;
        if !events.is_empty() {
            return Ok(events);
        }
        let known = self.blocking(move |core| {
            let living = core.queue.show(queue_id).map_err(failed)?.is_some();
            Ok(living || core.queue.finished(queue_id).map_err(failed)?.is_some())
        });
        if known.await? {
            Ok(events)
        } else {
            Err(QueueError::NotFound)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Retry,
    Drop,
    Hold,
    Release,
}

impl Verb {
    /// What is done to a job in this state; nothing if it makes no difference.
    fn instructions(self, job: &JobSummary) -> Vec<Instruction> {
        let Some((phase, _)) = job.phase else {
            return Vec::new();
        };
        let state = &job.state;
        match (self, phase) {
            (Self::Retry, Phase::Waiting | Phase::Resuming) => vec![Instruction::Retry],
            (Self::Drop, _) => vec![Instruction::Drop],
            (Self::Hold, Phase::Held | Phase::Owing) => Vec::new(),
            (Self::Hold, _) => vec![Instruction::Hold("held by an operator".to_owned())],
            // A class of its own keeps it; without another one nobody would ever take it.
            (Self::Release, Phase::Held) if state.class == RouteClass::Hold => {
                let route = routing::released(&state.destination);
                vec![Instruction::Reroute(route), Instruction::Release]
            }
            (Self::Release, Phase::Held) => vec![Instruction::Release],
            (Self::Retry | Self::Release, _) => Vec::new(),
        }
    }
}

impl LocalQueue {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let core = Arc::clone(&self.core);
        let done = spawn_blocking(move || work(&core)).await;
        done.map_err(|error| QueueError::Unavailable(error.to_string()))?
    }

    async fn change(
        &self,
        event: &'static str,
        selection: Selection,
        verb: Verb,
    ) -> Result<u64, QueueError> {
        let mut changed = 0;
        let mut from = None;
        loop {
            let (wanted, after) = (selection.clone(), from);
            let (mails, next) = self
                .blocking(move |core| select(core, &wanted, after))
                .await?;
            for mail in mails {
                changed += u64::from(self.change_mail(event, &selection, verb, mail).await?);
            }
            if next.is_none() {
                break;
            }
            from = next;
        }
        // Whoever named mails wants to know if none of them could be changed.
        if changed == 0 && matches!(&selection, Selection::Ids(ids) if !ids.is_empty()) {
            return Err(QueueError::Conflict(
                "none of these mails is in a state that allows it".to_owned(),
            ));
        }
        let _ = self.core.dispatcher.send(ToDispatcher::Look).await;
        Ok(changed)
    }

    async fn change_mail(
        &self,
        event: &'static str,
        selection: &Selection,
        verb: Verb,
        mail: Found,
    ) -> Result<bool, QueueError> {
        let queue_id = mail.mail.queue_id;
        let mut touched = false;
        for job in &mail.jobs {
            if matches!(selection, Selection::Destination(to) if *to != job.state.destination) {
                continue;
            }
            for instruction in verb.instructions(job) {
                let jobs: Vec<JobKey> = vec![job.state.key];
                let changed = instruct(&self.core, jobs, instruction).await;
                touched |= changed.map_err(to_client_error)? > 0;
            }
        }
        if touched {
            info!(event, %queue_id, verb = ?verb);
            self.core
                .tell(queue_id, EventKind::Admin, Vec::new(), event, []);
        }
        Ok(touched)
    }
}

fn failed(error: postroad_queue::QueueError) -> QueueError {
    to_client_error(error.into())
}

/// Some of the mails a verb is for, and where to go on.
fn select(
    core: &Core,
    selection: &Selection,
    from: Option<QueueId>,
) -> Result<(Vec<Found>, Option<QueueId>), QueueError> {
    let filter = match selection {
        Selection::Ids(ids) => {
            let found = ids.iter().map(|&id| core.queue.show(id).map_err(failed));
            let found: Vec<Option<Found>> = found.collect::<Result<_, _>>()?;
            if found.iter().all(Option::is_none) {
                return Err(QueueError::NotFound);
            }
            return Ok((found.into_iter().flatten().collect(), None));
        }
        Selection::Destination(name) => Filter {
            destination: Some(name.clone()),
            ..Filter::default()
        },
        Selection::All => Filter::default(),
    };
    let page = core.queue.list(&filter, from, AT_ONCE).map_err(failed)?;
    Ok((page.mails, page.next))
}

fn list(core: &Core, query: &ListQuery) -> Result<ListPage, QueueError> {
    let wanted = usize::try_from(query.limit).unwrap_or(LONGEST_PAGE);
    let limit = if wanted == 0 {
        DEFAULT_PAGE
    } else {
        wanted.min(LONGEST_PAGE)
    };
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
    let next_attempt = found.jobs.iter().filter_map(next_attempt).min();
    let summary = MailSummary {
        queue_id: found.mail.queue_id,
        received_at: found.mail.received_at,
        size: found.mail.digest.len,
        sender: envelope.reverse_path.to_string(),
        open_recipients: open
            .map(|recipient| recipient.address.to_string())
            .collect(),
        state: state_of(found, clock::now()).unwrap_or(MailState::Delayed),
        next_attempt,
        reason: states.filter_map(reason_of).next().unwrap_or_default(),
    };
    Ok((summary, envelope))
}

fn next_attempt(job: &JobSummary) -> Option<Timestamp> {
    matches!(job.phase, Some((Phase::Waiting, _))).then_some(job.state.due)
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

fn show(core: &Core, queue_id: QueueId) -> Result<MailDetails, QueueError> {
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
            next_attempt: next_attempt(job).filter(|_| recipient.is_pending()),
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
    Ok(MailDetails {
        summary,
        envelope,
        recipients,
        attempts: core.timeline.attempts(queue_id),
    })
}
