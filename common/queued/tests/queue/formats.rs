//! Formats: what an earlier release wrote is read, and stays what it is until someone says otherwise.
//!
//! `tests/formats/N` is a small queue as a release wrote it that knew no format after N; see the README there.

mod one;

use std::{fs, ops::ControlFlow, path::Path, path::PathBuf, sync::Arc};

use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{QueueId, RouteClass};
use postroad_journal::{Formats, Inspection, JournalError, Lsn, complete_segment};
use postroad_metrics::Metrics;
use postroad_queue::record::{CHECKPOINT, FORMATS, Record};
use postroad_queue_client::{
    Change, Filter, ListQuery, MailState, Order, QueueAdmin, QueueError, QueueService,
    collect_content,
};
use postroad_queued::{Config, Offline};
use tempfile::TempDir;

use crate::setup::{Stack, Worker, change, config, delayed, mail, prepare, submit};

/// Mail of a fixture never grows too old.
const FOR_EVER: Interval = Interval::days(365 * 50);

/// As the program that writes fixtures has it.
fn fixture_config() -> Config {
    let mut config = config();
    config.disk.segment = ByteSize::kib(64);
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    config.retry.give_up_after = FOR_EVER;
    config.remember_finished = FOR_EVER;
    config.dsn.gather = FOR_EVER;
    config
}

/// A content that follows from its length.
fn fixture_content(len: usize) -> Vec<u8> {
    let text = b"From the fixture, a line\r\n".iter().copied().cycle();
    text.take(len).collect()
}

/// Sends a mail of this length.
async fn send(stack: &Stack, to: &[&str], len: usize) -> QueueId {
    let envelope = mail("a@local.test", to);
    submit(&stack.queue, &envelope, &fixture_content(len))
        .await
        .unwrap();
    envelope.queue_id
}

fn fixture(format: u32) -> PathBuf {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    formats.join(format.to_string())
}

/// A folder as that release left it.
fn placed(format: u32) -> Arc<TempDir> {
    let place = Arc::new(tempfile::tempdir().unwrap());
    prepare(place.path());
    let to = queue_of(&place);
    for name in ["segments", "content"] {
        fs::create_dir_all(to.join(name)).unwrap();
        for entry in fs::read_dir(fixture(format).join(name)).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(name).join(entry.file_name());
            fs::copy(entry.path(), &to).unwrap();
            if name == "segments" {
                complete_segment(&to).unwrap();
            }
        }
    }
    fs::copy(fixture(format).join("FORMAT"), to.join("FORMAT")).unwrap();
    place
}

fn queue_of(place: &TempDir) -> PathBuf {
    place.path().join("state/queue")
}

fn format_of(place: &TempDir) -> String {
    fs::read_to_string(queue_of(place).join("FORMAT")).unwrap()
}

/// Every mail of the fixture is what it was, and there is no other one but these.
async fn compare(stack: &Stack, format: u32, others: usize) {
    let expected = fs::read_to_string(fixture(format).join("expected.txt")).unwrap();
    let mut living = 0;
    for line in expected.lines() {
        let mut words = line.split(' ');
        let id: QueueId = words.next().unwrap().parse().unwrap();
        let len: usize = words.next().unwrap().parse().unwrap();
        let stands: Vec<&str> = words.collect();
        if stands == ["done"] {
            assert!(stack.queue.trace(id).await.is_ok(), "finished: {line}");
            let shown = stack.queue.show(id).await;
            let is_over = match shown {
                Ok(details) => details.summary.retired.is_some(),
                Err(error) => error == QueueError::NotFound,
            };
            assert!(is_over, "{line}");
            continue;
        }
        living += 1;
        let details = stack.queue.show(id).await.expect(line);
        let found = details.recipients.iter().map(|recipient| {
            match (recipient.state, recipient.outcome.as_ref()) {
                (Some(MailState::Held), _) => "held",
                (None, Some(outcome)) if outcome.action() == "delivered" => "done",
                (_, Some(outcome)) if outcome.action() == "delivered" => "done",
                (_, Some(outcome)) if outcome.action() == "failed" => "owed",
                (Some(_), Some(outcome)) if outcome.action() == "delayed" => "delayed",
                (Some(MailState::Due), None) => "due",
                other => panic!("{line}: {other:?}"),
            }
        });
        assert_eq!(found.collect::<Vec<_>>(), stands, "{line}");
        let content = stack.queue.read(id, 0).await.unwrap();
        let content = collect_content(content, 1 << 20).await.unwrap();
        assert!(content == fixture_content(len), "{line}");
    }
    let query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    let page = stack.queue.list(query).await.unwrap();
    assert_eq!(page.mails.len(), living + others);
    let unknown = mail("a@local.test", &["bob@local.test"]).queue_id;
    assert!(stack.queue.trace(unknown).await.is_err());
}

fn problems(queue: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let offline = Offline::open(queue).unwrap();
    offline
        .verify(&fixture_config(), &mut |mut told| {
            problems.append(&mut told.problems);
            ControlFlow::Continue(())
        })
        .unwrap();
    problems
}

/// Every record, by a reader that knows format 1 and nothing else.
fn not_of_format_1(queue: &Path) -> Vec<String> {
    let look = Inspection::open(queue, FORMATS).unwrap();
    let mut found = Vec::new();
    let read = look.reader().replay(Lsn(0), |record| {
        let unknown = one::unknown(record.kind.0, record.payload);
        found.extend(unknown.map(|what| format!("record {}: {what}", record.lsn)));
        ControlFlow::Continue(())
    });
    assert!(read.unwrap().damage.is_empty());
    found
}

