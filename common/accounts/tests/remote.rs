//! Accounts of a queue that goes away and comes back, over a socket.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use postroad_accounts::{Accounts, Away, DirectoryService, LogIn, RemoteAccounts, ServiceTerms};
use postroad_address::{ForwardPath, ReversePath};
use postroad_daemon::{AccountsConfig, Interval};
use postroad_directory::{
    AppPassword, AuthGate, AuthVerdict, DecoyKey, DirectoryHandle, Purpose, Resolution, Scope,
    SenderVerdict, add_app_password, hash_password,
};
use postroad_metrics::{Metrics, list};
use postroad_rpc::{Endpoint, ServeOptions, Server};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;

const PATIENCE: Duration = Duration::from_secs(60);
const ALICE: &str = "alice@a.example";
const BOB: &str = "bob@a.example";

/// A queue's directory, and an agent that asks there.
struct House {
    folder: TempDir,
    directory: DirectoryHandle,
    metrics: Metrics,
    accounts: Accounts,
    gate: AuthGate,
    server: Option<(CancellationToken, JoinHandle<()>)>,
    _listening: DropGuard,
}

impl House {
    async fn new() -> Self {
        Self::with(AccountsConfig::default()).await
    }

    async fn with(config: AccountsConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "sesame", "");
        let directory = DirectoryHandle::open(&folder.path().join("directory.toml")).unwrap();
        let metrics = Metrics::new("msa");
        let remote = RemoteAccounts::connect(&[endpoint(folder.path())], None, &config, &metrics);
        let accounts = Accounts::of_queue(remote.unwrap());
        let (stop, listening) = (CancellationToken::new(), accounts.clone());
        let stopped = stop.clone();
        tokio::spawn(async move { listening.keep(stopped).await });
        let mut house = Self {
            folder,
            directory,
            metrics,
            accounts,
            gate: AuthGate::default(),
            server: None,
            _listening: stop.drop_guard(),
        };
        house.open().await;
        house
    }

    /// The queue comes, and is heard.
    async fn open(&mut self) {
        let endpoint = endpoint(self.folder.path());
        let server = Server::bind(&endpoint, None, ServeOptions::default());
        let server = server.await.unwrap();
        let stop = CancellationToken::new();
        let terms = || ServiceTerms {
            max_age: Duration::from_secs(3600),
            verifiers_per_minute: 1000,
        };
        let key = DecoyKey::new([9; 32]);
        let service = DirectoryService::new(self.directory.clone(), key, terms, stop.clone());
        let routes = Routes::new(service.into_server());
        let stopped = stop.clone();
        let serving = tokio::spawn(async move { server.serve(routes, stopped).await.unwrap() });
        self.server = Some((stop, serving));
        // Only what is heard of is remembered as fresh.
        let heard = async {
            let before = self.told("remembered");
            while self.told("remembered") == before {
                let _ = self.resolve("heard@a.example").await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, heard).await.expect("changes are heard");
    }

    /// The queue goes, and that is noticed.
    async fn close(&mut self) {
        let (stop, serving) = self.server.take().unwrap();
        stop.cancel();
        serving.await.unwrap();
        let away = async {
            while self.away() != 1 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, away).await.expect("it is noticed");
    }

    /// Answers so far.
    fn told(&self, from: &str) -> u64 {
        let metric = &list::ACCOUNT_ANSWERS;
        self.metrics.counter(metric, &[from]).value()
    }

    fn away(&self) -> i64 {
        self.metrics.gauge(&list::ACCOUNTS_AWAY, &[]).value()
    }

    async fn resolve(&self, address: &str) -> Result<Resolution, Away> {
        let path = ForwardPath::parse(address).unwrap();
        let resolved = self.accounts.resolve(&path).await?;
        assert_eq!(resolved.tenant.is_some(), address.ends_with("a.example"));
        Ok(resolved.resolution)
    }

    async fn log_in(&self, name: &str, password: &str) -> Result<AuthVerdict, Away> {
        self.shows(name, "PLAIN", password).await
    }

    async fn shows(
        &self,
        name: &str,
        mechanism: &str,
        password: &str,
    ) -> Result<AuthVerdict, Away> {
        let log_in = log_in(name, mechanism, password);
        self.accounts.log_in(&self.gate, &log_in).await
    }

    async fn may_send(&self, account: &str, sender: &str) -> Result<SenderVerdict, Away> {
        let sender = ReversePath::parse(sender).unwrap();
        self.accounts.check_sender(account, &sender).await
    }
}

fn endpoint(folder: &Path) -> Endpoint {
    Endpoint::Unix(folder.join("queue.sock"))
}

