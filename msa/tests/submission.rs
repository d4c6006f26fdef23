//! Conversations of mail clients with the submission agent, over real TLS.

#[path = "submission/app_passwords.rs"]
mod app_passwords;
#[path = "submission/bans.rs"]
mod bans;
#[path = "submission/certificates.rs"]
mod certificates;
#[path = "../../mda/tests/support/client.rs"]
mod client;
#[path = "submission/proxies.rs"]
mod proxies;
#[path = "../../mda/tests/support/queue.rs"]
mod queue;
#[path = "submission/senders.rs"]
mod senders;
#[path = "submission/sending.rs"]
mod sending;
#[path = "../../common/accounts/tests/support/source.rs"]
mod source;
#[path = "submission/tokens.rs"]
mod tokens;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::Client;
use postroad_daemon::{ByteSize, CommonConfig, Interval};
use postroad_directory::{DirectoryHandle, hash_password};
use postroad_dns::FixedZone;
use postroad_envelope::HeaderEdit;
use postroad_metrics::Metrics;
use postroad_msa::identity::FromRule;
use postroad_msa::{AuthConfig, Config, Dependencies, ListenerConfig, Msa, NamedLimit};
use postroad_net::{CertFiles, ClientTls, ListenAddr, Networks, Trust};
use postroad_queue_client::QueueError;
use queue::{FakeQueue, PATIENCE};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const ZONE: &str = "1.0.0.127.in-addr.arpa. PTR client.example.\nclient.example. A 127.0.0.1\n";

const DIRECTORY: &str = r#"
[[domain]]
name = "example.org"
postmaster = "alice@example.org"
tenant = "acme"

[[account]]
address = "alice@example.org"
password_hash = "HASH"
may_send_as = ["sales@example.org"]
[[account]]
address = "bob@example.org"
[[account]]
address = "away@example.org"
disabled = true

[[alias]]
address = "team@example.org"
to = ["alice@example.org", "bob@example.org", "carol@elsewhere.example"]
[[alias]]
address = "ping@example.org"
to = ["pong@example.org"]
[[alias]]
address = "pong@example.org"
to = ["ping@example.org"]
"#;

/// A running agent, and what a client needs to trust it.
struct Agent {
    queue: Arc<FakeQueue>,
    submission: SocketAddr,
    submissions: SocketAddr,
    others: Vec<SocketAddr>,
    tls: ClientTls,
    directory: DirectoryHandle,
    folder: TempDir,
    running: JoinHandle<()>,
    stop: CancellationToken,
}

