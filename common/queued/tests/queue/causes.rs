//! Why mail does not get through, and what follows from it.

use std::time::Duration;

use postroad_daemon::Interval;
use postroad_envelope::{Cause, Outcome, RemoteHost, RouteClass, Stage, StatusReport, Timestamp};
use postroad_queue_client::{Lease, QueueAdmin as _};
use postroad_queued::RetryCase;
use postroad_reply::{Reply, ReplyCode};

use crate::setup::{Stack, Worker, config, delayed, failed, mail, submit};

const ALL: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];

fn said(code: u16, text: &str) -> StatusReport {
    let code = ReplyCode::new(code).unwrap();
    let status = if code.value() < 500 { "4.0.0" } else { "5.0.0" };
    StatusReport {
        remote: Some(RemoteHost {
            name: "mx.far.test".to_owned(),
            address: None,
            tls: None,
            tls_policy: None,
        }),
        reply: Some(Reply::plain(code, text)),
        ..StatusReport::local(status.parse().unwrap(), text).at(Stage::Rcpt)
    }
}

fn text(lease: &Lease) -> String {
    String::from_utf8(lease.content.as_ref().expect("small").to_vec()).unwrap()
}

async fn retried_after(outcome: &Outcome, cases: Option<Vec<RetryCase>>) -> (Cause, Duration) {
    let mut config = config();
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(4);
    config.retry.jitter_percent = 0;
    if let Some(cases) = cases {
        config.retry.cases = cases;
    }
    let stack = Stack::with(config).await;
    let envelope = mail("alice@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    let before = Timestamp::from(std::time::SystemTime::now());
    worker.settle(&lease, outcome).await;
    let shown = stack.queue.show(envelope.queue_id).await.unwrap();
    let recipient = shown.recipients.into_iter().next().unwrap();
    let cause = recipient.outcome.unwrap().report().cause.unwrap();
    let after = recipient.next_attempt.unwrap().since(before);
    stack.stop().await;
    (cause, after)
}

fn about(minutes: u64) -> std::ops::Range<Duration> {
    Duration::from_secs(minutes * 60)..Duration::from_secs(minutes * 60 + 50)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greylisted_mail_is_tried_again_sooner_than_others() {
    let greylisted = Outcome::Delayed(said(450, "Greylisted, come back in 300 seconds"));
    let (cause, after) = retried_after(&greylisted, None).await;
    assert_eq!(cause, Cause::Greylisted);
    assert!(about(5).contains(&after), "{after:?}");
    let (cause, after) = retried_after(&delayed(), None).await;
    assert_eq!(cause, Cause::Connection);
    assert!(about(60).contains(&after), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_has_terms_of_its_own() {
    let case = RetryCase {
        domains: vec!["far.test".to_owned()],
        first: Some(Interval::minutes(30)),
        ..RetryCase::default()
    };
    let (_, after) = retried_after(&delayed(), Some(vec![case])).await;
    assert!(about(30).contains(&after), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_the_users_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("causes.toml");
    std::fs::write(
        &rules,
        "[[rule]]\ncause = \"content\"\nhost = ['far\\.test$']\n",
    )
    .unwrap();
    let mut config = config();
    config.cause_rules = Some(rules);
    let stack = Stack::with(config).await;
    let envelope = mail("alice@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    let refused = Outcome::Failed(said(550, "no such user"));
    worker.settle(&lease, &refused).await;
    let report = text(&worker.lease().await);
    assert!(report.contains("X-Postroad-Cause: content"), "{report}");
    assert!(report.contains("does not take mail with this"), "{report}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_told_of_a_report_that_fails_and_there_it_ends() {
    let mut config = config();
    config.dsn.double_bounce_to = Some("postmaster@far.test".parse().unwrap());
    let stack = Stack::with(config).await;
    let envelope = mail("alice@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"Subject: greetings\r\n\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let first = worker.lease().await;
    worker.settle(&first, &failed()).await;
    let report = worker.lease().await;
    assert_eq!(
        report.envelope.recipients[0].address.to_string(),
        "alice@local.test"
    );
    worker.settle(&report, &failed()).await;
    let double = worker.lease().await;
    assert!(double.envelope.reverse_path.is_null());
    assert_eq!(
        double.envelope.recipients[0].address.to_string(),
        "postmaster@far.test"
    );
    let told = text(&double);
    assert!(
        told.contains("Final-Recipient: rfc822; alice@local.test"),
        "{told}"
    );
    assert!(told.contains("Action: failed"), "{told}");
    // That one fails too, and nobody is told: there is nothing left.
    worker.settle(&double, &failed()).await;
    assert_eq!(
        stack.queue.list(Default::default()).await.unwrap().mails,
        []
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_delivered_is_no_double_bounce() {
    let mut config = config();
    config.dsn.double_bounce_to = Some("postmaster@far.test".parse().unwrap());
    let stack = Stack::with(config).await;
    submit(&stack.queue, &mail("", &["alice@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &crate::setup::delivered()).await;
    assert_eq!(
        stack.queue.list(Default::default()).await.unwrap().mails,
        []
    );
    stack.stop().await;
}
