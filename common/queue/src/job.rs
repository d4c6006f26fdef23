//! The words for one job, and the changes its state can go through.

use std::fmt;

use bytes::Bytes;
use postroad_envelope::{
    NextHop, Notify, Outcome, QueueId, RecipientIndex, RouteClass, StatusReport, StoreName,
    Timestamp,
};
use postroad_reply::EXPIRED_5_4_7;

/// Most recipients of one job (RFC 5321 §4.5.3.1.8: what every server takes in one transaction).
pub const MAX_JOB_RECIPIENTS: usize = 100;

/// The name of a job: its mail and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// The mail.
    pub queue_id: QueueId,
    /// Position among the mail's jobs; never changed.
    pub number: u32,
}

impl JobKey {
    /// What the jitter of this job's retries is made from: the random part of the id, so that mails which arrive
    /// together are not retried together.
    pub fn seed(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.queue_id.to_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ u64::from(self.number)
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.queue_id, self.number)
    }
}

/// Counts the durable changes of a job; every settlement names the one it was leased at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// How many mails an identity was checked by: length and checksum of the content, and a hash over what the
/// envelope says of sender and recipients. Two submissions of one id with one digest are one mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest {
    /// Octets of content.
    pub len: u64,
    /// Their CRC32C.
    pub crc32c: u32,
    /// FNV-1a over reverse path and recipients.
    pub envelope: u64,
}

/// The absolute state of one job: all that is durable of it, in every record that tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// Which job.
    pub key: JobKey,
    /// The number of this state.
    pub revision: Revision,
    /// How it leaves.
    pub class: RouteClass,
    /// The recipient domain or named route.
    pub destination: String,
    /// Of local mail: the store whose worker files it.
    pub store: StoreName,
    /// A fixed host instead of the MX.
    pub next_hop: Option<NextHop>,
    /// The rule that chose the route.
    pub rule: String,
    /// -9 to 9, most urgent highest.
    pub priority: i8,
    /// When the mail arrived.
    pub arrived_at: Timestamp,
    /// When what is still pending fails.
    pub expires_at: Timestamp,
    /// When it is to be tried next; of no meaning once nothing is pending.
    pub due: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// When this state came about.
    pub changed_at: Timestamp,
    /// Why it is held, if it is.
    pub hold: Option<String>,
    /// Since when the sender is owed a report on the recipients marked `owed`.
    pub debt_since: Option<Timestamp>,
    /// Each recipient, by ascending index.
    pub recipients: Vec<RecipientState>,
    /// How many jobs its mail has: that is done when so many have ended.
    pub of_jobs: u32,
    /// What the mail was when accepted, so that a finished id is still known by it.
    pub digest: Digest,
    /// Fields of a later release, kept as they are.
    pub unknown: Bytes,
}

/// What is known of one recipient of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientState {
    /// Which recipient.
    pub index: RecipientIndex,
    /// Where it stands.
    pub progress: Progress,
    /// Whether the sender asked, or wants by default, to hear of a failure.
    pub on_failure: bool,
    /// Whether the sender asked to hear of success.
    pub on_success: bool,
    /// The sender is still owed a report on it.
    pub owed: bool,
}

/// Where a recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// To be tried; with what the last attempt said.
    Pending(Option<StatusReport>),
    /// Done, one way or the other.
    Done(Outcome),
    /// An operator removed it; nobody is told.
    Dropped,
}

impl RecipientState {
    /// A recipient nothing was tried for. A mail without a sender is never reported on.
    pub fn new(index: RecipientIndex, notify: Notify, null_sender: bool) -> Self {
        let (on_failure, on_success) = match notify {
            Notify::On {
                success, failure, ..
            } if !null_sender => (failure, success),
            _ => (false, false),
        };
        Self {
            index,
            progress: Progress::Pending(None),
            on_failure,
            on_success,
            owed: false,
        }
    }

    /// Whether it is still to be tried.
    pub fn is_pending(&self) -> bool {
        matches!(self.progress, Progress::Pending(_))
    }

    /// What was last reported of it.
    pub fn last_report(&self) -> Option<&StatusReport> {
        match &self.progress {
            Progress::Pending(report) => report.as_ref(),
            Progress::Done(outcome) => Some(outcome.report()),
            Progress::Dropped => None,
        }
    }

    /// RFC 3461 §5.2: failures are told unless the sender said otherwise, success only if asked. Relayed mail is not
    /// reported: the next system took the request over.
    fn settle(&mut self, outcome: Outcome) {
        self.owed = match &outcome {
            Outcome::Failed(_) => self.on_failure,
            Outcome::Delivered(_) | Outcome::Expanded(_) => self.on_success,
            Outcome::Relayed(_) | Outcome::Delayed(_) => false,
        };
        self.progress = match outcome {
            Outcome::Delayed(report) => Progress::Pending(Some(report)),
            done => Progress::Done(done),
        };
    }
}

