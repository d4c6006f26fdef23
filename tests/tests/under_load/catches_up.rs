//! A start without an index: mail is accepted while the index is built anew from the journal, whatever happens meanwhile,
//! and all of it is given out once.

#![allow(clippy::print_stdout, reason = "the report of a test")]

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use postroad_envelope::{Envelope, QueueId};
use postroad_queue_client::{QueueAdmin as _, RemoteQueue};
use postroad_tests::{Agent, Stack, envelope, mail, stack, submit, wait_for};
use tokio::task::JoinSet;

/// Mails that stay: so many that an index takes a while.
const HELD: usize = 2500;
const FOR_BOB: usize = 100;
const SUBMITTERS: usize = 16;
/// From the start of the process to the first answer.
const PROMISED: Duration = Duration::from_secs(2);
const ROUTES: &str = "[[queued.routes]]\ndomain = \"held.test\"\nclass = \"hold\"\n";
const CAUGHT_UP: &str = "caught_up";

fn content(id: QueueId) -> Vec<u8> {
    mail(&format!("mail {id}"), "a\r\n")
}

async fn fill(queue: Arc<RemoteQueue>) -> Result<Vec<Envelope>> {
    let mut submitters = JoinSet::new();
    for number in 0..SUBMITTERS {
        let queue = Arc::clone(&queue);
        submitters.spawn(async move {
            let mut accepted = Vec::new();
            for at in (number..HELD + FOR_BOB).step_by(SUBMITTERS) {
                let to = if at < HELD {
                    "x@held.test"
                } else {
                    "bob@demo.test"
                };
                let envelope = envelope(&[to])?;
                submit(&queue, &envelope, &content(envelope.queue_id)).await?;
                accepted.push(envelope);
            }
            anyhow::Ok(accepted)
        });
    }
    let accepted: Result<Vec<_>> = submitters.join_all().await.into_iter().collect();
    Ok(accepted?.concat())
}

/// Starts the queue; tells how long it took until a mail was accepted.
async fn accepted_after(stack: &mut Stack, envelope: &Envelope) -> Result<Duration> {
    let started = Instant::now();
    stack.start(Agent::Queued)?;
    // Each try has a connection of its own, so that none waits before it dials again.
    let accepted = wait_for("acknowledgement", async || {
        let queue = stack.queue().ok()?;
        submit(&queue, envelope, &content(envelope.queue_id))
            .await
            .ok()
    });
    accepted.await?;
    Ok(started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_accepted_while_the_index_is_made_and_a_kill_meanwhile_loses_nothing() -> Result<()>
{
    let mut stack = stack!().settings(ROUTES).prepare()?;
    stack.bring_up(&[Agent::Queued]).await?;
    let mut accepted = fill(Arc::new(stack.queue()?)).await?;
    stack.kill_nine(Agent::Queued).await?;
    fs::remove_dir_all(stack.folder().join("state/queue/index"))?;

    let known = accepted.last().context("a mail")?.clone();
    let mut rebuilds = 0;
    for _ in 0..2 {
        let new = envelope(&["bob@demo.test"])?;
        let after = accepted_after(&mut stack, &new).await?;
        accepted.push(new.clone());
        let queue = stack.queue()?;
        for envelope in [&new, &known] {
            let again = submit(&queue, envelope, &content(envelope.queue_id)).await?;
            ensure!(
                again.duplicate,
                "{} was taken for a new mail",
                envelope.queue_id
            );
        }
        let was_behind = !stack.log(Agent::Queued).contains(CAUGHT_UP);
        stack.kill_nine(Agent::Queued).await?;
        rebuilds += usize::from(was_behind);
        println!(
            "accepted {after:?} after the start; killed before it had caught up: {was_behind}"
        );
        ensure!(after < PROMISED, "accepted only {after:?} after the start");
    }
    ensure!(
        rebuilds > 0,
        "the index was there before anything was accepted"
    );

    stack
        .bring_up(&[Agent::Queued, Agent::Msa, Agent::Mda])
        .await?;
    stack.wait_for_log(Agent::Queued, &[CAUGHT_UP]).await?;
    let queue = stack.queue()?;
    for envelope in accepted.iter().rev().take(FOR_BOB / 2) {
        let again = submit(&queue, envelope, &content(envelope.queue_id)).await?;
        ensure!(
            again.duplicate,
            "{} was taken for a new mail",
            envelope.queue_id
        );
    }
    let for_bob: Vec<QueueId> = accepted
        .iter()
        .filter(|envelope| {
            envelope
                .recipients
                .iter()
                .any(|to| to.address.to_string() == "bob@demo.test")
        })
        .map(|envelope| envelope.queue_id)
        .collect();
    let admin = stack.admin()?;
    let left = wait_for("end of the mail for bob", async || {
        let stats = admin.stats(10).await.ok()?;
        let only = (stats.total == 1).then(|| stats.destinations.into_iter().next());
        only.flatten().map(|destination| destination.held)
    });
    ensure!(left.await? == HELD as u64, "held mail was lost");
    let mut filed: BTreeMap<QueueId, usize> = BTreeMap::new();
    for mail in stack.delivered("bob@demo.test")? {
        *filed.entry(mail.delivery()?.0).or_default() += 1;
    }
    ensure!(
        filed.values().all(|copies| *copies == 1),
        "a mail was filed twice"
    );
    ensure!(for_bob.iter().all(|id| filed.contains_key(id)) && filed.len() == for_bob.len());
    stack.end().await
}
