//! `JobState` ↔ store.

use std::ops::Deref;

use bytes::Bytes;
use postroad_envelope::{
    NextHop, Outcome, RecipientIndex, SourceName, StatusReport, StoreName, Timestamp, WeightedHop,
};
use prost::Message;

use super::{
    envelope::{priority, queue_id},
    outcome::{
        class_from_wire, class_to_wire, cut, next_hop_from_wire, report_from_wire, report_to_wire,
        weighted_hop_from_wire,
    },
    unknown, wire,
};
use crate::{
    Deadline, Digest, JobFacts, JobKey, JobState, Progress, QueueError, RecipientState, Revision,
    SenderPrint, Term, Trace, Wait, error::unreadable, job::said,
};

/// A stored state is not longer, so that it fits into one value of the index.
pub const MAX_STATE: usize = 4096;

const WHAT: &str = "job state";
/// Of `RecipientState.notify`. A release that does not know of delays and expansions keeps the debt they are, and pays it with no
/// report.
const ON_FAILURE: u32 = 1;
const ON_SUCCESS: u32 = 2;
const OWED: u32 = 4;
/// States of older releases say nothing of it; then NOTIFY in the envelope decides.
const NOT_ON_DELAY: u32 = 8;
const EXPANDED: u32 = 16;
const TRACED: u32 = 32;
const UNTIMED: u32 = 64;

fn to_wire(state: &JobState) -> wire::JobState {
    let mut reports: Vec<&StatusReport> = Vec::new();
    let recipients = state
        .recipients
        .iter()
        .map(|r| recipient_to_wire(r, &mut reports))
        .collect();
    wire::JobState {
        queue_id: state.key.queue_id.to_bytes().to_vec(),
        number: state.key.number,
        revision: state.revision.0,
        class: class_to_wire(state.class),
        destination: cut(&state.destination, 255),
        next_hop: state.next_hop.as_ref().map(Into::into),
        rule: cut(&state.rule, 128),
        priority: state.priority.into(),
        arrived_at: state.arrived_at.as_millis(),
        expires_at: state.expires_at.as_millis(),
        due: state.due.as_millis(),
        attempts: state.attempts,
        changed_at: state.changed_at.as_millis(),
        hold: state.hold.as_deref().map(|why| cut(why, 128)),
        debt_since: state.debt_since.map(Timestamp::as_millis),
        recipients,
        reports: reports.into_iter().map(report_to_wire).collect(),
        digest: Some(digest_to_wire(state.digest)),
        of_jobs: state.of_jobs,
        store: state.store.named().map(str::to_owned),
        next_hops: state.next_hops.iter().map(Into::into).collect(),
        source: state.source.as_ref().map(ToString::to_string),
        deliver_by: state.deadline.map(|deadline| deadline.by.into()),
        told_of_time: state.deadline.is_some_and(|deadline| deadline.told),
    }
}

/// The octets of a state, at most [`MAX_STATE`]: where a hundred remote answers differ, their texts are cut until they
/// fit. Only unknown fields of a later release may make it longer.
pub fn encode(state: &JobState) -> Bytes {
    let mut message = to_wire(state);
    let mut room = 512;
    while message.encoded_len() > MAX_STATE && room > 0 {
        room /= 2;
        message
            .reports
            .iter_mut()
            .for_each(|report| shorten(report, room));
    }
    let mut bytes = message.encode_to_vec();
    bytes.extend_from_slice(&state.unknown);
    bytes.into()
}

/// Below 16 octets only the status is left of a report.
fn shorten(report: &mut wire::StatusReport, room: usize) {
    report.text = cut(&report.text, room);
    if room < 64 {
        report.remote = None;
    }
    if room < 16 {
        report.reply = None;
    }
    if let Some(reply) = &mut report.reply {
        reply.text = cut(&reply.text, room);
    }
}

/// A state with its octets, which journal, index and retired mails share: each state of a job is encoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedState {
    state: JobState,
    octets: Bytes,
}

impl EncodedState {
    /// Reads what was encoded, by this release or another.
    pub fn decode(octets: Bytes) -> Result<Self, QueueError> {
        let state = decode(&octets)?;
        Ok(Self { state, octets })
    }

    /// As [`encode`] makes them, or as they were read.
    pub fn octets(&self) -> &Bytes {
        &self.octets
    }

    /// The state alone.
    pub fn into_state(self) -> JobState {
        self.state
    }
}

impl From<JobState> for EncodedState {
    fn from(state: JobState) -> Self {
        let octets = encode(&state);
        Self { state, octets }
    }
}

impl Deref for EncodedState {
    type Target = JobState;

    fn deref(&self) -> &JobState {
        &self.state
    }
}

