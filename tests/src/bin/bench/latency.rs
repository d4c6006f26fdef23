//! Latency: mails at a steady rate, far below what the product could do, and how long each takes from its 250 to the mailbox.
//!
//! ```text
//! load, a mail every so often ──SMTP──► product ──► Maildir of one account ◄── looked at every millisecond
//! ```

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    delivery::each_mail,
    figures::{Column, report},
    kept::Syncs,
    load::{self, Mails, To, Way},
    mails::percentile_ms,
    postfix,
    product::{Kind, Product, Task},
};

/// Mails before a round that are not measured.
const WARM_UP: usize = 20;
/// Files synced to learn how long the disk takes for one.
const PROBES: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(1);

#[derive(Args)]
pub struct Options {
    /// Rounds of each product, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Mails in a round.
    #[arg(long, default_value_t = 300)]
    mails: usize,
    /// Mails in a second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Octets of a mail.
    #[arg(long, default_value_t = 5 << 10)]
    size: usize,
    /// Only these products.
    #[arg(long, value_delimiter = ',', default_values_t = Kind::ALL)]
    only: Vec<Kind>,
    /// Seconds to wait for the last mail of a round.
    #[arg(long, default_value_t = 60)]
    time_limit: u64,
    /// What the contents are made from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON too.
    #[arg(long)]
    pub json: bool,
}

/// One round, in milliseconds.
struct Measured {
    median: f64,
    most: f64,
    longest: f64,
    /// For the final dot to be answered.
    accepted: f64,
    /// For a file of this size to be written and synced, in the same folder, while nothing else is done.
    sync: f64,
}

const COLUMNS: [Column<Measured>; 6] = [
    Column {
        head: "250 to mailbox, median ms",
        key: "median_ms",
        of: |round| round.median,
    },
    Column {
        head: "p99 ms",
        key: "p99_ms",
        of: |round| round.most,
    },
    Column {
        head: "longest ms",
        key: "longest_ms",
        of: |round| round.longest,
    },
    Column {
        head: "final dot to 250, median ms",
        key: "accepted_ms",
        of: |round| round.accepted,
    },
    Column {
        head: "a file's sync ms",
        key: "sync_ms",
        of: |round| round.sync,
    },
    Column {
        head: "median in syncs",
        key: "median_syncs",
        of: |round| round.median / round.sync,
    },
];

pub async fn run(options: &Options) -> Result<Value> {
    ensure!(options.rate > 0.0 && options.mails > 0, "no mails");
    let kinds = postfix::measurable(&options.only);
    println!(
        "latency: {} mails of {} octets a round, {} a second, seed {}",
        options.mails, options.size, options.rate, options.seed
    );
    let mut rounds: Vec<(Kind, Vec<Measured>)> =
        kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for number in 1..=options.rounds {
        for (kind, measured) in &mut rounds {
            let result = round(options, *kind).await;
            let result = result.with_context(|| format!("{kind}, round {number}"))?;
            eprintln!(
                "bench: round {number}, {kind}: median {:.1} ms, p99 {:.1} ms, a sync takes {:.2} ms",
                result.median, result.most, result.sync
            );
            measured.push(result);
        }
        // Who begins changes, in case the disk remembers.
        rounds.reverse();
    }
    rounds.sort_by_key(|(kind, _)| kinds.iter().position(|one| one == kind));
    let names: Vec<String> = rounds.iter().map(|(kind, _)| kind.to_string()).collect();
    let kinds: Vec<(&str, &[Measured])> = names
        .iter()
        .zip(&rounds)
        .map(|(name, (_, measured))| (name.as_str(), measured.as_slice()))
        .collect();
    let (text, results) = report("product", &kinds, &COLUMNS);
    println!("\nmedian (least–greatest) of the rounds\n\n{text}");
    Ok(
        json!({ "bench": "latency", "seed": options.seed, "mails": options.mails, "size": options.size,
        "rate": options.rate, "products": results }),
    )
}

