//! An index that has grown far beyond what it holds is made anew while mail goes on.

use std::{os::unix::fs::MetadataExt, path::Path, sync::Arc};

use futures::StreamExt;
use postroad_daemon::ByteSize;
use postroad_envelope::{QueueId, RouteClass};
use postroad_queue_client::{Change, Filter, ListQuery, QueueAdmin, WorkUp};
use postroad_queued::{Config, LocalQueue};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::setup::{PATIENCE, Stack, Worker, change, config, delivered, failed, mail, submit};

/// Mails, which make an index of some 800 KiB.
const MAILS: usize = 1500;
/// Octets of an index that has most of them.
const FULL_INDEX: u64 = 512 << 10;

fn small_index() -> Config {
    let mut config = config();
    config.disk.segment = ByteSize::kib(256);
    config.disk.index_spare = ByteSize::kib(64);
    config.retired.keep = "0s".parse().unwrap();
    config
}

/// Which file it is, and its octets.
fn index_file(folder: &Path) -> Option<(u64, u64)> {
    let db = folder.join("state/queue/index/db");
    db.metadata().ok().map(|file| (file.ino(), file.len()))
}

async fn living(queue: &LocalQueue) -> Vec<QueueId> {
    let query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    let page = queue.list(query).await.unwrap();
    assert_eq!(page.next, None);
    page.mails.iter().map(|mail| mail.queue_id).collect()
}

/// Reports come and go besides.
async fn compare(queue: &LocalQueue, stay: &[QueueId], settled: &[QueueId]) {
    let living = living(queue).await;
    let gone = stay.iter().find(|id| !living.contains(id));
    assert_eq!(gone, None);
    let back = living.iter().find(|id| settled.contains(id));
    assert_eq!(back, None);
}

async fn problems(queue: &LocalQueue) -> Vec<String> {
    let mut told = queue.verify().await.unwrap();
    let mut problems = Vec::new();
    while let Some(progress) = told.next().await {
        problems.append(&mut progress.unwrap().problems);
    }
    problems
}

async fn submit_many(queue: &LocalQueue, count: usize) -> Vec<QueueId> {
    let mut all = JoinSet::new();
    for number in 0..count {
        let queue = queue.clone();
        all.spawn(async move {
            let to = format!("friend@far{number}.test");
            let mail = mail("alice@local.test", &[&to]);
            submit(&queue, &mail, b"Subject: x\r\n\r\ntext")
                .await
                .unwrap();
            mail.queue_id
        });
    }
    all.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_much_larger_than_what_it_holds_is_made_anew_and_nothing_changes() {
    let stack = Stack::with(small_index()).await;
    let queue = stack.queue.clone();
    // Too many for the index to be too large for them.
    let mut expected = Vec::new();
    while expected.len() < MAILS {
        expected.extend(submit_many(&queue, 500).await);
    }
    let held = expected.split_off(MAILS - 10);
    let ids = Filter::of_ids(held.clone());
    assert_eq!(change(&queue, Change::Hold, ids).await.unwrap(), 10);
    let (former, _) = index_file(stack.folder.path()).unwrap();

    // Before a checkpoint they would not be in the file when they go.
    let stored = async {
        while index_file(stack.folder.path()).is_none_or(|(_, len)| len < FULL_INDEX) {
            sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, stored).await.expect("a checkpoint");

    let mut worker = Worker::connect(&queue, &[RouteClass::Relay]).await;
    let mut settled = Vec::new();
    while settled.len() < MAILS - 15 {
        let lease = worker.lease().await;
        let id = lease.lease.job.queue_id;
        let outcome = if settled.len() % 50 == 7 {
            failed()
        } else {
            delivered()
        };
        worker.settle(&lease, &outcome).await;
        if held.contains(&id) {
            panic!("{id} was held");
        }
        if expected.contains(&id) {
            settled.push(id);
        }
    }
    // One is with the worker all the while.
    let leased = worker.lease().await;

    let next = stack.folder.path().join("state/queue/index.new");
    let made_anew = async {
        let mut came = Vec::new();
        loop {
            came.extend(submit_many(&queue, 1).await);
            match index_file(stack.folder.path()) {
                Some((file, _)) if file != former && !next.exists() => return came,
                _ => sleep(std::time::Duration::from_millis(250)).await,
            }
        }
    };
    let came = timeout(PATIENCE, made_anew)
        .await
        .expect("made anew in time");
    let stay: Vec<QueueId> = came.into_iter().chain(held.clone()).collect();
    compare(&queue, &stay, &settled).await;
    assert_eq!(problems(&queue).await, Vec::<String>::new());
    // What was settled is still known, and the lease is still good.
    worker.settle(&leased, &delivered()).await;
    let ids = Filter::of_ids(held.clone());
    assert_eq!(change(&queue, Change::Release, ids).await.unwrap(), 10);
    worker.say(WorkUp::Drained).await;
    drop((worker, queue));

    let stack = stack.restart().await;
    compare(&stack.queue, &stay, &settled).await;
    assert_eq!(problems(&stack.queue).await, Vec::<String>::new());
    let folder = stack.stop().await;
    what_is_left_of_one_is_removed(folder).await;
}

/// A crash while it is made leaves a folder that the next start removes.
async fn what_is_left_of_one_is_removed(folder: Arc<tempfile::TempDir>) {
    let next = folder.path().join("state/queue/index.new");
    std::fs::create_dir_all(&next).unwrap();
    std::fs::write(next.join("db"), b"half of it").unwrap();
    let stack = Stack::in_folder(folder, small_index()).await;
    assert!(!next.exists());
    stack.stop().await;
}
