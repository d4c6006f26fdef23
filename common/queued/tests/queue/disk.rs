//! Files: room given back, failures, damage.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{QueueId, RouteClass};
use postroad_metrics::Metrics;
use postroad_queue_client::{
    QueueAdmin, QueueError, QueueService, SettleResult, WorkUp, collect_content,
};
use postroad_queued::ServeError;
use tokio::{task::JoinSet, time::timeout};

use crate::setup::{PATIENCE, Stack, Worker, config, delivered, mail, submit};

const LOCAL: &[RouteClass] = &[RouteClass::Local];

fn segments(stack: &Stack) -> PathBuf {
    let queue = stack.folder.path().join("state/queue");
    let found = std::fs::read_dir(queue)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    found
        .into_iter()
        .find(|path| path.join("0000000001.seg").exists())
        .expect("a first segment")
}

fn files(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(begin)
    };
    found.filter(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mails_leave_no_room_taken_and_old_mail_stays() {
    const MAILS: usize = 10_000;
    let mut config = config();
    config.disk.segment = ByteSize::kib(256);
    config.disk.journal_target = ByteSize::mib(1);
    config.remember_finished = Interval::seconds(1);
    let stack = Stack::with(config).await;
    let mut old = Vec::new();
    for at in 0..5_u8 {
        let envelope = mail("a@local.test", &["someone@far.test"]);
        submit(&stack.queue, &envelope, &[at; 3_000]).await.unwrap();
        old.push((envelope.queue_id, at));
    }
    old.sort_unstable();
    let folder = segments(&stack);
    let settled = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let queue = stack.queue.clone();
        tasks.spawn(async move {
            for _ in 0..MAILS / 32 {
                submit(&queue, &mail("", &["bob@local.test"]), &[b'x'; 600])
                    .await
                    .unwrap();
            }
        });
    }
    for _ in 0..8 {
        let (queue, settled) = (stack.queue.clone(), Arc::clone(&settled));
        tasks.spawn(async move {
            let mut worker = Worker::connect(&queue, LOCAL).await;
            while settled.load(Ordering::Relaxed) < MAILS / 32 * 32 {
                worker.say(WorkUp::Credits(1)).await;
                let Ok(lease) = timeout(Duration::from_secs(2), worker.next_lease()).await else {
                    continue;
                };
                assert_eq!(
                    worker.settle(&lease, &delivered()).await,
                    SettleResult::Durable
                );
                settled.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let shrunk = async {
        // 1 MiB in segments of 256 KiB, and what is prepared ahead.
        while files(&folder, "").len() > 8 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, shrunk).await.expect("room is given back");
    let first = files(&folder, "0000000001.seg");
    assert_eq!(first, Vec::<PathBuf>::new(), "the oldest segment went");

    let stack = stack.restart().await;
    let page = stack.queue.list(Default::default()).await.unwrap();
    let listed = page.mails.iter().map(|mail| mail.queue_id);
    assert!(listed.eq(old.iter().map(|(id, _)| *id)), "{page:?}");
    for (id, at) in old {
        let read = stack.queue.read(id, 0).await.unwrap();
        assert_eq!(collect_content(read, 3_000).await.unwrap(), [at; 3_000][..]);
    }
    stack.stop().await;
}

/// The journal is far shorter than its target, and there is no other room: what mail that ended leaves is all there is.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_a_segment_mail_that_ends_makes_room_for_more() {
    let mut config = config();
    config.disk.segment = ByteSize::kib(64);
    let stack = Stack::with(config).await;
    let new_mail =
        async || submit(&stack.queue, &mail("", &["bob@local.test"]), &[b'x'; 4_000]).await;
    new_mail().await.unwrap();
    let in_the_way = segments(&stack).join("preparing.tmp");
    let blocked = async {
        while std::fs::create_dir(&in_the_way).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, blocked).await.unwrap();
    let mut accepted = 1;
    while new_mail().await.is_ok() {
        accepted += 1;
        assert!(accepted < 100, "no segment was left for anything else");
    }
    // From the next look at the disk on a client hears so before it sends a mail, and why.
    let closed = async {
        loop {
            match stack.queue.submit(mail("", &["bob@local.test"])).await {
                Err(QueueError::Full(why)) => break why,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let why = timeout(PATIENCE, closed).await.unwrap();
    assert!(why.contains("no room for another segment"), "{why}");

    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    for _ in 0..accepted {
        let lease = worker.lease().await;
        let settled = worker.settle(&lease, &delivered()).await;
        assert_eq!(settled, SettleResult::Durable);
    }
    let again = async {
        while new_mail().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("mail is taken again");
    std::fs::remove_dir(in_the_way).unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_ends_the_queue_and_loses_nothing_acknowledged() {
    let mut config = config();
    config.disk.segment = ByteSize::kib(64);
    let stack = Stack::with(config.clone()).await;
    let folder = segments(&stack);
    let prepared = async {
        while files(&folder, "ready-").len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, prepared)
        .await
        .expect("segments are prepared");
    for file in files(&folder, "ready-") {
        std::fs::remove_file(&file).unwrap();
        symlink("/dev/full", &file).unwrap();
    }
    let mut accepted: Vec<QueueId> = Vec::new();
    let refused = loop {
        let envelope = mail("", &["bob@local.test"]);
        match submit(&stack.queue, &envelope, &[b'x'; 4_000]).await {
            Ok(_) => accepted.push(envelope.queue_id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 100, "the segment never fills");
    };
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused:?}");
    let again = submit(&stack.queue, &mail("", &["bob@local.test"]), b"x").await;
    assert!(again.is_err());
    let held = Arc::clone(&stack.folder);
    match stack.ended().await {
        Err(failed @ ServeError::Disk(_)) => assert_eq!(failed.exit_status(), 75),
        other => panic!("{other:?}"),
    }
    for file in files(&folder, "ready-") {
        std::fs::remove_file(file).unwrap();
    }
    let stack = Stack::in_folder(held, config).await;
    let page = stack.queue.list(Default::default()).await.unwrap();
    let ids: Vec<_> = page.mails.iter().map(|mail| mail.queue_id).collect();
    for id in &accepted {
        assert!(ids.contains(id), "{id} was acknowledged and is lost");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_open_is_built_anew() {
    let stack = Stack::new().await;
    let (kept, done) = (mail("", &["x@far.test"]), mail("", &["bob@local.test"]));
    submit(&stack.queue, &kept, b"\r\nkept").await.unwrap();
    submit(&stack.queue, &done, b"\r\ndone").await.unwrap();
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    worker.settle(&lease, &delivered()).await;
    let config = stack.config.clone();
    let folder = stack.stop().await;
    let queue = folder.path().join("state/queue");
    std::fs::remove_dir_all(queue.join("index")).unwrap();
    std::fs::write(queue.join("index"), b"nonsense").unwrap();
    let stack = Stack::in_folder(folder, config).await;
    let page = stack.queue.list(Default::default()).await.unwrap();
    let ids: Vec<_> = page.mails.iter().map(|mail| mail.queue_id).collect();
    assert_eq!(
        ids,
        [kept.queue_id],
        "the living one, and not the finished one"
    );
    assert!(
        submit(&stack.queue, &done, b"\r\ndone")
            .await
            .unwrap()
            .duplicate
    );
    assert!(queue.join("quarantine").read_dir().unwrap().count() > 0);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_files_that_nobody_names_are_swept_and_those_of_finished_mails_go() {
    let stack = Stack::new().await;
    let contents = stack.folder.path().join("state/queue/content");
    let large = vec![b'x'; 400_000];
    submit(&stack.queue, &mail("", &["bob@local.test"]), &large)
        .await
        .unwrap();
    let kept = mail("", &["x@far.test"]);
    submit(&stack.queue, &kept, &large).await.unwrap();
    assert!(submit(&stack.queue, &kept, &large).await.unwrap().duplicate);
    let mut worker = Worker::connect(&stack.queue, LOCAL).await;
    let lease = worker.lease().await;
    assert_eq!(lease.content, None);
    worker.settle(&lease, &delivered()).await;
    let one_left = async {
        while files(&contents, "").len() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, one_left)
        .await
        .expect("files of finished and repeated mails go");
    let config = stack.config.clone();
    let folder = stack.stop().await;
    std::fs::write(contents.join("00112233445566778899aabbccddeeff"), b"half").unwrap();
    let stack = Stack::in_folder(folder, config).await;
    assert_eq!(files(&contents, "").len(), 1);
    let read = stack.queue.read(kept.queue_id, 399_990).await.unwrap();
    assert_eq!(collect_content(read, 10).await.unwrap().len(), 10);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_have_one_queue() {
    let stack = Stack::new().await;
    let common = crate::setup::common(stack.folder.path());
    let second = postroad_queued::start(
        stack.config.clone(),
        &common,
        stack.directory.clone(),
        &Metrics::new("queued"),
    )
    .await;
    assert!(matches!(second.map(drop), Err(ServeError::Open { .. })));
    stack.stop().await;
}
