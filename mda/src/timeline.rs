//! Events for a mail's timeline.

use std::collections::BTreeMap;
use std::path::Path;

use postroad_envelope::{Event, EventKind, Outcome, Recipient, Timestamp};
use postroad_queue_client::Lease;

/// What happened to one recipient.
pub fn event(
    host: &str,
    lease: &Lease,
    recipient: &Recipient,
    outcome: &Outcome,
    path: Option<&Path>,
    at: Timestamp,
) -> Event {
    let report = outcome.report();
    let mut fields = BTreeMap::from([
        ("outcome".to_owned(), outcome.action().to_owned()),
        ("enhanced".to_owned(), report.status.to_string()),
        ("attempt".to_owned(), lease.attempt.to_string()),
    ]);
    if let Some(path) = path {
        fields.insert("path".to_owned(), path.display().to_string());
    }
    Event {
        queue_id: lease.envelope.queue_id,
        at,
        agent: format!("mda@{host}"),
        kind: match outcome {
            Outcome::Delivered(_) => EventKind::Delivered,
            _ => EventKind::Attempt,
        },
        recipients: vec![recipient.index],
        text: report.text.clone(),
        fields,
    }
}
