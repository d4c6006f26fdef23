//! `kill -9` in the middle of purges: whatever moment it comes at, the queue starts whole, all that is not to be purged is
//! there, and the next purge leaves no octet.
//!
//! `POSTROAD_KILL_ROUNDS` runs more rounds, `POSTROAD_SEED` repeats a run.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{env, fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use postroad_envelope::QueueId;
use postroad_queue_client::{
    Change, Filter, MailState, Order, QueueAdmin as _, QueueService as _, RemoteAdmin, RemoteQueue,
    collect_content,
};
use postroad_tests::{Agent, Stack, envelope, mail, stack, submit, wait_for};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

const ROUNDS: usize = 8;
const MARKER: &str = "markerq7x";
/// Such that segments of the journal and of the retired contents are written anew by each purge.
const SETTINGS: &str = "[queued]\nretired.content = \"all\"\n[queued.disk]\nsegment = \"1MiB\"\njournal_target = \"8MiB\"\n";
/// The last one is a content file.
const LENGTHS: [usize; 4] = [500, 30_000, 120_000, 400_000];

#[tokio::test]
async fn a_purge_that_is_killed_leaves_a_whole_queue_and_is_finished_by_the_next() -> Result<()> {
    let seed = number("POSTROAD_SEED").unwrap_or_else(rand::random);
    let rounds = number("POSTROAD_KILL_ROUNDS").map_or(Ok(ROUNDS), usize::try_from)?;
    println!("POSTROAD_SEED={seed} POSTROAD_KILL_ROUNDS={rounds}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut stack = stack!().settings(SETTINGS).prepare()?;
    start(&mut stack).await?;
    let kept = Kept::send(&stack).await?;

    send_secrets(&stack).await?;
    let begun = Instant::now();
    stack.admin()?.purge(of_marked()).await?;
    let mut longest = begun.elapsed();
    ensure!(marked(&stack)? == [""; 0]);
    let (mut killed, mut begun_anew) = (0, 0);
    for _ in 0..rounds {
        // What a purge that was killed has left is purged together with it.
        begun_anew += usize::from(!marked(&stack)?.is_empty());
        send_secrets(&stack).await?;
        let admin = stack.admin()?;
        let begun = Instant::now();
        let purge = tokio::spawn(async move { admin.purge(of_marked()).await });
        sleep(longest.mul_f64(chance.random_range(0.0..0.9))).await;
        stack.kill_nine(Agent::Queued).await?;
        match purge.await? {
            Ok(_) => longest = begun.elapsed(),
            Err(_) => killed += 1,
        }
        start(&mut stack).await?;
        is_whole(&stack.admin()?).await?;
        kept.are_there(&stack).await?;
    }
    println!("{killed} purges were killed, {begun_anew} of them had left something to be purged");
    ensure!(killed > 0, "no purge was killed");
    stack.admin()?.purge(of_marked()).await?;
    ensure!(marked(&stack)? == [""; 0], "{:?}", marked(&stack)?);
    kept.are_there(&stack).await?;
    stack.restart(Agent::Queued).await?;
    is_whole(&stack.admin()?).await?;
    kept.are_there(&stack).await?;
    ensure!(marked(&stack)? == [""; 0], "{:?}", marked(&stack)?);
    stack.end().await
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Waits for the queue to be level with its journal too.
async fn start(stack: &mut Stack) -> Result<()> {
    stack.bring_up(&[Agent::Queued]).await?;
    stack.wait_for_log(Agent::Queued, &["caught_up"]).await?;
    Ok(())
}

fn of_marked() -> Order {
    Filter {
        recipient_domain: Some(format!("{MARKER}.test")),
        ..Filter::default()
    }
    .into()
}

fn content(word: &str, len: usize) -> Vec<u8> {
    let line = format!("a line of {word}\r\n");
    mail(word, &line.repeat(len / line.len()))
}

async fn send(queue: &RemoteQueue, to: &str, content: &[u8]) -> Result<QueueId> {
    let envelope = envelope(&[to])?;
    submit(queue, &envelope, content).await?;
    Ok(envelope.queue_id)
}

async fn retire(admin: &RemoteAdmin, ids: &[QueueId]) -> Result<()> {
    let order = Order::from(Filter::of_ids(ids.to_vec()));
    admin.change(Change::Drop, order).await?;
    wait_for("retired mails", async || {
        let mut retired = 0;
        for id in ids {
            let shown = admin.show(*id).await.ok()?;
            retired += usize::from(shown.summary.retired.is_some());
        }
        (retired == ids.len()).then_some(())
    })
    .await
}

/// Mails that are to be forgotten, among others that are not.
async fn send_secrets(stack: &Stack) -> Result<()> {
    let (queue, admin) = (stack.queue()?, stack.admin()?);
    let mut ids = Vec::new();
    for len in LENGTHS {
        let to = format!("{MARKER}@{MARKER}.test");
        ids.push(send(&queue, &to, &content(MARKER, len)).await?);
        ids.push(send(&queue, "other@far.test", &content("other", len)).await?);
    }
    retire(&admin, &ids).await
}

/// Mails that stay whatever is purged.
struct Kept {
    living: Vec<(QueueId, usize)>,
    retired: Vec<(QueueId, usize)>,
}

impl Kept {
    async fn send(stack: &Stack) -> Result<Self> {
        let (queue, admin) = (stack.queue()?, stack.admin()?);
        let (mut living, mut retired) = (Vec::new(), Vec::new());
        for len in LENGTHS {
            let content = content("kept", len);
            living.push((send(&queue, "lives@far.test", &content).await?, len));
            retired.push((send(&queue, "ended@far.test", &content).await?, len));
        }
        let ended: Vec<QueueId> = retired.iter().map(|(id, _)| *id).collect();
        retire(&admin, &ended).await?;
        Ok(Self { living, retired })
    }

    async fn are_there(&self, stack: &Stack) -> Result<()> {
        let (queue, admin) = (stack.queue()?, stack.admin()?);
        for (id, len) in self.living.iter().chain(&self.retired) {
            let shown = admin.show(*id).await.with_context(|| id.to_string())?;
            let lives = shown.summary.state != MailState::Retired;
            let stays = self.living.iter().any(|(living, _)| living == id);
            ensure!(lives == stays, "{id}: {:?}", shown.summary);
            let read = match lives {
                true => queue.read(*id, 0).await,
                false => queue.read_any(*id, 0).await,
            };
            let read = collect_content(read?, 1 << 20).await?;
            ensure!(read == content("kept", *len), "{id} is not what it was");
        }
        Ok(())
    }
}

async fn is_whole(admin: &RemoteAdmin) -> Result<()> {
    let mut told = admin.verify().await?;
    let (mut problems, mut finished) = (Vec::new(), false);
    while let Some(progress) = told.next().await {
        let progress = progress?;
        problems.extend(progress.problems);
        finished |= progress.finished;
    }
    ensure!(finished && problems.is_empty(), "{problems:?}");
    Ok(())
}

/// Files of the queue that hold the marker.
fn marked(stack: &Stack) -> Result<Vec<String>> {
    let mut found = Vec::new();
    look(&stack.folder().join("state/queue"), &mut found)?;
    Ok(found)
}

fn look(folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            look(&path, found)?;
            continue;
        }
        // One may be given up while we look.
        let octets = fs::read(&path).unwrap_or_default();
        let is_marked = memchr::memmem::find(&octets, MARKER.as_bytes()).is_some();
        found.extend(is_marked.then(|| path.display().to_string()));
    }
    Ok(())
}
