//! Backups of a queue at work, and queues made of them.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{QueueId, RouteClass};
use postroad_queue_client::{
    Change, Filter, ListQuery, MailState, QueueAdmin, QueueError, QueueService, collect_content,
};
use postroad_queued::{
    Config,
    backup::{BackupError, BackupWriter, MANIFEST, Manifest, restore},
};
use tokio::time::timeout;

use crate::setup::{PATIENCE, Stack, Worker, config, delivered, mail, prepare, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];

fn small() -> Config {
    let mut config = config();
    config.disk.segment = ByteSize::kib(64);
    config.disk.journal_target = ByteSize::kib(128);
    config
}

fn content(size: usize) -> Vec<u8> {
    let mut content = b"Subject: greetings\r\n\r\n".to_vec();
    content.resize(size, b'x');
    content
}

async fn send(stack: &Stack, size: usize) -> QueueId {
    let envelope = mail("alice@local.test", &["bob@local.test"]);
    submit(&stack.queue, &envelope, &content(size))
        .await
        .unwrap();
    envelope.queue_id
}

async fn back_up(stack: &Stack, to: &Path) -> Manifest {
    let mut pieces = stack.queue.backup().await.unwrap();
    let mut writer = BackupWriter::create(to).unwrap();
    while let Some(piece) = timeout(PATIENCE, pieces.next()).await.unwrap() {
        let piece = piece.unwrap();
        assert!(piece.octets.len() <= 64 << 10);
        writer.write(&piece.path, &piece.octets).unwrap();
    }
    writer.finish().unwrap().manifest
}

/// A queue on a restored folder.
async fn restored(backup: &Path, release: bool) -> Stack {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    prepare(folder.path());
    let to = folder.path().join("state/queue");
    let restored = restore(backup, &to, release, &mut |_, _| {}).unwrap();
    assert_eq!(restored.held, !release);
    Stack::in_folder(folder, small()).await
}

