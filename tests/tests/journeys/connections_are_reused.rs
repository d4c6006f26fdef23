//! Mails to one host follow each other over one connection, until it is idle for too long, the configuration changes, or we or the
//! host go away; and none is lost or repeated by that.

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Client, Peer, Stack, mail, stack, wait_for};

const PATIENT: &str = "[mta.outbound.reuse]\nidle = \"10m\"\nlifetime = \"10m\"\n";

async fn send(client: &mut Client, name: &str) -> Result<()> {
    let from = "alice@demo.test";
    client
        .deliver(from, &["friend@world.test"], &mail(name, "a\r\n"))
        .await
}

async fn kept(peer: &Peer, count: usize) -> Result<()> {
    let have = async || (peer.kept().len() == count).then_some(());
    wait_for(&format!("{count} mails"), have).await
}

/// How many attempts the log has, over new connections and over those that were used before.
fn attempts(stack: &Stack) -> (usize, usize) {
    let log = stack.log(Agent::Mta);
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    (count("\"reused\":false"), count("\"reused\":true"))
}

#[tokio::test]
async fn one_connection_serves_until_the_configuration_changes() -> Result<()> {
    let mut stack = stack!().settings(PATIENT).start().await?;
    let mut peer = Peer::up(stack.peer_address(1)).await?;
    let mut client = stack.login("alice@demo.test").await?;
    for count in 1..=5 {
        send(&mut client, &format!("mail {count}")).await?;
        kept(&peer, count).await?;
    }
    ensure!(peer.connections() == 1, "{}", peer.connections());
    ensure!(attempts(&stack) == (1, 4), "{:?}", attempts(&stack));

    // What has nothing to do with it leaves it alone.
    stack.configure("mta", "[mta.inbound]\nmax_hops = 99\n")?;
    stack.reload(Agent::Mta).await?;
    send(&mut client, "after a reload").await?;
    kept(&peer, 6).await?;
    ensure!(peer.connections() == 1);

    stack.configure("mta", "[mta.outbound]\nhelo_name = \"other.demo.test\"\n")?;
    stack.reload(Agent::Mta).await?;
    wait_for("QUIT", async || (peer.farewells() == 1).then_some(())).await?;
    send(&mut client, "by another name").await?;
    kept(&peer, 7).await?;
    ensure!(peer.connections() == 2);

    // The host goes and comes again: the connection to it is no good, and the mail arrives nevertheless.
    peer.go_down();
    peer.go_up().await?;
    send(&mut client, "after the host came back").await?;
    kept(&peer, 8).await?;
    ensure!(peer.connections() == 3);

    // Killed with an idle connection, nothing is left over and nothing is sent twice.
    stack.wait_for_empty_queue().await?;
    stack.kill_nine(Agent::Mta).await?;
    stack.bring_up(&[Agent::Mta]).await?;
    send(&mut client, "after a kill").await?;
    kept(&peer, 9).await?;
    ensure!(peer.connections() == 4);
    stack.wait_for_empty_queue().await?;
    stack.terminate(Agent::Mta).await?;
    wait_for("QUIT", async || (peer.farewells() == 2).then_some(())).await?;
    ensure!(peer.kept().len() == 9);
    stack.end().await
}
