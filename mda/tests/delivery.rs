//! The worker against a queue of plain data: what is leased lies in the right mailbox, once.

#[path = "support/again.rs"]
mod again;
#[path = "support/queue.rs"]
mod queue;
#[path = "../../common/accounts/tests/support/source.rs"]
mod source;
#[path = "support/stores.rs"]
mod stores;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use postroad_address::{Mailbox, ReversePath};
use postroad_daemon::CommonConfig;
use postroad_directory::{Directory, DirectoryHandle};
use postroad_envelope::{
    EditPlace, Envelope, HeaderEdit, Outcome, QueueId, Recipient, RecipientIndex, Timestamp,
};
use postroad_maildir::{Entry, MaildirError, list, maildir_path};
use postroad_mda::{Config, Dependencies, MdaError, serve};
use postroad_metrics::Metrics;
use postroad_queue_client::{QueueError, WorkUp};
use queue::{FakeQueue, PATIENCE, Session};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DIRECTORY: &str = r#"
[[domain]]
name = "example.org"
postmaster = "alice@example.org"

[[account]]
address = "alice@example.org"
[[account]]
address = "bob@example.org"
[[account]]
address = "\"..\"@example.org"
[[account]]
address = "a/b@example.org"
[[account]]
address = "ÄÖÜ-æøå@example.org"
[[account]]
address = "away@example.org"
disabled = true
[[account]]
address = "moved@example.org"
store = "b"

[[alias]]
address = "team@example.org"
to = ["alice@example.org", "carol@elsewhere.example"]
"#;

/// A running agent and the queue's end of its stream.
struct Agent {
    queue: Arc<FakeQueue>,
    sessions: mpsc::Receiver<Session>,
    session: Session,
    running: JoinHandle<Result<(), MdaError>>,
    stop: CancellationToken,
}

impl Agent {
    async fn start(root: &Path) -> Self {
        Self::with_queue(root, FakeQueue::new()).await
    }

    async fn with_queue(root: &Path, queue: Arc<FakeQueue>) -> Self {
        let mut sessions = queue.sessions();
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
        let config = Config {
            mail_root: root.to_owned(),
            ..Config::default()
        };
        let stop = CancellationToken::new();
        let shutdown = stop.clone();
        let running = tokio::spawn(async move {
            serve(config, &CommonConfig::default(), dependencies, shutdown).await
        });
        let session = timeout(PATIENCE, sessions.recv()).await.unwrap().unwrap();
        Self {
            queue,
            sessions,
            session,
            running,
            stop,
        }
    }

    /// Delivers to one recipient and gives the outcome.
    async fn deliver(&mut self, to: &str, content: &[u8]) -> Outcome {
        let envelope = envelope(&[to]);
        let content = Bytes::copy_from_slice(content);
        self.session.lease(&envelope, Some(content)).await;
        let outcomes = self.session.settled().await;
        assert_eq!(outcomes.len(), 1);
        outcomes.into_iter().next().unwrap().1
    }

    async fn stop(self) -> Result<(), MdaError> {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap()
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let id = QueueId::mint(now, rand::random());
    let sender = ReversePath::parse("sender@elsewhere.example").unwrap();
    let mut envelope = Envelope::new(id, sender, now);
    envelope.recipients = (0..)
        .zip(recipients)
        .map(|(index, to)| Recipient::new(RecipientIndex(index), Mailbox::parse(to).unwrap()))
        .collect();
    envelope.header_edits = vec![HeaderEdit::Add {
        place: EditPlace::Top,
        field: b"Received: by test\r\n".to_vec(),
    }];
    envelope
}

fn mails(root: &Path, local_part: &str) -> Vec<Entry> {
    list(&maildir_path(root, "example.org", local_part).unwrap()).unwrap()
}

fn only(root: &Path, local_part: &str) -> Vec<u8> {
    let mails = mails(root, local_part);
    assert_eq!(mails.len(), 1, "{mails:?}");
    fs::read(&mails[0].path).unwrap()
}

fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered(_))
}

