//! How much an account may send.

use super::*;

#[tokio::test]
async fn an_account_writes_to_so_many_and_is_told_when_it_may_again() {
    let agent = Agent::with(|config| {
        config.sending.recipients_per_hour = 3;
        config.sending.recipients_per_day = 100;
    })
    .await;
    let mut client = agent.alice().await;
    let content = "Subject: hello\r\n\r\n";
    let two = ["team@example.org", "x@elsewhere.example"];
    let reply = send(&mut client, &two, content).await;
    assert!(reply.starts_with("250"), "{reply}");
    let refused = async |client: &mut Client, to: &[&str], says: &str| {
        client.expect("MAIL FROM:<alice@example.org>", "250").await;
        for to in to {
            client.expect(&format!("RCPT TO:<{to}>"), "250").await;
        }
        client.expect("DATA", says).await;
        client.expect("RSET", "250").await;
    };
    let later = "450 4.7.1 alice@example.org has written to 2 of 3 recipients in an hour, and this mail has 2; try again in 6";
    refused(&mut client, &two, later).await;
    let many = ["a@x.example", "b@x.example", "c@x.example", "d@x.example"];
    let never =
        "550 5.7.1 alice@example.org may write to 3 recipients in an hour, and this mail has 4";
    refused(&mut client, &many, never).await;
    let reply = send(&mut client, &two[..1], content).await;
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(agent.queue.mails().len(), 2);
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn an_account_sends_so_many_mails_and_octets_and_only_what_was_taken_counts() {
    let agent = Agent::with(|config| {
        config.sending.mails_per_day = 2;
        config.sending.bytes_per_hour = ByteSize::bytes(1000);
        config.sending.accounts = vec![NamedLimit {
            name: "alice@example.org".to_owned(),
            size_limit: Some(ByteSize::bytes(800)),
            ..NamedLimit::default()
        }];
    })
    .await;
    let mut client = agent.alice().await;
    let announced = |size: u32| format!("MAIL FROM:<alice@example.org> SIZE={size}");
    client
        .expect(
            &announced(900),
            "552 5.3.4 the mail is larger than 800 octets",
        )
        .await;
    let to = ["x@elsewhere.example"];
    let content = |octets: usize| format!("Subject: x\r\n\r\n{}\r\n", "a".repeat(octets - 18));
    // Larger than the account's, though nobody said so before.
    let reply = send(&mut client, &to, &content(850)).await;
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    let reply = send(&mut client, &to, &content(700)).await;
    assert!(reply.starts_with("250"), "{reply}");
    let full = "450 4.7.1 alice@example.org has sent 700 octets of 1000 octets in an hour, and this mail has 400 octets; try again in ";
    client.expect(&announced(400), "250").await;
    client.expect("RCPT TO:<x@elsewhere.example>", "250").await;
    client.expect("DATA", full).await;
    client.expect("RSET", "250").await;
    // The same of one that does not say how large it is, and that takes up no room.
    for _ in 0..2 {
        let reply = send(&mut client, &to, &content(400)).await;
        assert!(reply.starts_with(full), "{reply}");
    }
    let reply = send(&mut client, &to, &content(200)).await;
    assert!(reply.starts_with("250"), "{reply}");
    client.expect("MAIL FROM:<alice@example.org>", "250").await;
    client.expect("RCPT TO:<x@elsewhere.example>", "250").await;
    let says = "450 4.7.1 alice@example.org has sent 2 of 2 mails in a day; try again in ";
    client.expect("DATA", says).await;
    assert_eq!(agent.queue.mails().len(), 2);
    drop(client);
    agent.stop().await;
}
