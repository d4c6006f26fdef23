//! A foreign server that is down, or says 4xx, gets the mail later.

use anyhow::{Result, ensure};
use postroad_tests::{Peer, is_same_mail, mail, stack, wait_for};

#[tokio::test]
async fn mail_waits_for_a_server_that_says_451_or_is_down() -> Result<()> {
    let stack = stack!().start().await?;
    let mut peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("*", "451 4.7.1 greylisted");
    let mut client = stack.login("alice@demo.test").await?;
    let sent = mail("greylisted", ".dot\r\n");
    client
        .deliver("alice@demo.test", &["friend@world.test"], &sent)
        .await?;
    wait_for("second attempt", async || {
        (peer.attempts() >= 2).then_some(())
    })
    .await?;
    ensure!(peer.kept().is_empty());

    peer.welcome_all();
    let kept = wait_for("relayed mail", async || peer.kept().pop()).await?;
    ensure!(
        kept.from == "alice@demo.test" && kept.to == ["friend@world.test"],
        "{kept:?}"
    );
    ensure!(
        kept.content.ends_with(&sent),
        "{:?}",
        String::from_utf8_lossy(&kept.content)
    );

    peer.go_down();
    let sent = mail("down", "a\r\n");
    client
        .deliver("alice@demo.test", &["friend@world.test"], &sent)
        .await?;
    wait_for("failed attempt", async || {
        stack
            .log(postroad_tests::Agent::Mta)
            .contains("refused")
            .then_some(())
    })
    .await?;
    peer.go_up().await?;
    wait_for("mail after the server came up", async || {
        (peer.kept().len() == 2).then_some(())
    })
    .await?;
    ensure!(
        stack.delivered("alice@demo.test")?.is_empty(),
        "a delay was reported"
    );
    ensure!(is_same_mail(
        &sent,
        &postroad_tests::unwired(&peer.kept()[1].content)
    ));
    stack.end().await
}
