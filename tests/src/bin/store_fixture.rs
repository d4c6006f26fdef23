//! Writes the folder of a small queue in the newest format, for `common/queued/tests/formats` (see the README there).
#![forbid(unsafe_code)]

use std::{env, fmt::Write as _, fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use postroad_address::ReversePath;
use postroad_daemon::{ByteSize, CommonConfig, Interval};
use postroad_directory::DirectoryHandle;
use postroad_envelope::{
    Envelope, LeaseRef, Outcome, QueueId, Recipient, RecipientIndex, RouteClass, StatusReport,
    Timestamp,
};
use postroad_metrics::Metrics;
use postroad_queue_client::{
    Change, Completion, Filter, Lease, QueueAdmin as _, QueueService as _, SettleResult,
    Settlement, WorkChannel, WorkDown, WorkHello, WorkUp,
};
use postroad_queued::{Config, LocalQueue};
use postroad_reply::{BAD_MAILBOX_5_1_1, DELIVERED_2_6_0, NO_ANSWER_4_4_1};
use tokio_util::sync::CancellationToken;

/// Mail of a fixture never grows too old.
const FOR_EVER: Interval = Interval::days(365 * 50);
const ROUNDS: usize = 6;
const DIRECTORY: &str = "[[domain]]\nname = \"local.test\"\npostmaster = \"bob@local.test\"\n\
                         [[account]]\naddress = \"bob@local.test\"\n";
/// Where both recipients of a mail are, how long it is, and what becomes of them.
const SETTLED: [(&str, usize, &str); 4] = [
    ("done.test", 3_000, "done"),
    ("failed.test", 1_000, "owed"),
    ("part.test", 2_000, "done delayed"),
    ("later.test", 4_000, "delayed"),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("store_fixture: {error:#}\n"),
            );
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let (Some(to), None) = (arguments.next(), arguments.next()) else {
        bail!("usage: store_fixture FOLDER");
    };
    let to = Path::new(&to);
    ensure!(!to.exists(), "{} is there already", to.display());
    let place = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let expected = runtime.block_on(live(place.path()))?;
    keep(&place.path().join("state/queue"), to)?;
    Ok(fs::write(to.join("expected.txt"), expected)?)
}

/// Tells one line for each mail: its id, the length of its content, what each recipient is.
async fn live(place: &Path) -> Result<String> {
    fs::create_dir(place.join("run"))?;
    fs::write(place.join("directory.toml"), DIRECTORY)?;
    let common = CommonConfig {
        hostname: "mail.local.test".parse().ok().context("a domain")?,
        state_dir: place.join("state"),
        run_dir: place.join("run"),
        directory: place.join("directory.toml"),
        ..CommonConfig::default()
    };
    let directory = DirectoryHandle::open(&common.directory)?;
    let (queue, running) =
        postroad_queued::start(config(), &common, directory, &Metrics::new("queued")).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::from_millis(100)));
    queue.caught_up().await;
    let expected = fill(&queue).await;
    stop.cancel();
    running.await??;
    expected
}

/// Small segments, so that there are several, and nothing that happens by itself.
fn config() -> Config {
    let mut config = Config::default();
    config.disk.reserve_percent = 0;
    config.disk.reserve = ByteSize::bytes(0);
    config.disk.segment = ByteSize::kib(64);
    config.retry.first = Interval::hours(1);
    config.retry.max = Interval::hours(1);
    config.retry.give_up_after = FOR_EVER;
    config.remember_finished = FOR_EVER;
    config.dsn.gather = FOR_EVER;
    config
}

async fn fill(queue: &LocalQueue) -> Result<String> {
    let mut expected = String::new();
    let mut worker = Worker::connect(queue).await?;
    for round in 0..ROUNDS {
        for (domain, len, stands) in SETTLED {
            let both = [format!("x@{domain}"), format!("y@{domain}")];
            let count = if domain == "part.test" { 2 } else { 1 };
            let id = send(queue, &both[..count], len + round).await?;
            worker.settle(id, domain).await?;
            writeln!(expected, "{id} {} {stands}", len + round)?;
        }
        let held = send(queue, &["x@held.test".to_owned()], 500 + round).await?;
        let order = Filter::of_ids(vec![held]).into();
        queue.change(Change::Hold, order).await?;
        writeln!(expected, "{held} {} held", 500 + round)?;
        // The first one lies in a file of its own.
        let len = if round == 0 { 40_000 } else { 1_500 + round };
        let due = send(queue, &["bob@local.test".to_owned()], len).await?;
        writeln!(expected, "{due} {len} due")?;
    }
    Ok(expected)
}

