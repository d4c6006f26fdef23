//! Submitters that outrun a disk which does not come back, while no worker takes anything: the queue stays within its
//! memory, refuses at once what it cannot hold, keeps nobody for ever, and has what it acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use postroad_envelope::{Envelope, QueueId};
use postroad_queue_client::{
    Completion, Filter, ListQuery, QueueAdmin as _, QueueError, QueueService as _, RemoteQueue,
    collect_content,
};
use postroad_tests::{Agent, PATIENCE, Stack, envelope, mail, stack, wait_for};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{ALICE, BOB, Syncs};

const SUBMITTERS: usize = 200;
/// Mails of one connection share its window.
const CONNECTIONS: usize = 5;
const CLIENTS: usize = 10;
const MAX_SUBMISSIONS: usize = 60;
const MAX_MEMORY: usize = 8 << 20;
const SMALL: usize = 200 << 10;
const LARGE: usize = 3 << 20;

/// What the configuration lets content take: where it is counted, and once more as what is written (a round of the
/// committer takes 8 MiB at most).
const CONTENT: usize = 2 * MAX_MEMORY + (8 << 20);
/// Of a connection whose mails nobody takes yet (`../../../common/rpc/src/lib.rs`).
const WINDOW: usize = 8 << 20;
/// Index, segments written ahead, tasks, what the allocator keeps.
const REST: usize = 24 << 20;

fn bound() -> u64 {
    (CONTENT + (CONNECTIONS + 1) * WINDOW + REST) as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_outruns_the_disk_is_told_so_and_the_queue_stays_within_its_memory() -> Result<()> {
    let settings = format!(
        "[queued]\nmax_submissions = {MAX_SUBMISSIONS}\nmax_submission_memory = \"{MAX_MEMORY}B\"\n"
    );
    let mut stack = stack!().settings(&settings).prepare()?;
    let Some(syncs) = Syncs::of(&mut stack, Agent::Queued, "state/queue")? else {
        return Ok(());
    };
    // Without the MDA everything stays in the queue.
    stack.bring_up(&[Agent::Queued, Agent::Msa]).await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(stack.login(ALICE).await?);
    }
    let before = stack.peak_memory(Agent::Queued)?;

    syncs.stall()?;
    let mails = Mails::new(&stack)?;
    let refused = Arc::new(AtomicUsize::new(0));
    let mut first = mails.submit_once(&refused);
    // No more than these can be under way; all others are told so while the disk hangs.
    let least = SUBMITTERS - MAX_SUBMISSIONS;
    wait_for("refusals while the disk hangs", async || {
        (refused.load(Ordering::Relaxed) >= least).then_some(())
    })
    .await?;
    let sessions = tokio::spawn(say_at_once(clients));
    let during = stack.peak_memory(Agent::Queued)?;
    syncs.go_on()?;

    let mut acknowledged = BTreeMap::new();
    let mut full = 0;
    while let Some(ended) = first.join_next().await {
        let (number, outcome) = ended?;
        match outcome {
            Ok(id) => drop(acknowledged.insert(id, number)),
            Err(error) => {
                is_told(&error)?;
                full += 1;
            }
        }
    }
    ensure!(full >= least && !acknowledged.is_empty());
    let taken = sessions.await??;
    // Whoever was refused comes again, and gets in.
    let mut second = mails.submit_until_taken();
    while let Some(ended) = second.join_next().await {
        let (id, number) = ended??;
        acknowledged.insert(id, number);
    }
    let after = stack.peak_memory(Agent::Queued)?;
    println!(
        "{full} of {SUBMITTERS} refused while the disk hung; memory {before} before, {during} while, {after} after, {} allowed",
        before + bound()
    );
    ensure!(after <= before + bound(), "{after} octets of memory");

    stack.kill_nine(Agent::Queued).await?;
    stack.bring_up(&[Agent::Queued]).await?;
    mails.are_there(&stack, &acknowledged, taken).await?;
    stack.end().await
}

/// 452 for a mail program, with words for its user.
fn is_told(error: &QueueError) -> Result<()> {
    let QueueError::Full(why) = error else {
        anyhow::bail!("{error:?}");
    };
    let reply = error.to_reply().to_string();
    ensure!(why.contains("under way"), "{why}");
    ensure!(
        reply.starts_with("452 4.3.1") && reply.contains("try again later"),
        "{reply}"
    );
    Ok(())
}