impl Agent {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let certificate = certificate(folder.path());
        let trust = Trust::Files(vec![certificate.cert_file.clone()]);
        let mut config = Config {
            submission: vec!["127.0.0.1:0".parse().unwrap()],
            submissions: vec!["127.0.0.1:0".parse().unwrap()],
            certificates: vec![certificate],
            auth: AuthConfig {
                delay: Interval::millis(1),
                ..AuthConfig::default()
            },
            ..Config::default()
        };
        change(&mut config);
        let file = folder.path().join("directory.toml");
        write_private(&file, DIRECTORY);
        let directory = DirectoryHandle::open(&file).unwrap();
        let queue = FakeQueue::new();
        let metrics = Metrics::new("msa");
        let dependencies = Dependencies {
            queue: queue.clone(),
            accounts: source::accounts(&directory, &metrics).await,
            resolver: Arc::new(FixedZone::parse(Path::new("zone"), ZONE).unwrap()),
            metrics,
        };
        let common = CommonConfig {
            hostname: "mail.example.org".parse().unwrap(),
            ..CommonConfig::default()
        };
        let msa = Msa::bind(config, &common, dependencies).unwrap();
        let addresses = msa.addresses();
        let stop = CancellationToken::new();
        let running = tokio::spawn(msa.run(stop.clone()));
        Self {
            queue,
            submission: addresses[0],
            submissions: addresses[1],
            others: addresses[2..].to_vec(),
            tls: ClientTls::verified(trust).unwrap(),
            directory,
            folder,
            running,
            stop,
        }
    }

    /// A client behind STARTTLS that said EHLO.
    async fn client(&self) -> Client {
        self.client_at(self.submission).await
    }

    async fn client_at(&self, listener: SocketAddr) -> Client {
        let mut client = Client::connect(listener).await;
        assert!(client.hear().await.starts_with("220 "));
        client.expect("EHLO laptop", "250-").await;
        client.expect("STARTTLS", "220").await;
        let mut client = client.start_tls(&self.tls).await;
        client.expect("EHLO laptop", "250-").await;
        client
    }

    /// The same, logged in as alice.
    async fn alice(&self) -> Client {
        self.alice_at(self.submission).await
    }

    async fn alice_at(&self, listener: SocketAddr) -> Client {
        let mut client = self.client_at(listener).await;
        client
            .expect(&plain("alice@example.org", "secret"), "235")
            .await;
        client
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

/// Who may read a directory may guess passwords, so others may not.
fn write_private(path: &Path, directory: &str) {
    let hash = hash_password(b"secret", [9; 16]).unwrap();
    fs::write(path, directory.replace("HASH", &hash)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// A certificate that signs itself, for `localhost`.
fn certificate(folder: &Path) -> CertFiles {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = CertFiles {
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
    };
    fs::write(&files.cert_file, made.cert.pem()).unwrap();
    fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key_file, Permissions::from_mode(0o600)).unwrap();
    files
}

fn plain(name: &str, password: &str) -> String {
    let text = format!("\0{name}\0{password}");
    format!("AUTH PLAIN {}", STANDARD.encode(text))
}

/// MAIL to content from alice to these; gives the reply to the content.
async fn send(client: &mut Client, to: &[&str], content: &str) -> String {
    client.expect("MAIL FROM:<alice@example.org>", "250").await;
    for to in to {
        client.expect(&format!("RCPT TO:<{to}>"), "250").await;
    }
    client.expect("DATA", "354").await;
    client.ask(&format!("{content}\r\n.")).await
}

#[tokio::test]
async fn starttls_auth_plain_and_a_mail_completed() {
    let agent = Agent::start().await;
    let mut client = agent.alice().await;
    let content = "Subject: hello\r\nBcc: carol@elsewhere.example\r\n\r\n..dot\r\n";
    let reply = send(&mut client, &["bob@example.org"], content).await;
    let mails = agent.queue.mails();
    assert_eq!(mails.len(), 1);
    let envelope = &mails[0].envelope;
    assert_eq!(reply, format!("250 2.0.0 {} queued\n", envelope.queue_id));
    assert_eq!(envelope.account.as_deref(), Some("alice@example.org"));
    assert_eq!(envelope.tenant, "acme");
    assert_eq!(envelope.listener, "submission");
    assert_eq!(agent.queue.admitted.lock().unwrap().len(), 1);

    let edited = mails[0].edited();
    let from = "Received: from laptop (client.example [127.0.0.1])\r\n\t(TLS";
    assert!(edited.starts_with(from), "{edited}");
    let by = "\r\n\tby mail.example.org (Postroad) with ESMTPSA\r\n\tid ";
    assert!(edited.contains(by), "{edited}");
    assert!(edited.contains("for <bob@example.org>"), "{edited}");
    assert!(edited.contains("\r\nDate: ") && edited.contains("@mail.example.org>\r\n"));
    assert!(!edited.contains("Bcc"), "{edited}");
    assert!(edited.ends_with("\r\n\r\n.dot\r\n\r\n"), "{edited}");
    let facts = (&envelope.facts, &mails[0].completion.facts);
    assert!(format!("{facts:?}").contains("message_id"));
    client.expect("QUIT", "221").await;
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn implicit_tls_auth_login_and_a_mail_left_as_it_is() {
    let agent = Agent::start().await;
    let client = Client::connect(agent.submissions).await;
    let mut client = client.start_tls(&agent.tls).await;
    assert!(client.hear().await.starts_with("220 "));
    let extensions = client.expect("EHLO laptop", "250-").await;
    assert!(!extensions.contains("STARTTLS"), "{extensions}");
    assert!(extensions.contains("AUTH PLAIN LOGIN"), "{extensions}");
    client.expect("AUTH LOGIN", "334").await;
    client
        .expect(&STANDARD.encode("Alice@example.org"), "334")
        .await;
    client.expect(&STANDARD.encode("secret"), "235 2.7.0").await;
    let content = "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <a@b>\r\n\r\n";
    let reply = send(&mut client, &["bob@example.org"], content).await;
    assert!(reply.starts_with("250"), "{reply}");
    let mails = agent.queue.mails();
    let edited = mails[0].edited();
    assert_eq!(edited.matches("Date:").count(), 1);
    assert_eq!(edited.matches("Message-ID:").count(), 1);
    assert_eq!(mails[0].envelope.listener, "submissions");
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn without_tls_nobody_logs_in_and_without_a_login_nobody_sends() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.submission).await;
    client.hear().await;
    let extensions = client.expect("EHLO laptop", "250-").await;
    assert!(extensions.contains("STARTTLS") && !extensions.contains("AUTH"));
    let reply = client.ask(&plain("alice@example.org", "secret")).await;
    assert!(reply.starts_with('5'), "{reply}");
    client
        .expect("MAIL FROM:<alice@example.org>", "530 5.7.0")
        .await;
    let mut client = agent.client().await;
    client
        .expect("MAIL FROM:<alice@example.org>", "530 5.7.0")
        .await;
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn wrong_passwords_and_unknown_accounts_hear_the_same_and_then_goodbye() {
    let agent = Agent::start().await;
    let mut client = agent.client().await;
    let wrong = client.ask(&plain("alice@example.org", "wrong")).await;
    let unknown = client.ask(&plain("nobody@example.org", "secret")).await;
    assert!(wrong.starts_with("535 5.7.8"), "{wrong}");
    assert_eq!(wrong, unknown);
    client.expect(&plain("bob@example.org", "x"), "535").await;
    assert!(client.hear().await.starts_with("421 4.7.0"));
    assert_eq!(client.hear().await, "");
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn recipients_of_ours_are_resolved_and_others_go_out() {
    let agent = Agent::start().await;
    let mut client = agent.alice().await;
    client.expect("MAIL FROM:<alice@example.org>", "250").await;
    client
        .expect("RCPT TO:<nobody@example.org>", "550 5.1.1")
        .await;
    client
        .expect("RCPT TO:<away@example.org>", "550 5.2.1")
        .await;
    client
        .expect("RCPT TO:<ping@example.org>", "451 4.3.5")
        .await;
    client.expect("RCPT TO:<team@example.org>", "250").await;
    client.expect("RCPT TO:<bob+x@example.org>", "250").await;
    client.expect("RCPT TO:<Postmaster>", "250").await;
    client.expect("RCPT TO:<dave@foreign.example>", "250").await;
    client.expect("DATA", "354").await;
    client.expect("\r\nhello\r\n.", "250").await;
    let mails = agent.queue.mails();
    let recipients = &mails[0].envelope.recipients;
    let to: Vec<_> = recipients.iter().map(|to| to.address.to_string()).collect();
    assert_eq!(
        to,
        [
            "alice@example.org",
            "bob@example.org",
            "carol@elsewhere.example",
            "dave@foreign.example"
        ]
    );
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn two_hundred_recipients_in_one_mail() {
    let agent = Agent::start().await;
    let mut client = agent.alice().await;
    let to: Vec<String> = (0..200).map(|n| format!("r{n}@foreign.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let reply = send(&mut client, &to, "Subject: many\r\n\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(agent.queue.mails()[0].envelope.recipients.len(), 200);
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn a_queue_that_is_away_or_full_is_said_before_content() {
    let agent = Agent::start().await;
    let mut client = agent.alice().await;
    for (error, reply) in [
        (QueueError::Unavailable("away".to_owned()), "451 4.3.0"),
        (QueueError::Full("full".to_owned()), "452 4.3.1"),
    ] {
        *agent.queue.away.lock().unwrap() = Some(error);
        client.expect("MAIL FROM:<alice@example.org>", "250").await;
        client.expect("RCPT TO:<bob@example.org>", "250").await;
        client.expect("DATA", reply).await;
        client.expect("RSET", "250").await;
    }
    *agent.queue.away.lock().unwrap() = None;
    let reply = send(&mut client, &["bob@example.org"], "\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(agent.queue.mails().len(), 1);
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn too_large_is_refused_when_announced_and_when_sent() {
    let agent = Agent::with(|config| {
        config.size_limit = postroad_daemon::ByteSize::kib(64);
    })
    .await;
    let mut client = agent.alice().await;
    let announced = "MAIL FROM:<alice@example.org> SIZE=70000";
    client.expect(announced, "552 5.3.4").await;
    let content = "x".repeat(70) + "\r\n";
    let reply = send(&mut client, &["bob@example.org"], &content.repeat(1000)).await;
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    assert!(agent.queue.mails().is_empty());
    let reply = send(&mut client, &["bob@example.org"], "\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn shutdown_lets_a_running_mail_end_and_sends_the_idle_away() {
    let agent = Agent::start().await;
    let mut busy = agent.alice().await;
    let mut idle = agent.alice().await;
    busy.expect("MAIL FROM:<alice@example.org>", "250").await;
    busy.expect("RCPT TO:<bob@example.org>", "250").await;
    busy.expect("DATA", "354").await;
    agent.stop.cancel();
    assert!(idle.hear().await.starts_with("421 "));
    busy.expect("\r\nstill taken\r\n.", "250").await;
    assert_eq!(agent.queue.mails().len(), 1);
    drop((busy, idle));
    agent.stop().await;
}
