//! What happened to a mail, told also after restarts, to bounded cost.

use std::{path::PathBuf, time::Duration};

use futures::StreamExt as _;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{
    Cause, Event, EventKind, Origin, Protocol, QueueId, RouteClass, Timestamp, TlsFacts,
};
use postroad_queue_client::{
    QueueAdmin, QueueError, QueueService, WatchQuery, WatchStream, Watched,
};
use tokio::time::timeout;

use crate::setup::{
    PATIENCE, Stack, Worker, because, config, delayed, delivered, failed, mail, submit,
};

const RELAY: &[RouteClass] = &[RouteClass::Relay];

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn of_kind(events: &[Event], kind: EventKind) -> &Event {
    let found = events.iter().find(|event| event.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind:?} in {events:?}"))
}

fn event(queue_id: QueueId, text: impl Into<String>) -> Event {
    Event {
        queue_id,
        at: Timestamp::from(std::time::SystemTime::now()),
        agent: "mta@localhost".to_owned(),
        kind: EventKind::Attempt,
        recipients: Vec::new(),
        text: text.into(),
        fields: Default::default(),
    }
}

fn segments(stack: &Stack) -> Vec<PathBuf> {
    let folder = stack.folder.path().join("state/queue/timeline/segments");
    let found = std::fs::read_dir(folder).unwrap();
    let found = found.map(|entry| entry.unwrap().path());
    found
        .filter(|path| path.to_string_lossy().ends_with(".seg"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_mail_is_told_in_order_and_again_after_a_restart() {
    let stack = Stack::new().await;
    let mut envelope = mail("a@local.test", &["x@far.test"]);
    envelope.account = Some("a@local.test".to_owned());
    envelope.listener = "submission".to_owned();
    envelope.facts = [("message_id".to_owned(), "<1@a.test>".to_owned())].into();
    envelope.origin = Origin {
        client: Some("192.0.2.7:2525".parse().unwrap()),
        tls: Some(TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            verified: None,
        }),
        protocol: Protocol::Esmtp {
            tls: true,
            auth: true,
            utf8: false,
        },
        ..Origin::default()
    };
    let id = envelope.queue_id;
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let lease = worker.lease().await;
    let told = event(id, "nobody answers");
    stack.queue.record(vec![told.clone()]).await.unwrap();
    worker.settle(&lease, &delayed()).await;
    let shown = stack.queue.show(id).await.unwrap().attempts;
    assert_eq!((shown.len(), shown[0].number), (1, 1));
    let why = because(Cause::Connection, delayed());
    assert_eq!(shown[0].outcomes[0].1, why);

    let before = stack.queue.trace(id).await.unwrap();
    assert_eq!(
        kinds(&before),
        ["accepted", "routed", "leased", "attempt", "settled"]
    );
    let accepted = of_kind(&before, EventKind::Accepted);
    for (name, value) in [
        ("mail_from", "a@local.test"),
        ("rcpt_to", "x@far.test"),
        ("account", "a@local.test"),
        ("peer", "192.0.2.7:2525"),
        ("tls", "TLS1.3 TLS_AES_256_GCM_SHA384"),
        ("protocol", "ESMTPSA"),
        ("listener", "submission"),
        ("message_id", "<1@a.test>"),
        ("size", "4"),
    ] {
        assert_eq!(accepted.fields.get(name).map(String::as_str), Some(value));
    }
    assert_eq!(of_kind(&before, EventKind::Routed).fields["rule"], "mx");
    assert_eq!(of_kind(&before, EventKind::Attempt), &told);
    let settled = of_kind(&before, EventKind::Settled);
    assert_eq!(settled.fields["outcome"], "delayed");
    assert_eq!(settled.fields["worker"], "test@localhost");

    let stack = stack.restart().await;
    assert_eq!(stack.queue.trace(id).await.unwrap(), before);
    assert_eq!(stack.queue.show(id).await.unwrap().attempts, shown);
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &failed()).await;
    let done = async {
        while !kinds(&stack.queue.trace(id).await.unwrap()).contains(&"dsn_sent") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, done)
        .await
        .expect("the report is told of");
    // Now it is finished, and known all the same.
    let stack = stack.restart().await;
    let after = stack.queue.trace(id).await.unwrap();
    assert_eq!(after[..before.len()], before);
    let report = of_kind(&after, EventKind::DsnSent).fields["report"].clone();
    let report = stack.queue.trace(report.parse().unwrap()).await.unwrap();
    assert_eq!(kinds(&report)[..2], ["accepted", "routed"]);
    let accepted = of_kind(&report, EventKind::Accepted);
    assert_eq!(accepted.fields["rcpt_to"], "a@local.test");
    assert_eq!(accepted.fields["protocol"], "internal");
    assert!(accepted.fields.contains_key("message_id"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_segment_goes_when_there_is_no_room_for_more() {
    let mut config = config();
    config.timeline.max_size = ByteSize::kib(512);
    let stack = Stack::with(config).await;
    let (first, last) = (mail("", &["x@far.test"]), mail("", &["x@far.test"]));
    submit(&stack.queue, &first, b"\r\nhi").await.unwrap();
    let filler = || event(first.queue_id, "x".repeat(1_000));
    for _ in 0..40 {
        let events = (0..50).map(|_| filler()).collect();
        stack.queue.record(events).await.unwrap();
        stack.queue.trace(first.queue_id).await.unwrap();
    }
    submit(&stack.queue, &last, b"\r\nhi").await.unwrap();
    let shrunk = async {
        while segments(&stack).len() > 512 / 64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, shrunk).await.expect("room is given back");
    let accepted = |events: &[Event]| kinds(events).contains(&"accepted");
    let events = stack.queue.trace(first.queue_id).await.unwrap();
    assert!(!accepted(&events) && !events.is_empty());
    let stack = stack.restart().await;
    assert!(accepted(&stack.queue.trace(last.queue_id).await.unwrap()));
    assert!(!accepted(&stack.queue.trace(first.queue_id).await.unwrap()));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_go_and_none_are_kept_where_none_are_wanted() {
    let mut config = config();
    config.timeline.keep = Interval::millis(1);
    let stack = Stack::with(config.clone()).await;
    let envelope = mail("", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    assert!(
        !stack
            .queue
            .trace(envelope.queue_id)
            .await
            .unwrap()
            .is_empty()
    );
    // The segment is sealed by the restart; the next one is begun by the next mail.
    let stack = stack.restart().await;
    let next = mail("", &["x@far.test"]);
    submit(&stack.queue, &next, b"\r\nhi").await.unwrap();
    let gone = async {
        // The mail itself lives on.
        while stack.queue.trace(envelope.queue_id).await != Ok(Vec::new()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("old events go");

    config.timeline.keep = Interval::millis(0);
    let folder = stack.stop().await;
    let stack = Stack::in_folder(folder, config).await;
    assert!(!stack.folder.path().join("state/queue/timeline").exists());
    submit(&stack.queue, &mail("", &["x@far.test"]), b"\r\nhi")
        .await
        .unwrap();
    assert_eq!(stack.queue.trace(next.queue_id).await, Ok(Vec::new()));
    let unknown = mail("", &["x@far.test"]).queue_id;
    assert_eq!(stack.queue.trace(unknown).await, Err(QueueError::NotFound));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_cannot_be_opened_does_not_stop_the_queue() {
    let stack = Stack::new().await;
    let folder = stack.stop().await;
    let timeline = folder.path().join("state/queue/timeline");
    std::fs::write(timeline.join("FORMAT"), "something else\n").unwrap();
    let stack = Stack::in_folder(folder, config()).await;
    let envelope = mail("a@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, RELAY).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &delivered()).await;
    assert_eq!(stack.queue.trace(envelope.queue_id).await, Ok(Vec::new()));
    stack.stop().await;
}

/// Begins with whole records, then what a power cut leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_costs_no_more_than_itself() {
    use std::os::unix::fs::FileExt;

    let stack = Stack::new().await;
    let (first, last) = (mail("", &["x@far.test"]), mail("", &["x@far.test"]));
    submit(&stack.queue, &first, b"\r\nhi").await.unwrap();
    let told = stack.queue.trace(first.queue_id).await.unwrap();
    submit(&stack.queue, &last, b"\r\nhi").await.unwrap();
    let written = segments(&stack);
    let folder = stack.stop().await;
    let is_active = |path: &&PathBuf| path.file_name().unwrap() == "0000000001.seg";
    let active = written.iter().find(is_active).unwrap();
    let bytes = std::fs::read(active).unwrap();
    // The last record's id is in it.
    let id = last.queue_id.to_bytes();
    let at = bytes.windows(16).rposition(|window| window == id).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(active)
        .unwrap();
    file.write_all_at(&[0; 64], at as u64).unwrap();
    let stack = Stack::in_folder(folder, config()).await;
    assert_eq!(stack.queue.trace(first.queue_id).await.unwrap(), told);
    assert_eq!(stack.queue.trace(last.queue_id).await, Ok(Vec::new()));
    stack
        .queue
        .record(vec![event(last.queue_id, "goes on")])
        .await
        .unwrap();
    assert_eq!(stack.queue.trace(last.queue_id).await.unwrap().len(), 1);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_found_by_message_id_and_recipient_newest_last() {
    let stack = Stack::new().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let mut envelope = mail("a@local.test", &["x@far.test", "Some.One@far.test"]);
        envelope.facts = [("message_id".to_owned(), format!("<{number}@a.test>"))].into();
        submit(&stack.queue, &envelope, b"\r\nhi").await.unwrap();
        ids.push(envelope.queue_id);
    }
    // Each is told of apart.
    let found = async |stack: &Stack, text: &str, limit| {
        let events = stack.queue.trace_by(text, limit).await?;
        let mut ids: Vec<QueueId> = events.iter().map(|event| event.queue_id).collect();
        ids.dedup();
        Ok::<_, QueueError>(ids)
    };
    let stack = {
        assert_eq!(found(&stack, "<1@a.test>", 0).await, Ok(vec![ids[1]]));
        stack.restart().await
    };
    for text in ["some.one@far.test", "<Some.One@FAR.test>"] {
        assert_eq!(found(&stack, text, 0).await.as_ref(), Ok(&ids));
    }
    assert_eq!(found(&stack, "x@far.test", 2).await, Ok(ids[1..].to_vec()));
    assert_eq!(found(&stack, "1@a.test", 0).await, Ok(vec![ids[1]]));
    for text in ["y@far.test", "3@a.test", "", "a@local.test"] {
        assert_eq!(found(&stack, text, 0).await, Err(QueueError::NotFound));
    }
    stack.stop().await;
}

async fn next(events: &mut WatchStream) -> Watched {
    let next = timeout(PATIENCE, events.next()).await.expect("in time");
    next.expect("goes on").expect("no error")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_each_event_once_and_goes_on_from_its_cursor() {
    let stack = Stack::new().await;
    let (meant, other) = (mail("", &["x@far.test"]), mail("", &["y@far.test"]));
    let id = meant.queue_id;
    submit(&stack.queue, &meant, b"\r\nhi").await.unwrap();
    let of_one = |after| WatchQuery {
        ids: vec![id],
        after,
        ..WatchQuery::default()
    };
    let mut events = stack.queue.watch(of_one(None)).await.unwrap();
    let mut all = stack.queue.watch(WatchQuery::default()).await.unwrap();
    let accepted = next(&mut events).await;
    assert_eq!(accepted.event.kind, EventKind::Accepted);
    let routed = next(&mut events).await;
    assert_eq!(routed.event.kind, EventKind::Routed);
    // Live: the other mail's events are passed over.
    submit(&stack.queue, &other, b"\r\nhi").await.unwrap();
    let record = async |text: String| stack.queue.record(vec![event(id, text)]).await.unwrap();
    record("now".to_owned()).await;
    let now = next(&mut events).await;
    assert_eq!(now.event.text, "now");
    assert!(accepted.cursor < routed.cursor && routed.cursor < now.cursor);
    // Whoever asks for all without a cursor gets what is new.
    loop {
        let watched = next(&mut all).await;
        assert_ne!(watched, accepted);
        if watched == now {
            break;
        }
    }
    drop(events);
    for number in 0..1_500 {
        record(number.to_string()).await;
    }
    let mut resumed = stack
        .queue
        .watch(of_one(Some(routed.cursor)))
        .await
        .unwrap();
    assert_eq!(next(&mut resumed).await, now);
    for number in 0..700 {
        assert_eq!(next(&mut resumed).await.event.text, number.to_string());
    }
    // More than a page, and while new ones come.
    record("last".to_owned()).await;
    for number in 700..1_500 {
        assert_eq!(next(&mut resumed).await.event.text, number.to_string());
    }
    let last = next(&mut resumed).await;
    assert_eq!(last.event.text, "last");

    // The cursor outlives the queue's process.
    let stack = stack.restart().await;
    let ended = timeout(PATIENCE, resumed.next()).await;
    assert!(ended.expect("in time").is_none(), "the queue stopped");
    let mut resumed = stack.queue.watch(of_one(Some(now.cursor))).await.unwrap();
    assert_eq!(next(&mut resumed).await.event.text, "0");
    let mut resumed = stack.queue.watch(of_one(Some(last.cursor))).await.unwrap();
    stack.queue.record(vec![event(id, "after")]).await.unwrap();
    assert_eq!(next(&mut resumed).await.event.text, "after");
    let all = WatchQuery {
        after: Some(accepted.cursor),
        ..WatchQuery::default()
    };
    let mut all = stack.queue.watch(all).await.unwrap();
    assert_eq!(next(&mut all).await, routed);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_by_recipient_hears_of_mail_that_was_there_and_of_mail_that_comes() {
    let stack = Stack::new().await;
    let to = |address: &str| mail("", &[address]);
    let (before, other) = (to("Bob@far.test"), to("y@far.test"));
    submit(&stack.queue, &before, b"\r\nhi").await.unwrap();
    submit(&stack.queue, &other, b"\r\nhi").await.unwrap();
    let query = WatchQuery {
        text: Some("<bob@FAR.test>".to_owned()),
        kinds: vec![EventKind::Accepted, EventKind::Attempt],
        ..WatchQuery::default()
    };
    let mut events = stack.queue.watch(query.clone()).await.unwrap();
    let first = next(&mut events).await;
    let of = |watched: &Watched| (watched.event.queue_id, watched.event.kind);
    assert_eq!(of(&first), (before.queue_id, EventKind::Accepted));
    // Comes while it follows; what happens to the other mail, and events of other kinds, are passed over.
    let later = to("bob@far.test");
    submit(&stack.queue, &later, b"\r\nhi").await.unwrap();
    let record = async |id| stack.queue.record(vec![event(id, "tried")]).await.unwrap();
    record(other.queue_id).await;
    record(later.queue_id).await;
    let second = next(&mut events).await;
    assert_eq!(of(&second), (later.queue_id, EventKind::Accepted));
    let third = next(&mut events).await;
    assert_eq!(of(&third), (later.queue_id, EventKind::Attempt));
    drop(events);
    // Goes on from its cursor, after a restart too.
    let stack = stack.restart().await;
    let resumed = WatchQuery {
        after: Some(first.cursor),
        ..query
    };
    let mut events = stack.queue.watch(resumed).await.unwrap();
    assert_eq!(next(&mut events).await, second);
    assert_eq!(next(&mut events).await, third);
    stack.stop().await;
}
