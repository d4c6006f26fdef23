//! Retired mails that are forgotten for good: what must be gone, what must stay, and a purge that was cut off.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures::StreamExt as _;
use postroad_daemon::ByteSize;
use postroad_envelope::{
    Envelope, Filter, MailState, Notify, Outcome, QueueId, RouteClass, StatusReport,
};
use postroad_queue_client::{Change, Order, QueueAdmin, QueueError, QueueService, collect_content};
use postroad_queued::{Config, KeptContent, LocalQueue};
use postroad_reply::BAD_MAILBOX_5_1_1;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    retired::retired,
    setup::{PATIENCE, Stack, Worker, change, config, delivered, failed, mail, submit},
};

const MARKER: &str = "markerq7x";
const RELAY: &[RouteClass] = &[RouteClass::Relay];

fn small_segments() -> Config {
    let mut config = config();
    config.retired.content = KeptContent::All;
    config.disk.segment = ByteSize::mib(1);
    config.disk.journal_target = ByteSize::mib(2);
    config
}

/// Files below a folder that hold the marker.
fn marked(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(marked(&path));
            continue;
        }
        // One may be given up while we look.
        let octets = std::fs::read(&path).unwrap_or_default();
        let mut parts = octets.windows(MARKER.len());
        if parts.any(|part| part.eq_ignore_ascii_case(MARKER.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn queue_folder(stack: &Stack) -> std::path::PathBuf {
    stack.folder.path().join("state/queue")
}

/// A mail of the marked sender, of about this length.
fn secret(len: usize) -> (Envelope, Vec<u8>) {
    let sender = format!("{MARKER}-from@sender.test");
    let to = [
        format!("{MARKER}-to@{MARKER}.test"),
        format!("other-{MARKER}@far.test"),
    ];
    let mut envelope = mail(&sender, &[&to[0], &to[1]]);
    for recipient in &mut envelope.recipients {
        recipient.notify = Notify::Never;
    }
    let subject = format!("Subject: {MARKER}\r\n");
    envelope
        .facts
        .insert("message_id".to_owned(), format!("<{MARKER}@sender.test>"));
    let line = format!("a line of {MARKER}\r\n");
    let body = line.repeat(len / line.len());
    (envelope, format!("{subject}\r\n{body}").into_bytes())
}

fn told_marker() -> Outcome {
    let text = format!("no {MARKER} here");
    Outcome::Failed(StatusReport::local(BAD_MAILBOX_5_1_1, text))
}

async fn settle_all(queue: &LocalQueue, outcome: &Outcome) {
    let mut worker = Worker::connect(queue, RELAY).await;
    while living(queue)
        .await
        .is_some_and(|state| state == MailState::Due)
    {
        let lease = worker.lease().await;
        worker.settle(&lease, outcome).await;
    }
}

async fn living(queue: &LocalQueue) -> Option<MailState> {
    let due = Filter {
        state: Some(MailState::Due),
        ..Filter::default()
    };
    let page = queue.list(due.into()).await.unwrap();
    page.mails.first().map(|mail| mail.state)
}

fn of_marked() -> Order {
    let sender = Some(format!("{MARKER}-from@sender.test"));
    let filter = Filter {
        sender,
        ..Filter::default()
    };
    Order {
        by: "ann".to_owned(),
        ..filter.into()
    }
}

async fn problems(queue: &LocalQueue) -> Vec<String> {
    let mut told = queue.verify().await.unwrap();
    let (mut problems, mut finished) = (Vec::new(), false);
    while let Some(progress) = told.next().await {
        let progress = progress.unwrap();
        problems.extend(progress.problems);
        finished |= progress.finished;
    }
    assert!(finished);
    problems
}

/// What must stay: retired mails with their contents and timelines, and living ones.
struct Kept {
    retired: BTreeMap<QueueId, (Vec<u8>, usize)>,
    living: Vec<QueueId>,
}

impl Kept {
    async fn check(&self, queue: &LocalQueue) {
        let listed = queue.list(retired()).await.unwrap().mails;
        let ids: Vec<QueueId> = listed.iter().map(|mail| mail.queue_id).collect();
        assert_eq!(ids.len(), self.retired.len());
        for (id, (content, events)) in &self.retired {
            let stream = queue.read_any(*id, 0).await.unwrap();
            let octets = collect_content(stream, 64 << 20).await.unwrap();
            assert!(octets == content, "{id}");
            assert_eq!(queue.trace(*id).await.unwrap().len(), *events, "{id}");
        }
        for id in &self.living {
            assert!(queue.read(*id, 0).await.is_ok(), "{id}");
            assert!(!queue.trace(*id).await.unwrap().is_empty(), "{id}");
        }
    }
}

/// Secret mails of all kinds between others, some of which live on.
async fn fill(stack: &Stack) -> (Vec<QueueId>, Kept) {
    let queue = &stack.queue;
    let mut kept = Kept {
        retired: BTreeMap::new(),
        living: Vec::new(),
    };
    let mut secrets = Vec::new();
    for (n, len) in [500, 100_000, 700_000, 3_000].into_iter().enumerate() {
        let (envelope, content) = secret(len);
        submit(queue, &envelope, &content).await.unwrap();
        secrets.push(envelope.queue_id);
        match n {
            0 => {
                let these = Filter::of_ids(vec![envelope.queue_id]);
                change(queue, Change::Drop, these).await.unwrap();
            }
            1 => settle_all(queue, &told_marker()).await,
            _ => settle_all(queue, &delivered()).await,
        }
        let other = mail("", &["x@far.test"]);
        let content = format!("Subject: kept\r\n\r\n{}\r\n", "k".repeat(len));
        submit(queue, &other, content.as_bytes()).await.unwrap();
        kept.retired
            .insert(other.queue_id, (content.into_bytes(), 0));
        let outcome = if n == 0 { failed() } else { delivered() };
        settle_all(queue, &outcome).await;
    }
    for len in [100, 400_000] {
        let lives = mail("a@far.test", &["y@other.test"]);
        submit(queue, &lives, &vec![b'l'; len]).await.unwrap();
        change(queue, Change::Hold, Filter::of_ids(vec![lives.queue_id]))
            .await
            .unwrap();
        kept.living.push(lives.queue_id);
    }
    let all_retired = async || {
        while queue.list(retired()).await.unwrap().mails.len() < 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_retired()).await.unwrap();
    for (id, (_, events)) in &mut kept.retired {
        *events = queue.trace(*id).await.unwrap().len();
    }
    (secrets, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_octet_is_left_and_all_else_is_as_it_was() {
    let stack = Stack::with(small_segments()).await;
    let (secrets, kept) = fill(&stack).await;
    // Segments that go and come back, and a start that leaves half-filled ones.
    for _ in 0..20 {
        let filler = mail("", &["z@far.test"]);
        submit(&stack.queue, &filler, &[b'f'; 200_000])
            .await
            .unwrap();
        change(
            &stack.queue,
            Change::Drop,
            Filter::of_ids(vec![filler.queue_id]),
        )
        .await
        .unwrap();
    }
    let stack = stack.restart().await;
    let fillers = Order::from(Filter {
        size_at_least: Some(200_000),
        size_at_most: Some(200_000),
        ..Filter::default()
    });
    assert_eq!(stack.queue.purge(fillers).await.unwrap().mails, 20);
    kept_and_secret(&stack, &kept, 4).await;
    let folder = queue_folder(&stack);
    assert!(marked(&folder).len() >= 4, "{:?}", marked(&folder));

    let dry = Order {
        dry_run: true,
        ..of_marked()
    };
    assert_eq!(stack.queue.purge(dry).await.unwrap().mails, 4);
    assert!(!marked(&folder).is_empty());
    assert_eq!(stack.queue.purge(of_marked()).await.unwrap().mails, 4);
    assert_eq!(marked(&folder), Vec::<String>::new());
    kept.check(&stack.queue).await;
    for id in &secrets {
        assert!(matches!(
            stack.queue.show(*id).await,
            Err(QueueError::NotFound)
        ));
        let told = stack.queue.trace(*id).await.unwrap();
        let texts: Vec<&str> = told.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, ["purge, by ann"]);
    }
    assert_eq!(problems(&stack.queue).await, Vec::<String>::new());
    let again = stack.queue.purge(of_marked()).await.unwrap();
    assert_eq!(again.mails, 0);

    // With the index as it is, and with one made of the journal alone.
    let stack = stack.restart().await;
    kept.check(&stack.queue).await;
    assert_eq!(problems(&stack.queue).await, Vec::<String>::new());
    let config = stack.config.clone();
    let folder = stack.stop().await;
    std::fs::remove_dir_all(folder.path().join("state/queue/index")).unwrap();
    let stack = Stack::in_folder(folder, config).await;
    kept.check(&stack.queue).await;
    assert_eq!(problems(&stack.queue).await, Vec::<String>::new());
    assert_eq!(marked(&queue_folder(&stack)), Vec::<String>::new());
    // Those that live go on.
    let all = Filter::all();
    assert_eq!(change(&stack.queue, Change::Release, all).await.unwrap(), 2);
    settle_all(&stack.queue, &delivered()).await;
    stack.stop().await;
}

async fn kept_and_secret(stack: &Stack, kept: &Kept, secrets: usize) {
    let listed = stack.queue.list(retired()).await.unwrap().mails;
    assert_eq!(listed.len(), kept.retired.len() + secrets);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "chance is told")]
async fn a_purge_that_is_cut_off_breaks_nothing_and_is_finished_by_another() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut stack = Stack::with(small_segments()).await;
    let (_, kept) = fill(&stack).await;
    let mut cut_off = 0;
    for _ in 0..6 {
        let queue = stack.queue.clone();
        let purge = tokio::spawn(async move { queue.purge(of_marked()).await });
        let pause = Duration::from_millis(random.random_range(0..600));
        tokio::time::sleep(pause).await;
        stack = stack.restart().await;
        cut_off += usize::from(purge.await.unwrap().is_err());
        assert_eq!(problems(&stack.queue).await, Vec::<String>::new());
        for id in &kept.living {
            assert!(stack.queue.read(*id, 0).await.is_ok());
        }
    }
    println!("{cut_off} purges were cut off");
    stack.queue.purge(of_marked()).await.unwrap();
    assert_eq!(marked(&queue_folder(&stack)), Vec::<String>::new());
    kept.check(&stack.queue).await;
    let stack = stack.restart().await;
    kept.check(&stack.queue).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_and_readers_go_on_meanwhile() {
    let stack = Stack::with(small_segments()).await;
    let (_, kept) = fill(&stack).await;
    let queue = stack.queue.clone();
    let mut purge = tokio::spawn(async move { queue.purge(of_marked()).await });
    let mut sent = Vec::new();
    let purged = loop {
        let more = mail("", &["w@far.test"]);
        submit(&stack.queue, &more, &[b'w'; 50_000]).await.unwrap();
        sent.push(more.queue_id);
        for id in kept.retired.keys() {
            let stream = stack.queue.read_any(*id, 0).await.unwrap();
            collect_content(stream, 64 << 20).await.unwrap();
        }
        stack.queue.list(retired()).await.unwrap();
        // It would keep what is purged.
        let backup = stack.queue.backup().await;
        if !purge.is_finished() {
            assert!(matches!(backup.map(drop), Err(QueueError::Conflict(_))));
            continue;
        }
        drop(backup);
        break (&mut purge).await.unwrap().unwrap();
    };
    assert_eq!(purged.mails, 4);
    assert_eq!(marked(&queue_folder(&stack)), Vec::<String>::new());
    kept.check(&stack.queue).await;
    let stack = stack.restart().await;
    for id in sent {
        assert!(stack.queue.read(id, 0).await.is_ok());
    }
    assert_eq!(problems(&stack.queue).await, Vec::<String>::new());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn living_mail_is_never_purged() {
    let stack = Stack::new().await;
    let (lives, content) = secret(100);
    submit(&stack.queue, &lives, &content).await.unwrap();
    assert_eq!(stack.queue.purge(of_marked()).await.unwrap().mails, 0);
    let named = Order::from(Filter::of_ids(vec![lives.queue_id]));
    let why = stack.queue.purge(named).await.unwrap_err().to_string();
    assert!(why.contains("drop it first"), "{why}");
    let unknown = Order::from(Filter::of_ids(vec![mail("", &[]).queue_id]));
    let unknown = stack.queue.purge(unknown).await;
    assert!(matches!(unknown, Err(QueueError::NotFound)), "{unknown:?}");
    for filter in [
        Filter::default(),
        Filter {
            state: Some(MailState::Retired),
            ..Filter::default()
        },
        Filter {
            state: Some(MailState::Due),
            ..Filter::all()
        },
    ] {
        let refused = stack.queue.purge(filter.into()).await;
        assert!(
            matches!(refused, Err(QueueError::Invalid(_))),
            "{refused:?}"
        );
    }
    let backup = stack.queue.backup().await.unwrap();
    let refused = stack.queue.purge(of_marked()).await;
    assert!(
        matches!(refused, Err(QueueError::Conflict(_))),
        "{refused:?}"
    );
    drop(backup);
    assert!(stack.queue.read(lives.queue_id, 0).await.is_ok());
    Arc::new(stack.stop().await);
}
