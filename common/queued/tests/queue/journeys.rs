//! From submission to the end of a mail: retries, restarts, routes, operators, bounds.

use std::time::Duration;

use bytes::Bytes;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::RouteClass;
use postroad_queue_client::{
    AdmitRequest, Change, Completion, Filter, HandBack, MailState, QueueAdmin, QueueError,
    QueueService, SettleResult, WorkUp, collect_content,
};
use postroad_queued::{Foreign, RouteRule};

use crate::setup::{Stack, Worker, change, config, delayed, delivered, failed, mail, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];
const RELAY: &[RouteClass] = &[RouteClass::Relay];

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_accepted_and_forgets_what_is_done() {
    let stack = Stack::new().await;
    let (kept, done) = (
        mail("a@far.test", &["bob@local.test"]),
        mail("", &["bob@local.test"]),
    );
    submit(&stack.queue, &done, b"\r\ndone").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(
        worker.settle(&lease, &delivered()).await,
        SettleResult::Durable
    );
    let large = vec![b'x'; 700_000];
    submit(&stack.queue, &kept, &large).await.unwrap();

    let stack = stack.restart().await;
    let page = stack.queue.list(Default::default()).await.unwrap();
    let ids: Vec<_> = page.mails.iter().map(|mail| mail.queue_id).collect();
    assert_eq!(ids, [kept.queue_id]);
    let read = stack.queue.read(kept.queue_id, 0).await.unwrap();
    assert!(collect_content(read, large.len()).await.unwrap() == large);
    // Both ids are still known.
    assert!(
        submit(&stack.queue, &done, b"\r\ndone")
            .await
            .unwrap()
            .duplicate
    );
    assert!(submit(&stack.queue, &kept, &large).await.unwrap().duplicate);
    assert_eq!(
        submit(&stack.queue, &kept, b"other").await,
        Err(QueueError::IdTaken)
    );
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(lease.lease.job.queue_id, kept.queue_id);
    assert_eq!(
        lease.envelope.expires_at.map(|at| at > kept.received_at),
        Some(true)
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_submissions_of_one_id_at_once_are_one_mail() {
    let stack = Stack::new().await;
    let envelope = mail("a@far.test", &["bob@local.test"]);
    let one = submit(&stack.queue, &envelope, b"\r\nonce");
    let two = submit(&stack.queue, &envelope, b"\r\nonce");
    let (one, two) = tokio::join!(one, two);
    let duplicates = [one.unwrap().duplicate, two.unwrap().duplicate];
    assert!(
        duplicates.contains(&false) && duplicates.contains(&true),
        "{duplicates:?}"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_recipient_is_tried_again_alone() {
    let stack = Stack::new().await;
    let envelope = mail("a@local.test", &["x@far.test", "y@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let lease = worker.lease().await;
    let [x, y] = &lease.envelope.recipients[..] else {
        panic!("two recipients")
    };
    let outcomes = vec![(x.index, delivered()), (y.index, delayed())];
    assert_eq!(
        worker.settle_each(lease.lease, outcomes).await,
        SettleResult::Durable
    );

    let details = stack.queue.show(envelope.queue_id).await.unwrap();
    assert_eq!(details.summary.open_recipients, ["y@far.test"]);
    assert!(
        details.summary.reason.contains("nobody answers"),
        "{}",
        details.summary.reason
    );
    assert_eq!(details.attempts.len(), 1);
    let again = worker.lease().await;
    assert_eq!((again.attempt, again.envelope.recipients.len()), (2, 1));
    assert_eq!(
        worker.settle(&again, &delivered()).await,
        SettleResult::Durable
    );
    let shown = stack.queue.show(envelope.queue_id).await.unwrap();
    assert_eq!(shown.summary.state, MailState::Retired);
    let kinds: Vec<_> = stack.queue.trace(envelope.queue_id).await.unwrap();
    let kinds: Vec<&str> = kinds.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"accepted"));
    assert!(
        kinds.contains(&"leased") && kinds.contains(&"settled"),
        "{kinds:?}"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_follow_the_table_then_our_domains() {
    let mut config = config();
    config.foreign = Foreign::Hold;
    config.routes = vec![
        rule("lists.test", RouteClass::Lmtp, Some("127.0.0.1:24")),
        rule("void.test", RouteClass::Discard, None),
    ];
    let stack = Stack::with(config).await;
    let to = [
        "a@lists.test",
        "b@void.test",
        "bob@local.test",
        "c@far.test",
    ];
    let envelope = mail("a@local.test", &to);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let details = stack.queue.show(envelope.queue_id).await.unwrap();
    let classes: Vec<_> = details
        .recipients
        .iter()
        .map(|to| to.route.class.as_str())
        .collect();
    assert_eq!(classes, ["lmtp", "discard", "local", "hold"]);
    assert_eq!(details.recipients[3].state, Some(MailState::Held));
    assert_eq!(details.recipients[1].state, None, "discarded at once");

    let only = Filter::to("far.test".to_owned());
    assert_eq!(change(&stack.queue, Change::Release, only).await, Ok(1));
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    assert_eq!(
        worker.lease().await.envelope.recipients[0]
            .address
            .to_string(),
        "c@far.test"
    );
    stack.stop().await;
}

fn rule(domain: &str, class: RouteClass, next_hop: Option<&str>) -> RouteRule {
    let next_hop = next_hop.map(|text| text.parse().unwrap());
    RouteRule {
        next_hop,
        ..RouteRule::new(domain, class)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_mail_follows_a_domain_that_becomes_ours() {
    let mut config = config();
    config.foreign = Foreign::Hold;
    let stack = Stack::with(config).await;
    submit(&stack.queue, &mail("", &["new@soon.test"]), b"\r\nhi")
        .await
        .unwrap();
    let file = stack.folder.path().join("directory.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str(
        "\n[[domain]]\nname = \"soon.test\"\n\n[[account]]\naddress = \"new@soon.test\"\n",
    );
    std::fs::write(&file, text).unwrap();
    stack.directory.reload().unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    assert_eq!(worker.lease().await.route.class, RouteClass::Local);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_hold_release_retry_and_drop() {
    let mut config = config();
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    let stack = Stack::with(config).await;
    let envelope = mail("a@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let one = || Filter::of_ids(vec![envelope.queue_id]);
    let queue = &stack.queue;
    let state = async || queue.show(envelope.queue_id).await.unwrap().summary.state;
    assert_eq!(change(queue, Change::Hold, one()).await, Ok(1));
    assert_eq!(state().await, MailState::Held);
    assert_eq!(change(queue, Change::Release, Filter::all()).await, Ok(1));
    let mut worker = Worker::connect(queue, RELAY).await;
    let lease = worker.lease().await;
    assert_eq!(state().await, MailState::Leased);
    assert!(matches!(
        change(queue, Change::Drop, one()).await,
        Err(QueueError::Conflict(_))
    ));
    worker.settle(&lease, &delayed()).await;
    assert_eq!(state().await, MailState::Delayed);
    assert_eq!(change(queue, Change::Retry, one()).await, Ok(1));
    let lease = worker.lease().await;
    assert_eq!(lease.attempt, 2);
    worker.settle(&lease, &delayed()).await;
    assert_eq!(change(queue, Change::Drop, one()).await, Ok(1));
    assert_eq!(
        change(queue, Change::Drop, one()).await,
        Err(QueueError::NotFound)
    );
    let prefix = envelope.queue_id.to_string()[..12].parse().unwrap();
    assert_eq!(queue.find(prefix).await, Ok(envelope.queue_id));
    assert_eq!(state().await, MailState::Retired);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_filtered() {
    let stack = Stack::new().await;
    for at in 0..7 {
        let to = if at % 2 == 0 {
            "x@far.test"
        } else {
            "y@other.test"
        };
        submit(&stack.queue, &mail("a@local.test", &[to]), b"\r\nhi")
            .await
            .unwrap();
    }
    let query = |after, destination: Option<&str>| postroad_queue_client::ListQuery {
        after,
        limit: 3,
        ..destination.map_or_else(Filter::all, Filter::to).into()
    };
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = stack.queue.list(query(after, None)).await.unwrap();
        seen.extend(page.mails.iter().map(|mail| mail.queue_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted());
    let page = stack
        .queue
        .list(query(None, Some("other.test")))
        .await
        .unwrap();
    assert_eq!((page.mails.len(), page.next), (3, None));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_told_before_content_is_taken_and_kept_while_it_comes() {
    let mut config = config();
    config.size_limit = ByteSize::kib(8);
    config.max_submissions = 1;
    let stack = Stack::with(config).await;
    let admit = |size| {
        stack.queue.admit(AdmitRequest {
            tenant: "default".into(),
            account: None,
            size: Some(size),
            recipients: Vec::new(),
        })
    };
    assert!(matches!(admit(9_000).await, Err(QueueError::Refused(_))));
    let mut first = stack
        .queue
        .submit(mail("", &["bob@local.test"]))
        .await
        .unwrap();
    let second = stack.queue.submit(mail("", &["bob@local.test"])).await;
    assert!(matches!(second.map(drop), Err(QueueError::Full(_))));
    assert!(matches!(admit(10).await, Err(QueueError::Full(_))));
    let chunk = first.chunk(Bytes::from(vec![0; 9_000])).await;
    assert!(matches!(chunk, Err(QueueError::Refused(_))));
    drop(first);
    assert_eq!(admit(10).await, Ok(()));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_new_mail_waits_outside_and_old_mail_goes_on() {
    let stack = Stack::new().await;
    submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi")
        .await
        .unwrap();
    let mut config = config();
    // More than any disk has.
    config.disk.reserve = ByteSize::gib(1 << 32);
    let folder = stack.stop().await;
    let stack = Stack::in_folder(folder, config).await;
    let refused = submit(&stack.queue, &mail("", &["bob@local.test"]), b"\r\nhi").await;
    assert!(matches!(refused, Err(QueueError::Full(_))));
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(
        worker.settle(&lease, &delivered()).await,
        SettleResult::Durable
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_submission_learns_at_its_end_is_kept() {
    let stack = Stack::new().await;
    let envelope = mail("", &["bob@local.test"]);
    let mut submission = stack.queue.submit(envelope).await.unwrap();
    submission
        .chunk(Bytes::from_static(b"A: b\r\n\r\n"))
        .await
        .unwrap();
    let field = b"Received: x\r\n".to_vec();
    let edit = postroad_envelope::HeaderEdit::Add {
        place: postroad_envelope::EditPlace::Top,
        field,
    };
    let completion = Completion {
        size: 8,
        header_edits: vec![edit.clone()],
        verdicts: [("spf".to_owned(), "pass".to_owned())].into(),
        hop_count: 3,
        facts: [("message_id".to_owned(), "<1@x>".to_owned())].into(),
    };
    submission.finish(completion).await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(lease.envelope.header_edits, [edit]);
    assert_eq!((lease.envelope.size, lease.envelope.hop_count), (8, 3));
    assert_eq!(lease.envelope.verdicts["spf"], "pass");
    assert_eq!(lease.envelope.facts["message_id"], "<1@x>");
    let back = HandBack {
        touch: postroad_queue_client::Touch::Unclear,
        lease: lease.lease,
        delay: Duration::ZERO,
        reason: "test".into(),
    };
    worker.say(WorkUp::HandBack(back)).await;
    assert_eq!(worker.lease().await.attempt, 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_without_anyone_to_tell_ends_the_mail() {
    let stack = Stack::new().await;
    let envelope = mail("", &["bob@local.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(
        worker.settle(&lease, &failed()).await,
        SettleResult::Durable
    );
    assert_eq!(
        stack.queue.list(Default::default()).await.unwrap().mails,
        []
    );
    worker.say(WorkUp::Credits(1)).await;
    worker.expect_nothing(Duration::from_millis(300)).await;
    stack.stop().await;
}
