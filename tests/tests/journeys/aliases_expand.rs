//! Addresses that stand for others: lists, foreign addresses, catch-all, subaddresses, postmaster.

use anyhow::{Result, ensure};
use postroad_tests::{Peer, mail, stack, wait_for};

const DIRECTORY: &str = r#"
[[alias]]
address = "team@demo.test"
to = ["alice@demo.test", "inner@demo.test", "friend@world.test"]

[[alias]]
address = "inner@demo.test"
to = ["bob@demo.test", "alice@demo.test"]

[[alias]]
address = "circle@demo.test"
to = ["circle2@demo.test", "bob@demo.test"]

[[alias]]
address = "circle2@demo.test"
to = ["circle@demo.test"]

[[domain]]
name = "caught.test"
postmaster = "carol@demo.test"
catch_all = "bob@demo.test"
"#;

#[tokio::test]
async fn a_list_reaches_each_member_once_at_home_and_abroad() -> Result<()> {
    let stack = stack!().directory(DIRECTORY).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    let mut world = stack.world_client().await?;
    world
        .deliver(
            "friend@world.test",
            &["team@demo.test"],
            &mail("to the team", "a\r\n"),
        )
        .await?;
    let kept = wait_for("mail of the foreign member", async || peer.kept().pop()).await?;
    ensure!(
        kept.to == ["friend@world.test"] && kept.from == "friend@world.test",
        "{kept:?}"
    );
    for member in ["alice@demo.test", "bob@demo.test"] {
        stack.wait_for_mails(member, 1).await?;
    }

    for (number, (address, account)) in [
        ("whoever@caught.test", "bob@demo.test"),
        ("bob+lists@demo.test", "bob@demo.test"),
        ("BOB@DEMO.TEST", "bob@demo.test"),
        ("postmaster", "carol@demo.test"),
        ("postmaster@demo.test", "carol@demo.test"),
        ("abuse@caught.test", "carol@demo.test"),
    ]
    .into_iter()
    .enumerate()
    {
        let subject = format!("address {number}");
        world
            .deliver("friend@world.test", &[address], &mail(&subject, "a\r\n"))
            .await?;
        stack.wait_for_mail_with(account, &subject).await?;
    }
    for (account, count) in [
        ("alice@demo.test", 1),
        ("bob@demo.test", 4),
        ("carol@demo.test", 3),
    ] {
        let mails = stack.delivered(account)?;
        ensure!(
            mails.len() == count,
            "{account} has {} mails instead of {count}",
            mails.len()
        );
    }
    ensure!(peer.kept().len() == 1);
    stack.end().await
}
