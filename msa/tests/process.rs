//! The program as its supervisor sees it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use postroad_daemon::{health_socket, query_health};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn postroad_msa(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroad-msa"));
    command.arg("--config").arg(config);
    command
}

fn write_config(folder: &Path, msa: &str) -> std::path::PathBuf {
    let here = folder.display();
    let common = format!(
        "[common]\nhostname = \"mail.example.org\"\nallow_root = true\nrun_dir = \"{here}\"\n\
         directory = \"{here}/directory.toml\"\nqueue = \"unix:{here}/queue.sock\"\n"
    );
    let path = folder.join("postroad.toml");
    fs::write(&path, format!("{common}{msa}")).unwrap();
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
fn without_a_certificate_it_says_what_to_write() {
    let folder = TempDir::new().unwrap();
    let config = write_config(folder.path(), "[msa]\nsubmission = [\"127.0.0.1:0\"]\n");
    let output = postroad_msa(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = told(&output);
    assert!(told.contains("postroad.toml:7"), "{told}");
    assert!(told.contains("certificates = [{"), "{told}");
}

#[test]
fn a_wrong_key_is_named_with_file_and_line() {
    let folder = TempDir::new().unwrap();
    let config = write_config(folder.path(), "[msa]\nsize_limt = \"30MiB\"\n");
    let output = postroad_msa(&config).arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = told(&output);
    assert!(told.contains("postroad.toml:8"), "{told}");
    assert!(told.contains("size_limit"), "{told}");
}

#[test]
fn it_starts_before_the_queue_does_and_ends_with_the_first_signal() {
    let folder = TempDir::new().unwrap();
    let here = folder.path().display();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    let key = folder.path().join("key.pem");
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let section = format!(
        "[msa]\nsubmission = [\"127.0.0.1:0\"]\nsubmissions = [\"[::1]:0\"]\n\
         certificates = [{{ cert_file = \"{here}/cert.pem\", key_file = \"{here}/key.pem\" }}]\n"
    );
    let config = write_config(folder.path(), &section);
    let mut agent = Killed(postroad_msa(&config).spawn().unwrap());
    wait_until_ready(folder.path(), &mut agent.0);
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
}

fn wait_until_ready(folder: &Path, agent: &mut Child) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let socket = health_socket(folder, "msa");
    let begun = Instant::now();
    loop {
        let ready = runtime.block_on(query_health(&socket));
        if ready.is_ok_and(|health| {
            let own = health.checks.get("listeners");
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
