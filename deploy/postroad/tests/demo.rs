//! The demo as a new user starts it: the shipped command, real ports, a real mail.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A base whose ports are free at this moment.
fn free_base() -> u16 {
    (0..500)
        .map(|_| rand::random_range(20_000..60_000))
        .find(|base| {
            [24, 25, 465, 587]
                .iter()
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, base + port)).is_ok())
        })
        .expect("500 tries find free ports")
}

fn postroad(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroad"));
    command
        .args(arguments)
        .env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_STATE_HOME", home.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finished(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn done(home: &Path, arguments: &[&str]) -> String {
    let output = finished(postroad(home, arguments).spawn().unwrap());
    let (out, talk) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}\n{out}\n{talk}"
    );
    out
}

fn json(home: &Path, arguments: &[&str]) -> Value {
    let value: Value = serde_json::from_str(&done(home, arguments)).unwrap();
    assert_eq!(value["schema"], 1, "{arguments:?}");
    value
}

#[test]
fn the_first_mail_is_carried_and_told_of() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("demo");
    let base = free_base().to_string();
    let arguments = [
        "run",
        "--demo",
        "--data",
        data.to_str().unwrap(),
        "--port-base",
        &base,
        "--exit-after-first-mail",
    ];
    let told = done(home.path(), &arguments);
    for stop in [
        "encrypted",
        "certificate verified",
        "logged in",
        "accepted",
        "leased",
        "delivered",
        "settled",
    ] {
        assert!(told.contains(stop), "{stop} is missing in\n{told}");
    }
    assert!(told.contains("Subject: The first mail"), "{told}");
    let card = fs::read_to_string(data.join("demo.json")).unwrap();
    assert_eq!(
        fs::metadata(data.join("demo.json"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );

    // A second start on the same folder: the same passwords, and the mail of the first is there.
    done(home.path(), &arguments);
    assert_eq!(fs::read_to_string(data.join("demo.json")).unwrap(), card);
    let listed = json(home.path(), &["mailbox", "list", "bob", "--json"]);
    assert_eq!(listed["mails"].as_array().unwrap().len(), 2);
}

/// What `trace --follow` tells up to what an operator does.
fn followed(home: &Path, id: &str) -> JoinHandle<Vec<String>> {
    let mut child = postroad(home, &["trace", "--follow", id]).spawn().unwrap();
    thread::spawn(move || {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told: Vec<String> = Vec::new();
        for line in lines.map_while(Result::ok) {
            let is_last = line.contains("admin");
            told.push(line);
            if is_last {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told
    })
}

/// A demo in the background, told to stop when the test ends.
struct Background(Option<Child>);

impl Background {
    fn stop(mut self) -> Output {
        let child = self.0.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        finished(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_second_shell_needs_no_arguments() {
    let home = tempfile::tempdir().unwrap();
    let base = free_base().to_string();
    let mut child = postroad(
        home.path(),
        &["run", "--demo", "--port-base", &base, "--json"],
    )
    .spawn()
    .unwrap();
    let mut out = child.stdout.take().unwrap();
    let demo = Background(Some(child));
    // The object of the first mail is one line: when it is there, the demo waits.
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut octet = [0];
        out.read_exact(&mut octet)
            .expect("the demo tells of its first mail");
        line.push(octet[0]);
    }
    let first: Value = serde_json::from_slice(&line).unwrap();
    assert!(first["timeline"].as_array().unwrap().len() > 5, "{first}");

    assert!(
        json(home.path(), &["health", "--json"])["ready"]
            .as_bool()
            .unwrap()
    );
    let sent = json(
        home.path(),
        &[
            "send",
            "Grüße aus der zweiten Shell",
            "--subject",
            "Grüße",
            "--json",
        ],
    );
    let id = sent["queue_id"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + PATIENCE;
    let shown = loop {
        let output = finished(
            postroad(home.path(), &["mailbox", "show", "bob", &id, "--json"])
                .spawn()
                .unwrap(),
        );
        if output.status.success() {
            break serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
        assert!(Instant::now() < deadline, "the mail is not delivered");
    };
    assert_eq!(shown["subject"], "Grüße");
    assert!(
        shown["content"]
            .as_str()
            .unwrap()
            .contains("Grüße aus der zweiten Shell")
    );

    // Mail for the world is held, can be read, and is dropped when that is wanted.
    let sent = json(
        home.path(),
        &[
            "send",
            "--to",
            "someone@example.org",
            "Hello world",
            "--json",
        ],
    );
    let id = sent["queue_id"].as_str().unwrap();
    let held = json(home.path(), &["queue", "list", "--state", "held", "--json"]);
    assert_eq!(held["mails"][0]["queue_id"], *id, "{held}");
    assert!(done(home.path(), &["queue", "show", &id[..20], "--content"]).contains("Hello world"));
    assert!(done(home.path(), &["queue", "show", id]).contains("someone@example.org"));
    assert!(done(home.path(), &["queue", "trace", id]).contains("accepted"));
    let traced = json(home.path(), &["trace", "someone@example.org", "--json"]);
    assert_eq!(traced["events"][0]["queue_id"], *id, "{traced}");
    let message_id = traced["events"][0]["fields"]["message_id"]
        .as_str()
        .unwrap();
    assert!(done(home.path(), &["queue", "trace", message_id]).contains(id));
    let nobody = ["queue", "trace", "nobody@example.org"];
    let nobody = finished(postroad(home.path(), &nobody).spawn().unwrap());
    assert_eq!(nobody.status.code(), Some(3));
    let followed = followed(home.path(), id);
    assert_eq!(
        done(home.path(), &["queue", "drop", id]),
        "1 mail dropped\n"
    );
    let told = followed.join().unwrap();
    assert!(
        told[0].contains("accepted") && told[1].contains("routed"),
        "{told:?}"
    );
    let again = finished(
        postroad(home.path(), &["queue", "show", id])
            .spawn()
            .unwrap(),
    );
    assert!(again.status.success());
    let retired = String::from_utf8(again.stdout).unwrap();
    assert!(
        retired.contains("retired") && retired.contains("dropped"),
        "{retired}"
    );

    let second = finished(
        postroad(home.path(), &["run", "--demo", "--port-base", &base])
            .spawn()
            .unwrap(),
    );
    let talk = String::from_utf8(second.stderr).unwrap();
    assert!(
        second.status.code() == Some(1) && talk.contains("runs already"),
        "{talk}"
    );

    let ended = demo.stop();
    assert_eq!(
        ended.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(
        finished(postroad(home.path(), &["health"]).spawn().unwrap())
            .status
            .code(),
        Some(1)
    );
}