/// A report in the words an operator looks for: what the remote host replied, else what was found.
pub fn said(report: &StatusReport) -> String {
    match &report.reply {
        Some(reply) => reply.to_string(),
        None => format!("{} {}", report.status, report.text),
    }
}

impl JobState {
    /// Whether anything is still to be tried.
    pub fn is_pending(&self) -> bool {
        self.recipients.iter().any(RecipientState::is_pending)
    }

    /// Whether the sender is owed a report.
    pub fn owes(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.owed)
    }

    /// Whether what is still to be tried is held back.
    pub fn is_held(&self) -> bool {
        self.hold.is_some() && self.is_pending()
    }

    /// Whether the job has ended: nothing pending, nothing owed.
    pub fn has_ended(&self) -> bool {
        !self.is_pending() && !self.owes()
    }

    /// Why it is not done: the reason of its hold, else the last reply for a recipient still to be tried.
    pub fn reason(&self) -> Option<String> {
        let pending = self
            .recipients
            .iter()
            .filter(|recipient| recipient.is_pending());
        let mut reports = pending.filter_map(RecipientState::last_report);
        self.hold.clone().or_else(|| reports.next().map(said))
    }

    /// The recipients still to be tried.
    pub fn pending(&self) -> impl Iterator<Item = RecipientIndex> {
        self.recipients
            .iter()
            .filter(|recipient| recipient.is_pending())
            .map(|r| r.index)
    }

    /// The next state after an attempt. `retry` is the time of the next attempt, none when the mail's time is over: then
    /// what is still pending fails.
    pub fn settled(
        mut self,
        outcomes: Vec<(RecipientIndex, Outcome)>,
        retry: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        self.attempts = self.attempts.saturating_add(1);
        for (index, outcome) in outcomes {
            if let Some(recipient) = self.pending_mut(index) {
                recipient.settle(outcome);
            }
        }
        match retry {
            Some(at) => self.due = at,
            None => self.fail_pending(None),
        }
        self.changed(now)
    }

    /// The next state when the mail's time is over, or an operator says so.
    pub fn failed(mut self, report: Option<StatusReport>, now: Timestamp) -> Self {
        self.fail_pending(report.as_ref());
        self.changed(now)
    }

    /// The next state when an operator removes what is pending, without telling anyone.
    pub fn dropped(mut self, now: Timestamp) -> Self {
        for recipient in &mut self.recipients {
            if recipient.is_pending() {
                recipient.progress = Progress::Dropped;
            }
            recipient.owed = false;
        }
        self.changed(now)
    }

    /// The next state after the sender was told.
    pub fn reported(mut self, now: Timestamp) -> Self {
        for recipient in &mut self.recipients {
            recipient.owed = false;
        }
        self.changed(now)
    }

    /// The next state, held or released; a released job is due at once.
    pub fn held(mut self, why: Option<String>, now: Timestamp) -> Self {
        if why.is_none() {
            self.due = now;
        }
        self.hold = why;
        self.changed(now)
    }

    /// The next state, due at this time.
    pub fn rescheduled(mut self, due: Timestamp, now: Timestamp) -> Self {
        self.due = due;
        self.changed(now)
    }

    fn changed(mut self, now: Timestamp) -> Self {
        self.debt_since = self.owes().then_some(self.debt_since.unwrap_or(now));
        self.revision = self.revision.next();
        self.changed_at = now;
        self
    }

    fn pending_mut(&mut self, index: RecipientIndex) -> Option<&mut RecipientState> {
        self.recipients
            .iter_mut()
            .find(|recipient| recipient.index == index && recipient.is_pending())
    }

    fn fail_pending(&mut self, report: Option<&StatusReport>) {
        for recipient in &mut self.recipients {
            if let Progress::Pending(last) = &recipient.progress {
                let report = report
                    .cloned()
                    .unwrap_or_else(|| out_of_time(last.as_ref()));
                recipient.settle(Outcome::Failed(report));
            }
        }
    }
}

/// RFC 3463 §3.5: 4.4.7 delivery time expired, as the permanent failure it has become (5.4.7), with what the last
/// attempt had heard.
fn out_of_time(last: Option<&StatusReport>) -> StatusReport {
    let text = match last {
        Some(last) => format!("delivery time expired; last attempt: {}", last.text),
        None => "delivery time expired before the first attempt".to_owned(),
    };
    StatusReport {
        status: EXPIRED_5_4_7,
        text,
        remote: last.and_then(|last| last.remote.clone()),
        reply: last.and_then(|last| last.reply.clone()),
    }
}

