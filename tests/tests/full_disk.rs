//! With less room than the reserve new mail gets 452 4.3.1, while what is in the queue goes on.

use anyhow::{Result, ensure};
use postroad_tests::{Agent, Peer, mail, stack, wait_for};

#[tokio::test]
async fn new_mail_waits_and_old_mail_leaves() -> Result<()> {
    let mut stack = stack!().start().await?;
    let mut peer = Peer::down(stack.peer_address(1));
    let mut client = stack.login("alice@demo.test").await?;
    client
        .deliver(
            "alice@demo.test",
            &["friend@world.test"],
            &mail("old", "a\r\n"),
        )
        .await?;

    stack.configure("50-disk", "[queued.disk]\nreserve = \"1000TiB\"\n")?;
    stack.restart(Agent::Queued).await?;
    let refused = mail("refused", "a\r\n");
    let full = stack
        .submit_while("451 4.3.0", "bob@demo.test", &refused)
        .await?;
    ensure!(full.starts_with("452 4.3.1"), "{full}");
    peer.go_up().await?;
    wait_for("the old mail", async || peer.kept().pop()).await?;
    stack.wait_for_empty_queue().await?;
    let mut world = stack.world_client().await?;
    let reply = world
        .attempt(
            "a@world.test",
            &["bob@demo.test"],
            &mail("refused", "a\r\n"),
        )
        .await?;
    ensure!(reply.starts_with("452 4.3.1"), "{reply}");

    stack.configure("50-disk", "")?;
    stack.restart(Agent::Queued).await?;
    let welcome = mail("welcome", "a\r\n");
    let reply = stack.submit_while("45", "bob@demo.test", &welcome).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let mails = stack.wait_for_mails("bob@demo.test", 1).await?;
    ensure!(
        mails.len() == 1 && mails[0].contains("Subject: welcome"),
        "{mails:?}"
    );
    stack.end().await
}
