//! One mail: where it stands, what happened to it.

use std::collections::BTreeMap;

use comfy_table::Cell;
use postroad_envelope::{
    Attempt, DeliverBy, Envelope, QueueId, RemoteHost, StatusReport, TlsFacts,
};
use postroad_queue_client::{MailDetails, QueueAdmin as _, RecipientDetails};
use serde_json::{Value, json};

use super::{Admin, sender, summary_json};
use crate::fault::Fault;
use crate::terminal::{Terminal, harmless, lines, local_time, number, one_line, table, utc_time};
use crate::timeline;

/// `postroad queue show`.
pub async fn show(admin: &Admin, id: QueueId, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let details = admin.show(id).await?;
    let events = admin.trace(id).await?;
    if terminal.wants_json() {
        let mut object = summary_json(admin, &details.summary);
        object["recipients"] = details
            .recipients
            .iter()
            .map(|one| recipient_json(&details, one))
            .collect();
        let envelope = &details.envelope;
        object["origin"] = origin_json(envelope);
        object["envid"] = json!(envelope.envid);
        object["verdicts"] = json!(envelope.verdicts);
        object["facts"] = json!(envelope.facts);
        object["expires_at"] = json!(envelope.expires_at.map(utc_time));
        object["deliver_by"] = json!(envelope.deliver_by.map(deadline_json));
        object["attempts"] = details.attempts.iter().map(attempt_json).collect();
        object["header"] = String::from_utf8_lossy(&details.header).into();
        object["header_cut"] = details.header_cut.into();
        object["events"] = events.iter().map(timeline::event_json).collect();
        terminal.object(object);
        return Ok(());
    }
    tell(&details, admin.node_of(id), terminal);
    tell_recipients(&details, terminal);
    tell_attempts(&details, terminal);
    tell_header(&details, terminal);
    if !events.is_empty() {
        terminal.line("");
        terminal.line(timeline::of_events(&events));
    }
    Ok(())
}

fn tell(details: &MailDetails, node: Option<&str>, terminal: &mut Terminal<'_>) {
    let mail = &details.summary;
    let envelope = &details.envelope;
    let origin = &envelope.origin;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut rows = table(["MAIL", &mail.queue_id.to_string()]);
    let mut row = |name: &str, value: String| {
        // Why it waits is said in full, for what can be done about it comes last.
        let widest = if name == "reason" { 1_000 } else { 100 };
        if !value.is_empty() {
            rows.add_row([name.to_owned(), one_line(&value, widest)]);
        }
    };
    row("state", mail.state.as_str().to_owned());
    row("node", node.unwrap_or_default().to_owned());
    row("from", sender(mail).to_owned());
    row("account", text(&envelope.account));
    row("tenant", envelope.tenant.clone());
    row("tags", envelope.tags.join(", "));
    row("received", local_time(mail.received_at));
    row("protocol", origin.protocol.to_string());
    row("listener", envelope.listener.clone());
    row(
        "client",
        origin
            .client
            .map_or_else(String::new, |client| client.to_string()),
    );
    let peer = origin.peer.map(|peer| peer.to_string());
    row("told by", peer.unwrap_or_default());
    row("rDNS", text(&origin.rdns));
    row("HELO", text(&origin.helo));
    let tls = origin.tls.as_ref();
    row("TLS", tls.map_or_else(String::new, tls_text));
    row("envelope id", text(&envelope.envid));
    row("verdicts", pairs(&envelope.verdicts));
    row("facts", pairs(&envelope.facts));
    row(
        "priority",
        match envelope.priority {
            0 => String::new(),
            other => other.to_string(),
        },
    );
    row("size", format!("{} octets", mail.size));
    row(
        "next attempt",
        mail.next_attempt.map_or_else(String::new, local_time),
    );
    row(
        "given up at",
        envelope.expires_at.map_or_else(String::new, local_time),
    );
    row(
        "deliver by",
        envelope.deliver_by.map_or_else(String::new, deadline_text),
    );
    row("reason", mail.reason.clone());
    if let Some(retired) = mail.retired {
        row("outcome", retired.ending.to_string());
        row("ended", local_time(retired.at));
        let content = if retired.has_content {
            "kept"
        } else {
            "not kept"
        };
        row("content", content.to_owned());
    }
    terminal.line(lines(&rows));
}

/// RFC 2852.
fn deadline_text(by: DeliverBy) -> String {
    let then = match by.return_after {
        true => "else it is returned",
        false => "else the sender is told",
    };
    let trace = if by.trace { "; each relay is told" } else { "" };
    format!("{}, {then}{trace}", local_time(by.at))
}

fn deadline_json(by: DeliverBy) -> Value {
    json!({
        "at": utc_time(by.at),
        "mode": if by.return_after { "return" } else { "notify" },
        "trace": by.trace,
    })
}

/// Version, cipher, and whose certificate was verified.
fn tls_text(tls: &TlsFacts) -> String {
    match &tls.verified {
        Some(name) => format!("{} {}, certificate of {name}", tls.version, tls.cipher),
        None => format!("{} {}", tls.version, tls.cipher),
    }
}

fn pairs(all: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(", ")
}

fn origin_json(envelope: &Envelope) -> Value {
    let origin = &envelope.origin;
    json!({
        "client": origin.client.map(|client| client.to_string()),
        "peer": origin.peer.map(|peer| peer.to_string()),
        "rdns": origin.rdns,
        "helo": origin.helo,
        "tls": origin.tls.as_ref().map(|tls| format!("{} {}", tls.version, tls.cipher)),
        "verified": origin.tls.as_ref().and_then(|tls| tls.verified.as_deref()),
        "account": origin.account,
        "protocol": origin.protocol.to_string(),
        "listener": envelope.listener,
    })
}

