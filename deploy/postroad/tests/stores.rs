//! An account moves to another store, as it is typed on two hosts.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const DIRECTORY: &str = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n\n\
                         [[account]]\naddress = \"bob@a.example\"\n";

/// Two hosts: the old store's, where the directory is, and the new one's, which asks the queue.
struct Hosts {
    folder: TempDir,
}

impl Hosts {
    fn new() -> Self {
        let hosts = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let folder = hosts.folder.path().display();
        let common = format!(
            "[common]\nhostname = \"mx.a.example\"\ndomain = \"a.example\"\ndirectory = \"{folder}/"
        );
        let old = format!("{common}directory.toml\"\n[mda]\nmail_root = \"{folder}/old\"\n");
        let new = format!(
            "{common}none.toml\"\naccounts.from = \"queue\"\n[mda]\nmail_root = \"{folder}/new\"\nstore = \"b\"\n"
        );
        for (name, text) in [
            ("old.toml", old.as_str()),
            ("new.toml", new.as_str()),
            ("directory.toml", DIRECTORY),
        ] {
            fs::write(hosts.path(name), text).unwrap();
            fs::set_permissions(hosts.path(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        for root in ["old", "new"] {
            fs::create_dir(hosts.path(root)).unwrap();
        }
        hosts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        let new = self.path("old/a.example/bob/Maildir/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join(name), content).unwrap();
    }

    fn typed(&self, host: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_postroad"))
            .arg("--config")
            .arg(self.path(host))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that refuses before it reads closes its end.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Status, standard output, standard error.
    fn told(&self, host: &str, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
        let output = self.typed(host, arguments, input);
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

#[test]
fn an_account_moves_with_its_mail() {
    let hosts = Hosts::new();
    hosts.put("1.M1.old", "Subject: one\n\nbody\n");
    hosts.put("2.M2.old", "Subject: two\n\nbody\n");

    let stay = ["mailbox", "remove", "bob", "--as-imported", "-"];
    let (status, _, talk) = hosts.told("old.toml", &stay, b"");
    assert_eq!(status, 1);
    assert!(
        talk.contains("bob@a.example is of this store, default; first: postroad account move"),
        "{talk}"
    );

    let move_to_b = ["account", "move", "Bob@A.example", "--to-store", "b"];
    let (status, out, _) = hosts.told("old.toml", &move_to_b, b"");
    assert_eq!(status, 0);
    assert!(
        out.starts_with("Bob@A.example is of store b now, and was of default"),
        "{out}"
    );
    let (status, out, _) = hosts.told("old.toml", &[&move_to_b[..], &["--json"]].concat(), b"");
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, &object["moved"], &object["store"]),
        (0, &false.into(), &"b".into())
    );
    let (_, out, _) = hosts.told("old.toml", &["account", "list", "--json"], b"");
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["accounts"][0]["store"], "b");

    let exported = hosts.typed("old.toml", &["mailbox", "export", "bob"], b"");
    let talk = String::from_utf8_lossy(&exported.stderr);
    assert_eq!(talk, "2 mails of bob@a.example are exported, 38 octets\n");
    let imported = hosts.typed("new.toml", &["mailbox", "import", "bob"], &exported.stdout);
    let talk = String::from_utf8_lossy(&imported.stderr);
    assert_eq!(
        talk,
        "2 mails of bob@a.example are imported, 0 were here before\n"
    );
    let again = ["mailbox", "import", "bob@a.example", "--json"];
    let (status, receipt, talk) = hosts.told("new.toml", &again, &exported.stdout);
    let object: serde_json::Value = serde_json::from_str(&talk).unwrap();
    assert_eq!(
        (status, &object["known"], &object["mails"]),
        (0, &2.into(), &0.into())
    );

    // One more came to the old store meanwhile.
    hosts.put("3.M3.old", "Subject: three\n\nbody\n");
    fs::write(hosts.path("receipt"), &receipt).unwrap();
    let file = hosts.path("receipt").display().to_string();
    let remove = ["mailbox", "remove", "bob", "--as-imported", &file];
    let (status, out, talk) = hosts.told("old.toml", &remove, b"");
    assert_eq!(
        (status, out.as_str()),
        (1, "2 mails of bob@a.example are removed here\n")
    );
    assert!(talk.starts_with("1 mails are still here"), "{talk}");
    let exported = hosts.typed("old.toml", &["mailbox", "export", "bob"], b"");
    let imported = hosts.typed("new.toml", &["mailbox", "import", "bob"], &exported.stdout);
    let last = ["mailbox", "remove", "bob", "--as-imported", "-", "--json"];
    let (status, out, talk) = hosts.told("old.toml", &last, &imported.stdout);
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (status, &object["mails"], &object["left"]),
        (0, &1.into(), &0.into()),
        "{talk}"
    );
    let (_, out, _) = hosts.told("new.toml", &["mailbox", "list", "bob", "--json"], b"");
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["mails"].as_array().unwrap().len(), 3);
}

#[test]
fn what_cannot_be_is_refused() {
    let hosts = Hosts::new();
    for (host, arguments, status, says) in [
        (
            "old.toml",
            &["account", "move", "ghost@a.example", "--to-store", "b"][..],
            3,
            "there is no account ghost@a.example",
        ),
        (
            "old.toml",
            &["account", "move", "bob@a.example", "--to-store", "B/.."],
            2,
            "the name of a store is",
        ),
        (
            "old.toml",
            &["account", "move", "bob@a.example"],
            2,
            "--to-store",
        ),
        (
            "old.toml",
            &["mailbox", "export", "bob"],
            3,
            "there is no mailbox of bob here",
        ),
        (
            "old.toml",
            &["mailbox", "export", "ghost"],
            3,
            "there is no account ghost",
        ),
        (
            "new.toml",
            &["mailbox", "import", "bob"],
            1,
            "this is no stream of `postroad mailbox export`",
        ),
        (
            "new.toml",
            &["mailbox", "remove", "bob", "--as-imported", "/nonexistent"],
            1,
            "cannot read /nonexistent",
        ),
        (
            "new.toml",
            &["mailbox", "remove", "bob", "--as-imported", "-"],
            1,
            "the receipt is none",
        ),
    ] {
        let (is, _, talk) = hosts.told(host, arguments, b"hello\n");
        assert!(
            is == status && talk.contains(says),
            "{arguments:?}: {is} {talk}"
        );
    }
    let left = fs::read_to_string(hosts.path("directory.toml")).unwrap();
    assert_eq!(left, DIRECTORY);
}
