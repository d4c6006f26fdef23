//! `kill -9` at random moments: a child submits and settles, and tells what was acknowledged; after each round its queue
//! is opened and compared with what it told.
//!
//! The child is this test binary again. `POSTROAD_KILL_ROUNDS` and `POSTROAD_KILL_SEED` choose others than the usual.

use std::{
    collections::{HashMap, HashSet},
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use postroad_envelope::{QueueId, RouteClass, Timestamp};
use postroad_queue_client::{
    HandBack, ListQuery, MailState, QueueAdmin, QueueService, WorkUp, collect_content,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::timeout;

use crate::setup::{Stack, Worker, config, delayed, delivered, failed, mail, prepare, submit};

const CHILD: &str = "POSTROAD_KILL_CHILD";
const CLASSES: &[RouteClass] = &[RouteClass::Local, RouteClass::Relay];

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

fn kill_config() -> postroad_queued::Config {
    let mut config = config();
    config.disk.segment = postroad_daemon::ByteSize::mib(2);
    config.disk.journal_target = postroad_daemon::ByteSize::mib(4);
    config
}

/// Any mail's content follows from its id.
fn content_of(id: QueueId) -> Vec<u8> {
    let [.., a, b, c, d] = id.to_bytes();
    let mut random = StdRng::seed_from_u64(u64::from(u32::from_be_bytes([a, b, c, d])));
    let len = match random.random_range(0..40) {
        0 => random.random_range(260_000..400_000),
        1..10 => random.random_range(0..40_000),
        _ => random.random_range(0..3_000),
    };
    (0..len).map(|_| random.random()).collect()
}

/// What the child told of each mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    acknowledged: bool,
    /// A settlement that ends some of its recipients was offered.
    trying: bool,
    /// Recipients of which it was told that their end is durable.
    ended: usize,
    recipients: usize,
}

/// Not a test of its own: what the parent kills.
#[test]
fn child() {
    let Some(folder) = env::var_os(CHILD) else {
        return;
    };
    let seed = number("POSTROAD_KILL_SEED", 0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work(PathBuf::from(folder), seed));
}

fn say(words: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then the child is about to be, too.
    let _ = out.write_fmt(words).and_then(|()| out.flush());
}

async fn work(folder: PathBuf, seed: u64) {
    let common = crate::setup::common(&folder);
    let directory = postroad_directory::DirectoryHandle::open(&common.directory).unwrap();
    let (queue, running) = postroad_queued::start(kill_config(), &common, directory)
        .await
        .unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(running.run(stop, Duration::ZERO));
    say(format_args!("\nready\n"));
    for task in 0..3 {
        tokio::spawn(submit_for_ever(
            queue.clone(),
            StdRng::seed_from_u64(seed ^ (task << 8)),
        ));
    }
    for task in 0..6 {
        tokio::spawn(settle_for_ever(
            queue.clone(),
            StdRng::seed_from_u64(seed ^ (task << 16)),
        ));
    }
    running.await.unwrap().unwrap();
}

async fn submit_for_ever(queue: postroad_queued::LocalQueue, mut random: StdRng) {
    loop {
        let count = random.random_range(1..4);
        let to = ["bob@local.test", "x@far.test", "y@far.test", "z@other.test"];
        let sender = if random.random_range(0..4) == 0 {
            "alice@local.test"
        } else {
            ""
        };
        let envelope = mail(sender, &to[..count]);
        let id = envelope.queue_id;
        let accepted = submit(&queue, &envelope, &content_of(id)).await.unwrap();
        assert!(!accepted.duplicate);
        say(format_args!("acknowledged {id} {count}\n"));
    }
}

async fn settle_for_ever(queue: postroad_queued::LocalQueue, mut random: StdRng) {
    let mut worker = Worker::connect(&queue, CLASSES).await;
    loop {
        let lease = worker.lease().await;
        let (id, count) = (lease.lease.job.queue_id, lease.envelope.recipients.len());
        let outcome = match random.random_range(0..10) {
            0 => {
                let back = HandBack {
                    lease: lease.lease,
                    delay: Duration::from_millis(20),
                    reason: "limited".into(),
                };
                worker.say(WorkUp::HandBack(back)).await;
                continue;
            }
            1 => delayed(),
            2 => failed(),
            // Some stay for later.
            3 => {
                tokio::time::sleep(Duration::from_millis(30)).await;
                delivered()
            }
            _ => delivered(),
        };
        if outcome.is_final() {
            say(format_args!("trying {id} {count}\n"));
        }
        let settled = worker.settle(&lease, &outcome).await;
        if outcome.is_final() && settled == postroad_queue_client::SettleResult::Durable {
            say(format_args!("ended {id} {count}\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_ended_comes_back() {
    if env::var_os(CHILD).is_some() {
        return;
    }
    let rounds = number("POSTROAD_KILL_ROUNDS", 20);
    let seed = number("POSTROAD_KILL_SEED", rand::random());
    let _ = writeln!(
        std::io::stderr(),
        "POSTROAD_KILL_SEED={seed} POSTROAD_KILL_ROUNDS={rounds}"
    );
    let mut random = StdRng::seed_from_u64(seed);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    prepare(folder.path());
    let mut told = HashMap::new();
    for round in 0..rounds {
        let life = Duration::from_millis(random.random_range(5..300));
        let path = folder.path().to_owned();
        let child_seed = random.random();
        let lines = tokio::task::spawn_blocking(move || live_and_die(path, child_seed, life));
        read(&lines.await.unwrap(), &mut told);
        let stack = Stack::in_folder(Arc::clone(&folder), kill_config()).await;
        check(&stack, &told, round).await;
        stack.stop().await;
    }
    let stack = Stack::in_folder(Arc::clone(&folder), kill_config()).await;
    drain(&stack, &told).await;
    stack.stop().await;
    let acknowledged = told.values().filter(|told| told.acknowledged).count();
    assert!(acknowledged > 100, "only {acknowledged} mails were tried");
}

fn live_and_die(folder: PathBuf, seed: u64, life: Duration) -> Vec<String> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .env("POSTROAD_KILL_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    while output.next().expect("the child starts").unwrap() != "ready" {}
    let reader = std::thread::spawn(move || output.map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

fn read(lines: &[String], told: &mut HashMap<QueueId, Told>) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [word, id, count] = words[..] else {
            continue;
        };
        // The last line may be cut; then it was not told.
        let (Ok(id), Ok(count)) = (id.parse(), count.parse::<usize>()) else {
            continue;
        };
        let known: &mut Told = told.entry(id).or_default();
        match word {
            "acknowledged" => (known.acknowledged, known.recipients) = (true, count),
            "trying" => known.trying = true,
            "ended" => known.ended += count,
            _ => {}
        }
    }
}

async fn check(stack: &Stack, told: &HashMap<QueueId, Told>, round: u64) {
    let mut present = HashSet::new();
    let mut query = ListQuery {
        limit: 1000,
        ..ListQuery::default()
    };
    loop {
        let page = stack.queue.list(query.clone()).await.unwrap();
        for found in &page.mails {
            let id = found.queue_id;
            // A report that was owed may end a mail while we look.
            let Ok(details) = stack.queue.show(id).await else {
                continue;
            };
            present.insert(id);
            // Reports are made by the queue itself.
            if details.envelope.listener != "report" {
                let Ok(read) = stack.queue.read(id, 0).await else {
                    continue;
                };
                let content = collect_content(read, 1 << 20).await.unwrap();
                assert!(
                    content == content_of(id),
                    "round {round}: {id} is half visible"
                );
            }
            for recipient in &details.recipients {
                let done = recipient
                    .outcome
                    .as_ref()
                    .is_some_and(|outcome| outcome.is_final());
                assert!(
                    done != recipient.state.is_some(),
                    "round {round}: {id} has a recipient neither scheduled nor done: {recipient:?}"
                );
            }
            let open = details
                .recipients
                .iter()
                .filter(|to| to.state.is_some())
                .count();
            let known = told.get(&id).copied().unwrap_or_default();
            if known.acknowledged {
                assert!(
                    open + known.ended <= known.recipients,
                    "round {round}: {id} came back"
                );
            }
        }
        if page.next.is_none() {
            break;
        }
        query.after = page.next;
    }
    for (id, known) in told.iter().filter(|(id, _)| !present.contains(id)) {
        let lost = known.acknowledged && !known.trying;
        assert!(!lost, "round {round}: {id} was acknowledged and is lost");
    }
}

/// Every job that lives is leased once, and then nothing is left.
async fn drain(stack: &Stack, told: &HashMap<QueueId, Told>) {
    let mut seen = HashSet::new();
    let mut worker = Worker::connect(&stack.queue, CLASSES).await;
    loop {
        worker.say(WorkUp::Credits(1)).await;
        match timeout(Duration::from_secs(1), worker.next_lease()).await {
            Ok(lease) => {
                assert!(
                    seen.insert(lease.lease.job),
                    "{} was leased twice",
                    lease.lease.job
                );
                worker.settle(&lease, &delivered()).await;
            }
            Err(_) => break,
        }
    }
    let left = stack.queue.list(ListQuery::default()).await.unwrap();
    let held = left.mails.iter().all(|mail| mail.state == MailState::Held);
    assert!(held, "jobs that nobody was given: {left:?}");
    // What was told just before each kill may be lost, no more than that.
    let (mut tried, mut known) = (0, 0);
    for (id, _) in told.iter().filter(|(_, told)| told.acknowledged).take(500) {
        tried += 1;
        known += usize::from(!stack.queue.trace(*id).await.unwrap().is_empty());
    }
    assert!(
        known * 2 > tried,
        "only {known} of {tried} mails have a timeline"
    );
    let now = Timestamp::from(std::time::SystemTime::now());
    // Finished ids are known, however they finished.
    for (id, _) in told.iter().filter(|(_, told)| told.acknowledged).take(200) {
        let mut again = mail("", &["nobody@far.test"]);
        (again.queue_id, again.received_at) = (*id, now);
        let answer = submit(&stack.queue, &again, b"other").await;
        assert_eq!(
            answer,
            Err(postroad_queue_client::QueueError::IdTaken),
            "{id} is forgotten"
        );
    }
}
