//! What log and timeline say of a mail that the queue begins to keep.

use postroad_envelope::{
    DeliverBy, Envelope, EventKind, QueueId, RecipientIndex, Route, Timestamp,
};
use postroad_metrics::labels::Source;
use tracing::info;

use crate::{clock, core::Front, timeline::Entry};

/// Recipients named in the event; more are found by their address all the same.
const NAMED: usize = 10;

/// Gathered before the commit, told after it.
pub(crate) struct AcceptedFacts {
    queue_id: QueueId,
    mail_from: String,
    size: u64,
    /// Taken before the commit: a worker may have the mail before its submitter knows that it is durable.
    at: Timestamp,
    recipients: Vec<String>,
    fields: Vec<(&'static str, String)>,
    verdicts: Vec<(String, String)>,
    /// Whose mail a neighbour handed over, for people.
    through: String,
    held: Vec<(Vec<RecipientIndex>, String)>,
    suppressed: Vec<(RecipientIndex, String)>,
    routes: Vec<(Route, Vec<RecipientIndex>)>,
}

impl AcceptedFacts {
    pub fn of(core: &Front, envelope: &Envelope) -> Self {
        Self {
            queue_id: envelope.queue_id,
            mail_from: envelope.reverse_path.to_string(),
            size: envelope.size,
            at: clock::now(),
            recipients: envelope
                .recipients
                .iter()
                .map(|to| to.address.folded())
                .collect(),
            fields: fields(envelope),
            verdicts: envelope.verdicts.clone().into_iter().collect(),
            through: through(envelope),
            held: Vec::new(),
            suppressed: Vec::new(),
            routes: routes(core, envelope),
        }
    }

    /// Which recipients a rule holds from the beginning, and why.
    pub fn held(&mut self, held: Vec<(Vec<RecipientIndex>, String)>) {
        self.held = held;
    }

    /// Which recipients are not tried, and why.
    pub fn suppressed(&mut self, suppressed: Vec<(RecipientIndex, String)>) {
        self.suppressed = suppressed;
    }

    /// Of a mail that a client or an agent handed over.
    pub fn tell(self, core: &Front) {
        let (queue_id, mail_from, size) = (self.queue_id, &self.mail_from, self.size);
        let recipients = self.recipients.len();
        info!(event = "submitted", %queue_id, mail_from, recipients, size);
        let text = match recipients {
            1 => "kept for 1 recipient".to_owned(),
            many => format!("kept for {many} recipients"),
        } + &self.through;
        self.record(core, Source::Submitted, text);
    }

    /// For the timeline, and counted.
    pub fn record(self, core: &Front, source: Source, text: String) {
        core.counts.mails.count(source);
        let (at, id) = (self.at, self.queue_id);
        let event = core.event(at, id, EventKind::Accepted, Vec::new(), text, self.fields);
        let accepted = Entry {
            recipients: self.recipients,
            ..event.into()
        };
        let verdicts = self.verdicts.into_iter().map(|(check, verdict)| {
            let text = format!("{check}: {verdict}");
            let fields = [("check", check), ("verdict", verdict)];
            core.event(at, id, EventKind::Verdict, Vec::new(), text, fields)
                .into()
        });
        let routed = self.routes.into_iter().map(|(route, recipients)| {
            let text = format!("{} to {}, by {}", route.class, route.aim(), route.rule);
            let fields = [
                ("route", route.class.to_string()),
                ("destination", route.destination.clone()),
                ("rule", route.rule.clone()),
            ];
            core.event(at, id, EventKind::Routed, recipients, text, fields)
                .into()
        });
        let held = self.held.into_iter().map(|(recipients, reason)| {
            info!(event = "held", queue_id = %id, recipients = recipients.len(), reason);
            let text = format!("held: {reason}");
            let fields = [("reason", reason)];
            core.event(at, id, EventKind::Held, recipients, text, fields)
                .into()
        });
        core.counts.suppressed(self.suppressed.len());
        let suppressed = self.suppressed.into_iter().map(|(recipient, text)| {
            info!(
                event = "settled", queue_id = %id, outcome = "failed", recipients = 1,
                cause = "suppressed", reply = text
            );
            let fields = [
                ("outcome", "failed".to_owned()),
                ("cause", "suppressed".to_owned()),
            ];
            core.event(at, id, EventKind::Settled, vec![recipient], text, fields)
                .into()
        });
        core.timeline.record(
            std::iter::once(accepted)
                .chain(verdicts)
                .chain(routed)
                .chain(held)
                .chain(suppressed),
        );
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
