use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::hash_password;

fn problems(text: &str) -> Vec<String> {
    match Directory::parse(Path::new("d.toml"), text) {
        Err(DirectoryError::Invalid(all)) => all.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(
        problems("[[domain]]\nname = \"a.example\"\npostmater = \"b@a.example\"\n"),
        ["d.toml:3: unknown key \"postmater\"; did you mean \"postmaster\"?"]
    );
    assert_eq!(
        problems("[[alias]]\nzzz = 1\n"),
        ["d.toml:2: unknown key \"zzz\"; known here: address, to"]
    );
    assert!(
        problems("\n[domains]\n")[0]
            .starts_with("d.toml:2: unknown key \"domains\"; did you mean \"domain\"?")
    );
}

#[test]
fn faults_of_syntax_and_type_have_a_line() {
    assert!(problems("a = \n")[0].starts_with("d.toml:1:"));
    assert!(problems("[[domain]]\nname = 5\n")[0].starts_with("d.toml:2: invalid type"));
    assert!(problems("[[account]]\ndisabled = true\n")[0].contains("missing field `address`"));
}

#[test]
fn every_problem_is_reported_at_once() {
    let found = problems(
        r#"subaddress_delimiter = "ab"
[[domain]]
name = "a.example"
[[domain]]
name = "A.example"
[[account]]
address = "bob"
[[account]]
address = "bob@b.example"
[[account]]
address = "bob@a.example"
password_hash = "secret"
[[alias]]
address = "BOB@a.example"
to = ["x@y.example"]
[[alias]]
address = "..@a.example"
to = []
[[alias]]
address = "a/b@a.example"
to = []
"#,
    );
    let lines: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(':').nth(1))
        .collect();
    assert_eq!(
        lines,
        ["1", "5", "7", "9", "12", "14", "17", "20"],
        "{found:#?}"
    );
    assert!(!found.concat().contains("secret"));
}

#[test]
fn odd_local_parts_are_fine() {
    let long = "é".repeat(32);
    let text = format!(
        "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = '\"..\"@a.example'\n[[account]]\naddress = \"a/b@a.example\"\n[[account]]\naddress = \"{long}@a.example\"\n"
    );
    let directory = Directory::parse(Path::new("d.toml"), &text).unwrap();
    assert_eq!(directory.accounts().len(), 3);
    assert!(
        directory
            .account_by_name(&format!("{}@A.example", long.to_uppercase()))
            .is_some()
    );
}

#[test]
fn secrets_that_all_may_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("d.toml"), folder.path().join("bob.hash"));
    let hash = hash_password(b"pw", [1; 16]).unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::write(&secret, format!("{hash}\n")).unwrap();
    let start = "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"bob@a.example\"\n";

    fs::write(&file, format!("{start}password_hash = \"{hash}\"\n")).unwrap();
    mode(&file, 0o644);
    let error = Directory::load(&file).unwrap_err().to_string();
    assert!(
        error.contains(":5:") && error.contains("chmod 640"),
        "{error}"
    );
    mode(&file, 0o640);
    assert!(Directory::load(&file).is_ok());

    fs::write(&file, format!("{start}password_hash_file = \"bob.hash\"\n")).unwrap();
    mode(&file, 0o644);
    mode(&secret, 0o644);
    let error = Directory::load(&file).unwrap_err().to_string();
    assert!(
        error.contains("chmod 640") && error.contains("bob.hash"),
        "{error}"
    );
    mode(&secret, 0o600);
    let directory = Directory::load(&file).unwrap();
    assert!(directory.verify("BOB@a.example", b"pw").is_some());
    assert!(directory.verify("bob@a.example", b"other").is_none());
    assert!(directory.verify("eve@a.example", b"pw").is_none());
}

#[test]
fn an_app_password_that_cannot_be_is_named_with_its_line() {
    let good = crate::AppVerifier::new("x", [1; 16]).to_text();
    let entry = |prefix: &str, verifier: &str, more: &str| {
        format!(
            "[[account.app_passwords]]\nprefix = \"{prefix}\"\nverifier = \"{verifier}\"\n{more}\n"
        )
    };
    let start = "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"bob@a.example\"\n";
    let entries = [
        entry("abcdefgh", &good, "name = \"ok\""),
        entry("abcdefgh", &good, "scopes = [\"imap\"]"),
        entry("ABCDEFGH", &good, ""),
        entry("bcdefghj", "APP$x", ""),
        entry("cdefghjk", &good, "scopes = [\"sieve\"]"),
        entry("defghjkm", &good, "networks = [\"192.0.2.0/99\"]"),
        entry("efghjkmn", &good, "expires = \"tomorrow\""),
    ];
    let found = problems(&format!("{start}{}", entries.concat()));
    let lines: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(':').nth(1))
        .collect();
    assert_eq!(lines, ["10", "14", "19", "24", "28", "32"], "{found:#?}");
    assert!(found[0].contains("another app password with this prefix"));
    assert!(found.iter().all(|one| !one.contains("APP$x")), "{found:#?}");

    let odd = entry("abcdefgh", &good, "scope = [\"imap\"]");
    let found = problems(&format!("{start}{odd}"));
    assert_eq!(
        found,
        ["d.toml:8: unknown key \"scope\"; did you mean \"scopes\"?"]
    );
    let many: String = (0..101_u64)
        .map(|number| entry(&crate::app_password::prefix(number), &good, ""))
        .collect();
    assert!(problems(&format!("{start}{many}"))[0].contains("may have 100 app passwords"));
}