#[tokio::test]
async fn fields_stand_in_order_and_the_rest_is_the_same_octets() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let content =
        b"Return-Path: <old@x.example>\r\nSubject: hi\r\n\r\n.dot\r\n..\r\n\xff\xfe 8bit\0\r\nlast";
    let outcome = agent.deliver("Bob+Lists@Example.ORG", content).await;
    assert!(is_delivered(&outcome), "{outcome:?}");
    assert!(outcome.report().text.contains("INBOX"), "{outcome:?}");
    let expected = b"Return-Path: <sender@elsewhere.example>\nDelivered-To: bob@example.org\nReceived: by test\nSubject: hi\n\n.dot\n..\n\xff\xfe 8bit\0\nlast";
    let filed = only(root.path(), "bob");
    assert!(
        filed.starts_with(expected),
        "{}",
        String::from_utf8_lossy(&filed)
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_empty_body_and_no_header_at_all() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    agent
        .deliver("alice@example.org", b"Subject: x\r\n\r\n")
        .await;
    agent.deliver("bob@example.org", b"").await;
    assert!(only(root.path(), "alice").ends_with(b"Received: by test\nSubject: x\n\n"));
    assert!(only(root.path(), "bob").starts_with(b"Return-Path:"));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn large_content_is_streamed_to_many_mailboxes_octet_by_octet() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    // No CR or LF, so that lines do not change: 3 MiB of all other octets.
    let body: Vec<u8> = (0..3 << 20_u32)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .filter(|byte| !b"\r\n".contains(byte))
        .collect();
    let content = Bytes::from([b"Subject: large\r\n\r\n".as_slice(), &body].concat());
    let to: Vec<String> = (0..40).map(|n| format!("bob+{n}@example.org")).collect();
    let mut mail = envelope(&to.iter().map(String::as_str).collect::<Vec<_>>());
    mail.size = content.len() as u64;
    agent
        .queue
        .contents
        .lock()
        .unwrap()
        .insert(mail.queue_id, content);
    agent.session.lease(&mail, None).await;
    let outcomes = agent.session.settled().await;
    assert_eq!(
        outcomes
            .iter()
            .filter(|(_, outcome)| is_delivered(outcome))
            .count(),
        40
    );
    let filed = mails(root.path(), "bob");
    assert_eq!(filed.len(), 40);
    for mail in filed {
        let octets = fs::read(&mail.path).unwrap();
        let start = octets.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
        assert!(octets[start..].starts_with(&body), "{}", mail.file_name);
    }
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn content_that_is_cut_short_is_not_filed() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mut mail = envelope(&["bob@example.org"]);
    mail.size = 1000;
    let half = Bytes::from_static(b"Subject: half\r\n\r\n");
    agent
        .queue
        .contents
        .lock()
        .unwrap()
        .insert(mail.queue_id, half);
    agent.session.lease(&mail, None).await;
    // The queue is there and wrong: an attempt, so that the mail does not come for ever.
    let outcomes = agent.session.settled().await;
    assert_eq!(outcomes[0].1.action(), "delayed");
    assert!(mails(root.path(), "bob").is_empty());

    // The queue is away: no attempt.
    *agent.queue.away.lock().unwrap() = Some(QueueError::Unavailable("away".to_owned()));
    agent.session.lease(&mail, None).await;
    assert!(matches!(agent.session.result().await, WorkUp::HandBack(_)));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn awkward_local_parts_stay_below_the_root() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    for (address, local_part, folder) in [
        ("\"..\"@example.org", "..", "%2E."),
        ("a/b@example.org", "a/b", "a%2Fb"),
        (
            "ÄÖÜ-æøå@example.org",
            "äöü-æøå",
            "%C3%A4%C3%B6%C3%BC-%C3%A6%C3%B8%C3%A5",
        ),
    ] {
        let outcome = agent.deliver(address, b"Subject: x\r\n\r\n").await;
        assert!(is_delivered(&outcome), "{address}: {outcome:?}");
        assert!(
            root.path().join("example.org").join(folder).is_dir(),
            "{folder}"
        );
        only(root.path(), local_part);
    }
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn who_is_unknown_fails_and_who_is_disabled_waits() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mail = envelope(&[
        "nobody@example.org",
        "away@example.org",
        "bob@example.org",
        "x@foreign.example",
    ]);
    agent
        .session
        .lease(&mail, Some(Bytes::from_static(b"\r\n")))
        .await;
    let mut outcomes = agent.session.settled().await;
    outcomes.sort_by_key(|(index, _)| *index);
    let told: Vec<_> = outcomes
        .iter()
        .map(|(_, outcome)| format!("{} {}", outcome.action(), outcome.report().status))
        .collect();
    assert_eq!(
        told,
        [
            "failed 5.1.1",
            "delayed 4.2.1",
            "delivered 2.0.0",
            "delayed 4.3.5"
        ]
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_alias_is_sent_on_once_however_often_the_lease_comes() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mut mail = envelope(&["team@example.org"]);
    mail.account = Some("alice@example.org".to_owned());
    mail.origin.account = mail.account.clone();
    let content = Bytes::from(vec![b'x'; 100_000]);
    mail.size = 100_000;
    for _ in 0..2 {
        agent.session.lease(&mail, Some(content.clone())).await;
        let settlement = agent.session.settlement().await;
        assert_eq!(settlement.outcomes[0].1.action(), "expanded");
        // RFC 3461 §5.2.7: the new mail is what is reported.
        assert_eq!(settlement.reporting, [RecipientIndex(0)]);
        agent.session.keep(&settlement).await;
    }
    let sent = agent.queue.mails();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].content, content);
    assert_eq!(
        sent[0].envelope.account, None,
        "a delivery agent claims no account"
    );
    assert_eq!(sent[0].envelope.origin.account, None);
    let to: Vec<_> = sent[0]
        .envelope
        .recipients
        .iter()
        .map(|to| to.address.to_string())
        .collect();
    assert_eq!(to, ["alice@example.org", "carol@elsewhere.example"]);
    let original = sent[0].envelope.recipients[1].original.as_ref().unwrap();
    assert_eq!(original.to_string(), "team@example.org");

    *agent.queue.away.lock().unwrap() = Some(QueueError::Unavailable("away".to_owned()));
    let other = envelope(&["team@example.org"]);
    agent.session.lease(&other, Some(Bytes::new())).await;
    assert!(matches!(agent.session.result().await, WorkUp::HandBack(_)));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_written_delays() {
    // Root may write anywhere, so a file stands where the folder should be.
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("example.org")).unwrap();
    fs::write(root.path().join("example.org/bob"), "in the way").unwrap();
    let mut agent = Agent::start(root.path()).await;
    let outcome = agent.deliver("bob@example.org", b"\r\n").await;
    let told = format!("{} {}", outcome.action(), outcome.report().status);
    assert_eq!(told, "delayed 4.3.0");
    assert!(
        !outcome.report().text.contains("bob/"),
        "no path in what senders read"
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_target_folder_is_made_private() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    let mut mail = envelope(&["bob@example.org"]);
    mail.recipients[0].target_folder = Some("Lists/Rust".to_owned());
    agent.session.lease(&mail, Some(Bytes::new())).await;
    let outcomes = agent.session.settled().await;
    assert!(outcomes[0].1.report().text.contains("Lists/Rust"));
    let filed = &mails(root.path(), "bob")[0];
    assert_eq!(filed.folder.as_deref(), Some("Lists/Rust"));
    assert_eq!(
        fs::metadata(&filed.path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn after_the_settlement_only_the_mail_and_its_story_stay() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::start(root.path()).await;
    agent.deliver("bob@example.org", b"\r\n").await;
    let queue = Arc::clone(&agent.queue);
    agent.stop().await.unwrap();
    // A thread that looks through the ledger is not waited for, and holds the lock until it has.
    let opened = async {
        loop {
            match postroad_maildir::Store::open(root.path(), "probe") {
                Err(MaildirError::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    let (_, recovery) = timeout(PATIENCE, opened).await.unwrap();
    assert_eq!(recovery.unsettled, 0, "settled, so forgotten");
    let events = queue.events.lock().unwrap();
    let path = mails(root.path(), "bob")[0].path.display().to_string();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].fields["path"], path);
}
