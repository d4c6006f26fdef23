//! The words for one job, and the changes its state can go through.

mod deadline;

use std::fmt;

use bytes::Bytes;
use postroad_envelope::{
    NextHop, Notify, Outcome, QueueId, RecipientIndex, Route, RouteClass, SourceName, StatusReport,
    StoreName, Timestamp, WeightedHop,
};

use self::deadline::failed_out_of_time;
pub use self::deadline::{Deadline, TakenOver, Trace};

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
    /// A fixed host instead of the MX; of several the first.
    pub next_hop: Option<NextHop>,
    /// Several to choose among, the first of them `next_hop`; none where there is one, or the MX.
    pub next_hops: Vec<WeightedHop>,
    /// The pool of addresses to send from.
    pub source: Option<SourceName>,
    /// The rule that chose the route.
    pub rule: String,
    /// -9 to 9, most urgent highest.
    pub priority: i8,
    /// When the mail arrived.
    pub arrived_at: Timestamp,
    /// When what is still pending fails.
    pub expires_at: Timestamp,
    /// By when its sender wants it delivered.
    pub deadline: Option<Deadline>,
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
    /// Whether the sender asked, or wants by default, to hear that it takes long, and was not told so yet.
    pub on_delay: bool,
    /// The sender is still owed a report on it: on its end, or while it is pending on its delay.
    pub owed: bool,
    /// The report that is owed is, or is besides, that the address it came of stands for several others (RFC 3461 §5.2.7.3).
    pub expanded: bool,
    /// The report that is owed on it tells that it was relayed, asked for or not, and why.
    pub trace: Option<Trace>,
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
        Self {
            index,
            progress: Progress::Pending(None),
            on_failure: notify.wants_failure() && !null_sender,
            on_success: notify.wants_success() && !null_sender,
            on_delay: notify.wants_delay() && !null_sender,
            owed: false,
            expanded: false,
            trace: None,
        }
    }

    /// Whether it is still to be tried.
    pub fn is_pending(&self) -> bool {
        matches!(self.progress, Progress::Pending(_))
    }

    /// Whether the report that is owed on it is that it takes long.
    pub fn owes_delay(&self) -> bool {
        self.owed && !self.expanded && self.is_pending()
    }

    /// Whether its sender is still to hear that it takes long.
    fn hears_of_delay(&self) -> bool {
        self.on_delay && self.is_pending()
    }

    /// What was last reported of it.
    pub fn last_report(&self) -> Option<&StatusReport> {
        match &self.progress {
            Progress::Pending(report) => report.as_ref(),
            Progress::Done(outcome) => Some(outcome.report()),
            Progress::Dropped => None,
        }
    }

    /// RFC 3461 §5.2: failures are told unless the sender said otherwise, success only if asked, and not where whoever took the
    /// mail over took that request over too (`reporting`). `trace`: RFC 2852 has more to tell if it was relayed.
    fn settle(&mut self, outcome: Outcome, reporting: bool, trace: Option<Trace>) {
        self.trace = trace.filter(|_| matches!(outcome, Outcome::Relayed(_)));
        let wanted = match &outcome {
            Outcome::Failed(_) => self.on_failure,
            Outcome::Delivered(_) => self.on_success,
            Outcome::Relayed(_) | Outcome::Expanded(_) => {
                self.on_success && !reporting || self.trace.is_some()
            }
            Outcome::Delayed(_) => false,
        };
        self.owed = wanted || self.expanded;
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
    /// The way it takes.
    pub fn route(&self) -> Route {
        Route {
            class: self.class,
            destination: self.destination.clone(),
            store: self.store.clone(),
            next_hop: self.next_hop.clone(),
            next_hops: self.next_hops.clone(),
            source: self.source.clone(),
            rule: self.rule.clone(),
        }
    }

    /// Takes another way.
    pub(crate) fn take(&mut self, route: Route) {
        self.class = route.class;
        self.destination = route.destination;
        self.store = route.store;
        self.next_hop = route.next_hop;
        self.next_hops = route.next_hops;
        self.source = route.source;
        self.rule = route.rule;
    }

    /// Whether anything is still to be tried.
    pub fn is_pending(&self) -> bool {
        self.recipients.iter().any(RecipientState::is_pending)
    }

    /// Whether its sender is still to hear that it takes long, once it does.
    pub(crate) fn hears_of_delay(&self) -> bool {
        self.recipients.iter().any(RecipientState::hears_of_delay)
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

    /// The next state after an attempt. `retry` is the time of the next attempt, none when the mail's time is over: then what is
    /// still pending fails.
    pub fn settled(
        mut self,
        outcomes: Vec<(RecipientIndex, Outcome)>,
        taken: TakenOver<'_>,
        retry: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        self.attempts = self.attempts.saturating_add(1);
        let (deadline, class) = (self.deadline, self.class);
        for (index, outcome) in outcomes {
            let timed = taken.timed.contains(&index);
            let trace = deadline.and_then(|deadline| deadline.trace(class, timed, now));
            if let Some(recipient) = self.pending_mut(index) {
                recipient.settle(outcome, taken.reporting.contains(&index), trace);
            }
        }
        match retry {
            Some(at) => self.due = at,
            None => self.fail_pending(None),
        }
        self.changed(now)
    }

    /// Recipients of a new job come to their end before anything is tried.
    pub(crate) fn refuse(&mut self, outcomes: Vec<(RecipientIndex, Outcome)>) {
        for (index, outcome) in outcomes {
            if let Some(recipient) = self.pending_mut(index) {
                recipient.settle(outcome, false, None);
            }
        }
    }

    /// The same state, its sender owed a report on what is pending still and has been tried: it takes long (RFC 3461 §5.2.5). Nobody
    /// is told twice.
    #[must_use]
    pub fn telling_of_delay(mut self, now: Timestamp) -> Self {
        for recipient in &mut self.recipients {
            let tried = matches!(recipient.progress, Progress::Pending(Some(_)));
            recipient.owed |= tried && recipient.on_delay;
        }
        self.debt_since = self.owes().then_some(self.debt_since.unwrap_or(now));
        self
    }

    /// The same state, with why it waits for what is pending. What a host had said of the mail itself stays behind that.
    #[must_use]
    pub(crate) fn waiting(mut self, why: &StatusReport) -> Self {
        for recipient in &mut self.recipients {
            if let Progress::Pending(last) = &mut recipient.progress {
                let mut report = why.clone();
                if let Some(before) = last.as_ref().filter(|last| last.reply.is_some()) {
                    report.text = format!("{}; before that: {}", report.text, before.text);
                }
                *last = Some(report);
            }
        }
        self
    }

    /// The next state when the mail waits for so long that its sender is told, and why (RFC 3461 §5.2.5).
    pub(crate) fn told_why_it_waits(self, why: &StatusReport, now: Timestamp) -> Self {
        self.waiting(why).telling_of_delay(now).changed(now)
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
            (recipient.owed, recipient.expanded) = (false, false);
        }
        self.changed(now)
    }

    /// The next state after the sender was told.
    pub fn reported(mut self, now: Timestamp) -> Self {
        for recipient in &mut self.recipients {
            if recipient.owes_delay() {
                recipient.on_delay = false;
            }
            (recipient.owed, recipient.expanded) = (false, false);
            recipient.trace = None;
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
                    .unwrap_or_else(|| failed_out_of_time(last.as_ref()));
                recipient.settle(Outcome::Failed(report), false, None);
            }
        }
    }
}

#[cfg(test)]
mod tests;
