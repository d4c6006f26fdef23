//! The world may write to our domains, and only to them.

use anyhow::{Result, ensure};
use postroad_tests::{is_same_mail, mail, stack};

#[tokio::test]
async fn strangers_reach_our_people_and_nobody_else() -> Result<()> {
    let stack = stack!().start().await?;
    let mut world = stack.world_client().await?;
    world.expect("MAIL FROM:<friend@world.test>", "250").await?;
    world
        .expect("RCPT TO:<nobody@demo.test>", "550 5.1.1")
        .await?;
    world
        .expect("RCPT TO:<friend@world.test>", "550 5.7.1")
        .await?;
    world.expect("RCPT TO:<bob@demo.test>", "250").await?;
    world.expect("RSET", "250").await?;
    // RFC 5321 §4.5.1.
    world.expect("MAIL FROM:<friend@world.test>", "250").await?;
    world.expect("RCPT TO:<postmaster>", "250").await?;
    world.expect("RSET", "250").await?;

    let sent = mail("from the world", "a\r\n");
    world
        .deliver("friend@world.test", &["bob@demo.test"], &sent)
        .await?;
    let found = stack.wait_for_mails("bob@demo.test", 1).await?.remove(0);
    ensure!(is_same_mail(&sent, &found.content), "{}", found.text());
    let text = found.text().replace("\n\t", " ").replace("\n ", " ");
    for part in [
        "Return-Path: <friend@world.test>\n",
        "Received: from mx.world.test (client.test [127.0.0.1])",
        " by mx.demo.test (Postroad) with ESMTP id ",
        " for <bob@demo.test>;",
    ] {
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }

    // RFC 3207 and RFC 3848.
    let secure = postroad_tests::Client::connect(stack.ports.smtp()).await?.0;
    let mut secure = secure.starttls(&stack.ca_file()).await?;
    secure
        .deliver(
            "friend@world.test",
            &["bob@demo.test"],
            &mail("under TLS", "a\r\n"),
        )
        .await?;
    let found = stack
        .wait_for_mail_with("bob@demo.test", "Subject: under TLS")
        .await?;
    ensure!(found.contains("with ESMTPS\n\tid "), "{}", found.text());
    stack.end().await
}

#[tokio::test]
async fn submission_wants_tls_a_login_and_an_address_of_the_account() -> Result<()> {
    let stack = stack!().start().await?;
    let (mut plain, _) = postroad_tests::Client::connect(stack.ports.submission()).await?;
    let offered = plain.expect("EHLO client.test", "250").await?;
    ensure!(!offered.contains("AUTH"), "{offered}");
    plain.expect("AUTH PLAIN AGFsaWNlAGE=", "5").await?;
    plain
        .expect("MAIL FROM:<alice@demo.test>", "530 5.7.0")
        .await?;

    let mut secure = plain.starttls(&stack.ca_file()).await?;
    secure
        .expect("MAIL FROM:<alice@demo.test>", "530 5.7.0")
        .await?;
    secure
        .expect("AUTH PLAIN AGFsaWNlQGRlbW8udGVzdAB3cm9uZw==", "535 5.7.8")
        .await?;

    let mut alice = stack.login("alice@demo.test").await?;
    alice.expect("MAIL FROM:<bob@demo.test>", "5").await?;
    alice.expect("MAIL FROM:<friend@world.test>", "5").await?;
    alice.expect("MAIL FROM:<alice@demo.test>", "250").await?;
    alice.expect("RSET", "250").await?;
    stack.end().await
}
