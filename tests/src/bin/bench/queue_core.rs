//! The queue alone: submit, durable, lease, settle.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_metrics::Metrics;
use postroad_queue_client::{QueueService, RemoteQueue};
use postroad_rpc::Endpoint;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    figures::{self, Column},
    kept::Syncs,
    machine::Cpu,
    mails::{Mails, Worker, latencies, percentile_ms},
    product,
};

/// Mails before a round that are not measured.
const WARM_UP: usize = 500;
/// One domain would have no more than its share of the leases.
const DESTINATIONS: usize = 100;

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
segment = "16MiB"
journal_target = "64MiB"
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
    let (queue, running) =
        postroad_queued::start(config, &common, directory, &Metrics::new("queued")).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::from_secs(1)));
    let measured = measure(options, Arc::new(queue)).await;
    stop.cancel();
    running.await??;
    stack.end().await?;
    measured
}

async fn measure(options: &Options, queue: Arc<dyn QueueService>) -> Result<Measured> {
    let mails = Mails {
        submitters: options.submitters,
        size: options.size,
        destinations: DESTINATIONS,
        seed: options.seed,
    };
    let mut worker = Worker::start(&queue, options.credits);
    let limit = Duration::from_secs(options.time_limit);
    timeout(limit, mails.submit(&queue, 0..WARM_UP))
        .await
        .context("warm-up")??;
    timeout(limit, worker.settled(WARM_UP))
        .await
        .context("warm-up")??;

    let (before, began) = (Cpu::now()?, Instant::now());
    let all = WARM_UP + options.mails;
    let submissions = timeout(limit, mails.submit(&queue, WARM_UP..all))
        .await
        .context("too slow")??;
    let submitted = began.elapsed();
    timeout(limit, worker.settled(all))
        .await
        .context("not all was settled in time")??;
    let (cpu, elapsed) = (Cpu::now()?.since(before), began.elapsed());
    worker.stop().await?;

    let latencies = latencies(&submissions);
    let mails = options.mails as f64;
    Ok(Measured {
        submitted: mails / submitted.as_secs_f64(),
        settled: mails / elapsed.as_secs_f64(),
        cpu: (cpu.product + cpu.own) / mails * 1000.0,
        median_ms: percentile_ms(&latencies, 50),
        p99_ms: percentile_ms(&latencies, 99),
        foreign: cpu.foreign_percent(elapsed),
    })
}

const COLUMNS: [Column<Measured>; 6] = [
    Column {
        head: "submitted/s",
        key: "submitted_per_s",
        of: |round| round.submitted,
    },
    Column {
        head: "settled/s",
        key: "settled_per_s",
        of: |round| round.settled,
    },
    Column {
        head: "CPU s/1000",
        key: "cpu_s_per_1000",
        of: |round| round.cpu,
    },
    Column {
        head: "submit ms",
        key: "submit_median_ms",
        of: |round| round.median_ms,
    },
    Column {
        head: "p99 ms",
        key: "submit_p99_ms",
        of: |round| round.p99_ms,
    },
    Column {
        head: "others' CPU %",
        key: "foreign_cpu_percent",
        of: |round| round.foreign,
    },
];

fn report(options: &Options, ways: &[(Way, Vec<Measured>)]) -> Value {
    let kinds: Vec<(&str, &[Measured])> = ways
        .iter()
        .map(|(way, rounds)| (way.name(), rounds.as_slice()))
        .collect();
    let (table, results) = figures::report("way", &kinds, &COLUMNS);
    print!("\nmedian (least–greatest)\n\n{table}");
    json!({ "bench": "queue-core", "seed": options.seed, "mails": options.mails, "size": options.size,
        "submitters": options.submitters, "credits": options.credits, "ways": results })
}