/// Reads what [`encode`] wrote, by this release or another.
pub fn decode(bytes: &[u8]) -> Result<JobState, QueueError> {
    let message = wire::JobState::decode(bytes).map_err(|e| unreadable(WHAT, e))?;
    let mut state = from_wire(message)?;
    state.unknown = unknown::fields_outside(bytes, wire::JobState::KNOWN);
    Ok(state)
}

/// What the schedule must know of a state that [`encode`] wrote; none if the job has ended. Reads little more than that.
pub fn facts(key: JobKey, bytes: &[u8]) -> Result<Option<JobFacts>, QueueError> {
    let job = wire::ScheduledJob::decode(bytes).map_err(|e| unreadable(WHAT, e))?;
    if !job.recipients.iter().any(is_open) {
        return Ok(None);
    }
    let debt_since = job.debt_since.map(Timestamp::from_millis);
    let is_held = job.hold.is_some() && job.recipients.iter().any(is_pending);
    Ok(Some(JobFacts {
        key,
        revision: Revision(job.revision),
        class: class_from_wire(job.class)?,
        destination: job.destination.into(),
        store: store(job.store)?,
        sender: SenderPrint::UNKNOWN,
        priority: priority(job.priority)?,
        term: Term::of(
            Timestamp::from_millis(job.expires_at),
            deadline(job.deliver_by, job.told_of_time),
        ),
        on_delay: job.recipients.iter().any(hears_of_delay),
        wait: Wait::of(is_held, debt_since, Timestamp::from_millis(job.due)),
    }))
}

/// [`JobState::reason`] of a state that [`encode`] wrote. Reads little more than that.
pub fn reason(bytes: &[u8]) -> Result<Option<String>, QueueError> {
    let job = wire::JobReason::decode(bytes).map_err(|e| unreadable(WHAT, e))?;
    if job.hold.is_some() {
        return Ok(job.hold);
    }
    let mut pending = job.recipients.iter().filter(|r| r.progress == 0);
    let Some(told) = pending.find(|recipient| recipient.report != 0) else {
        return Ok(None);
    };
    let report = report_of(told, &job.reports)?.map(report_from_wire);
    Ok(report.transpose()?.as_ref().map(said))
}

/// The report a recipient names, of those of its job; none: it names none.
fn report_of<'a, T>(
    recipient: &wire::RecipientState,
    reports: &'a [T],
) -> Result<Option<&'a T>, QueueError> {
    let number = usize::try_from(recipient.report).unwrap_or(usize::MAX);
    let report = number.checked_sub(1).map(|at| reports.get(at));
    let unknown = || unreadable(WHAT, "no such report");
    report.map(|report| report.ok_or_else(unknown)).transpose()
}

fn from_wire(message: wire::JobState) -> Result<JobState, QueueError> {
    let reports: Vec<StatusReport> = message
        .reports
        .iter()
        .map(report_from_wire)
        .collect::<Result<_, _>>()?;
    let recipients = message
        .recipients
        .iter()
        .map(|r| recipient_from_wire(r, &reports));
    let next_hop = message.next_hop.map(next_hop_from_wire).transpose()?;
    let next_hop = next_hop.filter(has_host);
    Ok(JobState {
        next_hops: next_hops(next_hop.as_ref(), message.next_hops)?,
        source: source(message.source)?,
        key: JobKey {
            queue_id: queue_id(&message.queue_id)?,
            number: message.number,
        },
        revision: Revision(message.revision),
        class: class_from_wire(message.class)?,
        destination: message.destination,
        store: store(message.store)?,
        next_hop,
        rule: message.rule,
        priority: priority(message.priority)?,
        arrived_at: Timestamp::from_millis(message.arrived_at),
        expires_at: Timestamp::from_millis(message.expires_at),
        deadline: deadline(message.deliver_by, message.told_of_time),
        due: Timestamp::from_millis(message.due),
        attempts: message.attempts,
        changed_at: Timestamp::from_millis(message.changed_at),
        hold: message.hold,
        debt_since: message.debt_since.map(Timestamp::from_millis),
        recipients: recipients.collect::<Result<_, _>>()?,
        digest: digest_from_wire(message.digest),
        of_jobs: message.of_jobs,
        unknown: Bytes::new(),
    })
}

fn deadline(by: Option<wire::DeliverBy>, told: bool) -> Option<Deadline> {
    let by = by?.into();
    Some(Deadline { by, told })
}

fn store(name: Option<String>) -> Result<StoreName, QueueError> {
    name.map_or(Ok(StoreName::default()), |name| {
        name.parse().map_err(|error| unreadable(WHAT, error))
    })
}