fn tell_attempts(details: &MailDetails, terminal: &mut Terminal<'_>) {
    if details.attempts.is_empty() {
        return;
    }
    let mut rows = table([
        "TRY", "BEGAN", "MS", "AGENT", "TO", "HOST", "CAUSE", "REPLY",
    ]);
    for attempt in &details.attempts {
        for (index, outcome) in &attempt.outcomes {
            let report = outcome.report();
            let host = report.remote.as_ref().map(host_text);
            let to = details.envelope.recipient(*index);
            rows.add_row([
                number(attempt.number),
                Cell::new(local_time(attempt.started_at)),
                number(attempt.ended_at.since(attempt.started_at).as_millis()),
                Cell::new(one_line(&attempt.agent, 30)),
                Cell::new(one_line(
                    &to.map_or_else(String::new, |to| to.address.to_string()),
                    40,
                )),
                Cell::new(one_line(&host.unwrap_or_default(), 40)),
                Cell::new(report.cause.map_or("", |cause| cause.as_str())),
                Cell::new(one_line(&reply(report), 80)),
            ]);
        }
    }
    terminal.line("");
    terminal.line(lines(&rows));
}

/// Its name, and whether it proved to be the right one.
fn host_text(remote: &RemoteHost) -> String {
    match verified(remote) {
        Some(_) => format!("{} (verified)", remote.name),
        None => remote.name.clone(),
    }
}

fn verified(remote: &RemoteHost) -> Option<&str> {
    remote.tls.as_ref()?.verified.as_deref()
}

/// What the remote said; without a word from it, what became of the attempt.
fn reply(report: &StatusReport) -> String {
    match &report.reply {
        Some(reply) => reply.to_string(),
        None => format!("{} {}", report.status, report.text),
    }
}

fn attempt_json(attempt: &Attempt) -> Value {
    let outcomes = attempt.outcomes.iter().map(|(index, outcome)| {
        let report = outcome.report();
        json!({
            "recipient": index.0,
            "action": outcome.action(),
            "status": report.status.to_string(),
            "cause": report.cause.map(|cause| cause.as_str()),
            "stage": report.stage.map(|stage| stage.as_str()),
            "text": report.text,
            "reply": report.reply.as_ref().map(ToString::to_string),
            "relay": report.remote.as_ref().map(|remote| &remote.name),
            "verified": report.remote.as_ref().and_then(verified),
        })
    });
    json!({
        "number": attempt.number,
        "started_at": utc_time(attempt.started_at),
        "ended_at": utc_time(attempt.ended_at),
        "agent": attempt.agent,
        "outcomes": outcomes.collect::<Vec<_>>(),
    })
}

fn tell_header(details: &MailDetails, terminal: &mut Terminal<'_>) {
    let header = String::from_utf8_lossy(&details.header).replace("\r\n", "\n");
    let header = header.trim_end_matches('\n');
    if header.is_empty() {
        return;
    }
    terminal.line("");
    terminal.line(harmless(header));
    if details.header_cut {
        terminal.say("the header is longer; --content has all of it");
    }
}

fn tell_recipients(details: &MailDetails, terminal: &mut Terminal<'_>) {
    let mut rows = table([
        "TO",
        "STATE",
        "ROUTE",
        "TRIES",
        "NEXT ATTEMPT",
        "LAST OUTCOME",
    ]);
    for recipient in &details.recipients {
        let outcome = recipient
            .outcome
            .as_ref()
            .map(|outcome| because(outcome.report()));
        rows.add_row([
            Cell::new(one_line(&address(details, recipient), 50)),
            Cell::new(state(recipient)),
            Cell::new(format!(
                "{} ({})",
                recipient.route.class, recipient.route.rule
            )),
            Cell::new(recipient.attempts),
            Cell::new(recipient.next_attempt.map_or_else(String::new, local_time)),
            Cell::new(one_line(&outcome.unwrap_or_default(), 60)),
        ]);
    }
    terminal.line("");
    terminal.line(lines(&rows));
}

/// What happened, with its cause before it.
fn because(report: &StatusReport) -> String {
    match report.cause {
        Some(cause) => format!("{cause}: {}", report.text),
        None => report.text.clone(),
    }
}

fn address(details: &MailDetails, recipient: &RecipientDetails) -> String {
    let known = details.envelope.recipient(recipient.index);
    known.map_or_else(String::new, |known| known.address.to_string())
}

fn state(recipient: &RecipientDetails) -> &'static str {
    match (recipient.state, &recipient.outcome) {
        (Some(state), _) => state.as_str(),
        (None, Some(outcome)) => outcome.action(),
        // By an order: nothing else ends a recipient without an outcome.
        (None, None) => "dropped",
    }
}

fn recipient_json(details: &MailDetails, recipient: &RecipientDetails) -> Value {
    json!({
        "index": recipient.index.0,
        "rcpt_to": address(details, recipient),
        "state": state(recipient),
        "route": recipient.route.class.as_str(),
        "destination": recipient.route.destination,
        "rule": recipient.route.rule,
        "store": recipient.route.store.named(),
        "attempts": recipient.attempts,
        "next_attempt": recipient.next_attempt.map(utc_time),
        "outcome": recipient.outcome.as_ref().map(|outcome| json!({
            "action": outcome.action(),
            "status": outcome.report().status.to_string(),
            "cause": outcome.report().cause.map(|cause| cause.as_str()),
            "text": outcome.report().text,
        })),
    })
}
