//! Events for a mail's timeline, sent in batches so that no delivery waits for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroad_envelope::{Event, EventKind, Outcome, Recipient, Timestamp};
use postroad_queue_client::{Lease, QueueService};
use tokio::sync::mpsc;
use tokio::time::timeout;

const BATCH: usize = 256;
const PATIENCE: Duration = Duration::from_secs(5);
/// Events waiting for the queue; more are dropped.
pub const BACKLOG: usize = 4096;

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

/// Passes events on until every sender is gone.
pub async fn record(queue: Arc<dyn QueueService>, mut events: mpsc::Receiver<Event>) {
    let mut batch = Vec::with_capacity(BATCH);
    while events.recv_many(&mut batch, BATCH).await > 0 {
        let recorded = timeout(PATIENCE, queue.record(std::mem::take(&mut batch))).await;
        if !matches!(recorded, Ok(Ok(()))) {
            tracing::debug!("events of the timeline were lost");
        }
    }
}
