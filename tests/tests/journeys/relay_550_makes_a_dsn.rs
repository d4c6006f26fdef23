//! A foreign server says 550 to one recipient: the sender is told about that one, and the others get their mail.

use anyhow::{Result, ensure};
use postroad_tests::{Peer, Report, mail, stack, wait_for};

#[tokio::test]
async fn the_sender_is_told_once_and_only_about_the_refused() -> Result<()> {
    let stack = stack!().start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("gone@world.test", "550 5.1.1 no such user here");
    let mut client = stack.login("alice@demo.test").await?;
    let recipients = ["gone@world.test", "friend@world.test", "bob@demo.test"];
    client
        .deliver(
            "alice@demo.test",
            &recipients,
            &mail("three recipients", "a\r\n"),
        )
        .await?;

    let found = stack.wait_for_mails("alice@demo.test", 1).await?.remove(0);
    let report = Report::parse(&found.content)?;
    ensure!(report.to == "alice@demo.test", "{report:#?}");
    ensure!(
        report.mail["reporting-mta"] == "dns; mx.demo.test",
        "{report:#?}"
    );
    ensure!(report.mail.contains_key("arrival-date"), "{report:#?}");
    ensure!(report.recipients.len() == 1, "{report:#?}");
    let gone = report.about("gone@world.test")?;
    for (field, value) in [
        ("action", "failed"),
        ("status", "5.1.1"),
        ("diagnostic-code", "smtp; 550 5.1.1 no such user here"),
        ("remote-mta", "dns; mx1.world.test"),
    ] {
        ensure!(
            gone.get(field).map(String::as_str) == Some(value),
            "{field}: {gone:#?}"
        );
    }
    for word in ["gone@world.test", "no such user here"] {
        ensure!(
            report.text.contains(word),
            "{word:?} is not in {}",
            report.text
        );
    }
    ensure!(
        report.returned.contains("Subject: three recipients"),
        "{report:#?}"
    );
    ensure!(!report.returned.contains("Return-Path"), "{report:#?}");

    let kept = wait_for("relayed mail", async || peer.kept().pop()).await?;
    ensure!(kept.to == ["friend@world.test"], "{kept:?}");
    stack.wait_for_mails("bob@demo.test", 1).await?;
    ensure!(peer.kept().len() == 1 && stack.delivered("alice@demo.test")?.len() == 1);
    stack.end().await
}

/// RFC 5321 §4.5.5: a mail with the null path is never answered.
#[tokio::test]
async fn a_report_that_fails_is_not_reported() -> Result<()> {
    let alias = "[[alias]]\naddress = \"abroad@demo.test\"\nto = [\"gone@world.test\"]\n";
    let stack = stack!().directory(alias).start().await?;
    let peer = Peer::up(stack.peer_address(1)).await?;
    peer.answer("*", "550 5.7.1 not wanted");
    let mut world = stack.world_client().await?;
    world
        .deliver("", &["abroad@demo.test"], &mail("from nobody", "a\r\n"))
        .await?;
    stack.wait_for_empty_queue().await?;
    ensure!(peer.attempts() == 1, "{} attempts", peer.attempts());
    for account in ["alice@demo.test", "bob@demo.test", "carol@demo.test"] {
        ensure!(stack.delivered(account)?.is_empty(), "{account} was told");
    }
    stack.end().await
}
