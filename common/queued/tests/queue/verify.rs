//! Reading everything and comparing it, while the queue runs and while it does not.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::RouteClass;
use postroad_queue_client::{Change, Filter, QueueAdmin, VerifyProgress, WorkUp};
use postroad_queued::{Config, LocalQueue, Offline, OfflineError};
use tokio::{task::JoinSet, time::timeout};

use crate::setup::{
    PATIENCE, Stack, Worker, change, config, delayed, delivered, failed, mail, submit,
};

const CLASSES: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];

fn small() -> Config {
    let mut config = config();
    config.disk.segment = ByteSize::kib(64);
    config.disk.journal_target = ByteSize::kib(256);
    config.remember_finished = Interval::seconds(2);
    config
}

async fn live(queue: &LocalQueue) -> (Vec<String>, VerifyProgress) {
    let mut told = queue.verify().await.unwrap();
    let (mut problems, mut last) = (Vec::new(), VerifyProgress::default());
    while let Some(progress) = told.next().await {
        last = progress.unwrap();
        problems.append(&mut last.problems);
    }
    assert!(last.finished, "{last:?}");
    (problems, last)
}

fn offline(folder: &Path, config: &Config) -> (Vec<String>, VerifyProgress) {
    let (mut problems, mut last) = (Vec::new(), VerifyProgress::default());
    let mut each = |progress: VerifyProgress| {
        last = progress;
        problems.append(&mut last.problems);
        ControlFlow::Continue(())
    };
    let found = Offline::open(folder)
        .unwrap()
        .verify(config, &mut each)
        .unwrap();
    assert_eq!(found, problems.len() as u64);
    (problems, last)
}

/// Mails in every state.
async fn fill(queue: &LocalQueue) {
    let local = mail("a@local.test", &["bob@local.test"]);
    submit(queue, &local, b"\r\ndue").await.unwrap();
    let held = mail("a@local.test", &["x@held.test"]);
    submit(queue, &held, b"\r\nheld").await.unwrap();
    let ids = Filter::of_ids(vec![held.queue_id]);
    change(queue, Change::Hold, ids).await.unwrap();
    let many = ["x@one.test", "y@one.test", "z@two.test", "bob@local.test"];
    submit(queue, &mail("a@local.test", &many), &[b'x'; 50_000])
        .await
        .unwrap();
    let mut worker = Worker::connect(queue, &[RouteClass::Relay]).await;
    for outcome in [delayed(), delivered()] {
        let lease = worker.lease().await;
        worker.settle(&lease, &outcome).await;
    }
    submit(queue, &mail("a@local.test", &["x@owing.test"]), b"\r\n")
        .await
        .unwrap();
    let lease = worker.lease().await;
    worker.settle(&lease, &failed()).await;
}

fn queue_folder(stack: &Stack) -> PathBuf {
    stack.folder.path().join("state/queue")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_wrong_with_a_sound_queue_running_or_not_with_an_index_or_without() {
    let mut config = small();
    config.dsn.gather = Interval::hours(1);
    let stack = Stack::with(config.clone()).await;
    fill(&stack.queue).await;
    let (problems, last) = live(&stack.queue).await;
    assert_eq!((problems, last.mails), (vec![], 4));
    let folder = queue_folder(&stack);
    let runs = Offline::open(&folder).map(drop);
    assert!(matches!(runs, Err(OfflineError::Runs { .. })), "{runs:?}");
    let kept = stack.stop().await;
    assert_eq!(offline(&folder, &config).0, Vec::<String>::new());
    std::fs::remove_dir_all(folder.join("index")).unwrap();
    let (problems, last) = offline(&folder, &config);
    assert_eq!((problems, last.mails), (vec![], 4));
    let stack = Stack::in_folder(kept, config.clone()).await;
    assert_eq!(live(&stack.queue).await.0, Vec::<String>::new());
    // An index that is put aside is made anew.
    let kept = stack.stop().await;
    let rebuilt = Offline::open(&folder).unwrap().rebuild().unwrap();
    assert!(rebuilt.aside.unwrap().join("db").exists());
    assert!(!folder.join("index").exists());
    let stack = Stack::in_folder(kept, config).await;
    assert_eq!(live(&stack.queue).await.0, Vec::<String>::new());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_meanwhile_is_no_false_alarm() {
    let stack = Stack::with(small()).await;
    fill(&stack.queue).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for at in 0..4 {
        let (queue, ends) = (stack.queue.clone(), Arc::clone(&stop));
        tasks.spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let size = if at == 0 { 40_000 } else { 700 };
                let to = ["bob@local.test", "x@far.test"];
                submit(&queue, &mail("a@local.test", &to), &vec![b'x'; size])
                    .await
                    .unwrap();
            }
        });
        let (queue, ends) = (stack.queue.clone(), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut worker = Worker::connect(&queue, CLASSES).await;
            let mut turn = 0;
            while !ends.load(Ordering::Relaxed) {
                worker.say(WorkUp::Credits(1)).await;
                let next = timeout(Duration::from_millis(500), worker.next_lease());
                let Ok(lease) = next.await else { continue };
                turn += 1;
                let outcome = if turn % 5 == 0 {
                    delayed()
                } else {
                    delivered()
                };
                worker.settle(&lease, &outcome).await;
            }
        });
    }
    let mut problems = Vec::new();
    // Until segments were given up under it, and three times at least.
    let first = queue_folder(&stack).join("segments/0000000001.seg");
    let begun = Instant::now();
    let mut times = 0;
    while times < 3 || first.exists() {
        problems.extend(live(&stack.queue).await.0);
        times += 1;
        assert!(begun.elapsed() < PATIENCE, "no segment was given up");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(problems, Vec::<String>::new());
    let folder = queue_folder(&stack);
    let kept = stack.stop().await;
    assert_eq!(offline(&folder, &small()).0, Vec::<String>::new());
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_and_named() {
    let stack = Stack::with(small()).await;
    fill(&stack.queue).await;
    let folder = queue_folder(&stack);
    let content = folder.join("content").read_dir().unwrap().next();
    let content = content.unwrap().unwrap().path();
    flip(&content, 49_999);
    let (problems, _) = live(&stack.queue).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("content"), "{problems:?}");
    let kept = stack.stop().await;
    assert_eq!(offline(&folder, &small()).0.len(), 1);
    std::fs::remove_file(&content).unwrap();
    let (problems, _) = offline(&folder, &small());
    assert!(problems[0].contains("is not there"), "{problems:?}");
    flip(&folder.join("segments/0000000001.seg"), 300);
    let (problems, _) = offline(&folder, &small());
    let named = |text: &str| problems.iter().any(|problem| problem.contains(text));
    assert!(
        named("segment 0000000001 of the journal: octets"),
        "{problems:?}"
    );
    assert!(
        named("does not live in the journal"),
        "the index knows it: {problems:?}"
    );
    assert!(
        !folder.join("quarantine").read_dir().unwrap().any(|_| true),
        "looking changes nothing"
    );
    drop(kept);
}
