//! Flipped bits: in segments, content files and the index. What is damaged is told and put aside, all other mail goes on.
//!
//! `POSTROAD_FLIPS` and `POSTROAD_SEED` choose others than the usual.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{QueueId, RouteClass};
use postroad_journal::{Inspection, Lsn};
use postroad_metrics::Metrics;
use postroad_queue::record::{MAIL, MailRecord};
use postroad_queue_client::{ListQuery, MailState, QueueAdmin, QueueService, collect_content};
use postroad_queued::{Config, LocalQueue};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::setup::{PATIENCE, Stack, Worker, config, delivered, mail, submit};

const LARGE: usize = 20_000;

fn small() -> Config {
    let mut config = config();
    config.disk.segment = ByteSize::kib(16);
    config.disk.journal_target = ByteSize::mib(64);
    config
}

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

struct Filled {
    folder: Arc<TempDir>,
    living: BTreeMap<QueueId, Vec<u8>>,
    done: BTreeSet<QueueId>,
}

/// Living mails, small and large, and finished ones between them.
async fn filled() -> Filled {
    let stack = Stack::with(small()).await;
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Local]).await;
    let (mut living, mut done) = (BTreeMap::new(), BTreeSet::new());
    for at in 0..30_usize {
        let size = if at % 10 == 0 { LARGE } else { 300 + 97 * at };
        let content = vec![b'a' + u8::try_from(at % 26).unwrap(); size];
        let envelope = mail("a@local.test", &["x@far.test"]);
        submit(&stack.queue, &envelope, &content).await.unwrap();
        living.insert(envelope.queue_id, content);
        let envelope = mail("a@local.test", &["bob@local.test"]);
        submit(&stack.queue, &envelope, b"\r\ndone").await.unwrap();
        let lease = worker.lease().await;
        worker.settle(&lease, &delivered()).await;
        done.insert(envelope.queue_id);
    }
    drop(worker);
    Filled {
        folder: stack.stop().await,
        living,
        done,
    }
}

fn copy(from: &TempDir) -> Arc<TempDir> {
    let to = tempfile::tempdir().unwrap();
    let all = from.path().join(".");
    let status = Command::new("cp")
        .arg("-a")
        .arg(all)
        .arg(to.path())
        .status();
    assert!(status.unwrap().success());
    Arc::new(to)
}

fn queue_of(folder: &TempDir) -> PathBuf {
    folder.path().join("state/queue")
}

fn files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_wanted(path.file_name().unwrap().to_str().unwrap()))
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

/// The mails whose records can still be read, found without the queue's own code above the journal.
fn intact(queue: &Path) -> BTreeSet<QueueId> {
    let journal = Inspection::open(queue, postroad_queue::record::FORMATS).unwrap();
    let mut ids = BTreeSet::new();
    let each = |record: postroad_journal::RecordRef<'_>| {
        if record.kind == MAIL {
            let payload = bytes::Bytes::copy_from_slice(record.payload);
            ids.insert(MailRecord::decode(payload).unwrap().envelope.queue_id);
        }
        ControlFlow::Continue(())
    };
    journal.reader().replay(Lsn(0), each).unwrap();
    ids
}

/// Where the record of the first mail begins, in the first segment.
fn first_mail(queue: &Path) -> usize {
    let journal = Inspection::open(queue, postroad_queue::record::FORMATS).unwrap();
    let mut at = None;
    let each = |record: postroad_journal::RecordRef<'_>| {
        if record.kind == MAIL {
            at = Some((record.location.segment.0, record.location.offset));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    journal.reader().replay(Lsn(0), each).unwrap();
    let (segment, offset) = at.expect("there is one");
    assert_eq!(segment, 1);
    offset as usize
}

async fn listed(queue: &LocalQueue) -> BTreeSet<QueueId> {
    let query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    let page = queue.list(query).await.unwrap();
    let ids: Vec<QueueId> = page.mails.iter().map(|mail| mail.queue_id).collect();
    let unique: BTreeSet<QueueId> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "a mail twice");
    unique
}

