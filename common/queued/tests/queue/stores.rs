//! Accounts of several stores: each store's worker gets the mail of its own, and mail that waits follows an account that
//! moves, but never away from a worker that may have filed it.

use std::{fs, sync::Arc, time::Duration};

use postroad_directory::move_account;
use postroad_envelope::{QueueId, RecipientIndex, RouteClass, Timestamp};
use postroad_queue_client::{
    Change, Filter, HandBack, Lease, QueueAdmin as _, Settlement, Touch, WorkHello, WorkUp,
};

use tokio::time::{sleep, timeout};

use crate::setup::{PATIENCE, Stack, Worker, config, delayed, delivered, mail, submit};

const DIRECTORY: &str = r#"
[[domain]]
name = "local.test"
postmaster = "alice@local.test"

[[account]]
address = "alice@local.test"

[[account]]
address = "bob@local.test"
store = "b"

[[account]]
address = "carol@local.test"
"#;

async fn stack() -> Stack {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("directory.toml"), DIRECTORY).unwrap();
    Stack::in_folder(folder, config()).await
}

/// A worker for local mail of these stores; none is said to be an agent of the version before.
async fn worker(stack: &Stack, stores: &[&str]) -> Worker {
    let hello = WorkHello {
        agent: "mda@localhost".to_owned(),
        version: "0".to_owned(),
        host: "localhost".to_owned(),
        classes: vec![RouteClass::Local],
        stores: stores.iter().map(|name| name.parse().unwrap()).collect(),
        held: Vec::new(),
        former: None,
        joins: false,
    };
    Worker::enter(&stack.queue, hello).await
}

async fn submitted(stack: &Stack, recipients: &[&str]) -> QueueId {
    let mail = mail("", recipients);
    submit(&stack.queue, &mail, b"\r\nhi").await.unwrap();
    mail.queue_id
}

fn move_to(stack: &Stack, account: &str, store: &str) {
    let file = stack.folder.path().join("directory.toml");
    move_account(&file, &account.parse().unwrap(), &store.parse().unwrap()).unwrap();
    stack.directory.reload().unwrap();
}

fn addresses(lease: &Lease) -> Vec<String> {
    let recipients = lease.envelope.recipients.iter();
    recipients.map(|to| to.address.to_string()).collect()
}

/// Says that all recipients of a lease are of another store.
async fn elsewhere(worker: &mut Worker, lease: &Lease) {
    hand_back(worker, lease, Touch::Elsewhere).await;
}

async fn hand_back(worker: &mut Worker, lease: &Lease, touch: Touch) {
    let back = HandBack {
        lease: lease.lease,
        delay: Duration::from_secs(3600),
        reason: "test".to_owned(),
        touch,
    };
    worker.say(WorkUp::HandBack(back)).await;
}

#[tokio::test]
async fn each_store_gets_its_own_and_an_absent_one_keeps_nobody_waiting() {
    let stack = stack().await;
    let id = submitted(
        &stack,
        &["bob@local.test", "alice@local.test", "carol@local.test"],
    )
    .await;
    let mut default = worker(&stack, &[]).await;
    let lease = default.lease().await;
    assert_eq!(addresses(&lease), ["alice@local.test", "carol@local.test"]);
    assert_eq!(lease.route.rule, "local domain");
    default.settle(&lease, &delivered()).await;

    let mut b = worker(&stack, &["b"]).await;
    let lease = b.lease().await;
    assert_eq!(
        (lease.envelope.queue_id, addresses(&lease)),
        (id, vec!["bob@local.test".to_owned()])
    );
    assert_eq!(lease.route.store.as_str(), "b");
    assert_eq!(lease.route.rule, "local domain, store b");
    assert_eq!(lease.route.destination, "local.test");
    b.settle(&lease, &delivered()).await;
    let agents = stack.queue.agents().await.unwrap();
    let stores = agents.iter().map(|agent| agent.stores[0].as_str());
    assert_eq!(stores.collect::<Vec<_>>(), ["default", "b"]);
    stack.stop().await;
}

#[tokio::test]
async fn mail_that_nobody_had_follows_its_account_after_a_restart_too() {
    let stack = stack().await;
    submitted(&stack, &["alice@local.test"]).await;
    move_to(&stack, "alice@local.test", "b");
    let mut b = worker(&stack, &["b"]).await;
    assert_eq!(addresses(&b.lease().await), ["alice@local.test"]);
    drop(b);
    let second = submitted(&stack, &["carol@local.test"]).await;
    move_to(&stack, "carol@local.test", "c");
    let stack = stack.restart().await;
    let mut c = worker(&stack, &["c"]).await;
    assert_eq!(c.lease().await.envelope.queue_id, second);
    stack.stop().await;
}

