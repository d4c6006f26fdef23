//! The queue with very many mails: what it costs to have them, to start with them, and to be rid of them.

mod lists;
mod starts;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use postroad_queue_client::{QueueService, RemoteAdmin, RemoteQueue};
use postroad_rpc::Endpoint;
use postroad_tests::Stack;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    figures::{Figure, cell, json_or_null, table},
    kept::{Kept, Syncs},
    machine::{self, Cpu},
    mails::{Mails, Worker, percentile_ms},
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

impl Options {
    fn mails(&self) -> Mails {
        Mails {
            submitters: self.submitters,
            size: self.size,
            destinations: self.destinations,
            seed: self.seed,
        }
    }

    fn settings(&self) -> String {
        let mut settings = SETTINGS.to_owned();
        if let Some(cache) = &self.index_cache {
            settings += &format!("index_cache = \"{cache}\"\n");
        }
        if !self.retention {
            settings += "[queued.retired]\nkeep = \"0s\"\ncontent_keep = \"0s\"\n[queued.timeline]\nkeep = \"0s\"\n";
        }
        settings
    }
}

/// The built-in configuration but for the disk, which may be rather full.
const SETTINGS: &str = r#"
[queued.disk]
reserve_percent = 0
reserve = "256MiB"
"#;

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

    async fn submit(&mut self, options: &Options, count: usize) -> Result<Vec<Duration>> {
        let numbers = self.submitted..self.submitted + count;
        let limit = Duration::from_secs(options.time_limit);
        let mut latencies = timeout(limit, options.mails().submit(&self.queue, numbers))
            .await
            .context("submitting took too long")??;
        self.submitted += count;
        latencies.sort_unstable();
        Ok(latencies)
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
        let latencies = queued.submit(options, options.probe).await?;
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
            submit_p99: percentile_ms(&latencies, 99),
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
    let mut empty = Vec::new();
    for round in 0..options.rounds {
        let mut queued = Queued::start(options).await?;
        empty.push(rates(options, &mut queued, "empty", round).await?);
        queued.end().await?;
    }
    let mut queued = Queued::start(options).await?;
    fill(options, &mut queued).await?;
    let memory = machine::product_resident();
    let mut full = Vec::new();
    for round in 0..options.rounds {
        full.push(rates(options, &mut queued, "full", round).await?);
    }
    let rates = report_rates(&[("empty", empty), ("full", full)]);
    println!(
        "\nresident with {} mails: {memory:.0} MiB; on disk: {:.0} MiB",
        options.mails,
        disk_use(queued.folder())
    );
    let lists = lists::measure(&queued).await?;
    let starts = starts::measure(options, &mut queued).await?;
    let drained = drain(options, &mut queued).await?;
    queued.end().await?;
    Ok(
        json!({ "bench": "scale", "mails": options.mails, "size": options.size, "seed": options.seed,
        "destinations": options.destinations, "retention": options.retention, "rates": rates,
        "resident_mib": memory, "lists": lists, "starts": starts, "drain": drained }),
    )
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

fn report_rates(states: &[(&str, Vec<Rates>)]) -> Value {
    let head = [
        "queue",
        "accepted/s",
        "given out and settled/s",
        "submit p99 ms",
        "accepting CPU s/1000",
        "giving out CPU s/1000",
        "others' CPU %",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut results = Vec::new();
    for (state, rounds) in states {
        let figure = |of: fn(&Rates) -> f64| Figure::of(rounds.iter().map(of));
        let figures = [
            ("accepted_per_s", figure(|round| round.accepted)),
            ("settled_per_s", figure(|round| round.settled)),
            ("submit_p99_ms", figure(|round| round.submit_p99)),
            (
                "accepting_cpu_s_per_1000",
                figure(|round| round.accepting_cpu),
            ),
            (
                "settling_cpu_s_per_1000",
                figure(|round| round.settling_cpu),
            ),
            ("foreign_cpu_percent", figure(|round| round.foreign)),
        ];
        let mut line = vec![(*state).to_owned()];
        let mut result = json!({ "queue": state });
        for (name, figure) in figures {
            line.push(cell(figure));
            result[name] = json_or_null(figure);
        }
        lines.push(line);
        results.push(result);
    }
    println!("\nmedian (least–greatest)\n\n{}", table(&lines));
    json!(results)
}

/// Most disk use that is waited for, in MiB.
const SPACE: f64 = 256.0;
const PATIENCE: Duration = Duration::from_secs(120);

/// All mail is settled while a little more comes: what its senders notice, and what stays on the disk.
async fn drain(options: &Options, queued: &mut Queued) -> Result<Value> {
    let left = lists::living(&queued.admin()?).await?;
    let began = Instant::now();
    let mut worker = Worker::start(&queued.queue, options.credits);
    let trickle = Mails {
        submitters: 2,
        ..options.mails()
    };
    let (mut latencies, mut came) = (Vec::new(), 0);
    let mut told = 0;
    while worker.count() < left {
        let numbers = queued.submitted..queued.submitted + TRICKLE;
        latencies.extend(trickle.submit(&queued.queue, numbers).await?);
        queued.submitted += TRICKLE;
        came += TRICKLE;
        if worker.count() >= told + left / 10 {
            told = worker.count();
            eprintln!(
                "bench: {told} of {left} settled after {:.0} s, {:.0} MiB on disk, {:.0} of them the index",
                began.elapsed().as_secs_f64(),
                disk_use(queued.folder()),
                size_of(&queued.folder().join("state/queue/index"))
            );
        }
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(options.time_limit),
            "giving all out took too long"
        );
    }
    timeout(PATIENCE, worker.settled(left + came))
        .await
        .context("not all was settled")??;
    let took = began.elapsed().as_secs_f64();
    worker.stop().await?;
    let emptied = Instant::now();
    while disk_use(queued.folder()) > SPACE && emptied.elapsed() < PATIENCE {
        sleep(Duration::from_millis(500)).await;
    }
    let (stays, after) = (disk_use(queued.folder()), emptied.elapsed().as_secs_f64());
    latencies.sort_unstable();
    let (median, p99) = (percentile_ms(&latencies, 50), percentile_ms(&latencies, 99));
    let longest = latencies.last().map_or(0.0, Duration::as_secs_f64) * 1000.0;
    let rate = (left + came) as f64 / took;
    println!(
        "\n{left} mails given out and settled in {took:.0} s ({rate:.0}/s), {came} more accepted meanwhile: submit median {median:.1} ms, \
         p99 {p99:.1} ms, longest {longest:.0} ms\non disk {after:.1} s later: {stays:.0} MiB; resident: {:.0} MiB",
        machine::product_resident()
    );
    Ok(
        json!({ "mails": left, "seconds": took, "per_s": rate, "submit_median_ms": median, "submit_p99_ms": p99,
        "submit_longest_ms": longest, "disk_mib": stays, "disk_after_s": after,
        "resident_mib": machine::product_resident() }),
    )
}

/// Mails between two looks at the worker.
const TRICKLE: usize = 100;

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
