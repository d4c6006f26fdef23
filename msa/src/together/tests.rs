use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_queue_client::{AdmitRequest, ContentStream, Submission, WorkChannel, WorkHello};

use super::*;

/// A fake answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(5);

/// A queue that counts, or hangs, or is of another release.
struct Fake {
    counters: Mutex<Counters>,
    mode: Mutex<Mode>,
    asked: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Mode {
    Counts,
    Hangs,
    Former,
}

fn unsupported<T>() -> Result<T, QueueError> {
    Err(QueueError::Unsupported("not in this test".to_owned()))
}

#[async_trait]
impl QueueService for Fake {
    async fn admit(&self, _: AdmitRequest) -> Result<(), QueueError> {
        unsupported()
    }

    async fn submit(&self, _: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        unsupported()
    }

    async fn work(&self, _: WorkHello) -> Result<WorkChannel, QueueError> {
        unsupported()
    }

    async fn read(&self, _: QueueId, _: u64) -> Result<ContentStream, QueueError> {
        unsupported()
    }

    async fn record(&self, _: Vec<Event>) -> Result<(), QueueError> {
        unsupported()
    }

    async fn count(&self, count: Count) -> Result<Counted, QueueError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Counts => Ok(self.counters.lock().unwrap().count(&count, now())),
            Mode::Hangs => std::future::pending().await,
            Mode::Former => unsupported(),
        }
    }
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            counters: Mutex::new(Counters::new(ROOM)),
            mode: Mutex::new(Mode::Counts),
            asked: AtomicUsize::new(0),
        })
    }

    fn becomes(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Two are borne, the third is a ban.
fn failed(client: &str, add: u64) -> Count {
    Count {
        key: client_key(client),
        add,
        rule: Rule::Ban {
            limit: Limit {
                window: Duration::from_secs(3600),
                most: 2,
            },
            ban: Duration::from_secs(3600),
        },
    }
}

fn client_key(client: &str) -> Key {
    format!("auth_failed/{client}").parse().unwrap()
}

fn copies(queue: &Arc<Fake>) -> [Together; 2] {
    [(); 2].map(|()| Together::new(Arc::clone(queue) as _, PATIENCE, &Metrics::new("msa")))
}

/// As if the pause after a question without an answer were over.
fn no_pause(together: &Together) {
    together.reach().ask_again_at = None;
}

#[tokio::test]
async fn copies_count_together_and_each_knows_who_is_banned_when_the_queue_goes() {
    let queue = Fake::new();
    let [one, other] = copies(&queue);
    let value = async |copy: &Together| copy.count(&failed("192.0.2.7", 1)).await.value;
    assert_eq!((value(&one).await, value(&other).await), (1, 2));
    assert_eq!(one.known_ban(&client_key("192.0.2.7")), None);
    let banned = one.count(&failed("192.0.2.7", 1)).await.banned_until;
    assert!(banned.is_some());
    assert_eq!(one.known_ban(&client_key("192.0.2.7")), banned);
    assert_eq!(other.known_ban(&client_key("192.0.2.7")), None);
    assert_eq!(
        other.count(&failed("192.0.2.7", 0)).await.banned_until,
        banned
    );
    assert_eq!(other.known_ban(&client_key("192.0.2.7")), banned);
    queue.becomes(Mode::Hangs);
    assert_eq!(
        other.count(&failed("192.0.2.7", 0)).await.banned_until,
        banned
    );
    // Lifted meanwhile: the queue's word holds.
    queue
        .counters
        .lock()
        .unwrap()
        .clear(&client_key("192.0.2.7"));
    queue.becomes(Mode::Counts);
    no_pause(&other);
    assert_eq!(
        other.count(&failed("192.0.2.7", 0)).await.banned_until,
        None
    );
    assert_eq!(other.known_ban(&client_key("192.0.2.7")), None);
}

#[tokio::test]
async fn a_copy_counts_alone_and_asks_no_more_for_a_moment() {
    let queue = Fake::new();
    let [one, _] = copies(&queue);
    one.count(&failed("192.0.2.7", 1)).await;
    for mode in [Mode::Hangs, Mode::Former] {
        queue.becomes(mode);
        let asked = queue.asked();
        // Its share of the count goes on.
        assert!(one.count(&failed("192.0.2.7", 0)).await.value >= 1);
        assert_eq!(queue.asked(), asked + 1);
        one.count(&failed("192.0.2.8", 0)).await;
        assert_eq!(queue.asked(), asked + 1, "nobody is kept waiting again");
        one.count(&failed("192.0.2.7", 1)).await;
        no_pause(&one);
    }
    assert!(one.reach().is_away);
    assert!(one.known_ban(&client_key("192.0.2.7")).is_some());
    queue.becomes(Mode::Counts);
    one.count(&failed("192.0.2.9", 0)).await;
    assert!(!one.reach().is_away);
}
