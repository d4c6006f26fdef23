//! SIGTERM: what was begun is finished, who only waits is told 421, and nothing is lost.

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Client, Peer, mail, stack, wait_for};

#[tokio::test]
async fn a_mail_under_way_is_taken_and_idle_clients_are_told() -> Result<()> {
    // However long this machine stands still meanwhile.
    let settings = "[common]\nshutdown_grace = \"1h\"\n[msa.limits]\ngrace = \"1h\"\n";
    let mut stack = stack!().settings(settings).start().await?;
    let mut idle = stack.login("alice@demo.test").await?;
    let mut busy = stack.login("alice@demo.test").await?;
    busy.expect("MAIL FROM:<alice@demo.test>", "250").await?;
    busy.expect("RCPT TO:<bob@demo.test>", "250").await?;
    busy.expect("DATA", "354").await?;
    busy.write(b"Subject: under way\r\n\r\nfirst\r\n").await?;

    stack.ask_to_stop(Agent::Msa)?;
    let told = idle.last_words().await?;
    ensure!(
        matches!(&told[..], [word] if word.starts_with("421")),
        "{told:?}"
    );
    wait_for("closed port", async || {
        Client::connect(stack.ports.submission()).await.err()
    })
    .await?;

    busy.write(b"second\r\n.\r\n").await?;
    let reply = busy.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let status = stack.status(Agent::Msa).await?;
    ensure!(status == 0, "status {status}");
    let found = stack.wait_for_mails("bob@demo.test", 1).await?.remove(0);
    ensure!(found.body() == b"first\nsecond\n", "{}", found.text());
    stack.end().await
}

/// A client that never finishes does not keep the process longer than the grace period.
#[tokio::test]
async fn a_client_that_stalls_is_left_when_the_grace_is_over() -> Result<()> {
    let settings = "[common]\nshutdown_grace = \"2s\"\n[mta.inbound.limits]\ngrace = \"1s\"\n";
    let mut stack = stack!().settings(settings).start().await?;
    let mut world = stack.world_client().await?;
    world.expect("MAIL FROM:<friend@world.test>", "250").await?;
    world.expect("RCPT TO:<bob@demo.test>", "250").await?;
    world.expect("DATA", "354").await?;
    world.write(b"Subject: half\r\n\r\nfirst\r\n").await?;
    ensure!(
        stack.terminate(Agent::Mta).await? == 0,
        "the MTA ended badly"
    );
    stack.wait_for_empty_queue().await?;
    ensure!(
        stack.delivered("bob@demo.test")?.is_empty(),
        "half a mail was taken for a whole one"
    );
    stack.end().await
}

/// Leases are handed back: nobody waits for a worker that has gone in peace.
#[tokio::test]
async fn mail_in_the_hands_of_a_worker_goes_to_the_next() -> Result<()> {
    let mut stack = stack!()
        .settings("[queued.lease]\nstream_grace = \"1h\"\n")
        .start()
        .await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("*", "450 4.2.1 later");
    let mut client = stack.login("alice@demo.test").await?;
    for number in 0..10 {
        let content = mail(&format!("relayed {number}"), "a\r\n");
        client
            .deliver("alice@demo.test", &["friend@world.test"], &content)
            .await?;
    }
    wait_for("attempts", async || (peer.attempts() >= 10).then_some(())).await?;
    stack.restart(Agent::Mta).await?;
    peer.welcome_all();
    wait_for("10 relayed mails", async || {
        (peer.kept().len() >= 10).then_some(())
    })
    .await?;
    stack.wait_for_empty_queue().await?;
    ensure!(
        peer.kept().len() == 10,
        "{} mails at the peer",
        peer.kept().len()
    );
    stack.end().await
}
