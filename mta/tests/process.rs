//! The shipped binary: arguments, exit codes, and a life from start to SIGTERM without a queue.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn postroad_mta(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroad-mta"));
    command.arg("--config").arg(config).env_clear();
    command
}

/// A folder with a configuration that works, and these lines at its end.
fn folder(more: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let directory = "[[domain]]\nname = \"ours.test\"\npostmaster = \"alice@ours.test\"\n\
                     [[account]]\naddress = \"alice@ours.test\"\n";
    fs::write(folder.path().join("directory.toml"), directory).unwrap();
    fs::write(folder.path().join("zone"), "client.test A 127.0.0.1\n").unwrap();
    let config = format!(
        "[common]\nhostname = \"mta.ours.test\"\nallow_root = true\nrun_dir = \"{path}\"\n\
         directory = \"{path}/directory.toml\"\nqueue = \"unix:{path}/queue.sock\"\n\
         log.format = \"json\"\ndns.zone = \"{path}/zone\"\n[msa]\nnot = \"ours to judge\"\n\
         [mta.inbound]\nlisteners.smtp = \"127.0.0.1:0\"\n{more}"
    );
    let file = folder.path().join("postroad.toml");
    fs::write(&file, config).unwrap();
    (folder, file)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_configuration_is_told_with_its_line_and_ends_with_78() {
    for (more, expected) in [
        ("size_limt = \"1MiB\"\n", "did you mean `size_limit`?"),
        ("[mta.outbound]\ntls = \"sometimes\"\n", "mta.outbound.tls"),
        (
            "[mta.outbound]\nallow_networks = [\"10.0.0.0/99\"]\n",
            "mta.outbound.allow_networks",
        ),
        (
            "certificates = [{ cert_file = \"/none\", key_file = \"/none\" }]\n",
            "/none",
        ),
        ("max_recipients = 5\n", "write 100 or more"),
    ] {
        let (_folder, config) = folder(more);
        let output = postroad_mta(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{more}: {}", told(&output));
        assert!(
            told(&output).contains(expected),
            "{more}: {}",
            told(&output)
        );
        assert!(
            told(&output).contains("postroad.toml:"),
            "{more}: {}",
            told(&output)
        );
    }
}

#[test]
fn the_configuration_can_be_checked_alone() {
    let (_folder, config) = folder("");
    let output = postroad_mta(&config).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

/// Ends the process whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_without_a_queue_and_ends_at_sigterm() {
    let (_folder, config) = folder("");
    let child = postroad_mta(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut log = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"listening\"") {
        line.clear();
        assert_ne!(
            log.read_line(&mut line).unwrap(),
            0,
            "it ended before it listened"
        );
    }
    let rest = line
        .split("127.0.0.1:")
        .nth(1)
        .expect("the line names the port");
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();

    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
        .write_all(
            b"HELO client.test\r\nMAIL FROM:<eve@elsewhere.test>\r\nRCPT TO:<alice@ours.test>\r\n\
              RCPT TO:<eve@elsewhere.test>\r\nDATA\r\n",
        )
        .unwrap();
    let mut speaker = stream.try_clone().unwrap();
    let mut replies = BufReader::new(stream).lines().map(Result::unwrap);
    let mut expect = |expected: &str| {
        let reply = replies.next().unwrap();
        assert!(
            reply.starts_with(expected),
            "expected {expected}, heard {reply}"
        );
    };
    let answers = [
        "220 mta.ours.test",
        "250 ",
        "250 ",
        "250 ",
        "550 5.7.1",
        "451 4.3.0",
    ];
    answers.into_iter().for_each(&mut expect);
    speaker.write_all(b"RSET\r\n").unwrap();
    expect("250 ");
    let pid = Pid::from_child(&running.0);
    kill_process(pid, Signal::TERM).unwrap();
    expect("421 4.3.2");
    drop((replies, speaker));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0), "{rest}");
}
