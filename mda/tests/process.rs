//! The program as its supervisor sees it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use postroad_daemon::{health_socket, query_health};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn postroad_mda(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroad-mda"));
    command.arg("--config").arg(config);
    command
}

fn write_config(folder: &Path, mda: &str) -> std::path::PathBuf {
    let here = folder.display();
    let common = format!(
        "[common]\nhostname = \"mail.example.org\"\nallow_root = true\nrun_dir = \"{here}\"\n\
         directory = \"{here}/directory.toml\"\nqueue = \"unix:{here}/queue.sock\"\n"
    );
    let path = folder.join("postroad.toml");
    fs::write(&path, format!("{common}{mda}")).unwrap();
    fs::write(
        folder.join("directory.toml"),
        "[[domain]]\nname = \"example.org\"\npostmaster = \"alice@example.org\"\n[[account]]\naddress = \"alice@example.org\"\n",
    )
    .unwrap();
    path
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_key_is_named_with_file_and_line() {
    let folder = TempDir::new().unwrap();
    let config = write_config(folder.path(), "[mda]\nmail_rot = \"/x\"\n");
    let output = postroad_mda(&config).arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = told(&output);
    assert!(told.contains("postroad.toml:8"), "{told}");
    assert!(told.contains("mail_root"), "{told}");
}

#[test]
fn it_starts_before_the_queue_does_and_ends_with_the_first_signal() {
    let folder = TempDir::new().unwrap();
    let mail = folder.path().join("mail");
    let section = format!("[mda]\nmail_root = \"{}\"\n", mail.display());
    let config = write_config(folder.path(), &section);
    let mut agent = Killed(postroad_mda(&config).spawn().unwrap());
    wait_until_ready(folder.path(), &mut agent.0);

    let second = postroad_mda(&config).output().unwrap();
    assert_eq!(second.status.code(), Some(75), "one agent for one store");
    assert!(
        told(&second).contains("another process"),
        "{}",
        told(&second)
    );

    let id = Pid::from_child(&agent.0);
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
}

fn wait_until_ready(folder: &Path, agent: &mut Child) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let socket = health_socket(folder, "mda");
    let begun = Instant::now();
    loop {
        let ready = runtime.block_on(query_health(&socket));
        if ready.is_ok_and(|health| {
            let own = health.checks.get("maildir");
            own.is_some_and(|own| own.ready) && !health.ready
        }) {
            return;
        }
        assert!(agent.try_wait().unwrap().is_none(), "it ended");
        assert!(begun.elapsed() < PATIENCE, "not ready in time");
        std::thread::yield_now();
    }
}

/// A process that does not outlive a failing test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
