//! All mail is settled while a little more comes: what its senders notice, and what stays on the disk.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Options, Queued, disk_use, lists, size_of, upkeep};
use crate::{
    machine,
    mails::{Mails, Submitted, Worker},
};

/// Most disk use that is waited for, in MiB.
const SPACE: f64 = 256.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// Mails between two looks at the worker.
const TRICKLE: usize = 100;

pub async fn measure(options: &Options, queued: &mut Queued) -> Result<Value> {
    let left = lists::living(&queued.admin()?).await?;
    let log = queued.folder().join("queued.log");
    let log_began = fs::metadata(&log)?.len();
    let began = Instant::now();
    let mut worker = Worker::start(&queued.queue, options.credits);
    let submitted = trickle(options, queued, &worker, left).await?;
    let came = submitted.len();
    timeout(PATIENCE, worker.settled(left + came))
        .await
        .context("not all was settled")??;
    let took = began.elapsed().as_secs_f64();
    worker.stop().await?;
    let rate = (left + came) as f64 / took;
    println!(
        "\n{left} mails given out and settled in {took:.0} s ({rate:.0}/s), {came} more accepted meanwhile; by what the queue \
         was at while they were submitted:\n"
    );
    let (table, submits) = upkeep::report(&submitted, &upkeep::read(&log, log_began)?);
    print!("{table}");
    let (stays, after) = space(queued).await;
    let resident = machine::product_resident();
    println!("\non disk {after:.1} s later: {stays:.0} MiB; resident: {resident:.0} MiB");
    Ok(
        json!({ "mails": left, "seconds": took, "per_s": rate, "submits": submits, "disk_mib": stays,
        "disk_after_s": after, "resident_mib": resident }),
    )
}

/// Two submitters, until the worker has settled so many.
async fn trickle(
    options: &Options,
    queued: &mut Queued,
    worker: &Worker,
    left: usize,
) -> Result<Vec<Submitted>> {
    let began = Instant::now();
    let mails = Mails {
        submitters: 2,
        ..options.mails()
    };
    let (mut submitted, mut told) = (Vec::new(), 0);
    while worker.count() < left {
        let numbers = queued.submitted..queued.submitted + TRICKLE;
        submitted.extend(mails.submit(&queued.queue, numbers).await?);
        queued.submitted += TRICKLE;
        if worker.count() >= told + left / 10 {
            told = worker.count();
            eprintln!(
                "bench: {told} of {left} settled after {:.0} s, {:.0} MiB on disk, {:.0} of them the index",
                began.elapsed().as_secs_f64(),
                disk_use(queued.folder()),
                size_of(&queued.folder().join("state/queue/index"))
            );
        }
        ensure!(
            began.elapsed() < Duration::from_secs(options.time_limit),
            "giving all out took too long"
        );
    }
    Ok(submitted)
}

/// What stays on the disk, and after how many seconds.
async fn space(queued: &Queued) -> (f64, f64) {
    let emptied = Instant::now();
    while disk_use(queued.folder()) > SPACE && emptied.elapsed() < PATIENCE {
        sleep(Duration::from_millis(500)).await;
    }
    (disk_use(queued.folder()), emptied.elapsed().as_secs_f64())
}