/// What was kept of several next hops counts as long as the first of them is the one that every release knows.
fn next_hops(
    first: Option<&NextHop>,
    kept: Vec<wire::WeightedHop>,
) -> Result<Vec<WeightedHop>, QueueError> {
    let kept: Vec<WeightedHop> = kept
        .into_iter()
        .map(weighted_hop_from_wire)
        .collect::<Result<_, _>>()?;
    let stands = kept.first().map(|kept| &kept.hop) == first;
    Ok(if stands { kept } else { Vec::new() })
}

fn source(name: Option<String>) -> Result<Option<SourceName>, QueueError> {
    let name = name.map(|name| name.parse());
    name.transpose().map_err(|error| unreadable(WHAT, error))
}

fn has_host(hop: &NextHop) -> bool {
    !matches!(hop, NextHop::Host(host) if host.host.is_empty())
}

pub const fn digest_to_wire(digest: Digest) -> wire::Digest {
    wire::Digest {
        len: digest.len,
        crc32c: digest.crc32c,
        envelope: digest.envelope,
    }
}

pub fn digest_from_wire(digest: Option<wire::Digest>) -> Digest {
    let wire::Digest {
        len,
        crc32c,
        envelope,
    } = digest.unwrap_or_default();
    Digest {
        len,
        crc32c,
        envelope,
    }
}

/// Whether a recipient keeps its job from its end: it is pending, or the sender is owed a report on it.
pub fn is_open(recipient: &wire::RecipientState) -> bool {
    is_pending(recipient) || recipient.notify & OWED != 0
}

fn is_pending(recipient: &wire::RecipientState) -> bool {
    recipient.progress == 0
}

fn hears_of_delay(recipient: &wire::RecipientState) -> bool {
    is_pending(recipient) && recipient.notify & NOT_ON_DELAY == 0
}

fn recipient_to_wire<'a>(
    recipient: &'a RecipientState,
    reports: &mut Vec<&'a StatusReport>,
) -> wire::RecipientState {
    let report = recipient.last_report().map_or(0, |report| {
        let at = reports
            .iter()
            .position(|known| *known == report)
            .unwrap_or_else(|| {
                reports.push(report);
                reports.len() - 1
            });
        u32::try_from(at + 1).unwrap_or(0)
    });
    wire::RecipientState {
        index: recipient.index.0,
        progress: match &recipient.progress {
            Progress::Pending(_) | Progress::Done(Outcome::Delayed(_)) => 0,
            Progress::Done(Outcome::Delivered(_)) => 1,
            Progress::Done(Outcome::Relayed(_)) => 2,
            Progress::Done(Outcome::Failed(_)) => 3,
            Progress::Done(Outcome::Expanded(_)) => 4,
            Progress::Dropped => 5,
        },
        report,
        notify: notify_bits(recipient),
    }
}

fn notify_bits(recipient: &RecipientState) -> u32 {
    let bits = [
        (recipient.on_failure, ON_FAILURE),
        (recipient.on_success, ON_SUCCESS),
        (recipient.owed, OWED),
        (!recipient.on_delay, NOT_ON_DELAY),
        (recipient.expanded, EXPANDED),
        (recipient.trace.is_some(), TRACED),
        (recipient.trace.is_some_and(|trace| trace.untimed), UNTIMED),
    ];
    let set = bits.iter().filter(|(is_set, _)| *is_set);
    set.map(|(_, bit)| bit).sum()
}

fn recipient_from_wire(
    recipient: &wire::RecipientState,
    reports: &[StatusReport],
) -> Result<RecipientState, QueueError> {
    let report = report_of(recipient, reports)?;
    let done = |make: fn(StatusReport) -> Outcome| {
        let report = report.ok_or_else(|| unreadable(WHAT, "done without a report"))?;
        Ok::<_, QueueError>(Progress::Done(make(report.clone())))
    };
    Ok(RecipientState {
        index: RecipientIndex(recipient.index),
        progress: match recipient.progress {
            0 => Progress::Pending(report.cloned()),
            1 => done(Outcome::Delivered)?,
            2 => done(Outcome::Relayed)?,
            3 => done(Outcome::Failed)?,
            4 => done(Outcome::Expanded)?,
            5 => Progress::Dropped,
            other => return Err(unreadable(WHAT, format!("progress {other}"))),
        },
        on_failure: recipient.notify & ON_FAILURE != 0,
        on_success: recipient.notify & ON_SUCCESS != 0,
        on_delay: recipient.notify & NOT_ON_DELAY == 0,
        owed: recipient.notify & OWED != 0,
        expanded: recipient.notify & EXPANDED != 0,
        trace: (recipient.notify & TRACED != 0).then_some(Trace {
            untimed: recipient.notify & UNTIMED != 0,
        }),
    })
}
