//! One mail: where it stands, what happened to it.

use comfy_table::Cell;
use postroad_envelope::QueueId;
use postroad_queue_client::{MailDetails, QueueAdmin, RecipientDetails};
use serde_json::{Value, json};

use super::{sender, summary_json};
use crate::fault::Fault;
use crate::terminal::{Terminal, lines, local_time, one_line, table, utc_time};
use crate::timeline;

/// `postroad queue show`.
pub async fn show(
    admin: &dyn QueueAdmin,
    id: QueueId,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let details = admin.show(id).await?;
    let events = admin.trace(id).await?;
    if terminal.wants_json() {
        let mut object = summary_json(&details.summary);
        object["recipients"] = details
            .recipients
            .iter()
            .map(|one| recipient_json(&details, one))
            .collect();
        object["attempts"] = json!(details.attempts.len());
        object["events"] = events.iter().map(timeline::event_json).collect();
        terminal.object(object);
        return Ok(());
    }
    tell(&details, terminal);
    tell_recipients(&details, terminal);
    if !events.is_empty() {
        terminal.line("");
        terminal.line(timeline::of_events(&events));
    }
    Ok(())
}

fn tell(details: &MailDetails, terminal: &mut Terminal<'_>) {
    let mail = &details.summary;
    let origin = &details.envelope.origin;
    let mut rows = table(["MAIL", &mail.queue_id.to_string()]);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            rows.add_row([name.to_owned(), one_line(&value, 100)]);
        }
    };
    row("state", mail.state.as_str().to_owned());
    row("from", sender(mail).to_owned());
    row(
        "account",
        details.envelope.account.clone().unwrap_or_default(),
    );
    row("received", local_time(mail.received_at));
    row(
        "client",
        origin
            .client
            .map_or_else(String::new, |client| client.to_string()),
    );
    row("size", format!("{} octets", mail.size));
    row(
        "next attempt",
        mail.next_attempt.map_or_else(String::new, local_time),
    );
    row("reason", mail.reason.clone());
    terminal.line(lines(&rows));
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
            .map(|outcome| outcome.report().text.clone());
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

fn address(details: &MailDetails, recipient: &RecipientDetails) -> String {
    let known = details.envelope.recipient(recipient.index);
    known.map_or_else(String::new, |known| known.address.to_string())
}

fn state(recipient: &RecipientDetails) -> &'static str {
    match (recipient.state, &recipient.outcome) {
        (Some(state), _) => state.as_str(),
        (None, Some(outcome)) => outcome.action(),
        (None, None) => "done",
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
        "attempts": recipient.attempts,
        "next_attempt": recipient.next_attempt.map(utc_time),
        "outcome": recipient.outcome.as_ref().map(|outcome| json!({
            "action": outcome.action(),
            "status": outcome.report().status.to_string(),
            "text": outcome.report().text,
        })),
    })
}
