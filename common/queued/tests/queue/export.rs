//! Mail out of the files of a queue that is dead, and into another queue.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path};

use bytes::Bytes;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{
    BodyKind, EditPlace, Envelope, EventKind, HeaderEdit, Notify, OriginalRecipient, QueueId, Ret,
    RouteClass,
};
use postroad_queue_client::{
    Change, Filter, ListQuery, MailDetails, MailState, QueueAdmin, QueueError, QueueService,
    collect_content,
};
use postroad_queued::{
    Config, Offline, OfflineError,
    export::{Export, Exported, Which},
};

use crate::setup::{Stack, Worker, change, config, delayed, delivered, failed, mail, submit};

const CLASSES: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];
const LARGEST: usize = 5 << 20;

fn slow() -> Config {
    let mut config = config();
    config.disk.segment = ByteSize::kib(256);
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    config.dsn.gather = Interval::hours(1);
    config
}

fn all() -> Which {
    Which {
        filter: Filter::all(),
        prefixes: Vec::new(),
    }
}

/// What a `kill -9` leaves of the queue, without its index.
fn remains(stack: &Stack, to: &Path) {
    copy(&stack.folder.path().join("state/queue"), to);
    fs::remove_file(to.join("LOCK")).unwrap();
}

/// The queue runs meanwhile: what it replaced since the folder was read is not there any more, and its index never stands still.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type() {
            _ if entry.file_name() == "index" => {}
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &to),
            Ok(_) => match fs::copy(entry.path(), to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
}

fn export(queue: &Path, to: &Path, which: &Which) -> Exported {
    let offline = Offline::open(queue).unwrap();
    let mut told = 0;
    let exported = offline.export(to, which, &mut |at| {
        assert!(at.done <= at.total);
        told = at.mails;
        ControlFlow::Continue(())
    });
    let exported = exported.unwrap();
    assert_eq!(told, exported.mails);
    exported
}

/// Imported, known already, refused.
async fn import(admin: &dyn QueueAdmin, from: &Path, dry_run: bool) -> (u64, u64, Vec<String>) {
    let mut export = Export::open(from).unwrap();
    let (mut imported, mut known, mut refused) = (0, 0, Vec::new());
    while let Some(next) = export.next_mail().unwrap() {
        let next = next.unwrap();
        let mut mail = next.imported().unwrap();
        mail.dry_run = dry_run;
        match admin.import(mail, export.content(&next)).await {
            Ok(false) => imported += 1,
            Ok(true) => known += 1,
            Err(error) => refused.push(error.to_string()),
        }
    }
    assert_eq!(imported + known + refused.len() as u64, export.mails);
    (imported, known, refused)
}

/// All that is kept of each mail, with its content.
async fn everything(stack: &Stack) -> BTreeMap<QueueId, (MailDetails, Bytes)> {
    let query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    let page = stack.queue.list(query).await.unwrap();
    let mut found = BTreeMap::new();
    for mail in page.mails {
        let mut details = stack.queue.show(mail.queue_id).await.unwrap();
        // Of the timeline, which is not exported.
        details.attempts.clear();
        let content = stack.queue.read(mail.queue_id, 0).await.unwrap();
        let content = collect_content(content, LARGEST * 2).await.unwrap();
        found.insert(mail.queue_id, (details, content));
    }
    found
}

/// An envelope in which nothing is as by default.
fn rich() -> Envelope {
    let mut envelope = mail("\"a b\"@local.test", &["x@one.test", "bob@local.test"]);
    let first = &mut envelope.recipients[0];
    first.original = Some("old@local.test".parse().unwrap());
    first.notify = Notify::Never;
    first.orcpt = Some(OriginalRecipient {
        address_type: "rfc822".to_owned(),
        address: "o@one.test".to_owned(),
    });
    first.route_override = Some((RouteClass::Relay, Some("mx.one.test:2525".parse().unwrap())));
    envelope.recipients[1].target_folder = Some("Archive".to_owned());
    envelope.account = Some("alice@local.test".to_owned());
    envelope.tenant = "acme".to_owned();
    envelope.tags = vec!["bulk".to_owned()];
    envelope.facts = [("message_id".to_owned(), "<1@x>".to_owned())].into();
    envelope.verdicts = [("dkim".to_owned(), "pass".to_owned())].into();
    envelope.priority = -5;
    envelope.body = BodyKind::EightBitMime;
    envelope.smtputf8 = true;
    envelope.requiretls = true;
    envelope.envid = Some("e d".to_owned());
    envelope.ret = Some(Ret::Headers);
    envelope.auth = Some(String::new());
    envelope.trace_context = Some("00-aa".to_owned());
    envelope.header_edits = vec![
        HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"X-Edit: \xff\r\n".to_vec(),
        },
        HeaderEdit::Add {
            place: EditPlace::Bottom,
            field: "X-Ende: ä\r\n".into(),
        },
        HeaderEdit::Remove {
            name: "Bcc".to_owned(),
            occurrence: Some(1),
        },
    ];
    envelope.origin.client = Some("[2001:db8::1]:25".parse().unwrap());
    envelope.origin.helo = Some("client.test".to_owned());
    envelope
}