fn write(folder: &Path, password: &str, of_bob: &str) {
    let hash = hash_password(password.as_bytes(), [1; 16]).unwrap();
    let text = format!(
        "[[domain]]\nname = \"a.example\"\npostmaster = \"{ALICE}\"\n\
         [[account]]\naddress = \"{ALICE}\"\npassword_hash = \"{hash}\"\n\
         [[account]]\naddress = \"{BOB}\"\npassword_hash = \"{hash}\"\n{of_bob}\n"
    );
    let (path, new) = (folder.join("directory.toml"), folder.join("new"));
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

fn log_in<'a>(name: &'a str, mechanism: &'a str, password: &'a str) -> LogIn<'a> {
    LogIn {
        name,
        mechanism,
        password: password.as_bytes(),
        purpose: Purpose {
            scope: Scope::Submission,
            client: "192.0.2.7".parse().ok(),
            now: std::time::SystemTime::now().into(),
        },
    }
}

fn accepted(name: &str) -> Result<AuthVerdict, Away> {
    Ok(AuthVerdict::Accepted(name.to_owned()))
}

#[tokio::test]
async fn what_was_told_goes_on_while_the_queue_is_away_and_nothing_else_does() {
    let mut house = House::new().await;
    let alice = house.resolve(ALICE).await.unwrap();
    assert!(matches!(alice, Resolution::Local(_)));
    let unknown = Ok(Resolution::UnknownRecipient);
    assert_eq!(house.resolve("nobody@a.example").await, unknown);
    let foreign = Ok(Resolution::ForeignDomain);
    assert_eq!(house.resolve("x@far.example").await, foreign);
    assert_eq!(
        house.log_in("Alice@A.example", "sesame").await,
        accepted(ALICE)
    );
    assert_eq!(house.log_in(BOB, "wrong").await, Ok(AuthVerdict::Refused));
    let tenant = Some("default".to_owned());
    let allowed = Ok(SenderVerdict::Allowed { tenant });
    assert_eq!(house.may_send(ALICE, "alice+x@a.example").await, allowed);

    house.close().await;
    assert_eq!(house.resolve(ALICE).await, Ok(alice.clone()));
    assert_eq!(house.resolve("nobody@a.example").await, unknown);
    assert_eq!(house.resolve("y@far.example").await, foreign);
    assert_eq!(house.log_in(ALICE, "sesame").await, accepted(ALICE));
    assert_eq!(house.log_in(ALICE, "wrong").await, Ok(AuthVerdict::Refused));
    assert_eq!(house.may_send(ALICE, "alice+x@a.example").await, allowed);
    assert!(house.told("stale") >= 6);
    // Whether he exists, or what his password is, is not known here: a wrong one is not remembered.
    assert_eq!(house.resolve("new@a.example").await, Err(Away));
    assert_eq!(house.log_in(BOB, "sesame").await, Err(Away));
    assert_eq!(house.may_send(ALICE, "bob@a.example").await, Err(Away));
    let path = ForwardPath::parse("nobody@a.example").unwrap();
    let bounces = house.accounts.resolve_for_delivery(&path).await;
    assert_eq!(
        bounces,
        Err(Away),
        "accepted mail does not bounce by an old answer"
    );
    let path = ForwardPath::parse(ALICE).unwrap();
    assert!(house.accounts.resolve_for_delivery(&path).await.is_ok());

    house.open().await;
    assert_eq!(house.resolve("new@a.example").await, unknown);
    assert_eq!(house.log_in(BOB, "sesame").await, accepted(BOB));
    assert_eq!(house.away(), 0);
}

#[tokio::test]
async fn a_change_holds_as_soon_as_it_is_told() {
    let house = House::new().await;
    for (name, password) in [(ALICE, "sesame"), (BOB, "sesame")] {
        assert_eq!(house.log_in(name, password).await, accepted(name));
    }
    house.resolve(BOB).await.unwrap();
    let asked = house.told("asked");
    assert_eq!(house.log_in(ALICE, "sesame").await, accepted(ALICE));
    assert_eq!(house.told("asked"), asked, "it is remembered for an hour");

    write(house.folder.path(), "open", "");
    house.directory.reload().unwrap();
    let changed = async {
        while house.log_in(ALICE, "sesame").await != Ok(AuthVerdict::Refused) {}
        assert_eq!(house.log_in(ALICE, "open").await, accepted(ALICE));
        assert_eq!(house.log_in(BOB, "sesame").await, Ok(AuthVerdict::Refused));
    };
    timeout(PATIENCE, changed).await.unwrap();

    assert_eq!(house.log_in(BOB, "open").await, accepted(BOB));
    write(house.folder.path(), "open", "disabled = true");
    house.directory.reload().unwrap();
    let disabled = async {
        while house.log_in(BOB, "open").await != Ok(AuthVerdict::Refused) {}
        assert_eq!(house.resolve(BOB).await, Ok(Resolution::Disabled));
        let gone = house.may_send(BOB, BOB).await;
        assert_eq!(gone, Ok(SenderVerdict::NoAccount));
    };
    timeout(PATIENCE, disabled).await.unwrap();
}

#[tokio::test]
async fn what_changed_unheard_holds_after_the_gap() {
    let mut house = House::new().await;
    assert_eq!(house.log_in(BOB, "sesame").await, accepted(BOB));
    house.resolve(BOB).await.unwrap();
    house.close().await;
    write(house.folder.path(), "sesame", "disabled = true");
    house.directory.reload().unwrap();
    assert_eq!(house.log_in(BOB, "sesame").await, accepted(BOB), "unheard");
    house.open().await;
    assert_eq!(house.log_in(BOB, "sesame").await, Ok(AuthVerdict::Refused));
    assert_eq!(house.resolve(BOB).await, Ok(Resolution::Disabled));
}

