//! A short life of the queue, for the recorder, and the look at an image of it.

use std::{fs, path::Path, process, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::QueueId;
use postroad_queue_client::{Change, Filter, ListQuery, Order, QueueAdmin as _};
use postroad_queued::{Config, LocalQueue};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    queue::{self, Settler, submit},
    seen::Seen,
    told::{Word, say, tell},
};

const SUBMITTERS: u64 = 2;
const MAILS: u32 = 16;
const LONGEST: usize = 600 << 10;
/// Long enough for two checkpoints, and for giving up segments after the first.
const LIFE: Duration = Duration::from_millis(1_700);
const WORKERS: u32 = 4;

fn config() -> Config {
    let mut config = queue::config();
    // Small, so that much happens in a short life, and thousands of images are quickly written.
    config.disk.segment = ByteSize::kib(256);
    config.disk.journal_target = ByteSize::kib(512);
    config.timeline.keep = Interval::seconds(0);
    config
}

/// Submits, settles, holds, releases, drops; then stops in order, or just ends. Sometimes the index is made anew first.
pub async fn live(mount: &Path, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let index = queue::folder(mount).join("index");
    if random.random_bool(0.3) && index.exists() {
        fs::remove_dir_all(index)?;
    }
    let (queue, running) = queue::open_with(mount, config()).await?;
    say("ready\n");
    let end = Instant::now() + LIFE;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
    let submitters = (0..SUBMITTERS).map(|number| {
        let random = StdRng::seed_from_u64(seed ^ (number << 8) ^ 1);
        tokio::spawn(submit_some(queue.clone(), random))
    });
    let submitters: Vec<_> = submitters.collect();
    let settler = Arc::new(Settler::new(seed));
    tokio::spawn(queue::work(queue.clone(), settler, WORKERS, stop.clone()));
    let operator = tokio::spawn(operate(queue, StdRng::seed_from_u64(seed ^ 2), end));
    for submitter in submitters {
        submitter.await??;
    }
    operator.await??;
    sleep_until(end).await;
    if random.random_bool(0.5) {
        process::exit(0);
    }
    stop.cancel();
    running.await??;
    Ok(())
}

async fn submit_some(queue: LocalQueue, mut random: StdRng) -> Result<()> {
    for _ in 0..MAILS {
        submit(&queue, &mut random, LONGEST).await?;
        sleep(Duration::from_millis(random.random_range(0..60))).await;
    }
    Ok(())
}

async fn operate(queue: LocalQueue, mut random: StdRng, end: Instant) -> Result<()> {
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(20..80))).await;
        let mails = queue.list(ListQuery::default()).await?.mails;
        if mails.is_empty() {
            continue;
        }
        let mail = &mails[random.random_range(0..mails.len())];
        // What the queue itself sends is not told of.
        if !mail.sender.is_empty() || mail.open_recipients.len() > 1 {
            order(&queue, mail.queue_id, random.random_range(0..8)).await?;
        }
    }
    Ok(())
}

async fn order(queue: &LocalQueue, id: QueueId, dice: u8) -> Result<()> {
    const ALL: u32 = u32::MAX;
    let change = match dice {
        0..3 => Change::Hold,
        3..6 => Change::Release,
        6 => Change::Retry,
        _ => Change::Drop,
    };
    match change {
        Change::Release => tell(Word::LettingGo, id, ALL),
        Change::Drop => tell(Word::Trying, id, ALL),
        _ => {}
    }
    let order = Order::from(Filter::of_ids(vec![id]));
    // None: it ended meanwhile, or is not in a state for this.
    let Ok(changed) = queue.change(change.clone(), order).await else {
        return Ok(());
    };
    // What a worker has is left as it is, and then the mail as a whole is in no certain state.
    if changed.mails == 1 && changed.busy == 0 {
        match change {
            Change::Hold => tell(Word::Held, id, ALL),
            Change::Drop => tell(Word::Ended, id, ALL),
            _ => {}
        }
    }
    Ok(())
}

/// What a queue opened from an image holds, and whether its index had to be put aside; again with the index deleted, when
/// it must hold the same.
pub async fn look(mount: &Path) -> Result<(Seen, bool)> {
    let seen = look_once(mount).await.context("with its index")?;
    let put_aside = queue::no_damage(mount)? > 0;
    fs::remove_dir_all(queue::folder(mount).join("index"))?;
    let rebuilt = look_once(mount).await.context("without its index")?;
    anyhow::ensure!(
        seen == rebuilt,
        "index and journal differ: {seen:?}, {rebuilt:?}"
    );
    Ok((seen, put_aside))
}

async fn look_once(mount: &Path) -> Result<Seen> {
    let opened = queue::open_with(mount, config()).await;
    let (queue, running) = opened.context("cannot be opened")?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(running.run(stop.clone(), Duration::ZERO));
    let seen = Seen::of(&queue).await;
    drop(queue);
    stop.cancel();
    running.await??;
    queue::no_damage(mount)?;
    seen
}
