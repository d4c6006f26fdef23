//! Another mail system hands mail over by LMTP (RFC 2033).

#[path = "support/client.rs"]
mod client;
#[path = "support/queue.rs"]
mod queue;
#[path = "../../common/accounts/tests/support/source.rs"]
mod source;

use std::path::Path;
use std::sync::Arc;

use client::Client;
use postroad_daemon::CommonConfig;
use postroad_directory::{Directory, DirectoryHandle};
use postroad_mda::{Config, Dependencies, LmtpAddr, LmtpConfig, Mda, MdaError};
use postroad_metrics::Metrics;
use postroad_net::Networks;
use postroad_queue_client::QueueError;
use queue::{FakeQueue, PATIENCE};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = r#"
[[domain]]
name = "example.org"
tenant = "acme"
postmaster = "alice@example.org"
[[account]]
address = "alice@example.org"
[[account]]
address = "bob@example.org"
[[account]]
address = "away@example.org"
disabled = true
[[alias]]
address = "team@example.org"
to = ["alice@example.org", "carol@elsewhere.example"]
"#;

struct Agent {
    queue: Arc<FakeQueue>,
    root: TempDir,
    address: std::net::SocketAddr,
    running: JoinHandle<Result<(), MdaError>>,
    stop: CancellationToken,
}

