//! A mail to several domains with the same mail hosts goes there once, and each of its jobs ends by itself.

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Peer, mail, stack, wait_for};

const ZONE: &str = "\
other.test         MX   10 mx1.world.test
third.test         MX   10 mx1.world.test
";
const FROM: &str = "alice@demo.test";

fn transactions(peer: &Peer) -> usize {
    let heard = peer.heard();
    heard.iter().filter(|line| line.starts_with("MAIL")).count()
}

/// Everybody who has the mail, in order.
fn reached(peer: &Peer) -> Vec<String> {
    let mut all: Vec<String> = peer.kept().into_iter().flat_map(|kept| kept.to).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn one_transaction_for_all_and_a_report_of_whom_the_host_refuses() -> Result<()> {
    let stack = stack!().zone(ZONE).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("nobody@third.test", "550 5.1.1 no such user");
    let to = [
        "friend@world.test",
        "friend@other.test",
        "nobody@third.test",
    ];
    let mut client = stack.login(FROM).await?;
    client
        .deliver(FROM, &to, &mail("to three domains", "a\r\n"))
        .await?;
    let report = stack.wait_for_mail_with(FROM, "nobody@third.test").await?;
    ensure!(!report.contains("friend@"), "{}", report.text());
    stack.wait_for_empty_queue().await?;
    ensure!(transactions(&peer) == 1, "{:?}", peer.heard());
    let reached = reached(&peer);
    ensure!(
        reached == ["friend@other.test", "friend@world.test"],
        "{reached:?}"
    );
    stack.end().await
}

#[tokio::test]
async fn a_worker_killed_in_the_midst_of_it_leaves_each_domain_its_mail() -> Result<()> {
    let mut stack = stack!()
        .zone(ZONE)
        .settings("[queued.lease]\nstream_grace = \"1s\"\n")
        .start()
        .await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let mut stalled = peer.stall_next("friend@third.test");
    let to = [
        "friend@other.test",
        "friend@third.test",
        "friend@world.test",
    ];
    let mut client = stack.login(FROM).await?;
    client
        .deliver(FROM, &to, &mail("killed once", "a\r\n"))
        .await?;
    stalled.reached().await?;
    stack.kill_nine(Agent::Mta).await?;
    stalled.answer("250 too late");
    stack.bring_up(&[Agent::Mta]).await?;
    wait_for("three recipients", async || {
        (reached(&peer).len() >= to.len()).then_some(())
    })
    .await?;
    stack.wait_for_empty_queue().await?;
    ensure!(reached(&peer) == to, "{:?}", peer.heard());
    stack.end().await
}
