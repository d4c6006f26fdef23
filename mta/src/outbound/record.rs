//! An attempt, told to the log and to the timeline.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use postroad_envelope::{
    Event, EventKind, Outcome, RecipientIndex, RemoteHost, StatusReport, Timestamp,
};
use postroad_net::Peer;
use postroad_queue_client::Lease;

use super::sources::Source;
use super::unusable::Unusable;

/// `mx.example.com[192.0.2.1]:25` or `unix:/run/dovecot/lmtp`, as in the log field `relay`.
pub fn relay(remote: &RemoteHost) -> String {
    let peer = remote.address.map(Peer::new);
    peer.map_or_else(
        || remote.name.clone(),
        |peer| format!("{}{peer}", remote.name),
    )
}

/// Logs why a host did not take the mail, whether or not another one is left.
pub fn passed_over(lease: &Lease, report: &StatusReport) {
    tracing::info!(
        event = "attempt",
        queue_id = %lease.envelope.queue_id,
        relay = report.remote.as_ref().map(relay),
        attempt = lease.attempt,
        code = report.reply.as_ref().map(|reply| reply.code().value()),
        enhanced = %report.status,
        tls = report.remote.as_ref().and_then(tls_of),
        verified = report.remote.as_ref().and_then(verified_of),
        tls_policy = report.remote.as_ref().and_then(policy_of),
        "{}",
        report.text
    );
}

/// Tells a person that a host cannot be used as it is configured.
pub fn unusable(lease: &Lease, report: &StatusReport, unusable: Unusable, listed: bool) {
    let remote = report.remote.as_ref();
    let relay = remote.map(self::relay);
    let reason = unusable.label().text();
    let remedy = unusable.remedy(listed);
    let (code, enhanced) = (
        report.reply.as_ref().map(|reply| reply.code().value()),
        report.status,
    );
    let destination = &lease.route.destination;
    if unusable.needs_a_person() {
        tracing::error!(
            event = "host_unusable", relay, %destination, reason, code, %enhanced, remedy, "{}", report.text
        );
    } else {
        tracing::warn!(
            event = "host_unusable", relay, %destination, reason, code, %enhanced, remedy, "{}", report.text
        );
    }
}

/// Logs each recipient's outcome and gives the events for the timeline, one for each different outcome.
pub fn attempt(
    agent: &str,
    lease: &Lease,
    outcomes: &[(RecipientIndex, Outcome)],
    how: &How<'_>,
) -> Vec<Event> {
    let now = Timestamp::from(SystemTime::now());
    let mut events: Vec<(&Outcome, Event)> = Vec::new();
    for (index, outcome) in outcomes {
        let about = About {
            reused: how.reused.contains(index),
            source: how.source,
            joined: (how.together > 1).then_some(how.together),
            started_at: how.started_at,
            now,
        };
        log(lease, *index, outcome, &about);
        match events.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, event)) => event.recipients.push(*index),
            None => events.push((
                outcome,
                Event {
                    queue_id: lease.envelope.queue_id,
                    at: now,
                    agent: agent.to_owned(),
                    kind: EventKind::Attempt,
                    recipients: vec![*index],
                    text: outcome.report().text.clone(),
                    fields: fields(lease, outcome, &about),
                },
            )),
        }
    }
    events.into_iter().map(|(_, event)| event).collect()
}

/// How a job was tried, beside what came of it.
pub struct How<'a> {
    /// Where it was sent from, if it came so far.
    pub source: Option<&'a Source>,
    /// Whose outcome came over a connection that had carried other mail before.
    pub reused: &'a [RecipientIndex],
    /// How many jobs of the mail went together.
    pub together: usize,
    /// When it began.
    pub started_at: Timestamp,
}

/// What the outcome itself does not say.
struct About<'a> {
    /// The connection had carried other mail before.
    reused: bool,
    source: Option<&'a Source>,
    /// So many jobs went together, if there were several.
    joined: Option<usize>,
    started_at: Timestamp,
    now: Timestamp,
}

impl About<'_> {
    /// Whether the host was spoken to over such a connection, if one was spoken to.
    fn reused(&self, report: &StatusReport) -> Option<bool> {
        report.remote.as_ref().map(|_| self.reused)
    }
}

fn log(lease: &Lease, index: RecipientIndex, outcome: &Outcome, about: &About<'_>) {
    let (started_at, now) = (about.started_at, about.now);
    let report = outcome.report();
    let envelope = &lease.envelope;
    let rcpt_to = envelope.recipient(index).map(|r| r.address.to_string());
    tracing::info!(
        event = "attempt",
        queue_id = %envelope.queue_id,
        mail_from = %envelope.reverse_path,
        rcpt_to = rcpt_to.as_deref(),
        relay = report.remote.as_ref().map(relay),
        attempt = lease.attempt,
        outcome = outcome.action(),
        code = report.reply.as_ref().map(|reply| reply.code().value()),
        enhanced = %report.status,
        reply = %report.reply.as_ref().map_or(report.text.clone(), |reply| reply.text().replace('\n', " ")),
        delay_ms = millis(now.since(envelope.received_at)),
        duration_ms = millis(now.since(started_at)),
        tls = report.remote.as_ref().and_then(tls_of),
        verified = report.remote.as_ref().and_then(verified_of),
        tls_policy = report.remote.as_ref().and_then(policy_of),
        reused = about.reused(report),
        joined = about.joined,
        "{}",
        report.text
    );
}

fn fields(lease: &Lease, outcome: &Outcome, about: &About<'_>) -> BTreeMap<String, String> {
    let (started_at, now) = (about.started_at, about.now);
    let report = outcome.report();
    let remote = report.remote.as_ref();
    let address = remote.and_then(|remote| remote.address);
    let from = address.and_then(|to| about.source?.name(to.ip()));
    let some = [
        ("relay", remote.map(relay)),
        ("source", from),
        ("tls", remote.and_then(tls_of)),
        ("verified", remote.and_then(verified_of).map(str::to_owned)),
        ("tls_policy", remote.and_then(policy_of).map(str::to_owned)),
        (
            "reused",
            about.reused(report).map(|reused| reused.to_string()),
        ),
        ("joined", about.joined.map(|jobs| jobs.to_string())),
        ("code", report.reply.as_ref().map(|r| r.code().to_string())),
        ("reply", report.reply.as_ref().map(|r| r.text().to_owned())),
        ("enhanced", Some(report.status.to_string())),
        ("outcome", Some(outcome.action().to_owned())),
        ("attempt", Some(lease.attempt.to_string())),
        (
            "delay_ms",
            Some(millis(now.since(lease.envelope.received_at)).to_string()),
        ),
        (
            "duration_ms",
            Some(millis(now.since(started_at)).to_string()),
        ),
    ];
    some.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn tls_of(remote: &RemoteHost) -> Option<String> {
    let tls = remote.tls.as_ref()?;
    Some(format!("{} {}", tls.version, tls.cipher))
}

fn verified_of(remote: &RemoteHost) -> Option<&str> {
    remote.tls.as_ref()?.verified.as_deref()
}

fn policy_of(remote: &RemoteHost) -> Option<&str> {
    remote.tls_policy.as_deref()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
