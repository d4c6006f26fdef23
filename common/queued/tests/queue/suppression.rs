//! Recipients that are not tried since mail to them has failed for good.

use postroad_daemon::Interval;
use postroad_envelope::{Cause, Outcome, RouteClass, Stage, StatusReport, Suppression};
use postroad_queue_client::{Lease, QueueAdmin as _, QueueError};
use postroad_reply::{
    BAD_MAILBOX_5_1_1, MAILBOX_BUSY_450, MAILBOX_UNAVAILABLE_550, Reply, ReplyCode,
};
use tokio::time::timeout;

use crate::setup::{PATIENCE, Stack, Worker, config, mail, submit};

const ALL: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];

fn unknown() -> Outcome {
    said(MAILBOX_UNAVAILABLE_550)
}

fn said(code: ReplyCode) -> Outcome {
    let reply = Reply::new(code, BAD_MAILBOX_5_1_1, "no such user");
    Outcome::Failed(StatusReport {
        reply: Some(reply),
        ..StatusReport::local(BAD_MAILBOX_5_1_1, "the host said no").at(Stage::Rcpt)
    })
}

fn text(lease: &Lease) -> String {
    String::from_utf8(lease.content.as_ref().expect("small").to_vec()).unwrap()
}

async fn entries(stack: &Stack, count: usize) -> Vec<Suppression> {
    let list = async {
        loop {
            let list = stack.queue.suppressions().await.unwrap();
            if list.len() == count {
                return list;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, list).await.expect("the list")
}

/// Submits a mail and lets the host say that there is no such user.
async fn fail_once(stack: &Stack) {
    fail(stack, "gone@far.test", &unknown()).await;
}

async fn fail(stack: &Stack, to: &str, outcome: &Outcome) {
    let envelope = mail("alice@local.test", &[to]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    let lease = worker.lease().await;
    worker.settle(&lease, outcome).await;
}

/// A host with soft_bounce, whose mail was put off until its time was over.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_said_for_now_enters_nobody() {
    let mut config = config();
    config.suppression.enabled = true;
    let stack = Stack::with(config).await;
    fail(&stack, "late@far.test", &said(MAILBOX_BUSY_450)).await;
    fail_once(&stack).await;
    let listed = entries(&stack, 1).await;
    assert_eq!(listed[0].address, "gone@far.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_to_a_mailbox_that_is_not_there_is_tried_once_until_it_is_released() {
    let mut config = config();
    config.suppression.enabled = true;
    let stack = Stack::with(config.clone()).await;
    fail_once(&stack).await;
    let listed = entries(&stack, 1).await;
    assert_eq!(listed[0].address, "gone@far.test");
    assert!(listed[0].reason.contains("no such user"), "{listed:?}");
    assert!(listed[0].until.is_some());

    // In force after a restart, too.
    let folder = stack.stop().await;
    let stack = Stack::in_folder(folder, config).await;
    assert_eq!(entries(&stack, 1).await, listed);
    let envelope = mail("bob@local.test", &["GONE@far.test", "there@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nagain").await.unwrap();
    let shown = stack.queue.show(envelope.queue_id).await.unwrap();
    let outcome = shown.recipients[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.report().cause, Some(Cause::Suppressed));
    assert_eq!(shown.recipients[1].outcome, None);
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let mut told = false;
    for _ in 0..3 {
        let lease = worker.lease().await;
        match lease.route.class {
            RouteClass::Local => told |= text(&lease).contains("X-Postroad-Cause: suppressed"),
            _ => assert_eq!(
                lease.envelope.recipients[0].address.to_string(),
                "there@far.test"
            ),
        }
        worker.settle(&lease, &crate::setup::delivered()).await;
        if told
            && stack
                .queue
                .list(Default::default())
                .await
                .unwrap()
                .mails
                .is_empty()
        {
            break;
        }
    }
    assert!(told, "the sender is told, with what to do");

    let released = stack
        .queue
        .release_suppression("gone@far.test", "", None, "test")
        .await;
    assert_eq!(released, Ok(1));
    entries(&stack, 0).await;
    let again = stack
        .queue
        .release_suppression("gone@far.test", "", None, "test")
        .await;
    assert_eq!(again, Err(QueueError::NotFound));
    let envelope = mail("bob@local.test", &["gone@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nonce more")
        .await
        .unwrap();
    let lease = worker.lease().await;
    assert_eq!(lease.envelope.queue_id, envelope.queue_id);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_entered_unless_it_is_wished_and_the_oldest_make_room() {
    let mut config = config();
    config.suppression.max_entries = 2;
    config.suppression.keep = Interval::seconds(0);
    let stack = Stack::with(config).await;
    fail_once(&stack).await;
    assert_eq!(stack.queue.suppressions().await.unwrap(), []);
    for address in ["a@far.test", "b@far.test", "c@far.test"] {
        let one = Suppression {
            address: address.to_owned(),
            tenant: "default".to_owned(),
            account: None,
            since: Default::default(),
            until: None,
            reason: "wished".to_owned(),
            by: String::new(),
        };
        stack.queue.put_suppression(one).await.unwrap();
    }
    let left = entries(&stack, 2).await;
    assert_eq!(
        (left[0].address.as_str(), left[1].address.as_str()),
        ("b@far.test", "c@far.test")
    );
    stack.stop().await;
}