fn counts(queue: &Path) -> Vec<Option<u64>> {
    let look = Inspection::open(queue, FORMATS).unwrap();
    let mut found = Vec::new();
    let read = look.reader().replay(Lsn(0), |record| {
        if record.kind == CHECKPOINT {
            match Record::decode(record.kind, record.payload).unwrap() {
                Record::Checkpoint(checkpoint) => found.push(checkpoint.living_jobs),
                other => panic!("{other:?}"),
            }
        }
        ControlFlow::Continue(())
    });
    read.unwrap();
    found
}

/// Something of everything that is written.
async fn go_on(stack: &Stack) {
    for to in ["x@new.test", "bob@local.test"] {
        send(stack, &[to], 2_000).await;
    }
    send(stack, &["bob@local.test"], 30_000).await;
    change(&stack.queue, Change::Retry, Filter::to("later.test"))
        .await
        .unwrap();
    change(&stack.queue, Change::Hold, Filter::to("new.test"))
        .await
        .unwrap();
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &delayed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_format_is_read_and_kept() {
    for format in FORMATS.oldest..=FORMATS.newest {
        let place = placed(format);
        assert_eq!(problems(&queue_of(&place)), [""; 0], "format {format}");
        let stack = Stack::in_folder(place, fixture_config()).await;
        compare(&stack, format, 0).await;
        let place = stack.stop().await;
        assert_eq!(format_of(&place), format!("postroad-journal {format}\n"));
        assert_eq!(problems(&queue_of(&place)), [""; 0], "format {format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_goes_on_with_what_this_one_wrote_until_the_format_is_upgraded() {
    assert_eq!(not_of_format_1(&queue_of(&placed(1))), [""; 0]);
    let stack = Stack::in_folder(placed(1), fixture_config()).await;
    go_on(&stack).await;
    let stack = stack.restart().await;
    go_on(&stack).await;
    compare(&stack, 1, 6).await;
    let place = stack.stop().await;
    let queue = queue_of(&place);
    assert_eq!(format_of(&place), "postroad-journal 1\n");
    assert_eq!(not_of_format_1(&queue), [""; 0]);
    assert!(counts(&queue).iter().all(Option::is_none));

    let mut offline = Offline::open(&queue).unwrap();
    assert_eq!(offline.to_upgrade().unwrap(), Some((1, FORMATS.newest)));
    offline.upgrade_format().unwrap();
    assert_eq!(offline.to_upgrade().unwrap(), None);
    drop(offline);
    let one = Formats {
        oldest: 1,
        newest: 1,
    };
    let refused = Inspection::open(&queue, one).map(drop);
    assert!(matches!(refused, Err(JournalError::LaterFormat { .. })));
    let stack = Stack::in_folder(place, fixture_config()).await;
    compare(&stack, 1, 6).await;
    let place = stack.stop().await;
    assert!(counts(&queue_of(&place)).last().unwrap().is_some());
    assert!(
        !not_of_format_1(&queue_of(&place)).is_empty(),
        "the reader of format 1 sees what it does not know"
    );
    assert_eq!(problems(&queue_of(&place)), [""; 0]);
}

/// The release before would take the zeros that a purge leaves for a damaged mail.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_purged_until_the_format_is_upgraded() {
    let expected = fs::read_to_string(fixture(1).join("expected.txt")).unwrap();
    let done = expected.lines().find(|line| line.ends_with(" done"));
    let done: QueueId = done.unwrap().split(' ').next().unwrap().parse().unwrap();
    let order = || Order::from(Filter::of_ids(vec![done]));
    let stack = Stack::in_folder(placed(1), fixture_config()).await;
    let refused = stack.queue.purge(order()).await.unwrap_err();
    let why = refused.to_string();
    assert!(
        why.contains("format 1") && why.contains("upgrade-format"),
        "{why}"
    );
    let place = stack.stop().await;
    assert_eq!(not_of_format_1(&queue_of(&place)), [""; 0]);
    let mut offline = Offline::open(&queue_of(&place)).unwrap();
    offline.upgrade_format().unwrap();
    drop(offline);
    let stack = Stack::in_folder(place, fixture_config()).await;
    assert_eq!(stack.queue.purge(order()).await.unwrap().mails, 1);
    compare(&stack, 1, 0).await;
    let place = stack.stop().await;
    assert_eq!(problems(&queue_of(&place)), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_folder_is_in_the_newest_format_and_a_later_one_is_refused() {
    let stack = Stack::with(fixture_config()).await;
    let place = stack.stop().await;
    let newest = FORMATS.newest;
    assert_eq!(format_of(&place), format!("postroad-journal {newest}\n"));
    let later = format!("postroad-journal {}\n", newest + 1);
    fs::write(queue_of(&place).join("FORMAT"), later).unwrap();
    let opened = Offline::open(&queue_of(&place)).map(drop).unwrap_err();
    assert!(opened.to_string().contains("a later one"), "{opened}");
    let common = crate::setup::common(place.path());
    let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
    let started = postroad_queued::start(
        fixture_config(),
        &common,
        directory,
        &Metrics::new("queued"),
    )
    .await;
    assert_eq!(started.map(drop).unwrap_err().exit_status(), 78);
}

/// What no other check can tell, where the index is gone as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_its_first_segments_is_told_by_the_count() {
    let place = placed(2);
    let queue = queue_of(&place);
    let first = fs::read_dir(queue.join("segments")).unwrap();
    let first = first.map(|entry| entry.unwrap().path()).min().unwrap();
    fs::remove_file(first).unwrap();
    let problems = problems(&queue);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("records are missing"), "{problems:?}");
}
