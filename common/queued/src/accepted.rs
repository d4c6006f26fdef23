//! What log and timeline say of a mail that the queue begins to keep.

use std::iter;

use postroad_envelope::{
    DeliverBy, Envelope, EventKind, QueueId, RecipientIndex, Route, Timestamp,
};
use postroad_metrics::labels::Source;
use tracing::info;

use crate::{
    clock,
    core::Front,
    timeline::{Draft, Telling},
};

/// Recipients named in the event; more are found by their address all the same.
const NAMED: usize = 10;

/// Told after the commit. The events are written before it, when all they tell of is at hand; what waits for the disk
/// meanwhile is one piece of memory for each.
pub(crate) struct AcceptedFacts {
    queue_id: QueueId,
    mail_from: String,
    size: u64,
    /// Taken before the commit: a worker may have the mail before its submitter knows that it is durable.
    at: Timestamp,
    recipients: usize,
    source: Source,
    events: Vec<Draft>,
    /// How many recipients of each hold, and why.
    held: Vec<(usize, String)>,
    /// Why recipients are not tried.
    suppressed: Vec<String>,
}

impl AcceptedFacts {
    /// Of a mail that a client or an agent handed over.
    pub fn submitted(core: &Front, envelope: &Envelope) -> Self {
        let text = match envelope.recipients.len() {
            1 => "kept for 1 recipient".to_owned(),
            many => format!("kept for {many} recipients"),
        };
        let text = text + &through(envelope);
        Self::of(core, envelope, Source::Submitted, text)
    }

    /// Of any other, with what is to be said of it.
    pub fn of(core: &Front, envelope: &Envelope, source: Source, text: String) -> Self {
        let (at, queue_id) = (clock::now(), envelope.queue_id);
        let events = match core.timeline.is_on() {
            true => events(core, at, envelope, text),
            false => Vec::new(),
        };
        Self {
            queue_id,
            mail_from: envelope.reverse_path.to_string(),
            size: envelope.size,
            at,
            recipients: envelope.recipients.len(),
            source,
            events,
            held: Vec::new(),
            suppressed: Vec::new(),
        }
    }

    /// Which recipients a rule holds from the beginning, and why.
    pub fn held(&mut self, core: &Front, held: Vec<(Vec<RecipientIndex>, String)>) {
        for (recipients, reason) in held {
            self.add(core, EventKind::Held, &recipients, |event| {
                let event = event.text(format_args!("held: {reason}"));
                event.field("reason", &reason)
            });
            self.held.push((recipients.len(), reason));
        }
    }

    /// Which recipients are not tried, and why.
    pub fn suppressed(&mut self, core: &Front, suppressed: Vec<(RecipientIndex, String)>) {
        for (recipient, why) in suppressed {
            self.add(core, EventKind::Settled, &[recipient], |event| {
                let event = event.text(&why).field("outcome", "failed");
                event.field("cause", "suppressed")
            });
            self.suppressed.push(why);
        }
    }

    fn add(
        &mut self,
        core: &Front,
        kind: EventKind,
        recipients: &[RecipientIndex],
        told: impl FnOnce(Telling) -> Telling,
    ) {
        if core.timeline.is_on() {
            let event = core.event(self.at, self.queue_id, kind, recipients);
            self.events.push(told(event).into());
        }
    }

    /// Of a mail that a client or an agent handed over.
    pub fn tell(self, core: &Front) {
        let (queue_id, mail_from, size) = (self.queue_id, &self.mail_from, self.size);
        let recipients = self.recipients;
        info!(event = "submitted", %queue_id, mail_from, recipients, size);
        self.record(core);
    }

    /// For the timeline, and counted.
    pub fn record(self, core: &Front) {
        let id = self.queue_id;
        core.counts.mails.count(self.source);
        for (recipients, reason) in self.held {
            info!(event = "held", queue_id = %id, recipients, reason);
        }
        core.counts.suppressed(self.suppressed.len());
        for why in self.suppressed {
            info!(
                event = "settled", queue_id = %id, outcome = "failed", recipients = 1,
                cause = "suppressed", reply = why
            );
        }
        core.timeline.record(self.events);
    }
}

