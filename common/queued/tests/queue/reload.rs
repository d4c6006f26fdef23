//! A changed configuration reaches a queue that runs, one that has nothing to do at the moment, and one that still catches up.

use std::time::Duration;

use futures::FutureExt as _;
use postroad_directory::DirectoryHandle;
use postroad_envelope::RouteClass;
use postroad_queue_client::WorkUp;
use postroad_queued::Config;
use tokio_util::sync::CancellationToken;

use crate::setup::{Stack, Worker, common, config, mail, start_when_free, submit};

fn at_most(leases: u32) -> Config {
    let mut config = config();
    config.destination.max_leases = leases;
    config.sites.enabled = true;
    config
}

#[tokio::test]
async fn what_waits_for_a_larger_limit_is_given_out() {
    let stack = Stack::with(at_most(1)).await;
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    for _ in 0..2 {
        let mail = mail("", &["x@far.test"]);
        submit(&stack.queue, &mail, b"\r\nhi").await.unwrap();
    }
    worker.say(WorkUp::Credits(2)).await;
    let first = worker.next_lease().await;
    worker.found_site(&first, "mx.far.test").await;
    stack.queue.renew(at_most(2));
    let second = worker.next_lease().await;
    assert_ne!(first.envelope.queue_id, second.envelope.queue_id);
    stack.stop().await;
}

/// On one thread: whoever brings the queue to life comes to its turn only when this waits.
#[tokio::test]
async fn a_change_while_the_queue_catches_up_holds_from_its_first_lease() {
    let stack = Stack::with(at_most(1)).await;
    for _ in 0..2 {
        let mail = mail("", &["x@far.test"]);
        submit(&stack.queue, &mail, b"\r\nhi").await.unwrap();
    }
    let folder = stack.stop().await;
    let common = common(folder.path());
    let directory = DirectoryHandle::open(&common.directory).unwrap();
    let started = start_when_free(&at_most(1), &common, &directory).await;
    let (queue, running) = started.unwrap();
    assert!(
        queue.caught_up().now_or_never().is_none(),
        "it has caught up"
    );
    queue.renew(at_most(2));

    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
    queue.caught_up().await;
    let mut worker = Worker::connect(&queue, &[RouteClass::Relay]).await;
    worker.say(WorkUp::Credits(2)).await;
    let first = worker.next_lease().await;
    worker.found_site(&first, "mx.far.test").await;
    let second = worker.next_lease().await;
    assert_ne!(first.envelope.queue_id, second.envelope.queue_id);
    drop(worker);
    stop.cancel();
    running.await.unwrap().unwrap();
}
