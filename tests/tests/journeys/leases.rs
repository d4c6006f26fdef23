//! Workers that stop, die, are slow or come back late: each mail leaves once, and only the worker whose lease holds
//! decides what becomes of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postroad_tests::{
    Agent, Kept, Link, Peer, Stack, Stalled, Weather, is_same_mail, mail, stack, wait_for,
};

const FRIEND: &str = "friend@world.test";
/// Of a worker without a port of its own.
const NO_INBOUND: &str = "[mta.inbound]\nenabled = false\n";
/// What the queue says of a result under a fence that no longer holds.
const REFUSED: [&str; 2] = ["lease_expired", "a result came after its lease had ended"];

fn leases(duration: &str, stream_grace: &str, resume_grace: &str) -> String {
    format!(
        "[queued.lease]\nduration = \"{duration}\"\nstream_grace = \"{stream_grace}\"\nresume_grace = \"{resume_grace}\"\n"
    )
}

async fn submit(stack: &Stack, subject: &str, to: &str) -> Result<()> {
    let mut client = stack.login("alice@demo.test").await?;
    let content = mail(subject, "a\r\n");
    client.deliver("alice@demo.test", &[to], &content).await
}

/// A mail that the peer is asked about, and does not answer yet.
async fn stall(stack: &Stack, peer: &Peer, subject: &str) -> Result<Stalled> {
    let mut stalled = peer.stall_next(FRIEND);
    submit(stack, subject, FRIEND).await?;
    stalled.reached().await?;
    Ok(stalled)
}

fn nobody_was_told(stack: &Stack) -> Result<()> {
    let reports = stack.delivered("alice@demo.test")?;
    ensure!(reports.is_empty(), "nobody was to be told: {reports:?}");
    Ok(())
}

async fn wait_for_kept(peer: &Peer, count: usize) -> Result<Vec<Kept>> {
    wait_for(&format!("{count} mails at the peer"), async || {
        let kept = peer.kept();
        (kept.len() >= count).then_some(kept)
    })
    .await
}

/// Whoever starts from now on is connected by it.
fn slow_link(stack: &Stack, weather: Weather) -> Result<Link> {
    let run = stack.folder().join("run");
    let line = run.join("line.sock");
    let link = Link::open(&line, &run.join("queue.sock"), weather)?;
    let queue = format!("[common]\nqueue = \"unix:{}\"\n", line.display());
    stack.configure("60-line", &queue)?;
    Ok(link)
}

#[tokio::test]
async fn what_a_paused_worker_says_later_does_not_count() -> Result<()> {
    let settings = leases("1s", "500ms", "1s");
    let mut stack = stack!().settings(&settings).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let stalled = stall(&stack, &peer, "paused").await?;
    stack.freeze(Agent::Mta)?;

    let second = stack.second(Agent::Mta, NO_INBOUND).await?;
    wait_for_kept(&peer, 1).await?;
    stack.wait_for_empty_queue().await?;
    stalled.answer("550 5.1.1 there is nobody of that name");
    stack.thaw(Agent::Mta)?;
    stack.wait_for_log(Agent::Queued, &REFUSED).await?;
    let words = [
        "lease_expired",
        "the lease had ended before its result came",
    ];
    stack.wait_for_log(Agent::Mta, &words).await?;

    stack.wait_for_empty_queue().await?;
    ensure!(peer.kept().len() == 1, "{:?}", peer.kept());
    nobody_was_told(&stack)?;
    second.end().await?;
    stack.end().await
}

#[tokio::test]
async fn what_a_paused_mda_was_filing_is_filed_once() -> Result<()> {
    let settings = leases("1s", "500ms", "1s");
    let mut stack = stack!().settings(&settings).prepare()?;
    stack.bring_up(&[Agent::Queued, Agent::Msa]).await?;
    // Slow, so that it can be caught while the content is on its way.
    let link = slow_link(&stack, Weather::Slow(32 << 10, Duration::from_millis(50)))?;
    stack.bring_up(&[Agent::Mda]).await?;
    let mut client = stack.login("alice@demo.test").await?;
    let content = mail("paused", &"a line of a long mail\r\n".repeat(80_000));
    client
        .deliver("alice@demo.test", &["bob@demo.test"], &content)
        .await?;
    let tmp = stack.maildir("bob@demo.test")?.join("tmp");
    wait_for("half a mail in tmp", async || {
        let mut files = std::fs::read_dir(&tmp).ok()?.flatten();
        files
            .any(|file| file.metadata().is_ok_and(|file| file.len() > 0))
            .then_some(())
    })
    .await?;
    stack.freeze(Agent::Mda)?;
    let ended = ["lease_expired", "mda@"];
    stack.wait_for_log(Agent::Queued, &ended).await?;
    ensure!(stack.delivered("bob@demo.test")?.is_empty());
    link.change(Weather::Clear);
    stack.thaw(Agent::Mda)?;
    stack.wait_for_log(Agent::Queued, &REFUSED).await?;

    stack.wait_for_empty_queue().await?;
    let mails = stack.delivered("bob@demo.test")?;
    ensure!(mails.len() == 1, "{} mails", mails.len());
    ensure!(is_same_mail(&content, &mails[0].content), "it was changed");
    nobody_was_told(&stack)?;
    stack.end().await
}

