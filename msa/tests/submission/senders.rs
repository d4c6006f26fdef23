//! Whom a mail may be from.

use super::*;

#[tokio::test]
async fn a_mail_is_from_whom_it_says() {
    let agent = Agent::with(|config| {
        let open = ListenerConfig {
            from: Some(FromRule::Any),
            hide_client: Some(true),
            undo: Some(Interval::seconds(30)),
            ..ListenerConfig::from("127.0.0.1:0".parse::<ListenAddr>().unwrap())
        };
        config.listeners.insert("open".to_owned(), open);
    })
    .await;
    let mut client = agent.alice().await;
    let to = ["x@elsewhere.example"];
    for (header, reply) in [
        ("From: Alice <ALICE@example.org>", "250"),
        (
            "From: \"Example, Alice\" <alice+tag@example.org>, sales@example.org",
            "250",
        ),
        (
            "From: us: alice@example.org;\r\nSender: sales@example.org",
            "250",
        ),
        (
            "From: bob@example.org",
            "550 5.7.1 alice@example.org may not send as bob@example.org, which is in the field From",
        ),
        (
            "From: alice@example.org, Boss <ceo@elsewhere.example>",
            "550 5.7.1 alice@example.org may not send as ceo@elsewhere.example",
        ),
        (
            "From: alice@example.org\r\nSender: bob@example.org",
            "550 5.7.1 alice@example.org may not send as bob@example.org, which is in the field Sender",
        ),
        (
            "Resent-From: bob@example.org\r\nFrom: alice@example.org",
            "550 5.7.1 alice@example.org may not send as bob@example.org, which is in the field Resent-From",
        ),
        (
            "From: alice@example.org\r\nfrom : bob@example.org",
            "554 5.6.0 the mail has 2 From fields",
        ),
        (
            "From: alice@example.org <bob@example.org>",
            "554 5.6.0 From cannot be understood at",
        ),
        (
            "From: alice",
            "554 5.6.0 From has \"alice\", which is no address",
        ),
    ] {
        let said = send(&mut client, &to, &format!("{header}\r\n\r\nhi\r\n")).await;
        assert!(said.starts_with(reply), "{header}: {said}");
    }
    let edits = |at: usize| {
        let mail = &agent.queue.mails()[at];
        let added = mail
            .envelope
            .header_edits
            .iter()
            .filter_map(|edit| match edit {
                HeaderEdit::Add { field, .. } => Some(String::from_utf8(field.clone()).unwrap()),
                HeaderEdit::Remove { .. } => None,
            });
        added.collect::<String>()
    };
    assert!(
        !edits(0).contains("From:") && !edits(0).contains("Sender:"),
        "{}",
        edits(0)
    );
    assert!(
        edits(1).contains("Sender: alice@example.org\r\n"),
        "{}",
        edits(1)
    );
    let reply = send(&mut client, &to, "Subject: nobody\r\n\r\nhi\r\n").await;
    assert!(reply.starts_with("250"), "{reply}");
    assert!(
        edits(3).contains("From: alice@example.org\r\n"),
        "{}",
        edits(3)
    );
    assert!(edits(3).contains("127.0.0.1"), "{}", edits(3));
    assert_eq!(agent.queue.mails()[3].envelope.not_before, None);

    // A listener with rules of its own.
    let mut open = agent.alice_at(agent.others[0]).await;
    let reply = send(
        &mut open,
        &to,
        "From: anybody@elsewhere.example\r\n\r\nhi\r\n",
    )
    .await;
    assert!(
        reply.starts_with("250") && reply.contains("queued, rests until 20"),
        "{reply}"
    );
    let received = edits(4);
    assert!(
        received.contains("from open (client not shown)"),
        "{received}"
    );
    assert!(!received.contains("127.0.0.1"), "{received}");
    let envelope = &agent.queue.mails()[4].envelope;
    assert_eq!(envelope.listener, "open");
    assert!(
        envelope.origin.client.is_some(),
        "our own log and queue know it"
    );
    assert!(
        envelope
            .not_before
            .is_some_and(|at| at > envelope.received_at)
    );
    drop((client, open));
    agent.stop().await;
}

#[tokio::test]
async fn nobody_acts_as_somebody_else() {
    let agent = Agent::start().await;
    let mut client = agent.client().await;
    let other = STANDARD.encode("bob@example.org\0alice@example.org\0secret");
    client
        .expect(&format!("AUTH PLAIN {other}"), "535 5.7.8")
        .await;
    let itself = STANDARD.encode("ALICE@example.org\0alice@example.org\0secret");
    client.expect(&format!("AUTH PLAIN {itself}"), "235").await;
    for (sender, reply) in [
        ("bob@example.org", "550 5.7.1"),
        ("alice@elsewhere.example", "550 5.7.1"),
        ("team@example.org", "550 5.7.1"),
        ("sales@example.org", "250"),
        ("alice+tag@example.org", "250"),
        ("", "250"),
    ] {
        client.expect(&format!("MAIL FROM:<{sender}>"), reply).await;
        client.ask("RSET").await;
    }
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn an_account_that_is_taken_away_sends_no_more() {
    let agent = Agent::start().await;
    let mut client = agent.alice().await;
    let without = DIRECTORY.replace("may_send_as", "disabled = true\nmay_send_as");
    write_private(&agent.folder.path().join("directory.toml"), &without);
    agent.directory.reload().unwrap();
    client
        .expect("MAIL FROM:<alice@example.org>", "550 5.7.1")
        .await;
    drop(client);
    agent.stop().await;
}
