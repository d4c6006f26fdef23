//! Memory: what a product holds with nothing to do, with many clients at work, with many that say nothing, and with a full queue.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use postroad_tests::free_port;
use serde_json::{Value, json};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    figures::{Column, report},
    kept::Syncs,
    load::{self, Mails, Session, To},
    machine::product_memory,
    postfix,
    product::{Kind, Product, Task},
    trial::Memory,
};

/// What was freed and what is written behind goes in this time.
const CALM: Duration = Duration::from_secs(3);
/// Who is not greeted in this time waits for a place.
const GREETED: Duration = Duration::from_secs(15);
/// Connections that fill the queue.
const FILLERS: usize = 20;

#[derive(Args)]
pub struct Options {
    /// Rounds of each product, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that bring mail at the same time.
    #[arg(long, default_value_t = 100)]
    busy: usize,
    /// Mails they bring.
    #[arg(long, default_value_t = 3000)]
    mails: usize,
    /// Connections that say EHLO and then nothing.
    #[arg(long, default_value_t = 1000)]
    idle: usize,
    /// Mails in the queue that nobody takes.
    #[arg(long, default_value_t = 100_000)]
    queued: usize,
    /// Octets of a mail.
    #[arg(long, default_value_t = 5 << 10)]
    size: usize,
    /// Only these products.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::ALL)]
    only: Vec<Kind>,
    /// Seconds that each part of a round may take.
    #[arg(long, default_value_t = 900)]
    time_limit: u64,
    /// What the contents are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// One round, in MiB but for the number of clients.
struct Measured {
    nothing: f64,
    busy: f64,
    idle: f64,
    /// Idle clients that were greeted; the others wait for a place.
    greeted: f64,
    queued: f64,
}

const COLUMNS: [Column<Measured>; 5] = [
    Column {
        head: "nothing to do",
        key: "nothing_mib",
        of: |round| round.nothing,
    },
    Column {
        head: "busy clients, the most",
        key: "busy_mib",
        of: |round| round.busy,
    },
    Column {
        head: "idle clients",
        key: "idle_mib",
        of: |round| round.idle,
    },
    Column {
        head: "of these greeted",
        key: "idle_greeted",
        of: |round| round.greeted,
    },
    Column {
        head: "full queue",
        key: "queued_mib",
        of: |round| round.queued,
    },
];

pub async fn run(options: &Options) -> Result<Value> {
    let kinds = postfix::measurable(&options.only);
    println!(
        "memory: {} busy clients, {} idle ones, {} mails of {} octets in the queue, seed {}",
        options.busy, options.idle, options.queued, options.size, options.seed
    );
    let mut rounds: Vec<(Kind, Vec<Measured>)> =
        kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for number in 1..=options.rounds {
        for (kind, measured) in &mut rounds {
            let result = round(options, *kind).await;
            let result = result.with_context(|| format!("{kind}, round {number}"))?;
            eprintln!(
                "bench: round {number}, {kind}: {:.1} MiB, busy {:.1}, idle {:.1} ({} greeted), queue {:.1}",
                result.nothing, result.busy, result.idle, result.greeted, result.queued
            );
            measured.push(result);
        }
        rounds.reverse();
    }
    rounds.sort_by_key(|(kind, _)| kinds.iter().position(|one| one == kind));
    let names: Vec<String> = rounds.iter().map(|(kind, _)| kind.to_string()).collect();
    let lines: Vec<(&str, &[Measured])> = names
        .iter()
        .zip(&rounds)
        .map(|(name, (_, measured))| (name.as_str(), measured.as_slice()))
        .collect();
    let (text, results) = report("PSS MiB", &lines, &COLUMNS);
    println!("\nmedian (least–greatest) of the rounds\n\n{text}");
    Ok(
        json!({ "bench": "memory", "seed": options.seed, "busy": options.busy, "mails": options.mails,
        "idle": options.idle, "queued": options.queued, "size": options.size, "products": results }),
    )
}

async fn round(options: &Options, kind: Kind) -> Result<Measured> {
    let product = Product::start(kind, Task::Deliver { users: 1 }, Syncs::Ignored).await?;
    let nothing = after_a_while().await?;
    let (idle, greeted) = idle(options, &product).await?;
    let watch = Memory::watch();
    let mails = mails(options, options.mails, To::Users(1));
    let limit = Duration::from_secs(options.time_limit);
    let way = product.way()?;
    let brought = timeout(limit, load::bring(&mails, &way, options.busy, 1)).await;
    brought.context("busy clients take too long")??;
    product.idle().await?;
    let busy = watch.end().await?;
    product.end().await?;
    Ok(Measured {
        nothing,
        busy,
        idle,
        greeted,
        queued: full(options, kind).await?,
    })
}

/// With clients that say nothing past EHLO, and how many came so far.
async fn idle(options: &Options, product: &Product) -> Result<(f64, f64)> {
    let way = product.way()?;
    let mut opening = JoinSet::new();
    for _ in 0..options.idle {
        let way = way.clone();
        opening.spawn(async move { timeout(GREETED, Session::open(&way, "")).await });
    }
    let mut open = Vec::with_capacity(options.idle);
    while let Some(opened) = opening.join_next().await {
        // Who was not greeted has given up, or was sent away.
        open.extend(opened?.ok().and_then(Result::ok));
    }
    ensure!(!open.is_empty() || options.idle == 0, "nobody was greeted");
    let memory = after_a_while().await?;
    Ok((memory, open.len() as f64))
}

/// With mails to a host that is not there.
async fn full(options: &Options, kind: Kind) -> Result<f64> {
    let nobody = SocketAddr::from((Ipv4Addr::new(127, 0, 1, 1), free_port()?));
    let product = Product::start(kind, Task::Relay(&[nobody]), Syncs::Ignored).await?;
    let mails = mails(options, options.queued, To::Worlds(1));
    let limit = Duration::from_secs(options.time_limit);
    let way = product.way()?;
    let brought = timeout(limit, load::bring(&mails, &way, FILLERS, 100)).await;
    brought.context("to fill the queue takes too long")??;
    let memory = after_a_while().await?;
    product.end().await?;
    Ok(memory)
}

fn mails(options: &Options, count: usize, to: To) -> Arc<Mails> {
    Arc::new(Mails::new(count, options.size, to, options.seed))
}

async fn after_a_while() -> Result<f64> {
    sleep(CALM).await;
    Ok(spawn_blocking(product_memory).await?)
}