/// Mails in every state; contents from nothing to 5 MiB, some of which are no text.
async fn fill(stack: &Stack) -> usize {
    let queue = &stack.queue;
    let mut contents = vec![
        Vec::new(),
        b"Subject: a\r\n\r\nFrom here\r\n>From there\r\n".to_vec(),
        b"Subject: a\n\rFrom \x00\xff\r".to_vec(),
        b"Subject: no end of line\r\n\r\nFrom".to_vec(),
        b"\n".to_vec(),
    ];
    for size in [1 << 10, 100 << 10, 300 << 10, LARGEST] {
        let line = b"From > line \r\n";
        let mut content: Vec<u8> = line.iter().copied().cycle().take(size).collect();
        content.extend_from_slice(b"\r\n");
        contents.push(content);
    }
    let sent = contents.len() + 5;
    for content in contents {
        let envelope = mail("a@local.test", &["x@far.test", "bob@local.test"]);
        submit(queue, &envelope, &content).await.unwrap();
    }
    submit(queue, &rich(), b"Subject: rich\r\n\r\n")
        .await
        .unwrap();
    let held = mail("a@local.test", &["x@held.test"]);
    submit(queue, &held, b"\r\nheld").await.unwrap();
    let ids = Filter::of_ids(vec![held.queue_id]);
    change(queue, Change::Hold, ids).await.unwrap();
    // Nobody hears of a failure of a report.
    let report = mail("", &["alice@local.test"]);
    submit(queue, &report, b"\r\nreport").await.unwrap();
    // Part delivered, part delayed; one that owes a report of one recipient, whose other one waits.
    let part = mail("a@local.test", &["p@part.test", "bob@local.test"]);
    let owing = mail("a@local.test", &["x@owing.test", "y@owing.test"]);
    let done = mail("a@local.test", &["d@done.test"]);
    for envelope in [&part, &owing, &done] {
        submit(queue, envelope, b"\r\nx").await.unwrap();
    }
    let mut worker = Worker::connect(queue, CLASSES).await;
    let mut seen = 0;
    while seen < 4 {
        let lease = worker.lease().await;
        let to: Vec<_> = lease
            .envelope
            .recipients
            .iter()
            .map(|to| to.index)
            .collect();
        let id = lease.envelope.queue_id;
        let first = lease.envelope.recipients[0].address.to_string();
        let outcomes = match first.as_str() {
            "p@part.test" => vec![(to[0], delayed())],
            "bob@local.test" if id == part.queue_id => vec![(to[0], delivered())],
            "x@owing.test" => vec![(to[0], failed()), (to[1], delayed())],
            "d@done.test" => vec![(to[0], delivered())],
            _ => continue,
        };
        worker.settle_each(lease.lease, outcomes).await;
        seen += 1;
    }
    let urgent = Filter::to("part.test");
    change(queue, Change::Priority(7), urgent).await.unwrap();
    sent
}

