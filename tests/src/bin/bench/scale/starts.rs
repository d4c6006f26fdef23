//! How long a start takes, and how much memory, with many mails.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::{
    net::UnixStream,
    time::{sleep, timeout},
};

use super::{Options, Queued, connect};
use crate::{
    figures::table,
    kept::{Kept, Syncs},
    machine,
    mails::Worker,
    product,
};

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Stopped,
    Killed,
    IndexGone,
}

impl Before {
    const ALL: [Self; 3] = [Self::Stopped, Self::Killed, Self::IndexGone];

    fn name(self) -> &'static str {
        match self {
            Self::Stopped => "after an orderly stop",
            Self::Killed => "after kill -9",
            Self::IndexGone => "without its index",
        }
    }
}

struct Start {
    accepting: Duration,
    leasing: Duration,
    peak_mib: f64,
    settled_mib: f64,
}

const LONGEST: Duration = Duration::from_secs(60);

/// Starts with all the mail there is.
pub async fn measure(options: &Options, queued: &mut Queued) -> Result<Value> {
    let head = [
        "start",
        "first mail accepted s",
        "first lease s",
        "peak MiB",
        "afterwards MiB",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut results = Vec::new();
    for before in Before::ALL {
        let start = one(options, queued, before).await.context(before.name())?;
        let seconds = |duration: Duration| format!("{:.2}", duration.as_secs_f64());
        lines.push(vec![
            before.name().to_owned(),
            seconds(start.accepting),
            seconds(start.leasing),
            format!("{:.0}", start.peak_mib),
            format!("{:.0}", start.settled_mib),
        ]);
        results.push(json!({ "start": before.name(), "accepted_s": start.accepting.as_secs_f64(),
            "leased_s": start.leasing.as_secs_f64(), "peak_mib": start.peak_mib, "settled_mib": start.settled_mib }));
        tell_log(queued.folder())?;
        eprintln!(
            "bench: start {}: {:.2} s",
            before.name(),
            start.leasing.as_secs_f64()
        );
    }
    println!("\n{}", table(&lines));
    Ok(json!(results))
}

async fn one(options: &Options, queued: &mut Queued, before: Before) -> Result<Start> {
    if let Some(kept) = queued.kept.take() {
        match before {
            Before::Killed => kept.kill()?,
            Before::Stopped | Before::IndexGone => drop(kept.end()?),
        }
    }
    if before == Before::IndexGone {
        fs::remove_dir_all(queued.folder().join("state/queue/index"))?;
    }
    let began = Instant::now();
    queued.kept = Some(start(queued)?);
    // As an agent that waits for the queue; the mail begins to arrive once it is there.
    let socket = queued.folder().join("run/queue.sock");
    while UnixStream::connect(&socket).await.is_err() {
        anyhow::ensure!(began.elapsed() < LONGEST, "the queue does not listen");
        sleep(Duration::from_millis(2)).await;
    }
    queued.queue = connect(queued.folder())?;
    let mut worker = Worker::start(&queued.queue, 1);
    let limit = Duration::from_secs(options.time_limit);
    let one = Options {
        submitters: 1,
        ..options.clone()
    };
    queued.submit(&one, 1).await?;
    let accepting = began.elapsed();
    timeout(limit, worker.settled(1))
        .await
        .context("no lease")??;
    let leasing = began.elapsed();
    worker.stop().await?;
    Ok(Start {
        accepting,
        leasing,
        peak_mib: machine::product_peak(),
        settled_mib: machine::product_resident(),
    })
}

/// What the queue itself says of its start.
fn tell_log(folder: &Path) -> Result<()> {
    let log = fs::read_to_string(folder.join("queued.log"))?;
    let of_start = |line: &&str| {
        ["queue_started", "caught_up", "replay"]
            .iter()
            .any(|event| line.contains(event))
    };
    let mut lines: Vec<&str> = log.lines().rev().filter(of_start).take(3).collect();
    lines.reverse();
    lines.iter().for_each(|line| eprintln!("{line}"));
    Ok(())
}

fn start(queued: &Queued) -> Result<Kept> {
    product::launch(queued.folder(), "queued", Syncs::Ignored)
}