#[tokio::test]
async fn the_job_of_a_dead_worker_comes_back_after_the_grace() -> Result<()> {
    let settings = leases("5m", "1s", "1s");
    let mut stack = stack!().settings(&settings).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let _stalled = stall(&stack, &peer, "lost").await?;
    let second = stack.second(Agent::Mta, NO_INBOUND).await?;
    let died = Instant::now();
    stack.kill_nine(Agent::Mta).await?;

    wait_for_kept(&peer, 1).await?;
    let after = died.elapsed();
    ensure!(after >= Duration::from_millis(950), "only {after:?} later");
    stack.wait_for_empty_queue().await?;
    ensure!(peer.kept().len() == 1 && peer.attempts() == 2);
    stack
        .wait_for_log(Agent::Queued, &["worker_lost", "\"count\":1"])
        .await?;
    second.end().await?;
    stack.end().await
}

#[tokio::test]
async fn a_slow_line_keeps_its_leases_and_one_that_broke_gets_them_back() -> Result<()> {
    const LEASE: Duration = Duration::from_secs(2);
    let settings = leases("2s", "10s", "1s");
    let mut stack = stack!().settings(&settings).prepare()?;
    stack
        .bring_up(&[Agent::Queued, Agent::Msa, Agent::Mda])
        .await?;
    let link = slow_link(&stack, Weather::Slow(500, Duration::from_millis(50)))?;
    stack.bring_up(&[Agent::Mta]).await?;
    let peer = Peer::up(stack.peer_address(1)).await?;

    let stalled = stall(&stack, &peer, "slow").await?;
    // There is nothing to wait for but the time: the lease would be over.
    tokio::time::sleep(LEASE + LEASE / 4).await;
    stalled.answer("250 2.1.5 there you are");
    wait_for_kept(&peer, 1).await?;
    stack.wait_for_empty_queue().await?;

    let stalled = stall(&stack, &peer, "cut").await?;
    link.cut();
    stack
        .wait_for_log(Agent::Queued, &["worker_lost", "\"count\":1"])
        .await?;
    let resumed = ["worker_connected", "mta@", "\"count\":1"];
    stack.wait_for_log(Agent::Queued, &resumed).await?;
    link.change(Weather::Clear);
    stalled.answer("250 2.1.5 there you are");
    wait_for_kept(&peer, 2).await?;
    stack.wait_for_empty_queue().await?;

    ensure!(peer.attempts() == 2, "{} attempts", peer.attempts());
    let log = stack.log(Agent::Queued);
    ensure!(!log.contains("lease_expired"), "a lease ended");
    stack.end().await
}

#[tokio::test]
async fn a_result_that_found_no_queue_counts_when_it_is_back() -> Result<()> {
    let settings = leases("5m", "500ms", "30s");
    // Of which the queue waits half for results.
    let grace = "[common]\nshutdown_grace = \"2s\"\n";
    let mut stack = stack!().settings(&settings).settings(grace).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    for (number, gently) in [(1, true), (2, false)] {
        let stalled = stall(&stack, &peer, &format!("away {number}")).await?;
        if gently {
            let status = stack.terminate(Agent::Queued).await?;
            ensure!(status == 0, "the queue ended with {status}");
        } else {
            stack.kill_nine(Agent::Queued).await?;
        }
        stack.wait_for_log(Agent::Mta, &["queue_lost"]).await?;
        stalled.answer("250 2.1.5 there you are");
        wait_for_kept(&peer, number).await?;
        stack.bring_up(&[Agent::Queued]).await?;
        let resumed = ["worker_connected", "mta@", "\"count\":1"];
        stack.wait_for_log(Agent::Queued, &resumed).await?;
        stack.wait_for_empty_queue().await?;
        ensure!(peer.attempts() == number, "{} attempts", peer.attempts());
    }
    stack.end().await
}

#[tokio::test]
async fn a_result_that_comes_after_the_grace_of_a_restart_is_late() -> Result<()> {
    let settings = leases("5m", "500ms", "500ms");
    let mut stack = stack!().settings(&settings).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let stalled = stall(&stack, &peer, "late").await?;
    stack.freeze(Agent::Mta)?;
    stack.kill_nine(Agent::Queued).await?;
    stack.bring_up(&[Agent::Queued]).await?;
    let second = stack.second(Agent::Mta, NO_INBOUND).await?;
    wait_for_kept(&peer, 1).await?;
    stack.wait_for_empty_queue().await?;

    stalled.answer("550 5.1.1 there is nobody of that name");
    stack.thaw(Agent::Mta)?;
    stack.wait_for_log(Agent::Queued, &REFUSED).await?;
    nobody_was_told(&stack)?;
    ensure!(peer.kept().len() == 1 && peer.attempts() == 2);
    second.end().await?;
    stack.end().await
}