#[tokio::test]
async fn what_is_too_old_does_not_go_on() {
    let config = AccountsConfig {
        max_stale: Interval::millis(0),
        ..AccountsConfig::default()
    };
    let mut house = House::with(config).await;
    house.resolve(ALICE).await.unwrap();
    house.close().await;
    assert_eq!(house.resolve(ALICE).await, Err(Away));
    assert!(house.told("none") >= 1);
}

#[tokio::test]
async fn names_that_cannot_be_do_not_make_the_queue_seem_away() {
    let house = House::new().await;
    for name in ["", "no address", &"x".repeat(100_000), "a@b@c", "ü\u{0}"] {
        let verdict = house.log_in(name, "x").await;
        assert_eq!(verdict, Ok(AuthVerdict::Refused), "{name:.20}");
    }
    let odd = house.shows(ALICE, "ANONYMOUS", "x");
    assert_eq!(odd.await, Err(Away), "there is no verifier for it");
    assert_eq!(house.away(), 0);
    assert_eq!(house.log_in(ALICE, "sesame").await, accepted(ALICE));
}

#[tokio::test]
async fn of_two_nodes_the_other_is_asked_when_one_goes() {
    let (mut first, second) = (House::new().await, House::new().await);
    let (config, metrics) = (AccountsConfig::default(), Metrics::new("msa"));
    let nodes = [&first, &second].map(|house| endpoint(house.folder.path()));
    let both = RemoteAccounts::connect(&nodes, None, &config, &metrics);
    let both = Accounts::of_queue(both.unwrap());
    let (stop, listening) = (CancellationToken::new(), both.clone());
    let stopped = stop.clone();
    let kept = tokio::spawn(async move { listening.keep(stopped).await });
    let ask = async |address: &str| {
        let path = ForwardPath::parse(address).unwrap();
        both.resolve(&path)
            .await
            .map(|resolved| resolved.resolution)
    };
    assert!(matches!(ask(ALICE).await, Ok(Resolution::Local(_))));

    first.close().await;
    for at in 0..5 {
        // Nobody knows these by heart.
        let asked = ask(&format!("nobody{at}@a.example")).await;
        assert_eq!(asked, Ok(Resolution::UnknownRecipient));
    }
    let log_in = async |password: &str| {
        let gate = AuthGate::default();
        both.log_in(&gate, &self::log_in(ALICE, "PLAIN", password))
            .await
    };
    assert_eq!(log_in("sesame").await, accepted(ALICE));
    // What changes is heard from the one that is asked now.
    write(second.folder.path(), "changed", "");
    second.directory.reload().unwrap();
    let heard = async {
        while log_in("changed").await != accepted(ALICE) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, heard).await.expect("the change is heard");
    assert_eq!(log_in("sesame").await, Ok(AuthVerdict::Refused));
    assert_eq!(metrics.gauge(&list::ACCOUNTS_AWAY, &[]).value(), 0);
    stop.cancel();
    kept.await.unwrap();
}

#[tokio::test]
async fn an_app_password_is_asked_for_by_its_prefix_and_remembered_of_who_had_it() {
    let mut house = House::new().await;
    let file = house.folder.path().join("directory.toml");
    let alice = postroad_address::Mailbox::parse(ALICE).unwrap();
    let terms = AppPassword {
        name: "printer".to_owned(),
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..AppPassword::default()
    };
    let elsewhere = AppPassword {
        networks: vec!["198.51.100.0/24".parse().unwrap()],
        ..terms.clone()
    };
    let make = |number: u64, terms| {
        add_app_password(&file, &alice, terms, (number, [number.into(), 1], [3; 16])).unwrap()
    };
    let (made, other) = (make(1, &terms), make(2, &elsewhere));
    house.directory.reload().unwrap();
    let right = |refused: Option<&str>| {
        Ok(AuthVerdict::ByAppPassword {
            account: ALICE.to_owned(),
            name: "printer".to_owned(),
            refused: refused.map(str::to_owned),
        })
    };
    assert_eq!(house.log_in("ALICE@a.example", &made).await, right(None));
    let not_here = Some("it is not for this network");
    assert_eq!(house.log_in(ALICE, &other).await, right(not_here));
    let mut wrong = made.to_string();
    wrong.pop();
    wrong.push(if made.ends_with('b') { 'c' } else { 'b' });
    for (name, password) in [(ALICE, &wrong), (BOB, &made), ("nobody@a.example", &made)] {
        let refused = house.log_in(name, password).await;
        assert_eq!(refused, Ok(AuthVerdict::Refused), "{name}");
    }
    house.close().await;
    assert_eq!(house.log_in(ALICE, &made).await, right(None), "remembered");
    assert_eq!(house.log_in(ALICE, &wrong).await, Ok(AuthVerdict::Refused));
    assert_eq!(house.log_in(BOB, &made).await, Err(Away));
}
