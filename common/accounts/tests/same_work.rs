//! Whoever is asked for, the same is said and the same is done: what is counted is how often a password was hashed.

#[path = "support/source.rs"]
mod source;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use postroad_accounts::{Accounts, LogIn};
use postroad_address::Mailbox;
use postroad_directory::{
    AppPassword, AuthGate, AuthVerdict, DirectoryHandle, Purpose, Scope, add_app_password,
    hash_password,
};
use postroad_metrics::{Metrics, list};
use tempfile::TempDir;

const ALICE: &str = "alice@a.example";

struct House {
    accounts: Accounts,
    gate: AuthGate,
    metrics: Metrics,
    app: String,
    _folder: TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("directory.toml");
        let hash = hash_password(b"sesame", [1; 16]).unwrap();
        let text = format!(
            "[[domain]]\nname = \"a.example\"\npostmaster = \"{ALICE}\"\n\
             [[account]]\naddress = \"{ALICE}\"\npassword_hash = \"{hash}\"\n\
             [[account]]\naddress = \"gone@a.example\"\npassword_hash = \"{hash}\"\ndisabled = true\n\
             [[account]]\naddress = \"bare@a.example\"\n"
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let alice = Mailbox::parse(ALICE).unwrap();
        let terms = AppPassword::default();
        let app = add_app_password(&file, &alice, &terms, (1, [1, 2], [3; 16])).unwrap();
        let metrics = Metrics::new("test");
        let directory = DirectoryHandle::open(&file).unwrap();
        Self {
            accounts: source::accounts(&directory, &metrics).await,
            gate: AuthGate::default(),
            metrics,
            app: app.to_string(),
            _folder: folder,
        }
    }

    fn counted(&self, by: &str) -> u64 {
        self.metrics.counter(&list::PASSWORD_CHECKS, &[by]).value()
    }

    /// What is said, how often a password was hashed, and how often an app password was looked at.
    async fn shows(&self, name: &str, password: &str) -> (AuthVerdict, u64, u64) {
        let before = ["hashed", "app"].map(|by| self.counted(by));
        let log_in = LogIn {
            name,
            mechanism: "PLAIN",
            password: password.as_bytes(),
            purpose: Purpose {
                scope: Scope::Submission,
                client: None,
                now: std::time::SystemTime::now().into(),
            },
        };
        let verdict = self.accounts.log_in(&self.gate, &log_in).await.unwrap();
        let [hashed, app] = ["hashed", "app"].map(|by| self.counted(by));
        (verdict, hashed - before[0], app - before[1])
    }
}

#[tokio::test]
async fn a_wrong_log_in_is_one_hash_whoever_is_asked_for() {
    let house = House::new().await;
    for name in [
        ALICE,
        "ALICE@A.example",
        "nobody@a.example",
        "nobody@elsewhere.example",
        "gone@a.example",
        "bare@a.example",
        "no address",
        "",
    ] {
        for password in ["wrong", "", "app-short"] {
            let ended = house.shows(name, password).await;
            assert_eq!(ended, (AuthVerdict::Refused, 1, 0), "{name:?} {password:?}");
        }
    }
    let gone = house.shows("gone@a.example", "sesame").await;
    assert_eq!(gone, (AuthVerdict::Refused, 1, 0));
    let right = house.shows(ALICE, "sesame").await;
    assert_eq!(right, (AuthVerdict::Accepted(ALICE.to_owned()), 1, 0));
}

#[tokio::test]
async fn a_wrong_app_password_is_none_whoever_is_asked_for() {
    let house = House::new().await;
    let secret = "abcdefghijkmnpqrstuvwxyz23";
    let prefix = house.app.get(4..12).unwrap();
    let (known, unknown) = (
        format!("app-{prefix}-{secret}"),
        format!("app-zzzzzzzz-{secret}"),
    );
    for name in [
        ALICE,
        "nobody@a.example",
        "gone@a.example",
        "bare@a.example",
    ] {
        for password in [&known, &unknown] {
            let ended = house.shows(name, password).await;
            assert_eq!(ended, (AuthVerdict::Refused, 0, 1), "{name:?} {password:?}");
        }
    }
    let (verdict, hashed, app) = house.shows(ALICE, &house.app).await;
    assert!(matches!(verdict, AuthVerdict::ByAppPassword { .. }));
    assert_eq!((hashed, app), (0, 1));
}

#[tokio::test]
async fn what_was_right_is_remembered_and_guessing_is_not_quicker_for_it() {
    let mut house = House::new().await;
    house.gate = AuthGate::default().remembering(std::time::Duration::from_secs(60), 10);
    let right = || AuthVerdict::Accepted(ALICE.to_owned());
    assert_eq!(house.shows(ALICE, "sesame").await, (right(), 1, 0));
    assert_eq!(house.shows(ALICE, "sesame").await, (right(), 0, 0));
    assert_eq!(house.counted("remembered"), 1);
    for name in [ALICE, "nobody@a.example"] {
        for _ in 0..2 {
            let ended = house.shows(name, "wrong").await;
            assert_eq!(ended, (AuthVerdict::Refused, 1, 0));
        }
    }
}