async fn listed(stack: &Stack, state: Option<MailState>) -> BTreeSet<QueueId> {
    let filter = Filter {
        state,
        ..Filter::all()
    };
    let query = ListQuery {
        limit: 1000,
        ..filter.into()
    };
    let page = stack.queue.list(query).await.unwrap();
    assert!(page.next.is_none());
    page.mails.iter().map(|mail| mail.queue_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_queue_is_the_queue_at_one_moment() {
    let stack = Stack::with(small()).await;
    let mut sent = Vec::new();
    for n in 0..40_usize {
        sent.push(send(&stack, if n.is_multiple_of(4) { 40_000 } else { 2_000 }).await);
    }
    // Every tenth is done before.
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let mut done = BTreeSet::new();
    for _ in 0..4 {
        let lease = worker.lease().await;
        worker.settle(&lease, &delivered()).await;
        done.insert(lease.envelope.queue_id);
    }
    drop(worker);
    let before = listed(&stack, None).await;
    let backup = tempfile::tempdir().unwrap();
    let to = backup.path().join("new");
    let manifest = back_up(&stack, &to).await;
    assert_eq!(manifest.mails, 36);
    assert_eq!(manifest.problems, [""; 0]);
    assert!(
        manifest
            .files
            .iter()
            .any(|file| file.path.starts_with("timeline/segments/"))
    );
    // Those that come later are not in it.
    send(&stack, 2_000).await;
    drop(stack.stop().await);

    let again = restored(&to, false).await;
    assert_eq!(listed(&again, Some(MailState::Held)).await, before);
    assert_eq!(listed(&again, None).await, before);
    for id in &before {
        let read = collect_content(again.queue.read(*id, 0).await.unwrap(), 1 << 20)
            .await
            .unwrap();
        let n = sent.iter().position(|sent| sent == id).unwrap();
        assert_eq!(
            read,
            content(if n.is_multiple_of(4) { 40_000 } else { 2_000 })
        );
    }
    let why = again.queue.show(*before.first().unwrap()).await.unwrap();
    assert!(
        why.summary
            .reason
            .starts_with("restored from the backup of 2"),
        "{}",
        why.summary.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_held_once_and_released_by_a_person() {
    let stack = Stack::with(small()).await;
    let id = send(&stack, 1_000).await;
    let backup = tempfile::tempdir().unwrap();
    back_up(&stack, backup.path()).await;
    drop(stack.stop().await);

    let again = restored(backup.path(), false).await;
    // New mail goes its way.
    let new = send(&again, 1_000).await;
    let mut worker = Worker::connect(&again.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(lease.envelope.queue_id, new);
    // No lease of the queue that was copied is valid here.
    assert!(lease.lease.fence.epoch > 1_000_000, "{:?}", lease.lease);
    worker.settle(&lease, &delivered()).await;
    drop(worker);
    let released = again
        .queue
        .change(Change::Release, Filter::all().into())
        .await
        .unwrap();
    assert_eq!(released.mails, 1);
    // A later start holds nothing again.
    let again = again.restart().await;
    assert!(!again.folder.path().join("state/queue/RESTORED").exists());
    let mut worker = Worker::connect(&again.queue, LOCAL).await;
    assert_eq!(worker.lease().await.envelope.queue_id, id);
    drop(worker);
    drop(again.stop().await);

    let released = restored(backup.path(), true).await;
    let mut worker = Worker::connect(&released.queue, LOCAL).await;
    assert_eq!(worker.lease().await.envelope.queue_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_from_a_backup_that_is_not_whole() {
    let stack = Stack::with(small()).await;
    for _ in 0..3 {
        send(&stack, 40_000).await;
    }
    let backup = tempfile::tempdir().unwrap();
    let from = backup.path().join("backup");
    let manifest = back_up(&stack, &from).await;
    drop(stack.stop().await);
    let target = backup.path().join("target");
    let refused = |why: &str| {
        let error = restore(&from, &target, false, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!target.exists(), "nothing was put in place");
    };
    for listed in &manifest.files {
        let path = from.join(&listed.path);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        refused("is damaged");
        fs::write(&path, &whole[..middle]).unwrap();
        refused("octets, and the manifest says");
        fs::remove_file(&path).unwrap();
        refused("is missing");
        fs::write(&path, &whole).unwrap();
    }
    let path = from.join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("mails 3", "mails 4")).unwrap();
    refused("checksum");
    fs::remove_file(&path).unwrap();
    refused("not finished");
    fs::write(&path, text).unwrap();

    fs::create_dir(&target).unwrap();
    fs::write(target.join("something"), "").unwrap();
    let full = restore(&from, &target, false, &mut |_, _| {});
    assert!(matches!(full, Err(BackupError::NotEmpty(_))), "{full:?}");
    fs::remove_file(target.join("something")).unwrap();
    restore(&from, &target, false, &mut |_, _| {}).unwrap();
    let twice = restore(&from, &target, false, &mut |_, _| {});
    assert!(matches!(twice, Err(BackupError::NotEmpty(_))), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_is_left_and_nothing_stays_for_it() {
    let mut config = small();
    config.backup.patience = Interval::millis(300);
    let stack = Stack::with(config).await;
    let mut ids = BTreeSet::new();
    for _ in 0..24 {
        ids.insert(send(&stack, 60_000).await);
    }
    let mut pieces = stack.queue.backup().await.unwrap();
    let other = stack.queue.backup().await.map(drop);
    assert!(matches!(other, Err(QueueError::Conflict(_))), "{other:?}");
    let first = pieces.next().await.unwrap().unwrap();
    assert_eq!(first.path, "FORMAT");
    // Now nothing is taken for longer than it waits; meanwhile all mail goes.
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    for _ in 0..ids.len() {
        let lease = worker.lease().await;
        worker.settle(&lease, &delivered()).await;
    }
    let files = stack.folder.path().join("state/queue/content");
    let empty = async {
        while fs::read_dir(&files).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, empty).await.expect("content files go");
    let mut last = None;
    while let Some(piece) = timeout(PATIENCE, pieces.next()).await.unwrap() {
        last = Some(piece);
    }
    let why = last.unwrap().unwrap_err().to_string();
    assert!(why.contains("nothing was taken"), "{why}");
    // The next one may run.
    let backup = tempfile::tempdir().unwrap();
    assert_eq!(back_up(&stack, backup.path()).await.mails, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_a_backup_runs_is_whole_in_it() {
    let stack = Stack::with(small()).await;
    let mut ids = BTreeSet::new();
    for _ in 0..24 {
        ids.insert(send(&stack, 60_000).await);
    }
    let mut pieces = stack.queue.backup().await.unwrap();
    let first = pieces.next().await.unwrap().unwrap();
    // All mail ends, and much more comes and goes: segments would be given up, content files unlinked.
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    for _ in 0..40 {
        let more = mail("alice@local.test", &["bob@local.test"]);
        submit(&stack.queue, &more, &content(8_000)).await.unwrap();
    }
    for _ in 0..64 {
        let lease = worker.lease().await;
        worker.settle(&lease, &delivered()).await;
    }
    // Two rounds of upkeep.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let backup = tempfile::tempdir().unwrap();
    let mut writer = BackupWriter::create(backup.path()).unwrap();
    writer.write(&first.path, &first.octets).unwrap();
    while let Some(piece) = timeout(PATIENCE, pieces.next()).await.unwrap() {
        let piece = piece.unwrap();
        writer.write(&piece.path, &piece.octets).unwrap();
    }
    let manifest = writer.finish().unwrap().manifest;
    assert_eq!((manifest.mails, manifest.problems), (24, Vec::new()));
    let again = restored(backup.path(), false).await;
    assert_eq!(listed(&again, Some(MailState::Held)).await, ids);
    for id in ids {
        let read = collect_content(again.queue.read(id, 0).await.unwrap(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(read, content(60_000));
    }
}
