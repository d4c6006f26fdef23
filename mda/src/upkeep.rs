//! What the store needs now and then.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_envelope::QueueId;
use postroad_maildir::Store;
use postroad_queue_client::{QueueError, QueueService};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_hours(24);
/// Ledger entries asked about in one round; more wait for the next.
const ENTRIES: usize = 10_000;

/// Sweeps and reconciles at the start and once a day.
pub async fn run(store: Store, queue: Arc<dyn QueueService>, shutdown: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        sweep(&store).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = reconcile(&store, &*queue) => {}
        }
    }
}

async fn sweep(store: &Store) {
    let store = store.clone();
    match spawn_blocking(move || store.sweep(SystemTime::now())).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::info!(
            count,
            "removed files of deliveries that were never finished"
        ),
        Ok(Err(error)) => tracing::warn!(%error, "cannot look for old tmp files"),
        Err(error) => tracing::warn!(%error, "cannot look for old tmp files"),
    }
}

/// Forgets deliveries of mails the queue no longer has: their settlement is durable, and only the forgetting
/// was lost in a crash. A mail with a recipient still to be settled always has its content in the queue.
async fn reconcile(store: &Store, queue: &dyn QueueService) {
    let listed = store.clone();
    let Ok(ids) = spawn_blocking(move || listed.unsettled()).await else {
        return;
    };
    let mut gone = Vec::new();
    for id in ids.into_iter().take(ENTRIES) {
        let Ok(queue_id) = id.queue_id().parse::<QueueId>() else {
            continue;
        };
        match queue.read(queue_id, 0).await {
            Err(QueueError::NotFound) => gone.push(id),
            Ok(_) => {}
            // Nothing can be told now.
            Err(_) => break,
        }
    }
    let count = gone.len();
    let store = store.clone();
    let forgotten = spawn_blocking(move || gone.iter().for_each(|id| store.forget(id))).await;
    if forgotten.is_ok() && count > 0 {
        tracing::info!(
            count,
            "forgot deliveries whose mails the queue has finished"
        );
    }
}
