//! Ends at the wrong moment: before the rules were looked at, while the disk is full, again and again.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use postroad_daemon::ByteSize;
use postroad_envelope::{
    Envelope, MailState, Outcome, QueueId, RouteClass, StatusReport, Timestamp,
};
use postroad_journal::Journal;
use postroad_queue::{Admission, Content, Newcomers, Reception, RetrySchedule};
use postroad_queue_client::{Change, Filter, HoldOrder, QueueAdmin, QueueError, SettleResult};
use postroad_queued::{Foreign, RouteRule};
use postroad_reply::BAD_MAILBOX_5_1_1;
use tokio::time::timeout;

use crate::setup::{PATIENCE, Stack, Worker, change, config, mail, submit};

const RELAY: &[RouteClass] = &[RouteClass::Relay];

fn rule(name: &str, domain: &str) -> HoldOrder {
    HoldOrder {
        name: name.to_owned(),
        filter: Filter::to(domain),
        ..HoldOrder::default()
    }
}

async fn state(stack: &Stack, id: QueueId) -> (MailState, String) {
    let shown = stack.queue.show(id).await.unwrap().summary;
    (shown.state, shown.reason)
}

/// What a start leaves that accepts this mail, and ends before it has read the rules.
fn accept_and_end(queue: &Path, envelope: &Envelope) {
    let now = Timestamp::from(std::time::SystemTime::now());
    let entropy = Arc::new(|bytes: &mut [u8]| bytes.fill_with(rand::random));
    let options = postroad_journal::Options {
        segment_bytes: 4 << 20,
        ..Default::default()
    };
    let (mut journal, _) =
        Journal::open_in(queue, postroad_queue::record::FORMATS, options, entropy).unwrap();
    let newcomers = Newcomers::new(RetrySchedule::default(), Arc::default(), now);
    newcomers.learnt_since(Timestamp::default());
    let content = Content::Inline(Bytes::from_static(b"\r\nhi"));
    let route = |_: &Envelope, to: &postroad_envelope::Recipient| {
        let domain = to.address.domain().a_label();
        postroad_envelope::Route::new(RouteClass::Relay, domain, "mx")
    };
    let admitted = newcomers.prepare_insert(envelope.clone(), content, now, &route);
    let Ok(Reception::Answer(Admission::New(prepared))) = admitted else {
        panic!("{admitted:?}")
    };
    journal.append_group(prepared.records()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_holds_what_a_start_accepted_that_ended_before_it_knew_the_rules() {
    let stack = Stack::new().await;
    let before = mail("a@local.test", &["x@odd.test"]);
    submit(&stack.queue, &before, b"\r\nhi").await.unwrap();
    stack
        .queue
        .put_hold_rule(rule("odd", "odd.test"))
        .await
        .unwrap();
    let config = stack.config.clone();
    let folder = stack.stop().await;
    let queue = folder.path().join("state/queue");
    let two = mail("a@local.test", &["x@odd.test", "y@far.test"]);
    accept_and_end(&queue, &two);
    let three = mail("a@local.test", &["x@odd.test"]);
    accept_and_end(&queue, &three);

    let stack = Stack::in_folder(folder, config).await;
    let held = (MailState::Held, "rule odd".to_owned());
    assert_eq!(state(&stack, three.queue_id).await, held);
    assert_eq!(state(&stack, before.queue_id).await.0, MailState::Due);
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let mut leased = [worker.lease().await, worker.lease().await]
        .map(|lease| (lease.envelope.queue_id, lease.route.destination));
    leased.sort();
    let mut free = [
        (before.queue_id, "odd.test".to_owned()),
        (two.queue_id, "far.test".to_owned()),
    ];
    free.sort();
    assert_eq!(leased, free);

    // Once released it stays so, whatever becomes of the next start.
    let these = Filter::of_ids(vec![three.queue_id]);
    change(&stack.queue, Change::Release, these).await.unwrap();
    let stack = stack.restart().await;
    assert_eq!(state(&stack, three.queue_id).await.0, MailState::Due);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_held_is_held_by_its_rule_once_that_lets_it_go() {
    let mut config = config();
    config.foreign = Foreign::Hold;
    config.routes = vec![RouteRule::new("kept.test", RouteClass::Hold)];
    let stack = Stack::with(config).await;
    for domain in ["odd.test", "kept.test"] {
        stack
            .queue
            .put_hold_rule(rule(domain, domain))
            .await
            .unwrap();
    }
    let ids = |envelope: &Envelope| Filter::of_ids(vec![envelope.queue_id]);
    for to in ["x@odd.test", "x@kept.test"] {
        let odd = mail("a@local.test", &[to]);
        submit(&stack.queue, &odd, b"\r\nhi").await.unwrap();
        let refused = change(&stack.queue, Change::Release, ids(&odd)).await;
        let Err(QueueError::Conflict(why)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            why.contains("held by rule") && why.contains("once more"),
            "{why}"
        );
        let (found, reason) = state(&stack, odd.queue_id).await;
        assert_eq!(found, MailState::Held);
        assert_eq!(reason, format!("rule {}", &to[2..]));
        let released = change(&stack.queue, Change::Release, ids(&odd)).await;
        assert_eq!(released, Ok(1));
        assert_eq!(state(&stack, odd.queue_id).await.0, MailState::Due);
    }
    // No rule is for this one: it goes at once.
    let free = mail("a@local.test", &["y@far.test"]);
    submit(&stack.queue, &free, b"\r\nhi").await.unwrap();
    let released = change(&stack.queue, Change::Release, ids(&free)).await;
    assert_eq!(released, Ok(1));
    assert_eq!(state(&stack, free.queue_id).await.0, MailState::Due);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_room_on_a_full_disk() {
    let mut config = config();
    config.disk.segment = ByteSize::kib(64);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let grace = Duration::from_millis(300);
    let stack = Stack::with_grace(Arc::clone(&folder), config.clone(), grace).await;
    let segments = folder.path().join("state/queue/segments");
    let first = mail("", &["x@far.test"]);
    submit(&stack.queue, &first, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let mut lease = worker.lease().await;
    // None can be prepared any more.
    let blocked = async {
        while fs::create_dir(segments.join("preparing.tmp")).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, blocked).await.unwrap();
    let full = async |size: usize| {
        loop {
            let filler = mail("", &["x@far.test"]);
            match submit(&stack.queue, &filler, &vec![b'x'; size]).await {
                Ok(_) => {}
                Err(refused) => break refused,
            }
        }
    };
    // So many small ones that each segment holds more than what is left to settlements could take.
    for size in [0, 1_000] {
        let refused = timeout(PATIENCE, full(size)).await.unwrap();
        assert!(matches!(refused, QueueError::Full(_)), "{refused:?}");
    }
    // As long as states may be.
    let text = "no such user ".repeat(250);
    let failed = Outcome::Failed(StatusReport::local(BAD_MAILBOX_5_1_1, &text));
    let mut settled = 0;
    loop {
        let settling = worker.settle(&lease, &failed);
        let Ok(result) = timeout(Duration::from_secs(3), settling).await else {
            break;
        };
        assert_eq!(result, SettleResult::Durable);
        settled += 1;
        lease = timeout(PATIENCE, worker.lease()).await.unwrap();
    }
    // Mail has left a segment to them, in which so many fit, and there is no other.
    assert!(
        (50..150).contains(&settled),
        "{settled} settlements found room"
    );
    let stopped = timeout(PATIENCE, stack.stop()).await;
    stopped.expect("the queue ends though there is no room");

    fs::remove_dir(segments.join("preparing.tmp")).unwrap();
    let stack = Stack::in_folder(folder, config).await;
    let mut worker = Worker::reconnect(&stack.queue, RELAY, &[lease.lease]).await;
    let Some((_, Some(again))) = worker.resumed.first().copied() else {
        panic!("the worker still has it: {:?}", worker.resumed)
    };
    let outcomes = vec![(postroad_envelope::RecipientIndex(0), failed)];
    let settled = worker.settle_each(again, outcomes).await;
    assert_eq!(settled, SettleResult::Durable);
    stack.stop().await;
}