#[cfg(test)]
mod tests {
    use postroad_reply::{
        BAD_MAILBOX_5_1_1, LOCAL_ERROR_451, MAILBOX_UNAVAILABLE_550, Reply, SUCCESS_2_0_0,
    };

    use super::*;
    use crate::samples::{at, job_state};

    fn delayed(text: &str) -> Outcome {
        let mut report = StatusReport::local("4.4.1".parse().unwrap(), text);
        report.reply = Some(Reply::plain(LOCAL_ERROR_451, "later"));
        Outcome::Delayed(report)
    }

    fn failed() -> Outcome {
        let mut report = StatusReport::local(BAD_MAILBOX_5_1_1, "no such user");
        report.reply = Some(Reply::new(MAILBOX_UNAVAILABLE_550, BAD_MAILBOX_5_1_1, "no"));
        Outcome::Failed(report)
    }

    fn delivered() -> Outcome {
        Outcome::Delivered(StatusReport::local(SUCCESS_2_0_0, "filed"))
    }

    #[test]
    fn each_recipient_settles_alone() {
        let before = job_state(1, 3);
        let outcomes = vec![
            (RecipientIndex(0), delivered()),
            (RecipientIndex(1), failed()),
            (RecipientIndex(9), delivered()),
        ];
        let after = before.clone().settled(outcomes, Some(at(500)), at(100));
        assert_eq!(after.revision, before.revision.next());
        assert_eq!((after.attempts, after.due), (1, at(500)));
        assert_eq!(after.pending().collect::<Vec<_>>(), [RecipientIndex(2)]);
        assert_eq!(after.recipients[1].progress, Progress::Done(failed()));
        // Only the failure is owed to the sender, who asked for nothing special.
        assert_eq!(
            after.recipients.iter().map(|r| r.owed).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert_eq!(after.debt_since, Some(at(100)));
        let paid = after.reported(at(200));
        assert!(!paid.owes() && paid.is_pending() && paid.debt_since.is_none());
    }

    #[test]
    fn a_recipient_that_is_done_stays_done() {
        let all = |outcome: Outcome| vec![(RecipientIndex(0), outcome)];
        let once = job_state(1, 1).settled(all(delivered()), None, at(1));
        assert!(once.has_ended());
        let twice = once.clone().settled(all(failed()), None, at(2));
        assert_eq!(twice.recipients, once.recipients);
    }

    #[test]
    fn time_over_is_a_permanent_failure_that_tells_the_last_reply() {
        let last = vec![(RecipientIndex(0), delayed("connection refused"))];
        let after = job_state(1, 2).settled(last, None, at(9));
        let Progress::Done(Outcome::Failed(report)) = &after.recipients[0].progress else {
            panic!("{after:?}")
        };
        assert_eq!(report.status.to_string(), "5.4.7");
        assert!(
            report.text.contains("connection refused"),
            "{}",
            report.text
        );
        assert_eq!(report.reply.as_ref().unwrap().code(), LOCAL_ERROR_451);
        assert!(
            after.recipients[1]
                .last_report()
                .unwrap()
                .text
                .contains("before the first")
        );
        assert!(after.owes() && !after.is_pending() && !after.has_ended());
    }

    #[test]
    fn nobody_is_told_who_does_not_want_to_be() {
        let new = |notify, null| RecipientState::new(RecipientIndex(0), notify, null);
        let on = |success, failure| Notify::On {
            success,
            failure,
            delay: false,
        };
        for (recipient, outcome, owed) in [
            (new(Notify::default(), false), failed(), true),
            (new(Notify::default(), true), failed(), false),
            (new(Notify::Never, false), failed(), false),
            (new(on(true, false), false), failed(), false),
            (new(on(true, false), false), delivered(), true),
            (new(Notify::default(), false), delivered(), false),
        ] {
            let mut settled = recipient.clone();
            settled.settle(outcome);
            assert_eq!(settled.owed, owed, "{recipient:?}");
        }
    }

    #[test]
    fn hold_release_drop() {
        let held = job_state(1, 1).held(Some("suspect".to_owned()), at(5));
        assert_eq!(held.hold.as_deref(), Some("suspect"));
        let released = held.held(None, at(6));
        assert_eq!((released.hold.as_deref(), released.due), (None, at(6)));
        let dropped = released.dropped(at(7));
        assert!(dropped.has_ended());
        assert_eq!(dropped.revision, Revision(4));
    }
}