/// Mail programs that came while the disk hung; tells how many mails were taken.
async fn say_at_once(clients: Vec<postroad_tests::Client>) -> Result<usize> {
    let replies = super::attempt_at_once(clients).await?;
    for reply in &replies {
        let refused = reply.starts_with("452 4.3.1") || reply.starts_with("451 4.3.0");
        ensure!(refused || reply.starts_with("250"), "{reply}");
    }
    let taken = replies.iter().filter(|reply| reply.starts_with("250"));
    Ok(taken.count())
}

/// One for each submitter, the same whenever it is sent again.
struct Mails {
    queues: Vec<Arc<RemoteQueue>>,
    envelopes: Vec<Envelope>,
}

impl Mails {
    fn new(stack: &Stack) -> Result<Self> {
        let queues = (0..CONNECTIONS).map(|_| stack.queue().map(Arc::new));
        let envelopes = (0..SUBMITTERS).map(|_| envelope(&[BOB]));
        Ok(Self {
            queues: queues.collect::<Result<_>>()?,
            envelopes: envelopes.collect::<Result<_>>()?,
        })
    }

    fn content(number: usize) -> Bytes {
        let len = if number.is_multiple_of(5) {
            LARGE
        } else {
            SMALL
        };
        let line = format!("a line of mail {number}\r\n");
        mail(&format!("number {number}"), &line.repeat(len / line.len())).into()
    }

    fn each(&self) -> impl Iterator<Item = (usize, Arc<RemoteQueue>, Envelope)> + '_ {
        let queues = self.queues.iter().cycle();
        let both = self.envelopes.iter().zip(queues).enumerate();
        both.map(|(number, (envelope, queue))| (number, Arc::clone(queue), envelope.clone()))
    }

    fn submit_once(
        &self,
        refused: &Arc<AtomicUsize>,
    ) -> JoinSet<(usize, Result<QueueId, QueueError>)> {
        let mut all = JoinSet::new();
        for (number, queue, envelope) in self.each() {
            let refused = Arc::clone(refused);
            all.spawn(async move {
                let outcome = submit(&queue, envelope, Self::content(number)).await;
                refused.fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
                (number, outcome)
            });
        }
        all
    }

    fn submit_until_taken(&self) -> JoinSet<Result<(QueueId, usize)>> {
        let mut all = JoinSet::new();
        for (number, queue, envelope) in self.each() {
            let taken = async move {
                loop {
                    let content = Self::content(number);
                    match submit(&queue, envelope.clone(), content).await {
                        Ok(id) => return Ok((id, number)),
                        Err(error) => is_told(&error)?,
                    }
                    // As long as a program waits at least.
                    sleep(Duration::from_millis(20)).await;
                }
            };
            all.spawn(async move { timeout(PATIENCE, taken).await? });
        }
        all
    }

    /// Each is in the queue once, as it was sent.
    async fn are_there(
        &self,
        stack: &Stack,
        acknowledged: &BTreeMap<QueueId, usize>,
        others: usize,
    ) -> Result<()> {
        ensure!(acknowledged.len() == SUBMITTERS);
        let (admin, queue) = (stack.admin()?, stack.queue()?);
        let query = ListQuery {
            limit: 1000,
            ..Filter::all().into()
        };
        let page = wait_for("list", async || admin.list(query.clone()).await.ok()).await?;
        let listed = page.mails.len();
        ensure!(
            listed == SUBMITTERS + others,
            "{listed} mails, {others} by SMTP"
        );
        for (id, number) in acknowledged {
            let read = queue.read(*id, 0).await;
            let read = read.with_context(|| format!("{id}, mail {number}"))?;
            let content = collect_content(read, 2 * LARGE).await?;
            ensure!(content == Self::content(*number), "{id}, mail {number}");
        }
        Ok(())
    }
}

async fn submit(
    queue: &RemoteQueue,
    envelope: Envelope,
    content: Bytes,
) -> Result<QueueId, QueueError> {
    let size = content.len() as u64;
    let mut submission = queue.submit(envelope).await?;
    submission.chunk(content).await?;
    let completion = Completion {
        size,
        ..Completion::default()
    };
    Ok(submission.finish(completion).await?.queue_id)
}
