//! Retired mails that are sent again: what is new about them, what stays as it was, and what cannot be done.

use postroad_envelope::{EventKind, QueueId, RouteClass, Timestamp};
use postroad_message::apply_edits;
use postroad_queue_client::{
    Completion, QueueAdmin, QueueError, QueueService, Resend, collect_content,
};
use postroad_queued::LocalQueue;

use crate::{
    retired::finish,
    setup::{Stack, Worker, delivered, failed, mail, submit},
};

const CONTENT: &[u8] = b"Subject: again\r\nMessage-ID: <one@far.test>\r\n\r\nhello\r\n";

async fn content(queue: &LocalQueue, id: QueueId) -> Vec<u8> {
    let stream = queue.read_any(id, 0).await.unwrap();
    collect_content(stream, 64 << 20).await.unwrap().to_vec()
}

async fn resent(queue: &LocalQueue, resend: Resend) -> QueueId {
    queue.resend(resend).await.unwrap().queue_id.unwrap()
}

async fn refused(queue: &LocalQueue, resend: Resend) -> String {
    queue.resend(resend).await.unwrap_err().to_string()
}

/// A mail to two, one of whom got it.
async fn partly(stack: &Stack) -> QueueId {
    let mut old = mail("sender@far.test", &["alice@local.test", "bob@local.test"]);
    old.received_at = Timestamp::from_millis(old.received_at.as_millis() - 3_600_000);
    let mut submission = stack.queue.submit(old.clone()).await.unwrap();
    submission.chunk(CONTENT.into()).await.unwrap();
    let completion = Completion {
        size: CONTENT.len() as u64,
        hop_count: 7,
        ..Completion::default()
    };
    submission.finish(completion).await.unwrap();
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    let lease = worker.lease().await;
    let indices: Vec<_> = lease
        .envelope
        .recipients
        .iter()
        .map(|to| to.index)
        .collect();
    let outcomes = vec![(indices[0], delivered()), (indices[1], failed())];
    worker.settle_each(lease.lease, outcomes).await;
    // Its report ends it.
    while stack.queue.read(old.queue_id, 0).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    old.queue_id
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_to_all_again_as_a_new_mail_that_names_the_old_one() {
    let stack = Stack::new().await;
    let old = partly(&stack).await;
    let order = Resend {
        by: "ann".to_owned(),
        reason: "disk was full".to_owned(),
        ..old.into()
    };
    let dry = Resend {
        dry_run: true,
        ..order.clone()
    };
    let could = stack.queue.resend(dry).await.unwrap();
    assert_eq!(could.queue_id, None);
    assert_eq!(could.recipients, ["alice@local.test", "bob@local.test"]);
    // Asked twice, sent twice.
    let new = resent(&stack.queue, order.clone()).await;
    assert_ne!(new, resent(&stack.queue, order).await);

    let stack = stack.restart().await;
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    let lease = loop {
        let lease = worker.lease().await;
        if lease.envelope.queue_id == new {
            break lease;
        }
    };
    let was = stack.queue.show(old).await.unwrap().envelope;
    let envelope = lease.envelope;
    assert_eq!(envelope.resent_of, Some(old));
    assert_eq!(envelope.recipients, was.recipients);
    assert_eq!(envelope.reverse_path, was.reverse_path);
    assert_eq!(envelope.hop_count, 7);
    assert!(envelope.expires_at > was.expires_at);
    let octets = content(&stack.queue, new).await;
    assert_eq!(octets, CONTENT);
    let header = apply_edits(b"Subject: again\r\n", &envelope.header_edits);
    let header = String::from_utf8(header).unwrap();
    let names: Vec<&str> = header
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    let wanted = [
        "Resent-Date",
        "Resent-From",
        "Resent-To",
        "Resent-Message-ID",
        "Subject",
    ];
    assert_eq!(names, wanted, "{header}");

    for (id, other, field) in [(old, new, "resent_as"), (new, old, "resent_of")] {
        let events = stack.queue.trace(id).await.unwrap();
        let told = events.iter().find(|event| event.kind == EventKind::Resent);
        let told = told.unwrap_or_else(|| panic!("{events:?}"));
        assert!(told.text.contains(&other.to_string()), "{}", told.text);
        assert!(
            told.text.ends_with("by ann: disk was full"),
            "{}",
            told.text
        );
        assert_eq!(told.fields[field], other.to_string());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_one_goes_to_others_and_stays_where_it_was() {
    let large: Vec<u8> = (0..700_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let stack = Stack::new().await;
    let old = finish(&stack, &large, &failed()).await.queue_id;
    let order = Resend {
        recipients: vec![
            "team@local.test".parse().unwrap(),
            "x@other.test".parse().unwrap(),
        ],
        ..old.into()
    };
    let done = stack.queue.resend(order).await.unwrap();
    assert_eq!(
        done.recipients,
        ["bob@local.test", "carol@far.test", "x@other.test"]
    );
    let routed = Resend {
        recipients: vec!["nobody@local.test".parse().unwrap()],
        route: Some((RouteClass::Lmtp, Some("lists.test:24".parse().unwrap()))),
        ..old.into()
    };
    let routed = resent(&stack.queue, routed).await;
    // Another start sweeps what nobody names.
    let stack = stack.restart().await;
    for id in [old, done.queue_id.unwrap(), routed] {
        assert!(content(&stack.queue, id).await == large, "{id}");
    }
    let route = &stack.queue.show(routed).await.unwrap().recipients[0].route;
    assert_eq!(route.class, RouteClass::Lmtp);
    assert_eq!(route.next_hop, Some("lists.test:24".parse().unwrap()));
    // The new one ends and goes its own way.
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Lmtp]).await;
    let lease = worker.lease().await;
    assert_eq!(
        lease.envelope.recipients[0].address.to_string(),
        "nobody@local.test"
    );
    worker.settle(&lease, &delivered()).await;
    let stack = stack.restart().await;
    assert!(content(&stack.queue, old).await == large);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_again_is_refused_with_a_reason() {
    let stack = Stack::new().await;
    let unknown = stack.queue.resend(mail("", &[]).queue_id.into()).await;
    assert!(matches!(unknown, Err(QueueError::NotFound)), "{unknown:?}");
    let living = mail("a@far.test", &["bob@local.test"]);
    submit(&stack.queue, &living, CONTENT).await.unwrap();
    let why = refused(&stack.queue, living.queue_id.into()).await;
    assert!(why.contains("retry it, or reroute it"), "{why}");
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &delivered()).await;
    let why = refused(&stack.queue, living.queue_id.into()).await;
    assert!(why.contains("queued.retired.content"), "{why}");
    drop(worker);

    let old = finish(&stack, CONTENT, &failed()).await.queue_id;
    let to = |address: &str| Resend {
        recipients: vec![address.parse().unwrap()],
        ..old.into()
    };
    let why = refused(&stack.queue, to("nobody@local.test")).await;
    assert!(why.contains("does not exist"), "{why}");
    let lmtp = Resend {
        route: Some((RouteClass::Lmtp, None)),
        ..old.into()
    };
    let why = refused(&stack.queue, lmtp).await;
    assert!(why.contains("next hop"), "{why}");
    let mut nothing = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    nothing
        .expect_nothing(std::time::Duration::from_millis(100))
        .await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_is_damaged_is_not_sent() {
    let stack = Stack::new().await;
    let old = finish(&stack, &vec![b'x'; 700_000], &failed())
        .await
        .queue_id;
    let stack = stack.restart().await;
    let folder = stack.folder.path().join("state/queue");
    let kept = std::fs::read_dir(folder.join("retired/content")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut octets = std::fs::read(&kept).unwrap();
    octets[500_000] ^= 1;
    std::fs::write(&kept, octets).unwrap();
    let why = refused(&stack.queue, old.into()).await;
    assert!(why.contains("damaged"), "{why}");
    assert_eq!(
        std::fs::read_dir(folder.join("content")).unwrap().count(),
        0
    );
    stack.stop().await;
}