async fn round(options: &Options, kind: Kind) -> Result<Measured> {
    let product = Product::start(kind, Task::Deliver { users: 1 }, Syncs::Ignored).await?;
    let way = product.way()?;
    let warm_up = mails(WARM_UP, options);
    load::bring(&warm_up, &way, 2, 1).await?;
    product.idle().await?;
    let new = only_folder(&product.mailboxes())?;
    let (sync, size) = (product.mailboxes(), options.size);
    let sync = spawn_blocking(move || sync_time(&sync, size)).await??;

    let sent = mails(options.mails, options);
    let stop = Arc::new(AtomicBool::new(false));
    let seen = {
        let (sent, stop, new) = (Arc::clone(&sent), Arc::clone(&stop), new.clone());
        spawn_blocking(move || watch(&sent, &new, &stop))
    };
    let accepted = send(&sent, &way, options.rate).await;
    let last = timeout(Duration::from_secs(options.time_limit), product.idle()).await;
    stop.store(true, Ordering::Relaxed);
    let seen = seen.await??;
    let accepted = accepted?;
    last.context("the queue does not become empty")??;
    product.end().await?;

    let mut waits = Vec::with_capacity(options.mails);
    for (number, (_, accepted)) in accepted.iter().enumerate() {
        let seen = seen[number].with_context(|| format!("mail {number} is not there"))?;
        waits.push(seen.saturating_duration_since(*accepted));
    }
    waits.sort_unstable();
    let mut answers: Vec<Duration> = accepted.iter().map(|(took, _)| *took).collect();
    answers.sort_unstable();
    Ok(Measured {
        median: percentile_ms(&waits, 50),
        most: percentile_ms(&waits, 99),
        longest: waits.last().map_or(0.0, |wait| wait.as_secs_f64() * 1e3),
        accepted: percentile_ms(&answers, 50),
        sync,
    })
}

fn mails(count: usize, options: &Options) -> Arc<Mails> {
    Arc::new(Mails::new(count, options.size, To::Users(1), options.seed))
}

/// How long the final dot of each mail took, and when it was answered; by the numbers of the mails. A slow answer holds no other mail up.
pub async fn send(mails: &Arc<Mails>, way: &Way, rate: f64) -> Result<Vec<(Duration, Instant)>> {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sending = JoinSet::new();
    for number in 0..mails.count {
        ticks.tick().await;
        let (mails, way) = (Arc::clone(mails), way.clone());
        sending.spawn(
            async move { anyhow::Ok((number, load::bring_one(&mails, &way, number).await?)) },
        );
    }
    let mut sent = Vec::with_capacity(mails.count);
    while let Some(one) = sending.join_next().await {
        sent.push(one??);
    }
    sent.sort_unstable_by_key(|(number, _)| *number);
    Ok(sent.into_iter().map(|(_, times)| times).collect())
}

/// When each mail was first seen in the folder; those seen are taken out. Ends when it is told to and nothing is left.
fn watch(mails: &Mails, new: &Path, stop: &AtomicBool) -> Result<Vec<Option<Instant>>> {
    let mut seen = vec![None; mails.count];
    loop {
        let is_last = stop.load(Ordering::Relaxed);
        let now = Instant::now();
        for file in fs::read_dir(new)? {
            let file = file?.path();
            let content = String::from_utf8_lossy(&fs::read(&file)?).replace("\r\n", "\n");
            let number = mails.number(content.replace('\n', "\r\n").as_bytes());
            let place = number.and_then(|number| seen.get_mut(number));
            match place {
                Some(place @ None) => *place = Some(now),
                Some(Some(_)) => bail!("a mail came twice"),
                None => bail!("{} is changed or not ours", file.display()),
            }
            fs::remove_file(file)?;
        }
        if is_last {
            return Ok(seen);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The one folder that has mails in it, emptied.
fn only_folder(mailboxes: &Path) -> Result<PathBuf> {
    let mut folder = None;
    each_mail(mailboxes, &mut |file| {
        folder = file.parent().map(Path::to_owned);
        Ok(fs::remove_file(file)?)
    })?;
    folder.context("no mail came")
}

/// Milliseconds for a file to be written and synced: the median of some.
fn sync_time(folder: &Path, size: usize) -> Result<f64> {
    let content = vec![b'x'; size];
    let path = folder.join("probe");
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let mut file = File::create_new(&path)?;
        let began = Instant::now();
        file.write_all(&content)?;
        file.sync_all()?;
        times.push(began.elapsed());
        fs::remove_file(&path)?;
    }
    times.sort_unstable();
    Ok(percentile_ms(&times, 50))
}
