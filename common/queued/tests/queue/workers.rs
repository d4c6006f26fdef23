//! Workers and their leases, by hand.

use std::time::Duration;

use postroad_daemon::Interval;
use postroad_envelope::{RouteClass, Timestamp};
use postroad_queue_client::{FormerStream, QueueAdmin, QueueError, SettleResult, WorkDown, WorkUp};
use tokio::time::timeout;

use crate::setup::{PATIENCE, Stack, Worker, config, delivered, mail, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_reconnects_goes_on_under_a_new_fence() {
    let stack = Stack::new().await;
    submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    drop(worker);
    let mut worker = Worker::reconnect(&stack.queue, LOCAL, &[lease.lease]).await;
    let [(old, Some(new))] = worker.resumed[..] else {
        panic!("{:?}", worker.resumed)
    };
    assert_eq!(old, lease.lease);
    assert!(new.fence > old.fence);
    assert_eq!(
        worker.settle(&lease, &delivered()).await,
        SettleResult::Stale
    );
    let settled = worker.settle_each(new, vec![(lease.envelope.recipients[0].index, delivered())]);
    assert_eq!(settled.await, SettleResult::Durable);
    stack.stop().await;
}

/// The connection broke, and the queue does not know yet, or knows and would wait for the grace.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_that_came_back_does_not_hold_is_due_at_once() {
    let mut config = config();
    config.lease.stream_grace = Interval::hours(1);
    let stack = Stack::with(config).await;
    for _ in 0..2 {
        submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
            .await
            .unwrap();
    }
    let mut before = Worker::connect(&stack.queue, LOCAL).await;
    let (held, lost) = (before.lease().await, before.lease().await);
    let former = Some(before.former());
    let queue = &stack.queue;
    // Nobody else comes back from there, and from another epoch nobody does.
    let mut other = Worker::come_back(queue, "other@localhost", LOCAL, &[], former).await;
    other.say(WorkUp::Credits(2)).await;
    other.expect_nothing(Duration::from_millis(150)).await;
    let old = former.map(|former| FormerStream {
        epoch: former.epoch - 1,
        ..former
    });
    let agent = "test@localhost";
    let mut early = Worker::come_back(queue, agent, LOCAL, &[], old).await;
    early.say(WorkUp::Credits(2)).await;
    early.expect_nothing(Duration::from_millis(150)).await;

    let mut worker = Worker::come_back(queue, agent, LOCAL, &[held.lease], former).await;
    let [(_, Some(new))] = worker.resumed[..] else {
        panic!("{:?}", worker.resumed)
    };
    let again = other.next_lease().await;
    assert_eq!(again.lease.job, lost.lease.job);
    assert_eq!(again.attempt, 1, "a lost lease costs no attempt");
    assert_eq!(
        before.settle(&lost, &delivered()).await,
        SettleResult::Stale
    );
    for (worker, lease) in [(&mut worker, new), (&mut other, again.lease)] {
        let outcome = vec![(held.envelope.recipients[0].index, delivered())];
        assert_eq!(
            worker.settle_each(lease, outcome).await,
            SettleResult::Durable
        );
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_survives_a_restart_of_the_queue() {
    let stack = Stack::new().await;
    submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    // The hint rides with the next write.
    submit(&stack.queue, &mail("", &["x@far.test"]), b"\r\nhi")
        .await
        .unwrap();
    let stack = stack.restart().await;
    let mut other = Worker::connect(&stack.queue, LOCAL).await;
    other.say(WorkUp::Credits(1)).await;
    other.expect_nothing(Duration::from_millis(150)).await;
    let mut worker = Worker::reconnect(&stack.queue, LOCAL, &[lease.lease]).await;
    let [(_, Some(new))] = worker.resumed[..] else {
        panic!("{:?}", worker.resumed)
    };
    assert!(new.fence.epoch > lease.lease.fence.epoch);
    let settled = worker.settle_each(new, vec![(lease.envelope.recipients[0].index, delivered())]);
    assert_eq!(settled.await, SettleResult::Durable);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_is_revoked_and_its_result_refused() {
    let mut config = config();
    config.lease.duration = Interval::millis(150);
    let stack = Stack::with(config).await;
    submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    loop {
        if let WorkDown::Revoked(over) = worker.hear().await {
            assert_eq!(over, [lease.lease]);
            break;
        }
    }
    assert_eq!(
        worker.settle(&lease, &delivered()).await,
        SettleResult::Stale
    );
    let late = stack.queue.trace(lease.lease.job.queue_id).await.unwrap();
    assert!(
        late.iter().any(|event| event.kind.as_str() == "late"),
        "{late:?}"
    );
    let again = worker.lease().await;
    assert_eq!(again.attempt, 1, "a lost lease costs no attempt");
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        worker.say(WorkUp::Extend(vec![again.lease])).await;
    }
    assert_eq!(
        worker.settle(&again, &delivered()).await,
        SettleResult::Durable
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_listen_keeps_nobody_else_waiting() {
    let stack = Stack::new().await;
    let mut deaf = Worker::connect(&stack.queue, LOCAL).await;
    deaf.say(WorkUp::Credits(10_000)).await;
    for _ in 0..400 {
        submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
            .await
            .unwrap();
    }
    let mut keen = Worker::connect(&stack.queue, LOCAL).await;
    let lease = keen.lease().await;
    assert_eq!(
        keen.settle(&lease, &delivered()).await,
        SettleResult::Durable
    );
    drop(deaf);
    stack.stop().await;
}

/// One that was cut off without a word has room, as far as the queue knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_nothing_is_not_given_more_than_one_that_works() {
    let stack = Stack::new().await;
    let mut silent = Worker::connect(&stack.queue, LOCAL).await;
    let mut keen = Worker::connect(&stack.queue, LOCAL).await;
    for worker in [&mut silent, &mut keen] {
        worker.say(WorkUp::Credits(20)).await;
    }
    let mut carried = 0;
    for _ in 0..20 {
        submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
            .await
            .unwrap();
        let lease = tokio::select! {
            lease = keen.next_lease() => lease,
            _ = silent.next_lease() => continue,
        };
        carried += 1;
        let settled = keen.settle(&lease, &delivered()).await;
        assert_eq!(settled, SettleResult::Durable);
        keen.say(WorkUp::Credits(1)).await;
    }
    assert!(carried >= 15, "only {carried} of 20");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_later_is_not_leased_before() {
    let stack = Stack::new().await;
    let mut envelope = mail("", &["bob@local.test"]);
    let later = Timestamp::from(std::time::SystemTime::now()).plus(Duration::from_millis(400));
    envelope.not_before = Some(later);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    worker.lease().await;
    assert!(Timestamp::from(std::time::SystemTime::now()) >= later);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_queue_waits_for_its_workers_and_takes_nothing_new() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let stack = Stack::with_grace(folder, config(), Duration::from_secs(20)).await;
    submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    let queue = stack.queue.clone();
    let stopped = tokio::spawn(stack.stop());
    loop {
        if matches!(worker.hear().await, WorkDown::Drain) {
            break;
        }
    }
    let refused = submit(&queue, &mail("", &["bob@local.test"]), b"\r\nhi").await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))));
    assert_eq!(
        worker.settle(&lease, &delivered()).await,
        SettleResult::Durable
    );
    timeout(PATIENCE, stopped)
        .await
        .expect("does not wait longer")
        .unwrap();
}
