//! What senders are told.

use postroad_address::Mailbox;
use postroad_daemon::Interval;
use postroad_envelope::{EditPlace, HeaderEdit, Notify, Recipient, RecipientIndex, RouteClass};
use postroad_queue_client::{Lease, QueueAdmin, QueueService, SettleResult};

use tokio::time::timeout;

use crate::setup::{
    PATIENCE, Stack, Worker, config, delayed, delivered, failed, mail, relayed, submit,
};

const ALL: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];

fn text(lease: &Lease) -> String {
    String::from_utf8(lease.content.as_ref().expect("small").to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_one_mail_share_a_report_to_its_sender() {
    let mut config = config();
    config.dsn.gather = Interval::seconds(5);
    let stack = Stack::with(config).await;
    let envelope = mail("alice@local.test", &["x@far.test", "y@other.test"]);
    submit(
        &stack.queue,
        &envelope,
        b"Subject: greetings\r\n\r\nbody\r\n",
    )
    .await
    .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    for _ in 0..2 {
        let lease = worker.lease().await;
        assert_eq!(
            worker.settle(&lease, &failed()).await,
            SettleResult::Durable
        );
    }
    let report = worker.lease().await;
    assert!(report.envelope.reverse_path.is_null());
    assert_eq!(
        report.envelope.recipients[0].address.to_string(),
        "alice@local.test"
    );
    let content = text(&report);
    for expected in [
        "Content-Type: multipart/report",
        "Final-Recipient: rfc822;x@far.test",
        "Final-Recipient: rfc822;y@other.test",
        "Action: failed",
        "Status: 5.1.1",
        "Subject: greetings",
        "MAILER-DAEMON@mail.local.test",
    ] {
        let found = content.replace("rfc822; ", "rfc822;").contains(expected);
        assert!(found, "{expected} is missing in\n{content}");
    }
    let list = stack.queue.list(Default::default()).await.unwrap();
    assert_eq!(list.mails.len(), 1, "only the report is left");
    let told = async {
        let told = async || stack.queue.trace(envelope.queue_id).await.unwrap();
        while !told()
            .await
            .iter()
            .any(|event| event.kind.as_str() == "dsn_sent")
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, told)
        .await
        .expect("the timeline tells of it");

    // A report that fails is not reported.
    assert_eq!(
        worker.settle(&report, &failed()).await,
        SettleResult::Durable
    );
    assert_eq!(
        stack.queue.list(Default::default()).await.unwrap().mails,
        []
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_whose_time_is_over_is_reported_as_expired() {
    let mut config = config();
    config.retry.give_up_after = Interval::millis(500);
    let stack = Stack::with(config).await;
    submit(
        &stack.queue,
        &mail("alice@local.test", &["x@far.test"]),
        b"\r\nhi",
    )
    .await
    .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let report = loop {
        let lease = worker.lease().await;
        if lease.route.class == RouteClass::Local {
            break lease;
        }
        worker.settle(&lease, &delayed()).await;
    };
    let content = text(&report);
    assert!(content.contains("Status: 5.4.7"), "{content}");
    assert!(content.contains("nobody answers"), "{content}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_no_worker_came_for_expires_too() {
    let mut config = config();
    config.retry.give_up_after = Interval::millis(300);
    config.lease.duration = Interval::millis(200);
    let stack = Stack::with(config).await;
    submit(
        &stack.queue,
        &mail("alice@local.test", &["x@far.test"]),
        b"\r\nhi",
    )
    .await
    .unwrap();
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    let content = text(&worker.lease().await);
    assert!(content.contains("Status: 5.4.7"), "{content}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_decides_who_is_told_of_what() {
    let stack = Stack::new().await;
    let mut envelope = mail("alice@local.test", &["never@far.test", "success@far.test"]);
    envelope.recipients[0].notify = Notify::Never;
    envelope.recipients[1].notify = Notify::On {
        success: true,
        failure: false,
        delay: false,
    };
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    let [never, success] = &lease.envelope.recipients[..] else {
        panic!("two")
    };
    let outcomes = vec![(never.index, failed()), (success.index, delivered())];
    assert_eq!(
        worker.settle_each(lease.lease, outcomes).await,
        SettleResult::Durable
    );
    let content = text(&worker.lease().await);
    assert!(content.contains("Action: delivered"), "{content}");
    assert!(!content.contains("never@far.test"), "{content}");
    stack.stop().await;
}

const SUCCESS: Notify = Notify::On {
    success: true,
    failure: true,
    delay: true,
};

/// RFC 3461 §5.2.1 and §5.2.2.
#[tokio::test(flavor = "multi_thread")]
async fn relayed_mail_is_reported_where_the_next_host_does_not_report() {
    let stack = Stack::new().await;
    let mut envelope = mail("alice@local.test", &["dsn@far.test", "none@far.test"]);
    envelope.envid = Some("envelope 7".to_owned());
    envelope.header_edits.push(HeaderEdit::Add {
        place: EditPlace::Bottom,
        field: b"Message-ID: <7@local.test>\r\n".to_vec(),
    });
    for recipient in &mut envelope.recipients {
        recipient.notify = SUCCESS;
    }
    submit(&stack.queue, &envelope, b"Subject: s\r\n\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    let all = [0, 1].map(|index| (RecipientIndex(index), relayed()));
    let settled = worker
        .settle_reporting(lease.lease, all.into(), vec![RecipientIndex(0)])
        .await;
    assert_eq!(settled, SettleResult::Durable);
    let content = text(&worker.lease().await);
    for expected in [
        "Subject: Relayed: your mail to none@far.test",
        "Original-Envelope-Id: envelope 7",
        "Action: relayed",
        "Status: 2.0.0",
        "text/rfc822-headers",
        "\r\nSubject: s\r\nMessage-ID: <7@local.test>\r\n",
    ] {
        assert!(
            content.contains(expected),
            "{expected} is missing in\n{content}"
        );
    }
    assert!(!content.contains("dsn@far.test"), "{content}");
    stack.stop().await;
}

/// RFC 3461 §5.2.7.3.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_stands_for_several_is_reported_once_as_expanded() {
    let stack = Stack::new().await;
    let mut envelope = mail(
        "alice@local.test",
        &["x@far.test", "y@far.test", "z@far.test"],
    );
    for recipient in &mut envelope.recipients[..2] {
        recipient.original = Mailbox::parse("team@local.test").ok();
        recipient.notify = SUCCESS;
    }
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    // Of the report, and of the mail behind it.
    let (mut report, mut lease) = (None, None);
    for _ in 0..2 {
        let next = worker.lease().await;
        match next.envelope.reverse_path.is_null() {
            true => report = Some(next),
            false => lease = Some(next),
        }
    }
    let (report, lease) = (report.unwrap(), lease.unwrap());
    let content = text(&report);
    for expected in [
        "Subject: Passed on: your mail to team@local.test",
        "Final-Recipient: rfc822; team@local.test",
        "Action: expanded",
    ] {
        assert!(
            content.contains(expected),
            "{expected} is missing in\n{content}"
        );
    }
    assert!(
        !content.contains("far.test"),
        "where it led to is not told:\n{content}"
    );
    let asks = |one: &Recipient| matches!(one.notify, Notify::On { success: true, .. });
    assert!(!lease.envelope.recipients.iter().any(asks), "{lease:?}");
    worker.settle(&report, &delivered()).await;
    worker.settle(&lease, &relayed()).await;
    assert_eq!(
        stack.queue.list(Default::default()).await.unwrap().mails,
        []
    );
    stack.stop().await;
}

/// RFC 3461 §5.2.5: once, and only who wants it.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_takes_long_is_reported_once() {
    let mut config = config();
    config.dsn.delay_after = Interval::millis(1);
    config.retry.first = Interval::millis(50);
    let stack = Stack::with(config).await;
    let mut envelope = mail("alice@local.test", &["x@far.test", "silent@far.test"]);
    envelope.recipients[1].notify = Notify::On {
        success: false,
        failure: true,
        delay: false,
    };
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let mut reports = Vec::new();
    for _ in 0..4 {
        let lease = worker.lease().await;
        match lease.envelope.reverse_path.is_null() {
            true => {
                reports.push(text(&lease));
                worker.settle(&lease, &delivered()).await;
            }
            false => drop(worker.settle(&lease, &delayed()).await),
        }
    }
    let [content] = &reports[..] else {
        panic!("{} reports", reports.len())
    };
    for expected in [
        "Subject: Delayed: your mail to x@far.test",
        "Action: delayed",
        "Will-Retry-Until: ",
    ] {
        assert!(
            content.contains(expected),
            "{expected} is missing in\n{content}"
        );
    }
    assert!(!content.contains("silent@far.test"), "{content}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_delays_where_that_is_off() {
    let mut config = config();
    config.dsn.delay_after = Interval::seconds(0);
    config.retry.first = Interval::millis(20);
    let stack = Stack::with(config).await;
    let envelope = mail("alice@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    for _ in 0..3 {
        let lease = worker.lease().await;
        assert!(!lease.envelope.reverse_path.is_null());
        worker.settle(&lease, &delayed()).await;
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_outlives_a_restart() {
    let mut slow = config();
    slow.dsn.gather = Interval::hours(1);
    let stack = Stack::with(slow).await;
    submit(
        &stack.queue,
        &mail("alice@local.test", &["x@far.test"]),
        b"\r\nhi",
    )
    .await
    .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &failed()).await;
    let folder = stack.stop().await;
    let stack = Stack::in_folder(folder, config()).await;
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let report = worker.lease().await;
    assert!(text(&report).contains("Action: failed"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_mail_goes_back_as_its_header() {
    let stack = Stack::new().await;
    let mut content = b"Subject: big\r\n\r\n".to_vec();
    content.extend(b"0123456789012345678901234567890123456789\r\n".repeat(10_000));
    submit(
        &stack.queue,
        &mail("alice@local.test", &["x@far.test"]),
        &content,
    )
    .await
    .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &failed()).await;
    let report = text(&worker.lease().await);
    assert!(
        report.contains("Subject: big") && !report.contains("0123456789012345"),
        "{report}"
    );
    let _: &dyn QueueService = &stack.queue;
    stack.stop().await;
}
