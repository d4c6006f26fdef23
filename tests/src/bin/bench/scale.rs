//! The queue with very many mails: what it costs to have them, to start with them, and to be rid of them.

mod drain;
mod lists;
mod starts;
mod upkeep;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use postroad_queue_client::{QueueService, RemoteAdmin, RemoteQueue};
use postroad_rpc::Endpoint;
use postroad_tests::Stack;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    figures::{self, Column},
    kept::{Kept, Syncs},
    machine::{self, Cpu},
    mails::{Mails, Submitted, Worker, latencies, percentile_ms},
    product,
};

#[derive(Args, Clone)]
pub struct Options {
    /// Mails in the full queue.
    #[arg(long, default_value_t = 1_000_000)]
    mails: usize,
    /// Mails of one measured round.
    #[arg(long, default_value_t = 20_000)]
    probe: usize,
    /// Rounds with the empty and with the full queue.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Octets of a mail.
    #[arg(long, default_value_t = 1 << 10)]
    size: usize,
    /// Mails being submitted at a time.
    #[arg(long, default_value_t = 100)]
    submitters: usize,
    /// Leases the worker takes at a time.
    #[arg(long, default_value_t = 100)]
    credits: u32,
    /// Recipient domains.
    #[arg(long, default_value_t = 10_000)]
    destinations: usize,
    /// Only these parts; all but `rates` fill the queue first.
    #[arg(long)]
    only: Vec<Part>,
    /// `queued.disk.segment`, if another one than the built-in.
    #[arg(long)]
    segment: Option<String>,
    /// `queued.disk.journal_target`, if another one than the built-in.
    #[arg(long)]
    journal_target: Option<String>,
    /// `queued.disk.index_cache`, if another one than the built-in.
    #[arg(long)]
    index_cache: Option<String>,
    /// Keep finished mails and events as by default, instead of not at all.
    #[arg(long)]
    retention: bool,
    /// Seconds a part may take.
    #[arg(long, default_value_t = 3600)]
    time_limit: u64,
    /// What the ids and contents are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Accepting and giving out, with an empty and with a full queue.
    Rates,
    /// Lists by each kind of filter.
    Lists,
    /// Starts with a full queue.
    Starts,
    /// Everything is settled while a little more comes.
    Drain,
}

