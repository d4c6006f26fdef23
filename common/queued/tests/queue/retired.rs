//! Mails after their end: what is kept of them, for how long, and through which crashes.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{
    Cause, Ending, Envelope, Filter, MailState, Outcome, QueueId, QueueIdPrefix, RouteClass,
};
use postroad_queue_client::{
    Change, ListQuery, MailSummary, QueueAdmin, QueueError, QueueService, collect_content,
};
use postroad_queued::{KeptContent, LocalQueue};

use crate::setup::{Stack, Worker, because, change, config, delivered, failed, mail, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];

/// Those first that ended last.
pub fn retired() -> ListQuery {
    ListQuery {
        newest_first: true,
        ..filtered().into()
    }
}

fn filtered() -> Filter {
    Filter {
        state: Some(MailState::Retired),
        ..Filter::default()
    }
}

async fn all_retired(queue: &LocalQueue) -> Vec<MailSummary> {
    queue.list(retired()).await.unwrap().mails
}

/// Submits a mail without anyone to report to, and brings it to its end.
pub async fn finish(stack: &Stack, content: &[u8], outcome: &Outcome) -> Envelope {
    let envelope = mail("", &["bob@local.test"]);
    submit(&stack.queue, &envelope, content).await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(lease.envelope.queue_id, envelope.queue_id);
    worker.settle(&lease, outcome).await;
    envelope
}

async fn content(queue: &LocalQueue, id: QueueId) -> Result<Bytes, QueueError> {
    collect_content(queue.read_any(id, 0).await?, 64 << 20).await
}

