//! A queue that ends right after each start does not grow without bound.

use std::{fs, path::Path, sync::Arc, time::Duration};

use postroad_metrics::Metrics;

use super::{
    check::queue_folder,
    kill_config,
    life::{complain, die_with_the_parent},
    spawn_child,
    told::say,
    wait_for,
};
use crate::setup::{common, mail, prepare, submit};

/// What is killed: a queue that has just begun to give out mail.
pub fn start(folder: &Path) {
    die_with_the_parent();
    say(format_args!(""));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let common = common(folder);
        let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
        let started =
            postroad_queued::start(kill_config(), &common, directory, &Metrics::new("queued"))
                .await;
        let (queue, running) =
            started.unwrap_or_else(|error| complain(&format!("it does not open: {error:?}")));
        let running = tokio::spawn(running.run(Default::default(), Duration::ZERO));
        let living = mail("", &["x@far.test"]);
        let accepted = submit(&queue, &living, b"\r\nhi").await;
        accepted.unwrap_or_else(|error| complain(&format!("refused: {error:?}")));
        queue.caught_up().await;
        say(format_args!("ready"));
        complain(&format!("the queue ended: {:?}", running.await));
    });
}

#[test]
fn twenty_starts_that_end_at_once_leave_no_more_room_taken_than_four() {
    if std::env::var_os(super::CHILD).is_some() {
        return;
    }
    let folder = Arc::new(super::temporary());
    prepare(folder.path());
    let taken = |starts: usize| {
        for _ in 0..starts {
            let mut child = spawn_child(folder.path(), "start", 0);
            wait_for(folder.path(), &mut child, "ready").unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let segments = fs::read_dir(queue_folder(folder.path()).join("segments")).unwrap();
        let lengths = segments.map(|file| file.unwrap().metadata().unwrap().len());
        lengths.sum::<u64>()
    };
    let few = taken(4);
    let many = taken(16);
    let segment = kill_config().disk.segment.as_u64();
    assert!(
        many <= few + 2 * segment,
        "{few} octets after 4 starts, {many} after 20"
    );
}
