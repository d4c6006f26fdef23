//! Mail that its account takes back before anything of it was tried.

use postroad_address::Mailbox;
use postroad_envelope::{QueueId, Timestamp};

use super::{Queue, change::Prepared};
use crate::{JobState, Phase, Progress, QueueError, Revision};

/// What becomes of a mail that its account wants back.
#[derive(Debug)]
pub enum Withdrawal {
    /// This change takes it out, all of it; nobody is told.
    Ready(Prepared),
    /// Some of it was tried, is being tried, or may have been by a worker that did not come back: it goes on.
    TooLate,
    /// Something changes in it at this moment: ask again.
    Changing,
    /// There is no such mail of this account.
    Unknown,
}

impl Queue {
    /// Takes a mail out of the queue, if it is of this account and nothing of it can have been tried. `leases_since` is when this
    /// start began to give out leases: of what was given out before, not all is known.
    pub fn prepare_withdrawal(
        &self,
        id: QueueId,
        account: &str,
        leases_since: Timestamp,
        now: Timestamp,
    ) -> Result<Withdrawal, QueueError> {
        let Some(mail) = self.index.mail(id)? else {
            return Ok(Withdrawal::Unknown);
        };
        if !mail
            .account
            .as_deref()
            .is_some_and(|of| is_same(of, account))
        {
            return Ok(Withdrawal::Unknown);
        }
        let jobs = self.index.jobs(id)?;
        let all = jobs.first().map_or(0, |first| first.of_jobs);
        let untried = |state: &JobState| is_untried(state, leases_since);
        if usize::try_from(all).ok() != Some(jobs.len()) || !jobs.iter().all(untried) {
            return Ok(Withdrawal::TooLate);
        }
        let mut prepared = Prepared::empty();
        for state in &jobs {
            let taken = match self.take_untried(state) {
                Ok(taken) => taken,
                Err(error) => {
                    self.abandon(prepared);
                    return Err(error);
                }
            };
            match taken {
                Ok(fresh) => prepared = prepared.and(Prepared::state(fresh.dropped(now))),
                // All of it or nothing.
                Err(withdrawal) => {
                    self.abandon(prepared);
                    return Ok(withdrawal);
                }
            }
        }
        Ok(Withdrawal::Ready(prepared))
    }

    /// Keeps others off a job of which nothing was tried.
    fn take_untried(&self, state: &JobState) -> Result<Result<JobState, Withdrawal>, QueueError> {
        let job = state.key;
        // First nobody gets it any more; then it is looked whether somebody had it.
        let fresh = match self.begin_change(job) {
            Ok(fresh) => fresh,
            Err(QueueError::Busy(_)) => {
                let phase = self.core().schedule.phase(job);
                let is_leased = matches!(phase, Some((Phase::Leased, _)));
                return Ok(Err(match is_leased {
                    true => Withdrawal::TooLate,
                    false => Withdrawal::Changing,
                }));
            }
            Err(QueueError::NoSuchJob(_)) => return Ok(Err(Withdrawal::Changing)),
            Err(error) => return Err(error),
        };
        let withdrawal = {
            let schedule = &self.core().schedule;
            let resumes = matches!(schedule.phase(job), Some((Phase::Resuming, _)));
            match resumes || schedule.may_have_begun(job) {
                true => Some(Withdrawal::TooLate),
                false if fresh.revision != state.revision => Some(Withdrawal::Changing),
                false => None,
            }
        };
        match withdrawal {
            None => Ok(Ok(fresh)),
            Some(withdrawal) => {
                self.put_right(job)?;
                Ok(Err(withdrawal))
            }
        }
    }
}

/// By what is durable: its first state, which the queue gave it by its own clock. What was changed since by anybody is not taken for
/// untried; nor is what was due before this start, since a lease of that time may have left no trace.
fn is_untried(state: &JobState, leases_since: Timestamp) -> bool {
    let untouched = state
        .recipients
        .iter()
        .all(|recipient| matches!(recipient.progress, Progress::Pending(None)));
    let is_first = state.attempts == 0 && state.revision == Revision(1);
    is_first && untouched && state.due.max(state.changed_at) > leases_since
}

/// Accounts are addresses; case and form of the domain do not matter.
fn is_same(one: &str, other: &str) -> bool {
    let folded = |text: &str| Mailbox::parse(text).map(|mailbox| mailbox.folded());
    match (folded(one), folded(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other && !one.is_empty(),
    }
}
