//! The queue alone: submit, durable, lease, settle.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use postroad_address::{Mailbox, ReversePath};
use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_envelope::{
    Envelope, LeaseRef, Outcome, QueueId, Recipient, RecipientIndex, RouteClass, StatusReport,
    Timestamp,
};
use postroad_queue_client::{
    Completion, Lease, QueueService, RemoteQueue, Settlement,
    worker::{self, Handler, Verdict, WorkerOptions},
};
use postroad_reply::DELIVERED_2_6_0;
use postroad_rpc::Endpoint;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    figures::{Figure, cell, json_or_null, table},
    kept::Syncs,
    machine::Cpu,
    product,
};

/// Mails before a round that are not measured.
const WARM_UP: usize = 500;

#[derive(Args)]
pub struct Options {
    /// Rounds of each way to the queue, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Mails in a round.
    #[arg(long, default_value_t = 20_000)]
    mails: usize,
    /// Octets of a mail.
    #[arg(long, default_value_t = 5 << 10)]
    size: usize,
    /// Mails being submitted at a time.
    #[arg(long, default_value_t = 100)]
    submitters: usize,
    /// Leases the worker takes at a time.
    #[arg(long, default_value_t = 100)]
    credits: u32,
    /// Only this way.
    #[arg(long)]
    only: Option<Way>,
    /// Seconds a round may take.
    #[arg(long, default_value_t = 120)]
    time_limit: u64,
    /// What the ids and contents are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// How agents reach the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// A process of its own behind a Unix socket.
    Grpc,
    /// An object in this process.
    Local,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC over a Unix socket",
            Self::Local => "in-process",
        }
    }
}

struct Measured {
    submitted: f64,
    settled: f64,
    /// Of queue, submitters and worker: in the local way they cannot be told apart.
    cpu: f64,
    median_ms: f64,
    p99_ms: f64,
    foreign: f64,
}

pub async fn run(options: &Options) -> Result<Value> {
    println!(
        "queue-core: {} mails of {} octets a round, {} submitters, {} credits, seed {}",
        options.mails, options.size, options.submitters, options.credits, options.seed
    );
    let mut ways = vec![(Way::Grpc, Vec::new()), (Way::Local, Vec::new())];
    ways.retain(|(way, _)| options.only.is_none_or(|only| *way == only));
    for round in 0..options.rounds {
        for (way, rounds) in &mut ways {
            let measured = match way {
                Way::Grpc => grpc(options).await,
                Way::Local => local(options).await,
            }
            .with_context(|| format!("{}, round {}", way.name(), round + 1))?;
            eprintln!(
                "bench: round {}, {}: {:.0}/s submitted, {:.0}/s settled, others {:.0} %",
                round + 1,
                way.name(),
                measured.submitted,
                measured.settled,
                measured.foreign
            );
            rounds.push(measured);
        }
    }
    Ok(report(options, &ways))
}

/// The built-in configuration but for the disk, which may be rather full.
const SETTINGS: &str = r#"
[queued.disk]
reserve_percent = 0
reserve = "256MiB"
segment = "32MiB"
journal_target = "128MiB"
"#;

async fn grpc(options: &Options) -> Result<Measured> {
    let stack = product::prepare(SETTINGS)?;
    let kept = product::agent(stack.folder(), "queued", Syncs::Ignored).await?;
    let endpoint = Endpoint::Unix(stack.folder().join("run/queue.sock"));
    let queue = Arc::new(RemoteQueue::connect(&endpoint, None)?);
    let measured = measure(options, queue).await?;
    kept.end()?;
    stack.end().await?;
    Ok(measured)
}

async fn local(options: &Options) -> Result<Measured> {
    let stack = product::prepare("")?;
    let common = CommonConfig {
        hostname: "mx.demo.test".parse().ok().context("a domain")?,
        state_dir: stack.folder().join("state"),
        run_dir: stack.folder().join("run"),
        ..CommonConfig::default()
    };
    let mut config = postroad_queued::Config::default();
    config.disk.reserve_percent = 0;
    let directory = DirectoryHandle::open(&stack.directory_file())?;
    let (queue, running) = postroad_queued::start(config, &common, directory).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::from_secs(1)));
    let measured = measure(options, Arc::new(queue)).await;
    stop.cancel();
    running.await??;
    stack.end().await?;
    measured
}