fn files(folder: &Path) -> usize {
    let listed = std::fs::read_dir(folder);
    listed.map(Iterator::count).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_a_moment_ago_is_found_at_once() {
    let stack = Stack::new().await;
    let queue = &stack.queue;
    let shown = finish(&stack, b"Subject: shown\r\n\r\n", &failed()).await;
    let details = queue.show(shown.queue_id).await.unwrap();
    assert_eq!(details.summary.state, MailState::Retired);

    let read = finish(&stack, b"Subject: read\r\n\r\n", &failed()).await;
    let octets = content(queue, read.queue_id).await.unwrap();
    assert_eq!(octets, "Subject: read\r\n\r\n");

    let found = finish(&stack, b"Subject: found\r\n\r\n", &failed()).await;
    let whole = found.queue_id.to_string();
    let prefix: QueueIdPrefix = whole[..25].parse().unwrap();
    assert_eq!(queue.find(prefix).await.unwrap(), found.queue_id);

    let listed = finish(&stack, b"Subject: listed\r\n\r\n", &failed()).await;
    assert_eq!(all_retired(queue).await[0].queue_id, listed.queue_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_is_listed_and_shown_and_contents_of_failures_are_kept() {
    let stack = Stack::new().await;
    let got = finish(&stack, b"Subject: got\r\n\r\n", &delivered()).await;
    let lost = finish(&stack, b"Subject: lost\r\n\r\n", &failed()).await;
    let dropped = mail("a@far.test", &["carol@far.test", "dave@other.test"]);
    submit(&stack.queue, &dropped, b"Subject: dropped\r\n\r\n")
        .await
        .unwrap();
    let these = Filter::of_ids(vec![dropped.queue_id]);
    change(&stack.queue, Change::Drop, these).await.unwrap();

    // The last checkpoint retires; twice, so that what was retired by another run is read, too.
    let stack = stack.restart().await.restart().await;
    let listed = all_retired(&stack.queue).await;
    let ids: Vec<QueueId> = listed.iter().map(|mail| mail.queue_id).collect();
    assert_eq!(ids, [dropped.queue_id, lost.queue_id, got.queue_id]);
    let facts = listed.iter().map(|mail| mail.retired.unwrap());
    let facts: Vec<_> = facts
        .map(|facts| (facts.ending, facts.has_content))
        .collect();
    let wanted = [
        (Ending::Dropped, true),
        (Ending::Failed, true),
        (Ending::Delivered, false),
    ];
    assert_eq!(facts, wanted);
    assert_eq!(listed[1].reason, "5.1.1 no such user here");

    let details = stack.queue.show(lost.queue_id).await.unwrap();
    assert_eq!(details.summary, listed[1]);
    assert_eq!(details.envelope.recipients, lost.recipients);
    let why = because(Cause::MailboxUnknown, failed());
    assert_eq!(details.recipients[0].outcome, Some(why));
    assert_eq!(details.attempts.len(), 1);
    let octets = content(&stack.queue, lost.queue_id).await.unwrap();
    assert_eq!(octets, "Subject: lost\r\n\r\n");
    let none = content(&stack.queue, got.queue_id).await.unwrap_err();
    assert!(
        none.to_string().contains("queued.retired.content"),
        "{none}"
    );
    let whole = got.queue_id.to_string();
    let prefix: QueueIdPrefix = whole[..24].parse().unwrap();
    assert_eq!(stack.queue.find(prefix).await.unwrap(), got.queue_id);

    // By filter, and page by page.
    let of = |sender: &str, destination: Option<&str>| {
        ListQuery::from(Filter {
            sender: Some(sender.to_owned()),
            destination: destination.map(str::to_owned),
            ..filtered()
        })
    };
    let found = stack.queue.list(of("a@far.test", None)).await.unwrap();
    assert_eq!(found.mails, listed[..1]);
    let found = stack.queue.list(of("", Some("other.test"))).await.unwrap();
    assert_eq!(found.mails, []);
    for newest_first in [true, false] {
        let mut wanted = listed.clone();
        if !newest_first {
            wanted.reverse();
        }
        let mut query = ListQuery {
            limit: 2,
            newest_first,
            ..retired()
        };
        let first = stack.queue.list(query.clone()).await.unwrap();
        assert_eq!(first.mails, wanted[..2]);
        query.after = first.next;
        let second = stack.queue.list(query).await.unwrap();
        assert_eq!((&second.mails[..], second.next), (&wanted[2..], None));
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_do_not_read_what_is_retired() {
    let stack = Stack::new().await;
    let lost = finish(&stack, b"Subject: lost\r\n\r\n", &failed()).await;
    let stack = stack.restart().await;
    assert!(content(&stack.queue, lost.queue_id).await.is_ok());
    let read = stack.queue.read(lost.queue_id, 0).await;
    assert!(matches!(read.map(drop), Err(QueueError::NotFound)));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_content_moves_over_and_outlives_the_sweep() {
    let large: Vec<u8> = (0..600_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let stack = Stack::new().await;
    let lost = finish(&stack, &large, &failed()).await;
    let got = finish(&stack, &large, &delivered()).await;
    let stack = stack.restart().await.restart().await;
    let folder = stack.folder.path().join("state/queue");
    assert_eq!(files(&folder.join("content")), 0);
    assert_eq!(files(&folder.join("retired/content")), 1);
    assert_eq!(content(&stack.queue, lost.queue_id).await.unwrap(), large);
    assert!(content(&stack.queue, got.queue_id).await.is_err());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_kept_goes_and_nothing_is_written() {
    let mut config = config();
    config.retired.content = KeptContent::All;
    let stack = Stack::with(config.clone()).await;
    let one = finish(&stack, b"kept\r\n", &delivered()).await;
    let stack = stack.restart().await;
    assert_eq!(
        content(&stack.queue, one.queue_id).await.unwrap(),
        "kept\r\n"
    );
    let folder = stack.stop().await;
    // Contents no more.
    config.retired.content = KeptContent::None;
    let stack = Stack::in_folder(Arc::clone(&folder), config.clone()).await;
    assert!(
        !all_retired(&stack.queue).await[0]
            .retired
            .unwrap()
            .has_content
    );
    assert!(content(&stack.queue, one.queue_id).await.is_err());
    stack.stop().await;
    // Nothing any more.
    config.retired.keep = Interval::seconds(0);
    let stack = Stack::in_folder(Arc::clone(&folder), config.clone()).await;
    let two = finish(&stack, b"gone\r\n", &failed()).await;
    let stack = stack.restart().await;
    assert_eq!(all_retired(&stack.queue).await, []);
    let none = stack.queue.show(two.queue_id).await;
    assert!(matches!(none, Err(QueueError::NotFound)));
    assert!(!folder.path().join("state/queue/retired").exists());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_not_seen_and_goes() {
    let mut config = config();
    config.retired.keep = Interval::millis(1_500);
    config.retired.content = KeptContent::All;
    config.timeline.keep = Interval::seconds(0);
    let stack = Stack::with(config).await;
    let folder = stack.folder.path().join("state/queue/retired");
    let marker = b"MARKER-OF-AN-OLD-MAIL";
    let old = finish(&stack, marker, &delivered()).await;
    let seen = async |wanted: usize| {
        while all_retired(&stack.queue).await.len() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = crate::setup::PATIENCE;
    tokio::time::timeout(patience, seen(1)).await.unwrap();
    tokio::time::timeout(patience, seen(0)).await.unwrap();
    assert!(stack.queue.show(old.queue_id).await.is_err());
    // Its segments, too, though nothing else fills them.
    let of = |kind: &str| segments(&folder.join(kind));
    let given_up = async || {
        while of("mails")
            .iter()
            .chain(&of("contents"))
            .any(|name| name.starts_with("0000000001"))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, given_up()).await.unwrap();
    stack.stop().await;
}

fn segments(folder: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(folder.join("segments")).unwrap();
    listed
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_stay_below_their_room() {
    let mut config = config();
    config.retired.content_max_size = ByteSize::mib(2);
    let stack = Stack::with(config).await;
    let mut ids = Vec::new();
    for size in [500_000, 100_000, 700_000, 90_000, 800_000, 110_000, 600_000] {
        ids.push(finish(&stack, &vec![b'x'; size], &failed()).await.queue_id);
    }
    // Tended once a second.
    let folder = stack.folder.path().join("state/queue/retired");
    let small = async || {
        while octets(&folder.join("content")) + octets(&folder.join("contents/segments")) > 2 << 20
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let stack = stack.restart().await;
    tokio::time::timeout(crate::setup::PATIENCE, small())
        .await
        .unwrap();
    // The oldest went, the newest is there; all can still be seen.
    assert_eq!(all_retired(&stack.queue).await.len(), ids.len());
    assert!(content(&stack.queue, ids[0]).await.is_err());
    let newest = content(&stack.queue, ids[6]).await.unwrap();
    assert_eq!(newest.len(), 600_000);
    stack.stop().await;
}

fn octets(folder: &Path) -> u64 {
    let listed = std::fs::read_dir(folder).unwrap();
    // A file may go while we look.
    let lengths = listed.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    lengths.sum()
}