#[tokio::test]
async fn a_worker_gives_back_what_has_moved_and_it_costs_no_attempt() {
    let stack = stack().await;
    submitted(&stack, &["alice@local.test"]).await;
    let (mut default, mut b) = (
        worker(&stack, &["default"]).await,
        worker(&stack, &["b"]).await,
    );
    let lease = default.lease().await;
    move_to(&stack, "alice@local.test", "b");
    elsewhere(&mut default, &lease).await;
    let lease = b.lease().await;
    assert_eq!(
        (addresses(&lease), lease.attempt),
        (vec!["alice@local.test".to_owned()], 1)
    );
    assert_eq!(lease.route.store.as_str(), "b");
    stack.stop().await;
}

#[tokio::test]
async fn what_a_lost_worker_may_have_filed_goes_elsewhere_only_once_it_has_said_so() {
    let stack = stack().await;
    submitted(&stack, &["alice@local.test"]).await;
    let mut default = worker(&stack, &[]).await;
    default.lease().await;
    drop(default);
    move_to(&stack, "alice@local.test", "b");
    let mut b = worker(&stack, &["b"]).await;
    b.say(WorkUp::Credits(1)).await;
    // Longer than the grace of a lost stream and than upkeep takes.
    b.expect_nothing(Duration::from_secs(2)).await;

    let mut default = worker(&stack, &[]).await;
    let lease = default.lease().await;
    hand_back(&mut default, &lease, Touch::Unclear).await;
    b.expect_nothing(Duration::from_secs(1)).await;
    drop(default);
    let mut again = worker(&stack, &[]).await;
    again.say(WorkUp::Credits(1)).await;
    changed(&stack, Change::Retry).await;
    let lease = again.next_lease().await;
    elsewhere(&mut again, &lease).await;
    assert_eq!(addresses(&b.next_lease().await), ["alice@local.test"]);
    stack.stop().await;
}

#[tokio::test]
async fn what_was_tried_in_vain_is_asked_for_at_once_and_an_operator_can_do_without() {
    let mut config = config();
    // What waits for its next attempt would wait for an hour.
    (config.retry.first, config.retry.max) = ("1h".parse().unwrap(), "1h".parse().unwrap());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("directory.toml"), DIRECTORY).unwrap();
    let stack = Stack::in_folder(folder, config).await;
    submitted(&stack, &["alice@local.test"]).await;
    let mut default = worker(&stack, &[]).await;
    let lease = default.lease().await;
    default.settle(&lease, &delayed()).await;
    default.say(WorkUp::Credits(1)).await;
    move_to(&stack, "alice@local.test", "b");
    let lease = default.next_lease().await;
    assert_eq!(lease.attempt, 2, "before its hour is over");
    hand_back(&mut default, &lease, Touch::Unclear).await;
    drop(default);

    let mut b = worker(&stack, &["b"]).await;
    let local = Change::Reroute {
        class: RouteClass::Local,
        next_hop: None,
    };
    changed(&stack, local).await;
    assert_eq!(addresses(&b.lease().await), ["alice@local.test"]);
    stack.stop().await;
}

#[tokio::test]
async fn of_one_job_each_recipient_goes_to_its_store_once() {
    let stack = stack().await;
    submitted(&stack, &["alice@local.test", "carol@local.test"]).await;
    let (mut default, mut b) = (worker(&stack, &[]).await, worker(&stack, &["b"]).await);
    let lease = default.lease().await;
    move_to(&stack, "carol@local.test", "b");
    let settlement = Settlement {
        lease: lease.lease,
        outcomes: vec![(RecipientIndex(0), delivered())],
        sites: Vec::new(),
        started_at: Timestamp::from(std::time::SystemTime::now()),
        elsewhere: vec![RecipientIndex(1)],
        timed: Vec::new(),
        reporting: Vec::new(),
    };
    default.say(WorkUp::Settle(settlement)).await;
    let lease = b.lease().await;
    assert_eq!(addresses(&lease), ["carol@local.test"]);
    b.settle(&lease, &delivered()).await;
    let left = stack.queue.list(Default::default()).await.unwrap();
    assert!(left.mails.is_empty(), "{left:?}");
    stack.stop().await;
}

/// Changes the one mail there is, as soon as no worker holds it any more.
async fn changed(stack: &Stack, change: Change) {
    let changed = async {
        while stack
            .queue
            .change(change.clone(), Filter::all().into())
            .await
            .unwrap()
            .mails
            == 0
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("in time");
}
