//! Mail that waits for the hosts that are to take it.

use std::time::Duration;

use postroad_daemon::Interval;
use postroad_envelope::{Envelope, MailState, Outcome, RouteClass, StatusReport};
use postroad_queue_client::{
    Change, Filter, HandBack, Lease, MailDetails, Order, QueueAdmin, Touch, WorkUp,
};
use postroad_queued::Config;
use postroad_reply::NO_ANSWER_4_4_1;

use crate::setup::{Stack, Worker, config, delayed, delivered, mail, submit};

const ALL: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];

/// What is down is left alone until somebody lifts it.
fn heeding() -> Config {
    let mut config = config();
    config.sites.enabled = true;
    config.sites.probe_first = Interval::hours(1);
    config.sites.probe_longest = Interval::hours(1);
    config.dsn.delay_after = Interval::seconds(0);
    config
}

/// A mail to this domain finds that its host is down, and is gone.
async fn find_down(stack: &Stack, worker: &mut Worker, to: &str, site: &str) {
    submit(&stack.queue, &mail("", &[to]), b"\r\nhi")
        .await
        .unwrap();
    let lease = worker.lease().await;
    let report = StatusReport::local(NO_ANSWER_4_4_1, "nobody answers at the door");
    let all = lease.envelope.recipients.iter();
    let all = all.map(|to| (to.index, Outcome::Failed(report.clone())));
    worker.settle_at(site, lease.lease, all.collect()).await;
}

async fn submitted(stack: &Stack, to: &str) -> Envelope {
    let envelope = mail("alice@local.test", &[to]);
    submit(&stack.queue, &envelope, b"Subject: hi\r\n\r\nhi")
        .await
        .unwrap();
    envelope
}

