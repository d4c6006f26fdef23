//! What every [`QueueService`] must do, whoever implements it: run by the queue's own tests against the local object and
//! against the same object behind gRPC.
//!
//! The queue under test must be empty, take `local.test` for a local domain, and give a dropped worker's leases free
//! within seconds; of several nodes that goes for each. Each check panics with what is wrong.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::select_all};
use postroad_address::ReversePath;
use postroad_counters::{Count, Limit, Rule};
use postroad_envelope::{
    Envelope, LeaseRef, Outcome, QueueId, Recipient, RecipientIndex, RouteClass, StatusReport,
    Timestamp,
};
use postroad_reply::DELIVERED_2_6_0;
use tokio::time::timeout;

use crate::{
    Accepted, AdmitRequest, Completion, HandBack, Lease, QueueError, QueueService, SettleResult,
    Settlement, WorkChannel, WorkDown, WorkHello, WorkUp, collect_content,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Above every size that may travel or be stored in one piece.
const LARGE: usize = 1_500_000;

/// All of it, one after the other on the same queue.
pub async fn all(queue: Arc<dyn QueueService>) {
    small_mail_is_leased_with_its_content(&*queue).await;
    large_mail_is_read_as_it_was_sent(&*queue).await;
    repeated_submission_is_acknowledged_once(&*queue).await;
    broken_submissions_leave_nothing(&*queue).await;
    handed_back_lease_costs_no_attempt(&*queue).await;
    dropped_worker_frees_its_leases(&*queue).await;
    drained_worker_leaves_nothing_behind(&*queue).await;
    stale_settlement_is_refused(&*queue).await;
    what_is_counted_adds_up(&*queue).await;
    let admitted = queue.admit(AdmitRequest {
        tenant: "default".into(),
        account: None,
        size: Some(1),
        recipients: vec![],
    });
    assert_eq!(admitted.await, Ok(()), "an idle queue admits a small mail");
}

/// Submit, lease, settle, gone.
pub async fn small_mail_is_leased_with_its_content(queue: &dyn QueueService) {
    let envelope = mail(1, &["bob@local.test", "carol@local.test"]);
    let content = Bytes::from_static(b"Subject: hi\r\n\r\nhello\r\n");
    let accepted = submit(queue, &envelope, &content).await.expect("accepted");
    assert_eq!(
        accepted,
        Accepted {
            queue_id: envelope.queue_id,
            duplicate: false
        }
    );

    let mut worker = Worker::connect(queue).await;
    let lease = worker.lease().await;
    assert_eq!(lease.envelope.queue_id, envelope.queue_id);
    assert_eq!(lease.attempt, 1);
    assert_eq!(lease.route.class, RouteClass::Local);
    assert_eq!(
        lease.envelope.recipients.len(),
        2,
        "one job has both recipients of the domain"
    );
    assert_eq!(lease.envelope.size, content.len() as u64);
    assert_eq!(
        lease.content,
        Some(content),
        "small content travels in the lease"
    );
    assert_eq!(worker.deliver(&lease).await, SettleResult::Durable);
}

/// Content above every threshold is read back in chunks, also from the middle.
pub async fn large_mail_is_read_as_it_was_sent(queue: &dyn QueueService) {
    let envelope = mail(2, &["bob@local.test"]);
    let content: Bytes = (0..LARGE).map(|at| (at % 251) as u8).collect();
    submit(queue, &envelope, &content).await.expect("accepted");
    let mut worker = Worker::connect(queue).await;
    let lease = worker.lease().await;
    assert_eq!(
        lease.content, None,
        "large content does not travel in the lease"
    );
    for offset in [0, 65_537, LARGE] {
        let stream = queue
            .read(envelope.queue_id, offset as u64)
            .await
            .expect("readable");
        let read = collect_content(stream, LARGE).await.expect("whole");
        assert!(
            read == content.slice(offset..),
            "content from {offset} on differs"
        );
    }
    for (offset, length) in [(0, 1), (65_537, 131_073), (LARGE - 5, 10), (LARGE, 1)] {
        let stream = queue.read_part(envelope.queue_id, offset as u64, length as u64);
        let read = collect_content(stream.await.expect("readable"), LARGE);
        let part = offset..LARGE.min(offset + length);
        assert!(
            read.await.expect("whole") == content.slice(part),
            "{length} octets from {offset} on differ"
        );
    }
    assert_eq!(worker.deliver(&lease).await, SettleResult::Durable);
}

/// The id makes a submission idempotent, before and after the mail is finished.
pub async fn repeated_submission_is_acknowledged_once(queue: &dyn QueueService) {
    let envelope = mail(3, &["bob@local.test"]);
    let content = Bytes::from_static(b"\r\nonce\r\n");
    submit(queue, &envelope, &content).await.expect("accepted");
    let repeated = submit(queue, &envelope, &content)
        .await
        .expect("acknowledged again");
    assert!(repeated.duplicate);
    let other = submit(queue, &envelope, &Bytes::from_static(b"\r\nother\r\n")).await;
    assert_eq!(other, Err(QueueError::IdTaken));

    let mut worker = Worker::connect(queue).await;
    let lease = worker.lease().await;
    assert_eq!(worker.deliver(&lease).await, SettleResult::Durable);
    let late = submit(queue, &envelope, &content)
        .await
        .expect("a finished id is remembered");
    assert!(late.duplicate);
    worker.expect_no_lease().await;
}

/// Dropped before its end, or ended with the wrong size: nothing is stored.
pub async fn broken_submissions_leave_nothing(queue: &dyn QueueService) {
    let dropped = mail(4, &["bob@local.test"]);
    let mut submission = queue.submit(dropped.clone()).await.expect("begun");
    submission
        .chunk(Bytes::from(vec![b'x'; LARGE]))
        .await
        .expect("taken");
    drop(submission);

    let cut = mail(5, &["bob@local.test"]);
    let mut submission = queue.submit(cut.clone()).await.expect("begun");
    submission
        .chunk(Bytes::from_static(b"half"))
        .await
        .expect("taken");
    let result = submission
        .finish(Completion {
            size: 8,
            ..Completion::default()
        })
        .await;
    assert!(matches!(result, Err(QueueError::Invalid(_))), "{result:?}");

    for id in [dropped.queue_id, cut.queue_id] {
        let read = match queue.read(id, 0).await {
            Ok(mut stream) => stream.next().await.map(|chunk| chunk.map(drop)),
            Err(error) => Some(Err(error)),
        };
        assert_eq!(read, Some(Err(QueueError::NotFound)));
    }
    Worker::connect(queue).await.expect_no_lease().await;
}

/// A lease given back comes again as the same attempt.
pub async fn handed_back_lease_costs_no_attempt(queue: &dyn QueueService) {
    submit(
        queue,
        &mail(6, &["bob@local.test"]),
        &Bytes::from_static(b"\r\nx"),
    )
    .await
    .expect("accepted");
    let mut worker = Worker::connect(queue).await;
    let first = worker.lease().await;
    let back = HandBack {
        touch: crate::Touch::Unclear,
        lease: first.lease,
        delay: Duration::ZERO,
        reason: "limited".into(),
    };
    worker.say(WorkUp::HandBack(back)).await;
    let second = worker.lease().await;
    assert_eq!(second.lease.job, first.lease.job);
    assert_eq!(second.attempt, first.attempt);
    assert!(
        second.lease.fence > first.lease.fence,
        "a later lease has a greater fence"
    );
    assert_eq!(worker.deliver(&second).await, SettleResult::Durable);
}

/// Another worker gets what a vanished one held.
pub async fn dropped_worker_frees_its_leases(queue: &dyn QueueService) {
    submit(
        queue,
        &mail(7, &["bob@local.test"]),
        &Bytes::from_static(b"\r\nx"),
    )
    .await
    .expect("accepted");
    let mut first = Worker::connect(queue).await;
    let held = first.lease().await;
    drop(first);
    let mut second = Worker::connect(queue).await;
    let lease = second.lease().await;
    assert_eq!(lease.lease.job, held.lease.job);
    assert_eq!(second.deliver(&lease).await, SettleResult::Durable);
}

/// What was on its way to a worker that leaves in peace goes to the next as the same attempt, and the stream ends.
pub async fn drained_worker_leaves_nothing_behind(queue: &dyn QueueService) {
    submit(
        queue,
        &mail(9, &["bob@local.test"]),
        &Bytes::from_static(b"\r\nx"),
    )
    .await
    .expect("accepted");
    let mut first = Worker::connect(queue).await;
    let missed = first.lease().await;
    first.say_to_all(WorkUp::Drained).await;
    let rest = first.channels.into_iter().map(|channel| channel.down);
    let rest = select_all(rest).filter_map(|down| async { down.ok() });
    let rest = timeout(PATIENCE, rest.collect::<Vec<_>>()).await;
    assert_eq!(rest.expect("the streams end"), []);
    let mut second = Worker::connect(queue).await;
    let lease = timeout(PATIENCE, second.lease())
        .await
        .expect("it comes again");
    assert_eq!(lease.lease.job, missed.lease.job);
    assert_eq!(lease.attempt, missed.attempt);
    assert_eq!(second.deliver(&lease).await, SettleResult::Durable);
}

/// A settlement under an old fence changes nothing.
pub async fn stale_settlement_is_refused(queue: &dyn QueueService) {
    submit(
        queue,
        &mail(8, &["bob@local.test"]),
        &Bytes::from_static(b"\r\nx"),
    )
    .await
    .expect("accepted");
    let mut worker = Worker::connect(queue).await;
    let old = worker.lease().await;
    let back = HandBack {
        touch: crate::Touch::Unclear,
        lease: old.lease,
        delay: Duration::ZERO,
        reason: "limited".into(),
    };
    worker.say(WorkUp::HandBack(back)).await;
    let new = worker.lease().await;
    assert_eq!(worker.deliver(&old).await, SettleResult::Stale);
    assert_eq!(worker.deliver(&new).await, SettleResult::Durable);
}

/// A mail whose id follows from `number`, so that a run can be repeated on an empty queue.
fn mail(number: u8, recipients: &[&str]) -> Envelope {
    let now = Timestamp::from(std::time::SystemTime::now());
    let mut envelope = Envelope::new(QueueId::mint(now, [number; 10]), ReversePath::Null, now);
    envelope.recipients = recipients
        .iter()
        .zip(0..)
        .map(|(address, index)| {
            Recipient::new(RecipientIndex(index), address.parse().expect("an address"))
        })
        .collect();
    envelope
}

async fn submit(
    queue: &dyn QueueService,
    envelope: &Envelope,
    content: &Bytes,
) -> Result<Accepted, QueueError> {
    let mut submission = queue.submit(envelope.clone()).await?;
    submission.chunk(content.clone()).await?;
    submission
        .finish(Completion {
            size: content.len() as u64,
            ..Completion::default()
        })
        .await
}

/// Counts of one key add up whoever counts, too many are a ban, and a limit without room adds nothing.
pub async fn what_is_counted_adds_up(queue: &dyn QueueService) {
    let limit = |most| Limit {
        window: Duration::from_secs(3600),
        most,
    };
    let count = |key: &str, add, rule| {
        let key = key.parse().expect("a key");
        queue.count(Count { key, add, rule })
    };
    let failed = |add| {
        let rule = Rule::Ban {
            limit: limit(2),
            ban: Duration::from_secs(60),
        };
        count("auth_failed/192.0.2.7/32", add, rule)
    };
    for value in [1, 2] {
        let counted = failed(1).await.expect("counted");
        assert_eq!((counted.value, counted.banned_until), (value, None));
    }
    let banned = failed(1).await.expect("counted");
    assert!(banned.banned_until.is_some(), "{banned:?}");
    assert_eq!(failed(0).await, Ok(banned), "a ban is told to whoever asks");
    let sent = |add| {
        let rule = Rule::Within(vec![limit(10), limit(20)]);
        count("sent/alice@local.test", add, rule)
    };
    assert_eq!(sent(7).await.expect("counted").full, None);
    let full = sent(4).await.expect("counted").full.expect("no room");
    assert_eq!((full.value, full.limit), (7, limit(10)));
    assert!(full.until.is_some(), "{full:?}");
    assert_eq!(sent(3).await.expect("counted").value, 10);
    let more = sent(11).await.expect("counted").full.expect("no room");
    assert_eq!(more.until, None, "more than the limit is never");
}

/// Has a stream from each node, and one mail at a time.
struct Worker {
    channels: Vec<WorkChannel>,
    /// Whose lease it has.
    node: usize,
}

impl Worker {
    async fn connect(queue: &dyn QueueService) -> Self {
        let hello = || WorkHello {
            stores: Vec::new(),
            agent: "conformance".into(),
            version: "0".into(),
            host: "localhost".into(),
            classes: vec![RouteClass::Local],
            held: vec![],
            former: None,
            joins: false,
        };
        let nodes = queue.nodes();
        let mut channels = Vec::new();
        for node in &nodes {
            channels.push(node.queue.work(hello()).await.expect("a stream of leases"));
        }
        if nodes.is_empty() {
            channels.push(queue.work(hello()).await.expect("a stream of leases"));
        }
        for channel in &mut channels {
            let welcome = hear(&mut channel.down).await;
            assert!(
                matches!(welcome, WorkDown::Welcome { .. }),
                "first comes the welcome, not {welcome:?}"
            );
        }
        Self { channels, node: 0 }
    }

    /// To the node whose lease it is about.
    async fn say(&self, up: WorkUp) {
        let channel = &self.channels[self.node];
        channel.up.send(up).await.expect("the queue listens");
    }

    async fn say_to_all(&self, up: WorkUp) {
        for channel in &self.channels {
            let sent = channel.up.send(up.clone()).await;
            sent.expect("the queue listens");
        }
    }

    /// From whichever node has something to say.
    async fn hear(&mut self) -> (usize, WorkDown) {
        let downs = self.channels.iter_mut().enumerate();
        let downs = downs
            .map(|(at, channel)| (&mut channel.down).map(move |down| down.map(|down| (at, down))));
        hear(select_all(downs)).await
    }

    async fn lease(&mut self) -> Lease {
        self.say_to_all(WorkUp::Credits(1)).await;
        loop {
            if let (node, WorkDown::Lease(lease)) = self.hear().await {
                self.node = node;
                return *lease;
            }
        }
    }

    /// Settles all recipients as delivered and waits for the queue's word.
    async fn deliver(&mut self, lease: &Lease) -> SettleResult {
        let report = StatusReport::local(DELIVERED_2_6_0, "delivered");
        let outcomes = lease.envelope.recipients.iter();
        let outcomes = outcomes.map(|to| (to.index, Outcome::Delivered(report.clone())));
        let settlement = Settlement {
            elsewhere: Vec::new(),
            timed: Vec::new(),
            reporting: Vec::new(),
            lease: lease.lease,
            outcomes: outcomes.collect(),
            sites: Vec::new(),
            started_at: lease.envelope.received_at,
        };
        self.say(WorkUp::Settle(settlement)).await;
        self.settled(lease.lease).await
    }

    async fn settled(&mut self, wanted: LeaseRef) -> SettleResult {
        loop {
            match self.hear().await.1 {
                WorkDown::Settled { lease, result } if lease == wanted => return result,
                WorkDown::Lease(lease) => panic!("an unasked lease: {}", lease.lease.job),
                _ => {}
            }
        }
    }

    /// Offers a credit and waits a moment in which a lease would come. The absence of an event has no event to wait for.
    async fn expect_no_lease(mut self) {
        self.say_to_all(WorkUp::Credits(1)).await;
        let downs = self.channels.iter_mut().map(|channel| &mut channel.down);
        if let Ok(Some(Ok(down))) =
            timeout(Duration::from_millis(300), select_all(downs).next()).await
        {
            panic!("unexpected: {down:?}");
        }
    }
}

async fn hear<T>(mut down: impl Stream<Item = Result<T, QueueError>> + Unpin) -> T {
    let next = timeout(PATIENCE, down.next()).await;
    next.expect("the queue says something in time")
        .expect("the stream goes on")
        .expect("no error")
}
