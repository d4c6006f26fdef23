//! The same with a queue process behind its socket, a worker that takes its time, and real time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use postroad_envelope::{LeaseRef, RouteClass, Timestamp};
use postroad_queue_client::{
    Lease, QueueService, RemoteQueue,
    worker::{self, Handler, Verdict, WorkerOptions},
};
use postroad_rpc::Endpoint;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Options, exponential};
use crate::{
    figures::{self, Column, Figure, cell, json_or_null},
    kept::Syncs,
    machine::Cpu,
    mails::{delivered, envelope_to, percentile_ms, submit},
    product,
};

/// Mails become due so long after they were made, so that accepting them is no part of what is measured.
const AHEAD: Duration = Duration::from_secs(1);
/// For the last attempts.
const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: usize = 1 << 10;

/// What the mails for other destinations met with, in milliseconds.
struct Round {
    wait_median: f64,
    wait_p99: f64,
    through_p99: f64,
    mails: usize,
    foreign: f64,
}

const COLUMNS: [Column<Round>; 5] = [
    Column {
        head: "settled",
        key: "settled",
        of: |round| round.mails as f64,
    },
    Column {
        head: "wait ms",
        key: "wait_median_ms",
        of: |round| round.wait_median,
    },
    Column {
        head: "wait p99 ms",
        key: "wait_p99_ms",
        of: |round| round.wait_p99,
    },
    Column {
        head: "through p99 ms",
        key: "through_p99_ms",
        of: |round| round.through_p99,
    },
    Column {
        head: "others' CPU %",
        key: "foreign_cpu_percent",
        of: |round| round.foreign,
    },
];

pub async fn run(options: &Options) -> Result<Value> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for number in 0..options.rounds {
        for (slow, rounds) in [(false, &mut without), (true, &mut with)] {
            let round = round(options, slow, number as u64).await?;
            eprintln!(
                "bench: round {}, {} the slow one: {} others settled, wait p99 {:.1} ms, through p99 {:.0} ms, others {:.0} %",
                number + 1,
                if slow { "with" } else { "without" },
                round.mails,
                round.wait_p99,
                round.through_p99,
                round.foreign
            );
            rounds.push(round);
        }
    }
    let kinds = [
        ("without the slow one's mails", without.as_slice()),
        ("with them", with.as_slice()),
    ];
    let (table, results) = figures::report("mails of the others", &kinds, &COLUMNS);
    let growth = |of: fn(&Round) -> f64| {
        let pairs = without.iter().zip(&with);
        Figure::of(pairs.map(|(without, with)| of(with) - of(without)))
    };
    let (wait, through) = (
        growth(|round| round.wait_p99),
        growth(|round| round.through_p99),
    );
    let percent = Figure::of(
        without
            .iter()
            .zip(&with)
            .map(|(without, with)| (with.through_p99 / without.through_p99 - 1.0) * 100.0),
    );
    println!(
        "median (least–greatest)\n\n{table}\nround by round: p99 of wait grew by {} ms, p99 of through by {} ms, which are {} %",
        cell(wait),
        cell(through),
        cell(percent)
    );
    Ok(
        json!({ "bench": "fairness", "process": true, "seed": options.seed, "destinations": options.destinations,
        "credits": options.credits, "rate": options.rate, "rows": results, "growth_of_wait_p99_ms": json_or_null(wait),
        "growth_of_through_p99_percent": json_or_null(percent) }),
    )
}

fn settings(options: &Options) -> String {
    format!(
        "[queued.disk]\nreserve_percent = 0\nreserve = \"256MiB\"\n[queued.destination]\nmax_leases = {}\n",
        options.max_leases
    )
}

async fn round(options: &Options, slow: bool, number: u64) -> Result<Round> {
    let stack = product::prepare(&settings(options))?;
    let kept = product::agent(stack.folder(), "queued", Syncs::Ignored).await?;
    let endpoint = Endpoint::Unix(stack.folder().join("run/queue.sock"));
    let queue: Arc<dyn QueueService> = Arc::new(RemoteQueue::connect(&endpoint, None)?);
    let (before, began) = (Cpu::now()?, std::time::Instant::now());
    let seed = options.seed.wrapping_add(number);
    let taker = Arc::new(Taker::new(options, seed));
    let stop = CancellationToken::new();
    let work = tokio::spawn(worker::run(
        Arc::clone(&queue),
        WorkerOptions {
            stores: Vec::new(),
            agent: "bench@test".to_owned(),
            host: "test".to_owned(),
            classes: vec![RouteClass::Relay],
            concurrency: u32::try_from(options.credits)?,
            grace: Duration::from_secs(1),
        },
        Arc::clone(&taker) as Arc<dyn Handler>,
        stop.clone(),
    ));
    let others = arrivals(options, slow, seed, &queue).await?;
    let mut settled = taker.settled.subscribe();
    timeout(PATIENCE, settled.wait_for(|settled| *settled >= others))
        .await
        .context("the others were not all settled")??;
    let foreign = Cpu::now()?.since(before).foreign_percent(began.elapsed());
    stop.cancel();
    work.await?;
    kept.end()?;
    stack.end().await?;
    taker.round(foreign)
}