impl Agent {
    async fn start(allow: &str) -> Self {
        let root = TempDir::new().unwrap();
        let queue = FakeQueue::new();
        let unix = LmtpAddr::Unix(root.path().join("lmtp.sock"));
        let config = Config {
            mail_root: root.path().join("mail"),
            lmtp: LmtpConfig {
                listeners: [
                    ("tcp".to_owned(), "127.0.0.1:0".parse().unwrap()),
                    ("unix".to_owned(), unix),
                ]
                .into(),
                allow_networks: Networks::parse([allow]).unwrap(),
                ..LmtpConfig::default()
            },
            ..Config::default()
        };
        let directory = Directory::parse(Path::new("directory.toml"), DIRECTORY).unwrap();
        let (directory, metrics) = (
            DirectoryHandle::from_directory(directory),
            Metrics::new("mda"),
        );
        let dependencies = Dependencies {
            queue: queue.clone(),
            accounts: source::accounts(&directory, &metrics).await,
            metrics,
        };
        let common = CommonConfig::default();
        let mda = Mda::bind(config, &common, dependencies).await.unwrap();
        let address = mda.lmtp_addresses()[0];
        let stop = CancellationToken::new();
        let running = tokio::spawn(mda.run(stop.clone()));
        Self {
            queue,
            root,
            address,
            running,
            stop,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(!self.root.path().join("lmtp.sock").exists());
    }
}

#[tokio::test]
async fn each_recipient_has_its_own_replies() {
    let agent = Agent::start("127.0.0.0/8").await;
    let mut client = Client::connect(agent.address).await;
    assert!(client.hear().await.starts_with("220 "));
    client.expect("EHLO x.example", "500").await;
    let extensions = client.expect("LHLO relay.example", "250-").await;
    assert!(!extensions.contains("AUTH") && !extensions.contains("STARTTLS"));
    client
        .expect("MAIL FROM:<x@elsewhere.example>", "250")
        .await;
    client
        .expect("RCPT TO:<nobody@example.org>", "550 5.1.1")
        .await;
    client
        .expect("RCPT TO:<x@foreign.example>", "550 5.7.1")
        .await;
    client
        .expect("RCPT TO:<away@example.org>", "550 5.2.1")
        .await;
    client
        .expect("RCPT TO:<bob+lists@example.org>", "250")
        .await;
    client.expect("RCPT TO:<team@example.org>", "250").await;
    client.expect("DATA", "354").await;
    let first = client
        .expect("Subject: x\r\n\r\n..dot\r\n.", "250 2.0.0")
        .await;
    let second = client.hear().await;
    assert_eq!(first, second, "one reply for each accepted RCPT");

    let mails = agent.queue.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(&mails[0].content[..], b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(mails[0].envelope.tenant, "acme");
    let recipients = &mails[0].envelope.recipients;
    let to: Vec<_> = recipients.iter().map(|to| to.address.to_string()).collect();
    assert_eq!(
        to,
        [
            "bob@example.org",
            "alice@example.org",
            "carol@elsewhere.example"
        ]
    );
    let original = |index: usize| recipients[index].original.as_ref().unwrap().to_string();
    assert_eq!(original(0), "bob+lists@example.org");
    assert_eq!(original(2), "team@example.org");
    assert!(mails[0].edited().contains(" with LMTP\r\n"));
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn a_queue_that_is_away_is_said_for_each_recipient_and_nothing_is_taken() {
    let agent = Agent::start("127.0.0.0/8").await;
    let mut client = Client::connect(agent.address).await;
    client.hear().await;
    client.ask("LHLO relay.example").await;
    client.ask("MAIL FROM:<>").await;
    client.expect("RCPT TO:<bob@example.org>", "250").await;
    let away = QueueError::Unavailable("away".to_owned());
    *agent.queue.away.lock().unwrap() = Some(away);
    client.expect("DATA", "451 4.3.0").await;
    assert!(agent.queue.mails().is_empty());
    client.expect("QUIT", "221").await;
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn strangers_are_sent_away() {
    let agent = Agent::start("192.0.2.0/24").await;
    let mut client = Client::connect(agent.address).await;
    assert!(client.hear().await.starts_with("554 5.7.1"));
    assert_eq!(client.hear().await, "");
    // The socket's own permissions decide who may use it.
    let mut client = Client::connect_unix(&agent.root.path().join("lmtp.sock")).await;
    assert!(client.hear().await.starts_with("220 "));
    client.expect("LHLO relay.example", "250-").await;
    for (forwarded, client_address, peer) in [
        ("NOOP", None, None),
        // Who may open the socket is a neighbour of this host.
        (
            "XFORWARD ADDR=192.0.2.7 PORT=4711 HELO=x.example",
            Some("192.0.2.7:4711"),
            Some("127.0.0.1:0"),
        ),
    ] {
        client.expect(forwarded, "250").await;
        client.expect("MAIL FROM:<>", "250").await;
        client.expect("RCPT TO:<bob@example.org>", "250").await;
        client.expect("DATA", "354").await;
        client.expect("\r\nhello\r\n.", "250 2.0.0").await;
        let mails = agent.queue.mails();
        let origin = &mails.last().unwrap().envelope.origin;
        let text = |address: Option<std::net::SocketAddr>| address.map(|one| one.to_string());
        assert_eq!(text(origin.client).as_deref(), client_address);
        assert_eq!(text(origin.peer).as_deref(), peer);
    }
    assert_eq!(agent.queue.mails().len(), 2);
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn half_a_mail_and_a_dropped_connection_leave_nothing() {
    let agent = Agent::start("127.0.0.0/8").await;
    let mut client = Client::connect(agent.address).await;
    client.hear().await;
    client.ask("LHLO relay.example").await;
    client.ask("MAIL FROM:<>").await;
    client.ask("RCPT TO:<bob@example.org>").await;
    client.expect("DATA", "354").await;
    client.send(b"Subject: half\r\n\r\nThis is n").await;
    drop(client);
    let queue = Arc::clone(&agent.queue);
    agent.stop().await;
    assert!(queue.mails().is_empty());
}

#[tokio::test]
async fn a_second_agent_is_told_that_the_socket_is_taken() {
    let agent = Agent::start("127.0.0.0/8").await;
    let other = TempDir::new().unwrap();
    let path = agent.root.path().join("lmtp.sock");
    let config = Config {
        mail_root: other.path().to_owned(),
        lmtp: LmtpConfig {
            listeners: [("lmtp".to_owned(), LmtpAddr::Unix(path.clone()))].into(),
            ..LmtpConfig::default()
        },
        ..Config::default()
    };
    let directory = Directory::parse(Path::new("d.toml"), DIRECTORY).unwrap();
    let directory = DirectoryHandle::from_directory(directory);
    let metrics = Metrics::new("mda");
    let dependencies = Dependencies {
        queue: agent.queue.clone(),
        accounts: source::accounts(&directory, &metrics).await,
        metrics,
    };
    let refused = Mda::bind(config, &CommonConfig::default(), dependencies).await;
    assert!(matches!(refused, Err(MdaError::Listen { .. })));
    assert!(path.exists(), "the first one's socket is left alone");
    agent.stop().await;
}