/// What the timeline keeps of it from the beginning.
fn events(core: &Front, at: Timestamp, envelope: &Envelope, text: String) -> Vec<Draft> {
    let event =
        |kind, recipients: &[RecipientIndex]| core.event(at, envelope.queue_id, kind, recipients);
    let accepted = with_fields(event(EventKind::Accepted, &[]).text(text), envelope);
    let folded = envelope.recipients.iter().map(|to| to.address.folded());
    let message_id = envelope.facts.get("message_id").map(String::as_str);
    let accepted = accepted.found_by(message_id, folded);
    let verdicts = envelope.verdicts.iter().map(|(check, verdict)| {
        let event = event(EventKind::Verdict, &[]).text(format_args!("{check}: {verdict}"));
        event.field("check", check).field("verdict", verdict).into()
    });
    let routes = routes(core, envelope);
    let routed = routes.iter().map(|(route, recipients)| {
        let (class, rule) = (route.class, &route.rule);
        let text = format_args!("{class} to {}, by {rule}", route.aim());
        let event = event(EventKind::Routed, recipients).text(text);
        let event = event.field("route", class);
        let event = event.field("destination", &route.destination);
        event.field("rule", rule).into()
    });
    iter::once(accepted).chain(verdicts).chain(routed).collect()
}

fn with_fields(event: Telling, envelope: &Envelope) -> Telling {
    let origin = &envelope.origin;
    let named = envelope.recipients.iter().take(NAMED);
    let named: Vec<String> = named.map(|to| to.address.to_string()).collect();
    let tls = origin.tls.as_ref();
    let fact = |name| envelope.facts.get(name);
    // The words of the log: `helo` is the peer's, whom a neighbour told of is `client`.
    let forwarded = origin.peer.is_some();
    let helo = origin.helo.as_ref();
    event
        .field("mail_from", &envelope.reverse_path)
        .field_of("rcpt_to", text(&named.join(" ")))
        .field("recipients", envelope.recipients.len())
        .field("size", envelope.size)
        .field_of("message_id", fact("message_id"))
        .field_of("listener", text(&envelope.listener))
        .field("protocol", origin.protocol)
        .field_of("peer", origin.peer.or(origin.client))
        .field_of("helo", helo.filter(|_| !forwarded))
        .field_of("client", origin.client.filter(|_| forwarded))
        .field_of("client_name", origin.rdns.as_ref().filter(|_| forwarded))
        .field_of("client_helo", helo.filter(|_| forwarded))
        .field_of("client_protocol", fact("client_protocol"))
        .field_of("peer_queue_id", fact("peer_queue_id"))
        .field_of("account", envelope.account.as_ref())
        .field_of("deliver_by", envelope.deliver_by.map(deliver_by))
        .field_of(
            "tls",
            tls.map(|tls| format!("{} {}", tls.version, tls.cipher)),
        )
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// `2026-11-28T00:02:00.000Z;R`: the moment, and the rest as BY has it.
fn deliver_by(by: DeliverBy) -> String {
    let mode = if by.return_after { "R" } else { "N" };
    let trace = if by.trace { "T" } else { "" };
    format!("{};{mode}{trace}", by.at)
}

/// `; of 192.0.2.7 through 192.0.2.8, there 4Sh0Wk2Z1lz5`.
fn through(envelope: &Envelope) -> String {
    let origin = &envelope.origin;
    let Some(peer) = origin.peer else {
        return String::new();
    };
    let client = match origin.client {
        Some(client) => client.ip().to_string(),
        None => "an unknown client".to_owned(),
    };
    let there = envelope.facts.get("peer_queue_id");
    let there = there.map_or_else(String::new, |id| format!(", there {id}"));
    format!("; of {client} through {}{there}", peer.ip())
}

/// As the queue derives them when it inserts the mail.
fn routes(core: &Front, envelope: &Envelope) -> Vec<(Route, Vec<RecipientIndex>)> {
    let route_of = core.routes();
    let mut routes: Vec<(Route, Vec<RecipientIndex>)> = Vec::new();
    for recipient in &envelope.recipients {
        let route = route_of(envelope, recipient);
        match routes.iter_mut().find(|(known, _)| *known == route) {
            Some((_, indices)) => indices.push(recipient.index),
            None => routes.push((route, vec![recipient.index])),
        }
    }
    routes
}