/// Submits each mail at its time, whatever became of those before; tells how many were for others than the slow one.
async fn arrivals(
    options: &Options,
    slow: bool,
    seed: u64,
    queue: &Arc<dyn QueueService>,
) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let end = Duration::from_secs(options.seconds());
    let mut times: Vec<(Duration, usize)> = Vec::new();
    let mean = 1_000_000 / u64::from(options.rate.max(1));
    for is_slow in [false, true].into_iter().take(1 + usize::from(slow)) {
        let mut at = Duration::ZERO;
        while at < end {
            let destination = match is_slow {
                true => 0,
                false => random.random_range(1..options.destinations),
            };
            times.push((at, destination));
            at += Duration::from_micros(exponential(&mut random, mean));
        }
    }
    times.sort_unstable();
    let others = times.iter().filter(|(_, to)| *to > 0).count();
    let content = Bytes::from(vec![b'x'; SIZE]);
    let (mut submissions, began) = (JoinSet::new(), Instant::now());
    for (at, destination) in times {
        sleep_until(began + at).await;
        let mut envelope = envelope_to(destination, 0, random.random())?;
        envelope.not_before = Some(envelope.received_at.plus(AHEAD));
        let (queue, content) = (Arc::clone(queue), content.clone());
        submissions.spawn(async move { submit(&*queue, envelope, &content).await });
        while let Some(ended) = submissions.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = submissions.join_next().await {
        ended??;
    }
    Ok(others)
}

/// A worker's handler to whom all succeeds after a while.
struct Taker {
    attempt: u64,
    slow_attempt: u64,
    random: Mutex<StdRng>,
    seen: Mutex<Seen>,
    settled: watch::Sender<usize>,
}

/// Of mails for others than the slow one.
#[derive(Default)]
struct Seen {
    /// When each that is at the worker was due.
    due: HashMap<LeaseRef, Timestamp>,
    waits: Vec<Duration>,
    through: Vec<Duration>,
}

impl Taker {
    fn new(options: &Options, seed: u64) -> Self {
        Self {
            attempt: options.attempt,
            slow_attempt: options.slow_attempt,
            random: Mutex::new(StdRng::seed_from_u64(!seed)),
            seen: Mutex::default(),
            settled: watch::channel(0).0,
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self, lease: LeaseRef, due: Timestamp, waited: Duration) {
        let mut seen = self.seen();
        seen.waits.push(waited);
        seen.due.insert(lease, due);
    }

    fn takes(&self, mean_ms: u64) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_micros(exponential(&mut random, mean_ms * 1000))
    }

    fn round(&self, foreign: f64) -> Result<Round> {
        let mut seen = self.seen();
        seen.waits.sort_unstable();
        seen.through.sort_unstable();
        anyhow::ensure!(!seen.through.is_empty(), "nothing was settled");
        Ok(Round {
            wait_median: percentile_ms(&seen.waits, 50),
            wait_p99: percentile_ms(&seen.waits, 99),
            through_p99: percentile_ms(&seen.through, 99),
            mails: seen.through.len(),
            foreign,
        })
    }
}

/// How long ago that was.
fn elapsed(since: Timestamp) -> Duration {
    let since = Duration::from_millis(since.as_millis());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(since)
}

#[async_trait]
impl Handler for Taker {
    async fn handle(&self, lease: Lease) -> Verdict {
        let due = lease.envelope.not_before.unwrap_or_default();
        let waited = elapsed(due);
        let takes = if lease.route.destination == "world0.test" {
            self.takes(self.slow_attempt)
        } else {
            self.begun(lease.lease, due, waited);
            self.takes(self.attempt)
        };
        sleep(takes).await;
        delivered(&lease)
    }

    async fn settled(&self, lease: LeaseRef) {
        let mut seen = self.seen();
        if let Some(due) = seen.due.remove(&lease) {
            seen.through.push(elapsed(due));
            self.settled.send_modify(|settled| *settled += 1);
        }
    }
}