async fn measure(options: &Options, queue: Arc<dyn QueueService>) -> Result<Measured> {
    let stop = CancellationToken::new();
    let settler = Arc::new(Settler::default());
    let mut settled = settler.settled.subscribe();
    let handler: Arc<dyn Handler> = Arc::clone(&settler) as _;
    let work = tokio::spawn(worker::run(
        Arc::clone(&queue),
        WorkerOptions {
            agent: "bench@test".to_owned(),
            host: "test".to_owned(),
            classes: vec![RouteClass::Relay],
            concurrency: options.credits,
            grace: Duration::from_secs(1),
        },
        handler,
        stop.clone(),
    ));
    let limit = Duration::from_secs(options.time_limit);
    timeout(limit, submit_all(options, &queue, WARM_UP))
        .await
        .context("warm-up")??;
    timeout(limit, settled.wait_for(|count| *count >= WARM_UP))
        .await
        .context("warm-up")??;
    settler.settled.send_replace(0);

    let (before, began) = (Cpu::now()?, Instant::now());
    let mut latencies = timeout(limit, submit_all(options, &queue, options.mails))
        .await
        .context("too slow")??;
    let submitted = began.elapsed();
    timeout(limit, settled.wait_for(|count| *count >= options.mails))
        .await
        .context("not all was settled in time")??;
    let (cpu, elapsed) = (Cpu::now()?.since(before), began.elapsed());
    stop.cancel();
    work.await?;

    latencies.sort_unstable();
    let at = |part: usize| {
        let latency = latencies.get(latencies.len() * part / 100);
        latency.map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    let mails = options.mails as f64;
    Ok(Measured {
        submitted: mails / submitted.as_secs_f64(),
        settled: mails / elapsed.as_secs_f64(),
        cpu: (cpu.product + cpu.own) / mails * 1000.0,
        median_ms: at(50),
        p99_ms: at(99),
        foreign: cpu.foreign_percent(elapsed),
    })
}

/// How long each took.
async fn submit_all(
    options: &Options,
    queue: &Arc<dyn QueueService>,
    count: usize,
) -> Result<Vec<Duration>> {
    let next = Arc::new(AtomicUsize::new(0));
    let latencies = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let mut submitters = JoinSet::new();
    for number in 0..options.submitters {
        let (queue, next) = (Arc::clone(queue), Arc::clone(&next));
        let latencies = Arc::clone(&latencies);
        // The ids of warm-up and round differ by the time in them.
        let seed = options.seed ^ ((number as u64) << 32);
        let mut random = StdRng::seed_from_u64(seed);
        let content: Vec<u8> = (0..options.size)
            .map(|_| random.random_range(b'0'..=b'z'))
            .collect();
        let content = Bytes::from([b"Subject: measured\r\n\r\n", content.as_slice()].concat());
        submitters.spawn(async move {
            let mut own = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let began = Instant::now();
                submit(&*queue, random.random(), &content).await?;
                own.push(began.elapsed());
            }
            latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(&mut own);
            anyhow::Ok(())
        });
    }
    while let Some(ended) = submitters.join_next().await {
        ended??;
    }
    let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *latencies))
}

/// One domain would have no more than its share of the leases.
const DOMAINS: u8 = 100;

async fn submit(queue: &dyn QueueService, id: [u8; 10], content: &Bytes) -> Result<()> {
    let now = Timestamp::from(SystemTime::now());
    let sender: Mailbox = "sender@client.test".parse().ok().context("an address")?;
    let domain = id.last().map_or(0, |last| last % DOMAINS);
    let friend = format!("friend@world{domain}.test");
    let friend: Mailbox = friend.parse().ok().context("an address")?;
    let mut envelope = Envelope::new(QueueId::mint(now, id), ReversePath::Mailbox(sender), now);
    envelope
        .recipients
        .push(Recipient::new(RecipientIndex(0), friend));
    // As an MSA brings it: to an MTA only certain clients' mail for others is allowed.
    envelope.account = Some("sender@client.test".to_owned());
    let mut submission = queue.submit(envelope).await?;
    submission.chunk(content.clone()).await?;
    let completion = Completion {
        size: content.len() as u64,
        ..Completion::default()
    };
    submission.finish(completion).await?;
    Ok(())
}

/// A worker to whom everything succeeds at once.
struct Settler {
    settled: watch::Sender<usize>,
}

impl Default for Settler {
    fn default() -> Self {
        Self {
            settled: watch::channel(0).0,
        }
    }
}

#[async_trait]
impl Handler for Settler {
    async fn handle(&self, lease: Lease) -> Verdict {
        let outcome = Outcome::Delivered(StatusReport::local(DELIVERED_2_6_0, "measured"));
        let recipients = lease.envelope.recipients.iter();
        Verdict::Settle(Settlement {
            lease: lease.lease,
            outcomes: recipients
                .map(|recipient| (recipient.index, outcome.clone()))
                .collect(),
            site: None,
            started_at: Timestamp::from(SystemTime::now()),
        })
    }

    async fn settled(&self, _lease: LeaseRef) {
        self.settled.send_modify(|count| *count += 1);
    }
}

fn report(options: &Options, ways: &[(Way, Vec<Measured>)]) -> Value {
    println!("\nmedian (least–greatest)\n");
    let head = [
        "",
        "submitted/s",
        "settled/s",
        "CPU s/1000",
        "submit ms",
        "p99 ms",
        "others' CPU %",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut results = Vec::new();
    for (way, rounds) in ways {
        let figure = |of: fn(&Measured) -> f64| Figure::of(rounds.iter().map(of));
        let figures = [
            ("submitted_per_s", figure(|round| round.submitted)),
            ("settled_per_s", figure(|round| round.settled)),
            ("cpu_s_per_1000", figure(|round| round.cpu)),
            ("submit_median_ms", figure(|round| round.median_ms)),
            ("submit_p99_ms", figure(|round| round.p99_ms)),
            ("foreign_cpu_percent", figure(|round| round.foreign)),
        ];
        let mut line = vec![way.name().to_owned()];
        let mut result = json!({ "way": way.name(), "rounds": rounds.len() });
        for (name, figure) in figures {
            line.push(cell(figure));
            result[name] = json_or_null(figure);
        }
        lines.push(line);
        results.push(result);
    }
    print!("{}", table(&lines));
    json!({ "bench": "queue-core", "seed": options.seed, "mails": options.mails, "size": options.size,
        "submitters": options.submitters, "credits": options.credits, "ways": results })
}