impl Options {
    fn mails(&self) -> Mails {
        Mails {
            submitters: self.submitters,
            size: self.size,
            destinations: self.destinations,
            seed: self.seed,
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// The built-in configuration but for the disk, which may be rather full.
    fn settings(&self) -> String {
        let mut settings = "[queued.disk]\nreserve_percent = 0\nreserve = \"256MiB\"\n".to_owned();
        // Those of the stack in tests are smaller than the built-in ones.
        let built_in = postroad_queued::Config::default().disk;
        let (segment, target) = (built_in.segment, built_in.journal_target);
        let segment = self.segment.clone().unwrap_or(segment.to_string());
        let target = self.journal_target.clone().unwrap_or(target.to_string());
        settings += &format!("segment = \"{segment}\"\njournal_target = \"{target}\"\n");
        if let Some(cache) = &self.index_cache {
            settings += &format!("index_cache = \"{cache}\"\n");
        }
        if !self.retention {
            settings += "[queued.retired]\nkeep = \"0s\"\ncontent_keep = \"0s\"\n[queued.timeline]\nkeep = \"0s\"\n";
        }
        settings
    }
}

/// A queue agent as a process of its own.
struct Queued {
    stack: Stack,
    kept: Option<Kept>,
    queue: Arc<dyn QueueService>,
    /// Mails submitted so far.
    submitted: usize,
}

impl Queued {
    async fn start(options: &Options) -> Result<Self> {
        let stack = product::prepare(&options.settings())?;
        let kept = product::agent(stack.folder(), "queued", Syncs::Ignored).await?;
        let queue = connect(stack.folder())?;
        Ok(Self {
            stack,
            kept: Some(kept),
            queue,
            submitted: 0,
        })
    }

    fn folder(&self) -> &Path {
        self.stack.folder()
    }

    fn admin(&self) -> Result<RemoteAdmin> {
        let socket = self.folder().join("run/queue-admin.sock");
        Ok(RemoteAdmin::connect(
            &Endpoint::Unix(socket),
            None,
            "bench",
        )?)
    }

    async fn submit(&mut self, options: &Options, count: usize) -> Result<Vec<Submitted>> {
        let numbers = self.submitted..self.submitted + count;
        let limit = Duration::from_secs(options.time_limit);
        let submitted = timeout(limit, options.mails().submit(&self.queue, numbers))
            .await
            .context("submitting took too long")??;
        self.submitted += count;
        Ok(submitted)
    }

    /// Ends it and removes its folder.
    async fn end(mut self) -> Result<()> {
        if let Some(kept) = self.kept.take() {
            kept.end()?;
        }
        self.stack.end().await
    }
}

/// A connection of its own; the queue may not be there yet.
fn connect(folder: &Path) -> Result<Arc<dyn QueueService>> {
    let endpoint = Endpoint::Unix(folder.join("run/queue.sock"));
    Ok(Arc::new(RemoteQueue::connect(&endpoint, None)?))
}

/// Accepting alone, then giving out alone, each so many mails.
struct Rates {
    accepted: f64,
    settled: f64,
    submit_p99: f64,
    /// Seconds of the queue's processor time for 1,000 mails.
    accepting_cpu: f64,
    settling_cpu: f64,
    foreign: f64,
}

impl Rates {
    async fn measure(options: &Options, queued: &mut Queued) -> Result<Self> {
        let (before, began) = (Cpu::now()?, Instant::now());
        let probe = queued.submit(options, options.probe).await?;
        let accepted = began.elapsed();
        let between = Cpu::now()?;
        let mut worker = Worker::start(&queued.queue, options.credits);
        worker.settled(1).await?;
        let (first, giving) = (worker.count(), Instant::now());
        let limit = Duration::from_secs(options.time_limit);
        timeout(limit, worker.settled(options.probe))
            .await
            .context("giving out took too long")??;
        let settled = (worker.count() - first) as f64 / giving.elapsed().as_secs_f64();
        let (after, all) = (Cpu::now()?, worker.count() as f64);
        let foreign = after.since(before).foreign_percent(began.elapsed());
        worker.stop().await?;
        Ok(Self {
            accepted: options.probe as f64 / accepted.as_secs_f64(),
            settled,
            submit_p99: percentile_ms(&latencies(&probe), 99),
            accepting_cpu: between.since(before).product / options.probe as f64 * 1000.0,
            settling_cpu: after.since(between).product / all * 1000.0,
            foreign,
        })
    }
}

pub async fn run(options: &Options) -> Result<Value> {
    println!(
        "scale: {} mails of {} octets to {} domains, {} submitters, {} credits, seed {}, {}",
        options.mails,
        options.size,
        options.destinations,
        options.submitters,
        options.credits,
        options.seed,
        if options.retention {
            "retention as by default"
        } else {
            "no retention"
        }
    );
    let mut result = json!({ "bench": "scale", "mails": options.mails, "size": options.size, "seed": options.seed,
        "destinations": options.destinations, "retention": options.retention, "probe": options.probe });
    let rounds = if options.wants(Part::Rates) {
        options.rounds
    } else {
        0
    };
    let mut empty = Vec::new();
    for round in 0..rounds {
        let mut queued = Queued::start(options).await?;
        empty.push(rates(options, &mut queued, "empty", round).await?);
        queued.end().await?;
    }
    let mut queued = Queued::start(options).await?;
    fill(options, &mut queued).await?;
    let memory = machine::product_resident();
    let mut full = Vec::new();
    for round in 0..rounds {
        full.push(rates(options, &mut queued, "full", round).await?);
    }
    result["rates"] = report_rates(options, &empty, &full);
    println!(
        "\nresident with {} mails: {memory:.0} MiB; on disk: {:.0} MiB",
        options.mails,
        disk_use(queued.folder())
    );
    result["resident_mib"] = json!(memory);
    if options.wants(Part::Lists) {
        result["lists"] = lists::measure(&queued).await?;
    }
    if options.wants(Part::Starts) {
        result["starts"] = starts::measure(options, &mut queued).await?;
    }
    if options.wants(Part::Drain) {
        result["drain"] = drain::measure(options, &mut queued).await?;
    }
    queued.end().await?;
    Ok(result)
}

async fn rates(options: &Options, queued: &mut Queued, what: &str, round: usize) -> Result<Rates> {
    let rates = Rates::measure(options, queued).await?;
    eprintln!(
        "bench: {what}, round {}: {:.0}/s accepted, {:.0}/s given out and settled, others {:.0} %",
        round + 1,
        rates.accepted,
        rates.settled,
        rates.foreign
    );
    Ok(rates)
}

async fn fill(options: &Options, queued: &mut Queued) -> Result<()> {
    let began = Instant::now();
    while queued.submitted < options.mails {
        let part = (options.mails / 20).clamp(1, options.mails - queued.submitted);
        queued.submit(options, part).await?;
        eprintln!(
            "bench: {} mails in the queue after {:.0} s",
            queued.submitted,
            began.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

const COLUMNS: [Column<Rates>; 6] = [
    Column {
        head: "accepted/s",
        key: "accepted_per_s",
        of: |round| round.accepted,
    },
    Column {
        head: "given out and settled/s",
        key: "settled_per_s",
        of: |round| round.settled,
    },
    Column {
        head: "submit p99 ms",
        key: "submit_p99_ms",
        of: |round| round.submit_p99,
    },
    Column {
        head: "accepting CPU s/1000",
        key: "accepting_cpu_s_per_1000",
        of: |round| round.accepting_cpu,
    },
    Column {
        head: "giving out CPU s/1000",
        key: "settling_cpu_s_per_1000",
        of: |round| round.settling_cpu,
    },
    Column {
        head: "others' CPU %",
        key: "foreign_cpu_percent",
        of: |round| round.foreign,
    },
];

fn report_rates(options: &Options, empty: &[Rates], full: &[Rates]) -> Value {
    if empty.is_empty() {
        return Value::Null;
    }
    let (none, many) = (
        "empty before".to_owned(),
        format!("{} mails before", options.mails),
    );
    let kinds = [(none.as_str(), empty), (many.as_str(), full)];
    let (table, results) = figures::report("queue", &kinds, &COLUMNS);
    println!(
        "\n{} mails accepted, then as many given out and settled: median (least–greatest)\n\n{table}",
        options.probe
    );
    json!(results)
}

/// MiB of all files of the queue, as the disk counts them.
fn disk_use(folder: &Path) -> f64 {
    size_of(&folder.join("state"))
}

fn size_of(folder: &Path) -> f64 {
    let (mut blocks, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => blocks += metadata.blocks(),
                // It went meanwhile.
                Err(_) => {}
            }
        }
    }
    blocks as f64 / 2048.0
}
