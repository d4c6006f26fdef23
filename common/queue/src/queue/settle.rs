use std::sync::Arc;

use postroad_envelope::{
    Cause, Envelope, Outcome, QueueId, Recipient, RecipientIndex, Route, Timestamp,
};

use super::{Admission, Queue, change::Prepared};
use crate::{
    Content, Fence, JobKey, JobState, MailPlace, Progress, QueueError, Revision, StaleLease,
    TakenOver, Trace, Tried, record::EncodedState,
};

/// What a settlement will bring about once committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// The job's next state.
    pub state: Arc<EncodedState>,
    /// Every recipient that is done by it, also those that failed since time is over.
    pub done: Vec<(RecipientIndex, Outcome)>,
    /// When the rest is tried again.
    pub retry_at: Option<Timestamp>,
    /// Which of the done ones the sender is to be told of.
    pub owed: Vec<RecipientIndex>,
}

/// A report owed to the sender of a mail.
#[derive(Debug, Clone, PartialEq)]
pub struct Debt {
    /// The mail it is about.
    pub mail: MailPlace,
    /// Whom it is about, and what became of them, by ascending index: those that are pending take long.
    pub recipients: Vec<(RecipientIndex, Outcome)>,
    /// The first of those that came of one address, which stands for them all.
    pub expanded: Vec<RecipientIndex>,
    /// Those of whom it is told that they were relayed, asked for or not.
    pub traced: Vec<(RecipientIndex, Trace)>,
    /// The states that say so.
    jobs: Vec<(JobKey, Revision)>,
}

impl Queue {
    /// The change that the result of an attempt makes. Recipients the worker does not name, and those it names as
    /// delayed, are tried again, or fail if the mail's time is over.
    pub fn prepare_settle(
        &self,
        job: JobKey,
        fence: Fence,
        outcomes: Vec<(RecipientIndex, Outcome)>,
        taken: TakenOver<'_>,
        now: Timestamp,
    ) -> Result<(Prepared, Settled), QueueError> {
        let lease = self.core().schedule.begin_settle(job, fence, now)?;
        let before = self
            .state_to_change(job)?
            .filter(|state| state.revision == lease.revision);
        let Some(before) = before else {
            self.put_right(job)?;
            return Err(StaleLease { job }.into());
        };
        let attempts = before.attempts.saturating_add(1);
        let terms = &self.terms().retry;
        // Of several that wait, whoever may be tried first says when.
        let waiting = outcomes.iter().filter(|(_, outcome)| !outcome.is_final());
        let mut causes: Vec<Option<Cause>> = waiting.map(|(_, o)| o.report().cause).collect();
        if causes.is_empty() {
            causes.push(None);
        }
        let begun_at = terms.begun_at(&before.destination, before.arrived_at, before.expires_at);
        let next = |cause| {
            let tried = Tried {
                destination: &before.destination,
                cause,
                attempts,
                begun_at,
                expires_at: before.expires_at,
            };
            terms.next_for(&tried, now, job.seed())
        };
        let retry = causes.into_iter().filter_map(next).min();
        let retry = retry.map(|next| before.last_chance(next, now));
        let late = terms.is_late(begun_at, now);
        let past_its_time = before.is_past_its_time(now);
        let pending: Vec<_> = before.pending().collect();
        let mut state = before.settled(outcomes, taken, retry, now);
        if late {
            state = state.telling_of_delay(now);
        }
        if past_its_time {
            state = state.telling_of_its_time(now);
        }
        let settled = settled(state, &pending);
        Ok((Prepared::encoded(Arc::clone(&settled.state)), settled))
    }

    /// What the sender of a mail is owed; none if nothing is, or not any more.
    pub fn debt(&self, id: QueueId) -> Result<Option<Debt>, QueueError> {
        let Some(mail) = self.index.mail(id)? else {
            return Ok(None);
        };
        let mut debt = Debt {
            mail,
            recipients: Vec::new(),
            expanded: Vec::new(),
            traced: Vec::new(),
            jobs: Vec::new(),
        };
        for state in self.index.jobs(id)?.iter().filter(|state| state.owes()) {
            debt.jobs.push((state.key, state.revision));
            for recipient in state.recipients.iter().filter(|recipient| recipient.owed) {
                let outcome = match &recipient.progress {
                    Progress::Done(outcome) => Some(outcome.clone()),
                    pending if recipient.owes_delay() => state.delay_of(pending),
                    Progress::Pending(_) | Progress::Dropped => None,
                };
                let outcome = outcome.map(|outcome| (recipient.index, outcome));
                debt.recipients.extend(outcome);
                let expanded = recipient.expanded.then_some(recipient.index);
                debt.expanded.extend(expanded);
                let trace = recipient.trace.map(|trace| (recipient.index, trace));
                debt.traced.extend(trace);
            }
        }
        debt.recipients.sort_by_key(|(index, _)| *index);
        debt.expanded.sort_unstable();
        Ok((!debt.jobs.is_empty()).then_some(debt))
    }

    /// Pays a debt: the report as a new mail, if one is to be sent, and the end of the debt are one commit. None: the
    /// debt has changed since, ask for it anew.
    pub fn prepare_report(
        &self,
        debt: &Debt,
        report: Option<(Envelope, Content)>,
        now: Timestamp,
        route: &dyn Fn(&Envelope, &Recipient) -> Route,
    ) -> Result<Option<Prepared>, QueueError> {
        let mut prepared = Prepared::empty();
        for &(job, revision) in &debt.jobs {
            match self.begin_change(job) {
                Ok(state) if state.revision == revision => {
                    prepared = prepared.and(Prepared::state(state.reported(now)));
                    continue;
                }
                Ok(_) => self.put_right(job)?,
                Err(QueueError::Busy(_) | QueueError::NoSuchJob(_)) => {}
                Err(error) => return Err(error),
            }
            self.abandon(prepared);
            return Ok(None);
        }
        let Some((envelope, content)) = report else {
            return Ok(Some(prepared));
        };
        match self.prepare_own(envelope, content, now, route) {
            Ok(Admission::New(mail)) => Ok(Some(prepared.and(mail))),
            // A fresh id cannot be known; whatever it is, it is not this report.
            other => {
                self.abandon(prepared);
                other.map(|_| None)
            }
        }
    }
}

fn settled(state: JobState, pending_before: &[RecipientIndex]) -> Settled {
    let touched = state
        .recipients
        .iter()
        .filter(|r| pending_before.contains(&r.index));
    let (mut done, mut owed) = (Vec::new(), Vec::new());
    for recipient in touched {
        if let Progress::Done(outcome) = &recipient.progress {
            done.push((recipient.index, outcome.clone()));
        }
        if recipient.owed {
            owed.push(recipient.index);
        }
    }
    let retry_at = state.is_pending().then_some(state.due);
    Settled {
        state: Arc::new(state.into()),
        done,
        retry_at,
        owed,
    }
}
