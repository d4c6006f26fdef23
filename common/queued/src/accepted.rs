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
    timeline::{Draft, Entry},
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
        let event = |kind, recipients, text, fields| {
            core.event(at, queue_id, kind, recipients, text, fields)
        };
        let folded = envelope.recipients.iter().map(|to| to.address.folded());
        let accepted = Entry {
            recipients: folded.collect(),
            ..event(EventKind::Accepted, Vec::new(), text, fields(envelope)).into()
        };
        let verdicts = envelope.verdicts.iter().map(|(check, verdict)| {
            let text = format!("{check}: {verdict}");
            let fields = vec![("check", check.clone()), ("verdict", verdict.clone())];
            event(EventKind::Verdict, Vec::new(), text, fields).into()
        });
        let routed = routes(core, envelope)
            .into_iter()
            .map(|(route, recipients)| {
                let text = format!("{} to {}, by {}", route.class, route.aim(), route.rule);
                let fields = vec![
                    ("route", route.class.to_string()),
                    ("destination", route.destination),
                    ("rule", route.rule),
                ];
                event(EventKind::Routed, recipients, text, fields).into()
            });
        let events = iter::once(accepted.into()).chain(verdicts).chain(routed);
        Self {
            queue_id,
            mail_from: envelope.reverse_path.to_string(),
            size: envelope.size,
            at,
            recipients: envelope.recipients.len(),
            source,
            events: events.collect(),
            held: Vec::new(),
            suppressed: Vec::new(),
        }
    }

    /// Which recipients a rule holds from the beginning, and why.
    pub fn held(&mut self, core: &Front, held: Vec<(Vec<RecipientIndex>, String)>) {
        for (recipients, reason) in held {
            self.held.push((recipients.len(), reason.clone()));
            let text = format!("held: {reason}");
            self.add(
                core,
                EventKind::Held,
                recipients,
                text,
                [("reason", reason)],
            );
        }
    }

    /// Which recipients are not tried, and why.
    pub fn suppressed(&mut self, core: &Front, suppressed: Vec<(RecipientIndex, String)>) {
        for (recipient, why) in suppressed {
            let fields = [
                ("outcome", "failed".to_owned()),
                ("cause", "suppressed".to_owned()),
            ];
            let recipients = vec![recipient];
            self.add(core, EventKind::Settled, recipients, why.clone(), fields);
            self.suppressed.push(why);
        }
    }

    fn add(
        &mut self,
        core: &Front,
        kind: EventKind,
        recipients: Vec<RecipientIndex>,
        text: String,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        let event = core.event(self.at, self.queue_id, kind, recipients, text, fields);
        self.events.push(event.into());
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

fn fields(envelope: &Envelope) -> Vec<(&'static str, String)> {
    let origin = &envelope.origin;
    let named = envelope.recipients.iter().take(NAMED);
    let named: Vec<String> = named.map(|to| to.address.to_string()).collect();
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let tls = origin.tls.as_ref();
    // The words of the log: `helo` is the peer's, whom a neighbour told of is `client`.
    let forwarded = origin.peer.is_some();
    let client = origin.client.filter(|_| forwarded);
    let fields = [
        ("mail_from", Some(envelope.reverse_path.to_string())),
        ("rcpt_to", text(&named.join(" "))),
        ("recipients", Some(envelope.recipients.len().to_string())),
        ("size", Some(envelope.size.to_string())),
        ("message_id", envelope.facts.get("message_id").cloned()),
        ("listener", text(&envelope.listener)),
        ("protocol", Some(origin.protocol.to_string())),
        (
            "peer",
            origin.peer.or(origin.client).map(|peer| peer.to_string()),
        ),
        ("helo", origin.helo.clone().filter(|_| !forwarded)),
        ("client", client.map(|client| client.to_string())),
        ("client_name", origin.rdns.clone().filter(|_| forwarded)),
        ("client_helo", origin.helo.clone().filter(|_| forwarded)),
        (
            "client_protocol",
            envelope.facts.get("client_protocol").cloned(),
        ),
        (
            "peer_queue_id",
            envelope.facts.get("peer_queue_id").cloned(),
        ),
        ("account", envelope.account.clone()),
        ("deliver_by", envelope.deliver_by.map(deliver_by)),
        (
            "tls",
            tls.map(|tls| format!("{} {}", tls.version, tls.cipher)),
        ),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
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
