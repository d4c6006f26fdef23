//! The time that the sender of a mail gives it (RFC 2852).

use std::time::Duration;

use postroad_envelope::{
    DeliverBy, Outcome, QueueId, RecipientIndex, RouteClass, StatusReport, Timestamp,
};
use postroad_reply::{EXPIRED_4_4_7, EXPIRED_5_4_7, EnhancedStatusCode};

use super::{JobState, Progress};
use crate::Term;

/// The last attempt begins so long before the end of a time after which nothing may be tried, where there is room for one.
const LAST_CHANCE: Duration = Duration::from_secs(30);

/// Until when a job's mail is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// What was asked for.
    pub by: DeliverBy,
    /// The sender was told, or is owed, that the time is over. A mail that came late was told of by whoever had it in time.
    pub told: bool,
}

/// What whoever took recipients over sees to itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct TakenOver<'a> {
    /// Of these it reports success (RFC 3461 §5.2.1).
    pub reporting: &'a [RecipientIndex],
    /// For these it was told how much time is left (RFC 2852 §4.1.4).
    pub timed: &'a [RecipientIndex],
}

/// Why the sender is told of a recipient that was relayed (RFC 2852 §4.1.4), though that may not be the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The host does not know of the time.
    pub untimed: bool,
}

impl Deadline {
    /// Of a new mail.
    pub fn new(by: DeliverBy, id: QueueId) -> Self {
        Self {
            by,
            told: came_late(by, id),
        }
    }

    /// What is told of a recipient that was relayed at this moment: where a trace was asked for, and where the host does not see to the
    /// time. What goes into a store by LMTP is delivered (§1).
    pub(super) fn trace(self, class: RouteClass, timed: bool, now: Timestamp) -> Option<Trace> {
        let is_lost = !timed && now < self.by.at;
        let told = class == RouteClass::Relay && (self.by.trace || is_lost);
        told.then_some(Trace { untimed: !timed })
    }
}

/// The id is from when MAIL was said, from which the time counts. With no time left then it came so from another host.
fn came_late(by: DeliverBy, id: QueueId) -> bool {
    !by.return_after && by.at <= id.minted_at()
}

impl JobState {
    /// What is done if it waits for too long.
    pub fn term(&self) -> Term {
        Term::of(self.expires_at, self.deadline)
    }

    /// §4.1.3: what is to be returned then lives no longer. It may live shorter.
    pub(crate) fn keep_time(&mut self) {
        if let Some(Deadline { by, .. }) = self.deadline
            && by.return_after
        {
            self.expires_at = self.expires_at.min(by.at);
        }
    }

    /// The time of the next attempt: where nothing may be tried at the end of its time, a last one goes before.
    pub(crate) fn last_chance(&self, next: Timestamp, now: Timestamp) -> Timestamp {
        match self.term() {
            Term::Returns(end) if next >= end && end.since(now) > LAST_CHANCE * 2 => {
                end.minus(LAST_CHANCE)
            }
            _ => next,
        }
    }

    /// Whether the sender is to hear by now that its time is over.
    pub(crate) fn is_past_its_time(&self, now: Timestamp) -> bool {
        matches!(self.term(), Term::Tells(at) if at <= now)
    }

    /// The same state, its sender owed a report on all that is pending: the time is over (§4.1.3). Whom NOTIFY leaves out is asked of
    /// the envelope, since a delay told before does not count here.
    #[must_use]
    pub(crate) fn telling_of_its_time(mut self, now: Timestamp) -> Self {
        if let Some(deadline) = &mut self.deadline {
            deadline.told = true;
        }
        for recipient in &mut self.recipients {
            recipient.owed |= recipient.is_pending();
        }
        self.debt_since = self.owes().then_some(self.debt_since.unwrap_or(now));
        self
    }

    /// The next state when its time is over and it goes on.
    pub(crate) fn past_its_time(self, now: Timestamp) -> Self {
        self.telling_of_its_time(now).changed(now)
    }

    /// What is told of a recipient that is pending, if anything.
    pub(crate) fn delay_of(&self, progress: &Progress) -> Option<Outcome> {
        let Progress::Pending(last) = progress else {
            return None;
        };
        let told = self.deadline.filter(|deadline| deadline.told);
        let is_over = told.is_some_and(|deadline| !came_late(deadline.by, self.key.queue_id));
        let report = match is_over {
            true => Some(out_of_time(EXPIRED_4_4_7, last.as_ref())),
            false => last.clone(),
        };
        report.map(Outcome::Delayed)
    }
}

/// RFC 3463 §3.5: delivery time expired, with what the last attempt had heard.
fn out_of_time(status: EnhancedStatusCode, last: Option<&StatusReport>) -> StatusReport {
    let text = match last {
        Some(last) => format!("delivery time expired; last attempt: {}", last.text),
        None => "delivery time expired before the first attempt".to_owned(),
    };
    StatusReport {
        status,
        text,
        remote: last.and_then(|last| last.remote.clone()),
        reply: last.and_then(|last| last.reply.clone()),
        stage: last.and_then(|last| last.stage),
        // Of the last attempt: that, and not the time, is what can be mended.
        cause: last.and_then(|last| last.cause),
    }
}

/// The same as the permanent failure it has become (5.4.7).
pub(super) fn failed_out_of_time(last: Option<&StatusReport>) -> StatusReport {
    out_of_time(EXPIRED_5_4_7, last)
}

#[cfg(test)]
mod tests;
