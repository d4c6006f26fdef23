//! Mail that its account takes back: all of it before anything was tried, or nothing.

use std::time::{Duration, SystemTime};

use postroad_daemon::Interval;
use postroad_envelope::{Envelope, EventKind, RouteClass, Timestamp};
use postroad_queue_client::{HandBack, QueueAdmin, QueueService, Touch, Withdrawn, WorkUp};

use crate::setup::{Stack, Worker, config, delayed, delivered, mail, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];
const ALICE: &str = "alice@local.test";
const CONTENT: &[u8] = b"Subject: regretted\r\n\r\nhi\r\n";

/// Of alice, to somebody here and to somebody elsewhere: two jobs.
fn of_alice(rests: Duration) -> Envelope {
    let mut envelope = mail(ALICE, &["bob@local.test", "friend@far.test"]);
    envelope.account = Some(ALICE.to_owned());
    if !rests.is_zero() {
        envelope.not_before = Some(Timestamp::from(SystemTime::now()).plus(rests));
    }
    envelope
}

async fn sent(queue: &dyn QueueService, rests: Duration) -> Envelope {
    let envelope = of_alice(rests);
    submit(queue, &envelope, CONTENT).await.unwrap();
    envelope
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_rests_is_taken_back_as_a_whole_by_its_account_alone() {
    let stack = Stack::new().await;
    let envelope = sent(&stack.queue, LONG).await;
    let id = envelope.queue_id;
    for other in ["bob@local.test", "nobody", ""] {
        let answer = stack.queue.withdraw(id, other).await.unwrap();
        assert_eq!(answer, Withdrawn::Unknown, "{other}");
    }
    let answer = stack.queue.withdraw(id, "Alice@LOCAL.test").await;
    assert_eq!(answer.unwrap(), Withdrawn::Done);
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Local, RouteClass::Relay]).await;
    worker.say(WorkUp::Credits(5)).await;
    worker.expect_nothing(Duration::from_millis(700)).await;
    let events = stack.queue.trace(id).await.unwrap();
    let withdrawn = events
        .iter()
        .find(|event| event.kind == EventKind::Withdrawn);
    assert!(
        withdrawn
            .unwrap()
            .text
            .contains("before anything was tried")
    );
    // It stays away over a restart, and its id is not free.
    let again = submit(&stack.queue, &envelope, CONTENT).await.unwrap();
    assert!(again.duplicate);
    let stack = stack.restart().await;
    let again = submit(&stack.queue, &envelope, CONTENT).await.unwrap();
    assert!(again.duplicate);
    let answer = stack.queue.withdraw(id, ALICE).await.unwrap();
    assert_eq!(answer, Withdrawn::Unknown);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_had_is_not_taken_back_whatever_became_of_it() {
    let mut config = config();
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    let stack = Stack::with(config).await;
    let envelope = sent(&stack.queue, Duration::ZERO).await;
    let id = envelope.queue_id;
    let withdraw = async || stack.queue.withdraw(id, ALICE).await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(withdraw().await, Withdrawn::TooLate, "it is leased");
    // The worker is lost, and the lease with it: nobody knows what it did.
    drop(worker);
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    worker.say(WorkUp::Credits(1)).await;
    let again = worker.next_lease().await;
    assert_ne!(again.lease, lease.lease);
    worker.settle(&again, &delayed()).await;
    assert_eq!(withdraw().await, Withdrawn::TooLate, "it was tried");
    // The other job was with nobody, and goes on with this one.
    let mut relay = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    let rest = relay.lease().await;
    assert_eq!(rest.envelope.queue_id, id);
    relay.settle(&rest, &delivered()).await;
    assert_eq!(withdraw().await, Withdrawn::TooLate);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_is_remembered() {
    let stack = Stack::new().await;
    let mut envelope = mail(ALICE, &["friend@far.test"]);
    envelope.account = Some(ALICE.to_owned());
    submit(&stack.queue, &envelope, CONTENT).await.unwrap();
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    worker.lease().await;
    drop(worker);
    // Once it is given to another one it was due again; that one leaves, and has not begun it.
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    let lease = worker.lease().await;
    let back = HandBack {
        lease: lease.lease,
        delay: LONG,
        reason: "limited".to_owned(),
        touch: Touch::Untouched,
    };
    worker.say(WorkUp::HandBack(back)).await;
    // What is said behind it is answered behind it.
    submit(&stack.queue, &of_alice(Duration::ZERO), CONTENT)
        .await
        .unwrap();
    worker.lease().await;
    let answer = stack
        .queue
        .withdraw(envelope.queue_id, ALICE)
        .await
        .unwrap();
    assert_eq!(answer, Withdrawn::TooLate);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_only_what_was_never_due_is_taken_back() {
    let stack = Stack::new().await;
    let due = sent(&stack.queue, Duration::ZERO).await;
    let rests = sent(&stack.queue, LONG).await;
    let stack = stack.restart().await;
    let answer = stack.queue.withdraw(due.queue_id, ALICE).await.unwrap();
    assert_eq!(answer, Withdrawn::TooLate, "who knows who had it");
    let answer = stack.queue.withdraw(rests.queue_id, ALICE).await.unwrap();
    assert_eq!(answer, Withdrawn::Done);
    let late = sent(&stack.queue, Duration::ZERO).await;
    let answer = stack.queue.withdraw(late.queue_id, ALICE).await.unwrap();
    assert_eq!(answer, Withdrawn::Done, "it came after the start");
    stack.stop().await;
}

/// Many mails, a worker that takes what it gets, and an account that wants all of them back: each has one of the two ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_with_a_worker_or_taken_back_and_never_both() {
    const MAILS: usize = 60;
    let stack = Stack::new().await;
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    worker.say(WorkUp::Credits(1000)).await;
    let queue = stack.queue.clone();
    let regrets = tokio::spawn(async move {
        let (mut taken_back, mut late) = (Vec::new(), Vec::new());
        for _ in 0..MAILS {
            let mut envelope = mail(ALICE, &["bob@local.test"]);
            envelope.account = Some(ALICE.to_owned());
            submit(&queue, &envelope, CONTENT).await.unwrap();
            let id = envelope.queue_id;
            match queue.withdraw(id, ALICE).await.unwrap() {
                Withdrawn::Done => taken_back.push(id),
                Withdrawn::TooLate | Withdrawn::Unknown => late.push(id),
            }
        }
        (taken_back, late)
    });
    let mut leased = Vec::new();
    let (taken_back, late) = {
        let mut regrets = regrets;
        loop {
            tokio::select! {
                ended = &mut regrets => break ended.unwrap(),
                lease = worker.next_lease() => leased.push(lease.envelope.queue_id),
            }
        }
    };
    while leased.len() < late.len() {
        leased.push(worker.next_lease().await.envelope.queue_id);
    }
    assert_eq!(taken_back.len() + late.len(), MAILS);
    assert!(
        late.iter().all(|id| leased.contains(id)),
        "a late one was lost"
    );
    assert!(
        !taken_back.iter().any(|id| leased.contains(id)),
        "one was both"
    );
    worker.expect_nothing(Duration::from_millis(300)).await;
    stack.stop().await;
}
