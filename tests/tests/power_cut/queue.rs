//! The queue: a life of submissions and settlements, and who looks at what the cut left.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use postroad_address::ReversePath;
use postroad_daemon::{ByteSize, CommonConfig, Interval};
use postroad_directory::DirectoryHandle;
use postroad_envelope::{
    Envelope, JobKey, LeaseRef, Outcome, QueueId, Recipient, RecipientIndex, RouteClass,
    StatusReport, Timestamp,
};
use postroad_metrics::Metrics;
use postroad_queue_client::{
    Completion, HandBack, Lease, ListQuery, QueueAdmin as _, QueueService as _, Settlement,
    worker::{self, Handler, Verdict, WorkerOptions},
};
use postroad_queued::{Config, LocalQueue, RunningQueue};
use postroad_reply::{BAD_MAILBOX_5_1_1, DELIVERED_2_6_0, NO_ANSWER_4_4_1};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use crate::{
    boundaries::Subject as _,
    phases,
    seen::Seen,
    told::{self, Word, content_of, say, tell},
};

const DIRECTORY: &str = r#"
[[domain]]
name = "local.test"
postmaster = "alice@local.test"

[[account]]
address = "alice@local.test"

[[account]]
address = "bob@local.test"
"#;
const RECIPIENTS: [&str; 5] = [
    "bob@local.test",
    "x@far.test",
    "y@far.test",
    "z@other.test",
    "alice@local.test",
];
const SUBMITTERS: u64 = 4;
/// Milliseconds between two mails of a submitter, at most: the workers must keep up.
const PAUSE: u64 = 30;

/// Where the queue lies.
pub fn folder(mount: &Path) -> PathBuf {
    config().folder(&common(mount))
}

/// How many are gone from the front of the journal.
pub fn segments_given_up(mount: &Path) -> Result<usize> {
    let mut first = usize::MAX;
    for file in fs::read_dir(folder(mount).join("segments"))? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        first = first.min(
            number
                .and_then(|number| number.parse().ok())
                .unwrap_or(first),
        );
    }
    Ok(first.saturating_sub(1))
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.retry.first = Interval::millis(200);
    config.retry.max = Interval::millis(400);
    config.lease.resume_grace = Interval::millis(100);
    config.dsn.gather = Interval::millis(100);
    config.disk.reserve_percent = 0;
    config.disk.reserve = ByteSize::bytes(0);
    // Small, so that segments are given up and used again all the time.
    config.disk.segment = ByteSize::mib(2);
    config.disk.journal_target = ByteSize::mib(4);
    config.disk.index_cache = ByteSize::mib(8);
    config.disk.index_spare = ByteSize::kib(512);
    // Each start begins a segment of it.
    config.timeline.max_size = ByteSize::mib(64);
    config
}

fn common(mount: &Path) -> CommonConfig {
    CommonConfig {
        state_dir: mount.join("state"),
        run_dir: mount.join("run"),
        directory: mount.join("directory.toml"),
        ..CommonConfig::default()
    }
}

async fn open(mount: &Path) -> Result<(LocalQueue, RunningQueue)> {
    open_with(mount, config()).await
}

/// The directory lies beside the queue.
pub async fn open_with(mount: &Path, config: Config) -> Result<(LocalQueue, RunningQueue)> {
    let common = common(mount);
    fs::write(&common.directory, DIRECTORY)?;
    let directory = DirectoryHandle::open(&common.directory)?;
    Ok(postroad_queued::start(config, &common, directory, &Metrics::new("queued")).await?)
}

/// Submits and settles until the power is cut.
pub async fn live(mount: &Path, seed: u64) -> Result<()> {
    phases::tell();
    let (queue, running) = open(mount).await?;
    say("ready\n");
    for number in 0..SUBMITTERS {
        let random = StdRng::seed_from_u64(seed ^ (number << 8));
        tokio::spawn(submit_for_ever(queue.clone(), random));
    }
    let settler = Settler::new(seed);
    let stop = CancellationToken::new();
    // Some lives leave much behind.
    let concurrency = if seed.is_multiple_of(3) { 3 } else { 24 };
    tokio::spawn(work(queue, Arc::new(settler), concurrency, stop.clone()));
    running.run(stop, Duration::ZERO).await?;
    bail!("nobody stopped the queue")
}

pub async fn work(
    queue: LocalQueue,
    handler: Arc<dyn Handler>,
    concurrency: u32,
    stop: CancellationToken,
) {
    let options = WorkerOptions {
        stores: Vec::new(),
        agent: "test@localhost".to_owned(),
        host: "localhost".to_owned(),
        classes: vec![RouteClass::Local, RouteClass::Relay],
        concurrency,
        grace: Duration::ZERO,
    };
    worker::run(Arc::new(queue), options, handler, stop).await;
}

async fn submit_for_ever(queue: LocalQueue, mut random: StdRng) -> Result<()> {
    loop {
        submit(&queue, &mut random, usize::MAX).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..PAUSE))).await;
    }
}

/// One mail of at most about `longest` octets, to some recipients; told once it is acknowledged.
pub async fn submit(queue: &LocalQueue, random: &mut StdRng, longest: usize) -> Result<()> {
    let count = random.random_range(1..=RECIPIENTS.len());
    let wants_reports = random.random_bool(0.25);
    let sender = if wants_reports {
        "alice@local.test"
    } else {
        ""
    };
    let now = Timestamp::from(SystemTime::now());
    let mint = || QueueId::mint(now, rand::random());
    let mut id = mint();
    while told::len_of(id) > longest {
        id = mint();
    }
    let mut envelope = Envelope::new(id, ReversePath::parse(sender)?, now);
    for (index, address) in (0..).zip(&RECIPIENTS[..count]) {
        let recipient = Recipient::new(RecipientIndex(index), address.parse()?);
        envelope.recipients.push(recipient);
    }
    let content = Bytes::from(content_of(id));
    let mut submission = queue.submit(envelope).await?;
    for start in (0..content.len()).step_by(64 << 10) {
        let end = content.len().min(start + (64 << 10));
        submission.chunk(content.slice(start..end)).await?;
    }
    let completion = Completion {
        size: content.len() as u64,
        ..Completion::default()
    };
    submission.finish(completion).await?;
    tell(Word::Acknowledged, id, (1 << count) - 1);
    Ok(())
}

