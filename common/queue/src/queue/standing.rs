//! Mail of another queue: what is known of its recipients there goes on here.

use postroad_envelope::{Outcome, RecipientIndex, Timestamp};

use crate::{JobState, Progress};

/// Where a recipient of a mail from another queue stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which one.
    pub index: RecipientIndex,
    /// To be tried, or done.
    pub progress: Progress,
    /// The sender is owed a report on it.
    pub owed: bool,
    /// Attempts made.
    pub attempts: u32,
    /// When it is tried next; none: now.
    pub due: Option<Timestamp>,
    /// Why it is held, if it is.
    pub hold: Option<String>,
    /// None: as the envelope says.
    pub priority: Option<i8>,
}

impl Standing {
    /// After this outcome.
    pub fn progress_of(outcome: Option<Outcome>) -> Progress {
        match outcome {
            None => Progress::Pending(None),
            Some(Outcome::Delayed(report)) => Progress::Pending(Some(report)),
            Some(done) => Progress::Done(done),
        }
    }
}

/// The first state of a job, after what happened in the other queue. The recipients of one job there may be several jobs
/// here, and the other way round: what is of a job follows from those of its recipients that are still to be tried.
pub(super) fn take_up(job: &mut JobState, standing: &[Standing], now: Timestamp) {
    if standing.is_empty() {
        return;
    }
    let mut due: Option<Timestamp> = None;
    for recipient in &mut job.recipients {
        let Some(stands) = standing.iter().find(|one| one.index == recipient.index) else {
            // A new recipient among others that wait goes at once.
            due = Some(now);
            continue;
        };
        // What is done here, by a rule that discards it, stays done.
        if !recipient.is_pending() {
            continue;
        }
        recipient.progress = stands.progress.clone();
        let done = matches!(recipient.progress, Progress::Done(_));
        recipient.owed = recipient.expanded || stands.owed && done;
        job.attempts = job.attempts.max(stands.attempts);
        if recipient.is_pending() {
            let at = stands.due.map_or(now, |at| at.max(now));
            due = Some(due.map_or(at, |due| due.min(at)));
            job.priority = stands.priority.unwrap_or(job.priority);
            if job.hold.is_none() {
                job.hold.clone_from(&stands.hold);
            }
        }
    }
    job.due = due.map_or(job.due, |due| due.max(job.due));
    job.debt_since = job.owes().then_some(now);
}
