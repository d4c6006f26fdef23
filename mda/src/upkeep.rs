//! What the store needs now and then.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postroad_envelope::QueueId;
use postroad_maildir::Store;
use postroad_queue_client::{QueueError, QueueService};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_hours(1);
/// Rounds between two walks through all mailboxes.
const ROUNDS_PER_SWEEP: u64 = 24;
/// Ledger entries asked about in one round; more wait for the next.
const ENTRIES: usize = 10_000;

/// Sweeps and reconciles at the start, then once a day and once an hour.
pub async fn run(store: Store, queue: Arc<dyn QueueService>, shutdown: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0_u64.. {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if round % ROUNDS_PER_SWEEP == 0 {
            sweep(&store).await;
        }
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
        match queue.read_part(queue_id, 0, 1).await {
            Err(QueueError::NotFound) => gone.push(id),
            Ok(_) => {}
            // Nothing can be told now.
            Err(_) => break,
        }
    }
    let count = gone.len();
    let store = store.clone();
    gone.iter().for_each(|id| store.forget(id));
    let forgotten = spawn_blocking(move || store.tidy()).await;
    if forgotten.is_ok() && count > 0 {
        tracing::info!(
            count,
            "forgot deliveries whose mails the queue has finished"
        );
    }
}

#[cfg(test)]
#[path = "../tests/support/queue.rs"]
mod queue;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use postroad_envelope::Timestamp;
    use postroad_maildir::{Begin, DeliveryId, Target};

    use super::queue::FakeQueue;
    use super::*;

    fn deliver(store: &Store) -> QueueId {
        let id = QueueId::mint(Timestamp::from_millis(1_700_000_000_000), rand::random());
        let target = Target::new("example.org", "bob", None).unwrap();
        let name = DeliveryId::new(&id.to_string(), 0).unwrap();
        match store.begin(&target, name, 1_700_000_000).unwrap() {
            Begin::Write(delivery) => delivery.commit().unwrap(),
            Begin::Already(delivered) => panic!("{delivered:?}"),
        };
        id
    }

    #[tokio::test]
    async fn only_what_the_queue_has_finished_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(root.path(), "host").unwrap();
        let (living, _finished) = (deliver(&store), deliver(&store));
        let queue = FakeQueue::new();
        let away = QueueError::Unavailable("away".to_owned());
        *queue.away.lock().unwrap() = Some(away);
        reconcile(&store, &*queue).await;
        assert_eq!(
            store.unsettled().len(),
            2,
            "nothing is known while it is away"
        );

        *queue.away.lock().unwrap() = None;
        queue.contents.lock().unwrap().insert(living, Bytes::new());
        reconcile(&store, &*queue).await;
        let left = store.unsettled();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].queue_id(), living.to_string());
    }
}