async fn send(queue: &LocalQueue, to: &[String], len: usize) -> Result<QueueId> {
    let now = now();
    let id = QueueId::mint(now, rand::random());
    let mut envelope = Envelope::new(id, ReversePath::parse("a@local.test")?, now);
    for (index, address) in (0..).zip(to) {
        let recipient = Recipient::new(RecipientIndex(index), address.parse()?);
        envelope.recipients.push(recipient);
    }
    // Follows from its length.
    let text = b"From the fixture, a line\r\n".iter().copied().cycle();
    let content: Vec<u8> = text.take(len).collect();
    let mut submission = queue.submit(envelope).await?;
    submission.chunk(content.into()).await?;
    let completion = Completion {
        size: u64::try_from(len)?,
        ..Completion::default()
    };
    submission.finish(completion).await?;
    Ok(id)
}

struct Worker(WorkChannel);

impl Worker {
    async fn connect(queue: &LocalQueue) -> Result<Self> {
        let hello = WorkHello {
            stores: Vec::new(),
            agent: "fixture@localhost".to_owned(),
            version: "0".to_owned(),
            host: "localhost".to_owned(),
            classes: vec![RouteClass::Relay],
            held: Vec::new(),
            former: None,
            joins: false,
        };
        Ok(Self(queue.work(hello).await?))
    }

    /// Takes the mail and does what its domain says.
    async fn settle(&mut self, id: QueueId, domain: &str) -> Result<()> {
        self.0.up.send(WorkUp::Credits(1)).await?;
        let lease = self.lease().await?;
        ensure!(lease.envelope.queue_id == id, "another mail was given out");
        let outcomes = lease.envelope.recipients.iter();
        let outcomes = outcomes.map(|to| (to.index, outcome(domain, to.index)));
        let settlement = Settlement {
            elsewhere: Vec::new(),
            timed: Vec::new(),
            reporting: Vec::new(),
            lease: lease.lease,
            outcomes: outcomes.collect(),
            sites: Vec::new(),
            started_at: now(),
        };
        self.0.up.send(WorkUp::Settle(settlement)).await?;
        self.settled(lease.lease).await
    }

    async fn lease(&mut self) -> Result<Lease> {
        loop {
            if let WorkDown::Lease(lease) = self.hear().await? {
                return Ok(*lease);
            }
        }
    }

    async fn settled(&mut self, lease: LeaseRef) -> Result<()> {
        loop {
            match self.hear().await? {
                WorkDown::Settled {
                    lease: settled,
                    result,
                } if settled == lease => {
                    ensure!(result == SettleResult::Durable, "{result:?}");
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    async fn hear(&mut self) -> Result<WorkDown> {
        let next = self.0.down.next().await;
        Ok(next.context("the stream ended")??)
    }
}

fn outcome(domain: &str, index: RecipientIndex) -> Outcome {
    match (domain, index.0) {
        ("done.test", _) | ("part.test", 0) => {
            Outcome::Delivered(StatusReport::local(DELIVERED_2_6_0, "filed"))
        }
        ("failed.test", _) => {
            Outcome::Failed(StatusReport::local(BAD_MAILBOX_5_1_1, "no such user here"))
        }
        _ => Outcome::Delayed(StatusReport::local(NO_ANSWER_4_4_1, "nobody answers")),
    }
}

/// What is not made anew by a start, segments without the zeros behind what was written.
fn keep(queue: &Path, to: &Path) -> Result<()> {
    for name in ["segments", "content"] {
        fs::create_dir_all(to.join(name))?;
        for entry in fs::read_dir(queue.join(name))? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with("ready-") || file.ends_with(".tmp") {
                continue;
            }
            let mut octets = fs::read(entry.path())?;
            if name == "segments" {
                // Its second header is made anew too.
                octets.truncate(octets.len().saturating_sub(128));
                let used = octets.iter().rposition(|octet| *octet != 0);
                let used = used.context("an empty segment")? + 1;
                octets.truncate(used.next_multiple_of(8));
            }
            fs::write(to.join(name).join(file), octets)?;
        }
    }
    fs::copy(queue.join("FORMAT"), to.join("FORMAT"))?;
    Ok(())
}

fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}