/// As it is in the other queue: what only tells of the way there is left out.
fn comparable(all: BTreeMap<QueueId, (MailDetails, Bytes)>) -> Vec<(String, Bytes)> {
    let all = all.into_values().map(|(mut details, content)| {
        // Without a worker they are due.
        if details.summary.state == MailState::Leased {
            details.summary.state = MailState::Due;
        }
        for recipient in &mut details.recipients {
            if recipient.state == Some(MailState::Leased) {
                recipient.state = Some(MailState::Due);
            }
            // Due is due, whenever that was.
            if recipient.state == Some(MailState::Due) {
                recipient.next_attempt = None;
            }
        }
        (format!("{details:#?}"), content)
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_queue_is_exported_and_lives_on_in_another() {
    let stack = Stack::with(slow()).await;
    let sent = fill(&stack).await;
    let before = everything(&stack).await;
    assert_eq!(before.len(), sent);
    let place = tempfile::tempdir().unwrap();
    let (dead, to) = (place.path().join("dead"), place.path().join("export"));
    remains(&stack, &dead);
    stack.stop().await;
    let exported = export(&dead, &to, &all());
    assert_eq!(exported.mails, sent as u64);
    assert_eq!((exported.problem_count, exported.problems), (0, vec![]));
    let octets: usize = before.values().map(|(_, content)| content.len()).sum();
    assert_eq!(exported.octets, octets as u64);
    for name in ["queue.mbox", "envelopes.jsonl", "export.json"] {
        use std::os::unix::fs::MetadataExt as _;
        let mode = fs::metadata(to.join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(&to).unwrap().count(), 3, "nothing else stays");
    let mbox = fs::read(to.join("queue.mbox")).unwrap();
    let begins = mbox.split(|octet| *octet == b'\n');
    let begins = begins.filter(|line| line.starts_with(b"From ")).count();
    assert_eq!(begins, sent, "each mail begins once");

    let other = Stack::with(slow()).await;
    let none = import(&other.queue, &to, true).await;
    assert_eq!(none, (sent as u64, 0, vec![]));
    assert!(
        everything(&other).await.is_empty(),
        "a dry run does nothing"
    );
    assert_eq!(
        import(&other.queue, &to, false).await,
        (sent as u64, 0, vec![])
    );
    let after = everything(&other).await;
    let (before, after) = (comparable(before), comparable(after));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    // Again: nothing comes twice, also after a restart.
    for dry_run in [true, false] {
        let again = import(&other.queue, &to, dry_run).await;
        assert_eq!(again, (0, sent as u64, vec![]));
    }
    let other = other.restart().await;
    assert_eq!(
        import(&other.queue, &to, false).await,
        (0, sent as u64, vec![])
    );
    assert_eq!(comparable(everything(&other).await), after);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_not_done_again_and_what_is_owed_is_reported() {
    let mut config = slow();
    let stack = Stack::with(config.clone()).await;
    fill(&stack).await;
    let place = tempfile::tempdir().unwrap();
    let (dead, to) = (place.path().join("dead"), place.path().join("export"));
    remains(&stack, &dead);
    stack.stop().await;
    let which = |to: &str| Which {
        filter: Filter::to(to).folded(),
        prefixes: Vec::new(),
    };
    assert_eq!(export(&dead, &to, &which("owing.test")).mails, 1);
    config.dsn.gather = Interval::millis(1);
    let other = Stack::with(config).await;
    let mut reports = Worker::connect(&other.queue, &[RouteClass::Local]).await;
    let counted = import(&other.queue, &to, false).await;
    assert_eq!(counted, (1, 0, vec![]));
    let report = reports.lease().await;
    assert!(report.envelope.reverse_path.is_null());
    let told = other.queue.read(report.envelope.queue_id, 0).await.unwrap();
    let told = collect_content(told, 1 << 20).await.unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("x@owing.test") && !told.contains("y@owing.test"));
    // Only the other recipient is tried, when its time has come.
    let id = everything(&other).await.into_keys().next().unwrap();
    change(&other.queue, Change::Retry, Filter::of_ids(vec![id]))
        .await
        .unwrap();
    let mut worker = Worker::connect(&other.queue, &[RouteClass::Relay]).await;
    let lease = worker.lease().await;
    let to: Vec<String> = lease
        .envelope
        .recipients
        .iter()
        .map(|to| to.address.to_string())
        .collect();
    assert_eq!(to, ["y@owing.test"]);
    let events = other.queue.trace(id).await.unwrap();
    let admin = events.iter().find(|event| event.kind == EventKind::Admin);
    assert!(admin.is_some_and(|event| event.text.starts_with("import, by")));
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_and_all_else_is_exported() {
    let stack = Stack::with(slow()).await;
    let mut ids = Vec::new();
    for size in [1_000, 2_000, 300_000, 400_000, 3_000] {
        let envelope = mail("a@local.test", &["x@far.test"]);
        submit(&stack.queue, &envelope, &vec![b'x'; size])
            .await
            .unwrap();
        ids.push(envelope.queue_id);
    }
    let place = tempfile::tempdir().unwrap();
    let (dead, to) = (place.path().join("dead"), place.path().join("export"));
    remains(&stack, &dead);
    stack.stop().await;
    // The record of the second mail, and the content of the third.
    let segment = dead.join("segments/0000000001.seg");
    let mut octets = fs::read(&segment).unwrap();
    let at = octets
        .windows(1_500)
        .position(|found| found == [b'x'; 1_500]);
    octets[at.unwrap() + 100] ^= 1;
    fs::write(&segment, octets).unwrap();
    let contents = fs::read_dir(dead.join("content")).unwrap();
    let large = contents.map(|entry| entry.unwrap().path());
    let large = large
        .min_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut octets = fs::read(&large).unwrap();
    octets[7] ^= 1;
    fs::write(&large, octets).unwrap();
    let exported = export(&dead, &to, &all());
    let named = |text: &str| {
        exported
            .problems
            .iter()
            .any(|problem| problem.contains(text))
    };
    // If a checkpoint came before the copy, its count misses the second mail too.
    let by_count = u64::from(named("by the count of the last checkpoint"));
    assert_eq!((exported.mails, exported.problem_count), (3, 2 + by_count));
    assert!(named("are damaged"), "{exported:?}");
    assert!(named(&ids[2].to_string()), "{exported:?}");
    let other = Stack::with(slow()).await;
    assert_eq!(import(&other.queue, &to, false).await, (3, 0, vec![]));
    let wanted = [ids[0], ids[3], ids[4]];
    assert_eq!(
        everything(&other).await.into_keys().collect::<Vec<_>>(),
        wanted
    );
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_whole_or_none() {
    let stack = Stack::with(slow()).await;
    let envelope = mail("a@local.test", &["x@far.test"]);
    submit(&stack.queue, &envelope, b"\r\nx").await.unwrap();
    let running = stack.folder.path().join("state/queue");
    assert!(matches!(
        Offline::open(&running).map(drop),
        Err(OfflineError::Runs { .. })
    ));
    let place = tempfile::tempdir().unwrap();
    let (dead, to) = (place.path().join("dead"), place.path().join("export"));
    remains(&stack, &dead);
    let offline = Offline::open(&dead).unwrap();
    let broken = offline.export(&to, &all(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(broken, Err(OfflineError::BrokenOff)));
    assert!(!to.exists(), "nothing stays");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("other"), "x").unwrap();
    let full = offline.export(&to, &all(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(full, Err(OfflineError::NotEmpty(_))));
    drop(offline);
    assert_eq!(fs::read(to.join("other")).unwrap(), b"x");
    fs::remove_file(to.join("other")).unwrap();
    assert_eq!(export(&dead, &to, &all()).mails, 1);
    // The same id with another content is refused.
    let mbox = fs::read(to.join("queue.mbox")).unwrap();
    let mut export = Export::open(&to).unwrap();
    let next = export.next_mail().unwrap().unwrap().unwrap();
    let mut other = next.imported().unwrap();
    other.crc32c ^= 1;
    let taken = stack.queue.import(other, export.content(&next)).await;
    assert!(matches!(taken, Err(QueueError::IdTaken)), "{taken:?}");
    let empty = Stack::with(slow()).await;
    let mut other = next.imported().unwrap();
    other.crc32c ^= 1;
    let damaged = empty.queue.import(other, export.content(&next)).await;
    assert!(
        matches!(damaged, Err(QueueError::Invalid(_))),
        "{damaged:?}"
    );
    // Cut, or without its last file, it is none.
    fs::write(to.join("queue.mbox"), &mbox[..mbox.len() - 1]).unwrap();
    assert!(Export::open(&to).is_err());
    fs::write(to.join("queue.mbox"), &mbox).unwrap();
    assert!(Export::open(&to).is_ok());
    fs::remove_file(to.join("export.json")).unwrap();
    assert!(Export::open(&to).is_err());
    stack.stop().await;
    empty.stop().await;
}