/// As an operator sees a mail once it is due.
async fn due(stack: &Stack, envelope: &Envelope) -> MailDetails {
    loop {
        let shown = stack.queue.show(envelope.queue_id).await.unwrap();
        if shown.summary.state == MailState::Due && !shown.summary.reason.is_empty() {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn text(lease: &Lease) -> String {
    String::from_utf8(lease.content.as_ref().expect("small").to_vec()).unwrap()
}

/// RFC 3461 §5.2.5, where nothing was tried of the mail itself.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_host_that_is_down_is_told_why() {
    let mut config = heeding();
    config.dsn.delay_after = Interval::millis(1);
    let stack = Stack::with(config).await;
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    find_down(&stack, &mut worker, "x@far.test", "mx.far.test").await;
    let envelope = submitted(&stack, "y@far.test").await;
    let report = worker.lease().await;
    assert!(report.envelope.reverse_path.is_null(), "{report:?}");
    let content = text(&report);
    for expected in [
        "Subject: Delayed: your mail to y@far.test",
        "Action: delayed",
        "Status: 4.4.1",
        "mx.far.test cannot be reached since ",
        "nobody answers at the door",
        "Will-Retry-Until: ",
    ] {
        assert!(
            content.contains(expected),
            "{expected} is missing in\n{content}"
        );
    }
    worker.settle(&report, &delivered()).await;
    // Once is enough, and it was no attempt.
    let shown = due(&stack, &envelope).await;
    assert!(
        shown.summary.reason.contains("cannot be reached"),
        "{shown:?}"
    );
    assert_eq!(shown.recipients[0].attempts, 0);
    worker.say(WorkUp::Credits(1)).await;
    worker.expect_nothing(Duration::from_millis(1500)).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_why_it_waits_before_its_sender_does() {
    let stack = Stack::with(heeding()).await;
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    find_down(&stack, &mut worker, "x@far.test", "mx.far.test").await;
    let envelope = submitted(&stack, "y@far.test").await;
    let shown = due(&stack, &envelope).await;
    let reason = &shown.summary.reason;
    assert!(
        reason.starts_with("4.4.1 mx.far.test cannot be reached"),
        "{reason}"
    );
    assert!(reason.contains("; it is tried again at "), "{reason}");
    let outcome = shown.recipients[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.action(), "delayed");
    let stats = stack.queue.stats(10).await.unwrap();
    let reply = &stats.destinations[0].last_reply;
    assert!(reply.contains("cannot be reached"), "{reply}");
    stack.stop().await;
}

/// Leases last five minutes here: nobody would come for it, so nobody waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_its_time_is_over_fails_at_once_and_tells_for_what_it_waited() {
    let mut config = heeding();
    config.retry.give_up_after = Interval::millis(900);
    let stack = Stack::with(config).await;
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    find_down(&stack, &mut worker, "x@far.test", "mx.far.test").await;
    let envelope = submitted(&stack, "y@far.test").await;
    let content = text(&worker.lease().await);
    for expected in ["Status: 5.4.7", "nobody answers at the door"] {
        assert!(
            content.contains(expected),
            "{expected} is missing in\n{content}"
        );
    }
    let events = stack.queue.trace(envelope.queue_id).await.unwrap();
    let told = |text: &str| text.starts_with("delivery time expired: mx.far.test cannot");
    assert!(events.iter().any(|event| told(&event.text)), "{events:?}");
    stack.stop().await;
}

/// However long the host is left alone: it would not be seen when somebody says that it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_handed_back_for_want_of_room_waits_for_the_host() {
    let stack = Stack::with(heeding()).await;
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    find_down(&stack, &mut worker, "x@far.test", "mx.far.test").await;
    let envelope = submitted(&stack, "y@other.test").await;
    let lease = worker.lease().await;
    let permitted = worker.permitted(&lease, "mx.far.test").await;
    assert_eq!(permitted.connections, 0);
    let back = HandBack {
        lease: lease.lease,
        delay: Duration::from_secs(3600),
        reason: "limited".to_owned(),
        touch: Touch::Unclear,
    };
    worker.say(WorkUp::HandBack(back)).await;
    let shown = due(&stack, &envelope).await;
    assert!(
        shown.summary.reason.contains("cannot be reached"),
        "{shown:?}"
    );
    assert_eq!(
        stack
            .queue
            .lift_site("mx.far.test", "a test")
            .await
            .unwrap(),
        1
    );
    let again = worker.lease().await;
    assert_eq!((again.lease.job, again.attempt), (lease.lease.job, 1));
    assert_eq!(again.site.as_deref(), Some("mx.far.test"));
    stack.stop().await;
}

/// All mail for one site is due now, whatever its domains, and the site is tried.
#[tokio::test(flavor = "multi_thread")]
async fn all_mail_for_a_site_is_tried_at_once_if_somebody_says_so() {
    let mut config = heeding();
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    let stack = Stack::with(config).await;
    let mut worker = Worker::connect(&stack.queue, ALL).await;
    // One is tried and delayed at a site that is well, one waits for one that is down.
    let delayed_mail = submitted(&stack, "a@first.test").await;
    let lease = worker.lease().await;
    let refused = StatusReport::local("4.2.1".parse().unwrap(), "come again");
    let index = lease.envelope.recipients[0].index;
    let outcomes = vec![(index, Outcome::Delayed(refused))];
    worker
        .settle_at("mx.well.test", lease.lease, outcomes)
        .await;
    find_down(&stack, &mut worker, "x@far.test", "mx.far.test").await;
    let waiting = submitted(&stack, "b@far.test").await;
    due(&stack, &waiting).await;

    let of_site = |site: &str| Filter {
        site: Some(site.to_owned()),
        ..Filter::default()
    };
    let retry = async |site: &str| {
        let changed = stack
            .queue
            .change(Change::Retry, Order::from(of_site(site)))
            .await;
        changed.unwrap().mails
    };
    let listed = stack
        .queue
        .list(of_site("mx.far.test").into())
        .await
        .unwrap();
    let listed: Vec<_> = listed.mails.iter().map(|mail| mail.queue_id).collect();
    assert_eq!(listed, [waiting.queue_id]);
    assert_eq!(retry("mx.nobody.test").await, 0);
    assert_eq!(retry("mx.well.test").await, 1);
    let lease = worker.lease().await;
    assert_eq!(lease.envelope.queue_id, delayed_mail.queue_id);
    worker.settle(&lease, &delivered()).await;
    worker.say(WorkUp::Credits(1)).await;
    worker.expect_nothing(Duration::from_millis(200)).await;
    // By its domain, too.
    assert_eq!(retry("far.test").await, 1);
    let lease = worker.next_lease().await;
    assert_eq!(lease.envelope.queue_id, waiting.queue_id);
    worker.settle(&lease, &delayed()).await;
    stack.stop().await;
}
