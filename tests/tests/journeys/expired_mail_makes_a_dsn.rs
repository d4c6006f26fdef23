//! Mail that cannot be handed over for too long goes back to its sender.

use anyhow::{Result, ensure};
use postroad_tests::{Peer, Report, mail, stack};

#[tokio::test]
async fn the_sender_is_told_what_was_tried_last() -> Result<()> {
    let stack = stack!()
        .settings("[queued.retry]\ngive_up_after = \"3s\"\n")
        .start()
        .await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("*", "450 4.2.1 mailbox is busy");
    let mut client = stack.login("alice@demo.test").await?;
    client
        .deliver(
            "alice@demo.test",
            &["busy@world.test"],
            &mail("never arrives", "a\r\n"),
        )
        .await?;

    let found = stack.wait_for_mails("alice@demo.test", 1).await?.remove(0);
    let report = Report::parse(&found.content)?;
    let busy = report.about("busy@world.test")?;
    ensure!(busy["action"] == "failed", "{busy:#?}");
    // RFC 3463 §3.5 X.4.7, or the last reply made permanent; never a class 4 status for a failure.
    ensure!(busy["status"].starts_with("5."), "{busy:#?}");
    ensure!(
        busy.get("diagnostic-code")
            .is_some_and(|code| code.contains("mailbox is busy")),
        "{busy:#?}"
    );
    ensure!(peer.attempts() >= 2, "only {} attempts", peer.attempts());
    ensure!(peer.kept().is_empty());
    stack.end().await
}