/// Every intact living mail is there with its octets, none that finished came back.
async fn check(filled: &Filled, folder: Arc<TempDir>, what: &str) {
    let whole = intact(&queue_of(&folder));
    let stack = Stack::in_folder(folder, small()).await;
    let there = listed(&stack.queue).await;
    let back: Vec<_> = filled.done.intersection(&there).collect();
    assert!(
        back.is_empty(),
        "{what}: finished mails live again: {back:?}"
    );
    for (id, content) in filled.living.iter().filter(|(id, _)| whole.contains(id)) {
        assert!(there.contains(id), "{what}: {id} is lost");
        let read = stack.queue.read(*id, 0).await.expect(what);
        let read = collect_content(read, LARGE).await.expect(what);
        assert_eq!(read, content[..], "{what}: {id}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_segment_costs_no_other_mail() {
    let seed = number("POSTROAD_SEED", 20_261_126);
    let flips = number("POSTROAD_FLIPS", 24);
    writeln!(std::io::stderr(), "seed {seed}, {flips} flips").unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let filled = filled().await;
    for round in 0..flips {
        let folder = copy(&filled.folder);
        let queue = queue_of(&folder);
        let named = |name: &str| name.ends_with(".seg") && !name.starts_with("ready");
        let segments = files(&queue.join("segments"), named);
        let segment = &segments[random.random_range(0..segments.len())];
        let len = usize::try_from(segment.metadata().unwrap().len()).unwrap();
        // Every fourth one hits a header of the segment, or both.
        let at = match round % 4 {
            0 => random.random_range(0..128),
            _ => random.random_range(128..len),
        };
        flip(segment, at, random.random_range(0..8));
        if round % 8 == 0 {
            flip(segment, len - 128 + at, 3);
        }
        let rebuild = round % 2 == 0;
        if rebuild {
            std::fs::remove_dir_all(queue.join("index")).unwrap();
        }
        let what = format!("round {round}: {} at {at}", segment.display());
        // Where both headers of a segment go, so do all ends of mails in it.
        if round % 8 == 0 {
            let whole = intact(&queue);
            let stack = Stack::in_folder(folder, small()).await;
            let there = listed(&stack.queue).await;
            let lost: Vec<_> = filled
                .living
                .keys()
                .filter(|id| whole.contains(id) && !there.contains(id))
                .collect();
            assert!(lost.is_empty(), "{what}: lost {lost:?}");
            assert!(queue.join("quarantine").read_dir().unwrap().count() > 0);
            stack.stop().await;
        } else {
            check(&filled, folder, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_index_costs_nothing() {
    let seed = number("POSTROAD_SEED", 20_261_126);
    writeln!(std::io::stderr(), "seed {seed}").unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let filled = filled().await;
    for round in 0..number("POSTROAD_FLIPS", 24) / 4 {
        let folder = copy(&filled.folder);
        let db = queue_of(&folder).join("index/db");
        let len = usize::try_from(db.metadata().unwrap().len()).unwrap();
        let at = random.random_range(0..len);
        flip(&db, at, random.random_range(0..8));
        // It may be found only by reading, which ends this life; the next one has a new index.
        let what = format!("round {round}: index at {at} of {len}");
        for _ in 0..3 {
            if lives(&filled, &folder).await {
                break;
            }
        }
        check(&filled, folder, &what).await;
    }
}

/// Whether a start goes well, and every mail can be listed and worked on.
async fn lives(filled: &Filled, folder: &Arc<TempDir>) -> bool {
    let common = crate::setup::common(folder.path());
    crate::setup::prepare(folder.path());
    let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
    let Ok((queue, running)) =
        postroad_queued::start(small(), &common, directory, &Metrics::new("queued")).await
    else {
        return false;
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let runs = tokio::spawn(running.run(stop.clone(), Duration::from_millis(100)));
    // Or until it cannot.
    queue.caught_up().await;
    let mut whole = true;
    for id in filled.living.keys() {
        whole &= queue.show(*id).await.is_ok();
    }
    whole &= submit(&queue, &mail("", &["x@far.test"]), b"\r\nnew")
        .await
        .is_ok();
    stop.cancel();
    let ended = runs.await;
    whole && matches!(ended, Ok(Ok(())))
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_is_never_given_out_and_its_mail_is_held() {
    let filled = filled().await;
    let contents = files(&queue_of(&filled.folder).join("content"), |_| true);
    assert_eq!(contents.len(), 3);
    flip(&contents[0], LARGE / 2, 1);
    std::fs::remove_file(&contents[1]).unwrap();
    let stack = Stack::in_folder(Arc::clone(&filled.folder), small()).await;
    let (mut refused, mut whole) = (0, 0);
    for (id, content) in &filled.living {
        let read = match stack.queue.read(*id, 0).await {
            Ok(read) => collect_content(read, LARGE).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(read) => {
                assert_eq!(read, content[..]);
                whole += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert_eq!((refused, whole), (2, 28));
    // A worker gets all others; those two are held with the reason.
    let mut worker = Worker::connect(&stack.queue, &[RouteClass::Relay]).await;
    for _ in 0..28 {
        let lease = worker.lease().await;
        worker.settle(&lease, &delivered()).await;
    }
    worker.say(postroad_queue_client::WorkUp::Credits(1)).await;
    let held = async {
        loop {
            let query = ListQuery {
                limit: 1000,
                ..ListQuery::default()
            };
            let page = stack.queue.list(query).await.unwrap();
            let is_held = |mail: &&postroad_queue_client::MailSummary| {
                mail.state == MailState::Held && mail.reason.contains("cannot be read")
            };
            if page.mails.len() == 2 && page.mails.iter().filter(is_held).count() == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, held).await.expect("both are held");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_told_before_its_segment_goes() {
    let filled = filled().await;
    let queue = queue_of(&filled.folder);
    let mut whole = intact(&queue);
    let first = queue.join("segments/0000000001.seg");
    flip(&first, first_mail(&queue) + 60, 2);
    let lost = *whole.difference(&intact(&queue)).next().unwrap();
    whole.remove(&lost);
    let mut config = small();
    config.disk.journal_target = ByteSize::kib(16);
    config.remember_finished = Interval::seconds(1);
    let stack = Stack::in_folder(Arc::clone(&filled.folder), config).await;
    submit(&stack.queue, &mail("", &["x@far.test"]), b"\r\nnew")
        .await
        .unwrap();
    let gone = async {
        while first.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, gone)
        .await
        .expect("the segment is given up");
    let there = listed(&stack.queue).await;
    let living = filled.living.keys().filter(|id| whole.contains(id));
    assert!(living.clone().all(|id| there.contains(id)));
    let shown = stack.queue.list(ListQuery::default()).await.unwrap();
    let shown = shown.mails.iter().find(|mail| mail.queue_id == lost);
    let shown = shown.expect("the lost one is still listed");
    assert_eq!(shown.state, MailState::Held);
    assert!(shown.reason.contains("damaged"), "{}", shown.reason);
    assert!(queue.join("quarantine").read_dir().unwrap().count() > 0);
    stack.stop().await;
}
