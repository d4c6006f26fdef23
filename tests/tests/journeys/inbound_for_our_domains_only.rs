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

/// Ways in which relays were opened: source routes, routes in local parts, literals, names that are nearly ours, several addresses.
const TRICKS: [&str; 46] = [
    "<eve@world.test>",
    "<eve@WORLD.TEST>",
    "<\"eve\"@world.test>",
    "<@demo.test:eve@world.test>",
    "<@world.test,@demo.test:eve@world.test>",
    "<@demo.test,@demo.test:eve@world.test>",
    "<@mx.demo.test:eve@world.test>",
    "<eve%world.test@demo.test>",
    "<eve%world.test%demo.test@demo.test>",
    "<eve%world.test@[127.0.0.1]>",
    "<\"eve%world.test\"@demo.test>",
    "<world.test!eve@demo.test>",
    "<demo.test!world.test!eve>",
    "<\"world.test!eve\"@demo.test>",
    "<\"eve@world.test\"@demo.test>",
    "<\"eve\\@world.test\"@demo.test>",
    "<\"@world.test:eve\"@demo.test>",
    "<eve@world.test@demo.test>",
    "<eve\\@world.test@demo.test>",
    "<eve@[127.0.0.1]>",
    "<eve@[127.0.1.1]>",
    "<eve@[192.0.2.1]>",
    "<eve@[IPv6:::1]>",
    "<alice@[127.0.0.1]>",
    "<eve@127.0.0.1>",
    "<eve@127.1>",
    "<eve@localhost>",
    "<eve>",
    "<@demo.test>",
    "<eve@>",
    "<eve@world.test.>",
    "<eve@demo.test.world.test>",
    "<eve@sub.demo.test>",
    "<eve@demo.testx>",
    "<eve@xdemo.test>",
    "<eve@demo.test>",
    "<eve@d%65mo.test>",
    "<alice@demo.test>,<eve@world.test>",
    "<alice@demo.test><eve@world.test>",
    "<alice@demo.test,eve@world.test>",
    "alice@demo.test,eve@world.test",
    "<alice(comment)@demo.test@world.test>",
    "<postmaster@world.test>",
    "<|/bin/sh@demo.test>",
    "</etc/passwd@demo.test>",
    "<:include:/etc/passwd@demo.test>",
];

#[tokio::test]
async fn no_trick_with_an_address_opens_a_relay() -> Result<()> {
    let stack = stack!().start().await?;
    for trick in TRICKS {
        // One for each, since too many mistakes end a conversation.
        let mut world = stack.world_client().await?;
        world.expect("MAIL FROM:<friend@world.test>", "250").await?;
        world.expect(&format!("RCPT TO:{trick}"), "5").await?;
        // And a parameter or a second sender changes nothing about it.
        world
            .expect(&format!("RCPT TO:{trick} NOTIFY=NEVER"), "5")
            .await?;
        world.expect("DATA", "503").await?;

        let (client, _) = postroad_tests::Client::connect(stack.ports.submission()).await?;
        let mut client = client.starttls(&stack.ca_file()).await?;
        client
            .expect("MAIL FROM:<alice@demo.test>", "530 5.7.0")
            .await?;
        client.expect(&format!("RCPT TO:{trick}"), "50").await?;
    }
    stack.end().await
}