/// Ends recipients at random, each in its own way.
pub struct Settler {
    random: Mutex<StdRng>,
    offered: Mutex<HashMap<LeaseRef, u32>>,
}

impl Settler {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Mutex::new(StdRng::seed_from_u64(!seed)),
            offered: Mutex::default(),
        }
    }
}

#[async_trait]
impl Handler for Settler {
    async fn handle(&self, lease: Lease) -> Verdict {
        let (moment, dice) = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            let dice: [u8; 32] = random.random();
            (random.random_range(0..12), dice)
        };
        tokio::time::sleep(Duration::from_millis(moment)).await;
        if moment == 0 {
            return Verdict::HandBack(HandBack {
                touch: postroad_queue_client::Touch::Unclear,
                lease: lease.lease,
                delay: Duration::from_millis(20),
                reason: "limited".to_owned(),
            });
        }
        let mut ended = 0;
        let outcomes = lease
            .envelope
            .recipients
            .iter()
            .zip(dice)
            .map(|(to, dice)| {
                if dice >= 50 {
                    ended |= 1 << to.index.0;
                }
                let outcome = match dice {
                    ..50 => {
                        Outcome::Delayed(StatusReport::local(NO_ANSWER_4_4_1, "nobody answers"))
                    }
                    50..80 => {
                        Outcome::Failed(StatusReport::local(BAD_MAILBOX_5_1_1, "no such user"))
                    }
                    80.. => delivered(),
                };
                (to.index, outcome)
            });
        let outcomes = outcomes.collect();
        if ended != 0 {
            tell(Word::Trying, lease.lease.job.queue_id, ended);
            let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
            offered.insert(lease.lease, ended);
        }
        settle(lease.lease, outcomes)
    }

    async fn settled(&self, lease: LeaseRef) {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = offered.remove(&lease) {
            tell(Word::Ended, lease.job.queue_id, ended);
        }
    }
}

fn delivered() -> Outcome {
    Outcome::Delivered(StatusReport::local(DELIVERED_2_6_0, "filed"))
}

fn settle(lease: LeaseRef, outcomes: Vec<(RecipientIndex, Outcome)>) -> Verdict {
    Verdict::Settle(Settlement {
        elsewhere: Vec::new(),
        timed: Vec::new(),
        reporting: Vec::new(),
        lease,
        outcomes,
        sites: Vec::new(),
        started_at: Timestamp::from(SystemTime::now()),
    })
}

/// Compares what is there with what was told. Every other time the queue is then stopped in order, else it is just left.
pub async fn check(mount: &Path, told: &Path, seed: u64) -> Result<()> {
    let mails = told::read(told)?;
    let (queue, running) = open(mount).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
    let seen = Seen::of(&queue).await?;
    seen.judge(&mails)?;
    let put_aside = no_damage(mount)?;
    if seed.is_multiple_of(2) {
        stop.cancel();
        running.await??;
    }
    say(&format!("found {}\n", seen.len()));
    say(&format!("index-put-aside {put_aside}\n"));
    Ok(())
}

/// A power cut tears the end off; it damages nothing that was committed. An index that had to be put aside is made
/// anew: worth counting.
pub fn no_damage(mount: &Path) -> Result<usize> {
    let Ok(files) = fs::read_dir(folder(mount).join("quarantine")) else {
        return Ok(0);
    };
    let mut put_aside = 0;
    for file in files {
        let name = file?.file_name().to_string_lossy().into_owned();
        let is_journal = ["segment-", "content-"]
            .iter()
            .any(|kind| name.starts_with(kind));
        ensure!(!is_journal, "the journal is called damaged: {name}");
        put_aside += 1;
    }
    Ok(put_aside)
}

/// Ends all there is, and tells it: each living job is given out once, and then nothing is left.
pub async fn drain(mount: &Path) -> Result<()> {
    let (queue, running) = open(mount).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
    queue.caught_up().await;
    let drainer = Arc::new(Drainer::default());
    let working = work(queue.clone(), drainer.clone(), 24, stop.clone());
    let working = tokio::spawn(working);
    loop {
        let left = queue.list(ListQuery::default()).await?.mails.len();
        let twice = drainer.state().1;
        ensure!(twice.is_none(), "{twice:?} was given out twice");
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await??;
    working.await?;
    Ok(())
}

#[derive(Default)]
struct Drainer {
    seen: Mutex<(HashSet<JobKey>, Option<JobKey>)>,
}

impl Drainer {
    fn state(&self) -> (usize, Option<JobKey>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.0.len(), seen.1)
    }
}

#[async_trait]
impl Handler for Drainer {
    async fn handle(&self, lease: Lease) -> Verdict {
        let job = lease.lease.job;
        let recipients = lease.envelope.recipients.iter().map(|to| to.index);
        let outcomes: Vec<_> = recipients.map(|index| (index, delivered())).collect();
        if lease.envelope.listener != "report" {
            let set = outcomes.iter().fold(0u32, |set, (to, _)| set | 1 << to.0);
            say(&format!("job {} {} {set}\n", job.queue_id, job.number));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.0.insert(job) {
            seen.1 = Some(job);
        }
        settle(lease.lease, outcomes)
    }
}
