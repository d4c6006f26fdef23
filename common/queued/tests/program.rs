//! The shipped program starts, serves, and ends as a supervisor expects.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

fn write_config(folder: &Path) {
    let text = format!(
        "[common]\nhostname = \"mail.local.test\"\nstate_dir = \"{0}\"\nrun_dir = \"{0}/run\"\n\
         directory = \"{0}/directory.toml\"\nqueue = \"unix:{0}/run/queue.sock\"\nallow_root = true\n\
         [queued.disk]\nreserve_percent = 0\nreserve = \"0B\"\nsegment = \"1MiB\"\n",
        folder.display()
    );
    std::fs::create_dir(folder.join("run")).unwrap();
    std::fs::write(folder.join("postroad.toml"), text).unwrap();
    let directory = "[[domain]]\nname = \"local.test\"\n";
    std::fs::write(folder.join("directory.toml"), directory).unwrap();
}

fn start(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_postroad-queued"))
        .arg("--config")
        .arg(folder.join("postroad.toml"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn it_serves_until_it_is_told_to_stop_and_is_alone_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path());
    let mut first = start(folder.path());
    let begun = Instant::now();
    while !folder.path().join("run/queue-admin.sock").exists() {
        assert!(first.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(begun.elapsed() < Duration::from_secs(60), "no socket");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = start(folder.path()).wait().unwrap();
    assert_eq!(second.code(), Some(75), "the folder is in use");
    let pid = Pid::from_child(&first);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
}

#[test]
fn a_wrong_route_is_the_operators_fault() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path());
    let path = folder.path().join("postroad.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("[[queued.routes]]\ndomain = \"lists.test\"\nclass = \"lmtp\"\n");
    std::fs::write(&path, text).unwrap();
    assert_eq!(start(folder.path()).wait().unwrap().code(), Some(78));
}
