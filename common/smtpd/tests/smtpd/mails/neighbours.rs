//! Who speaks too soon, and who says whom it speaks for.

use super::*;

#[tokio::test]
async fn who_speaks_before_the_greeting_is_sent_away() {
    let mut config = config();
    // Ends as soon as something comes.
    config.greeting_delay = Duration::from_secs(30);
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = server.connect().await;
    client.send(b"EHLO client.example\r\n").await;
    let said = client.reply().await;
    assert!(said.starts_with("554 5.5.1 you spoke"), "{said}");
}

#[tokio::test]
async fn a_listed_neighbour_tells_who_its_client_is_for_each_mail() {
    let mut config = config();
    config.xforward_networks = Networks::parse(["127.0.0.0/8"]).unwrap();
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = greeted(&server).await;
    client.say("EHLO front.example").await;
    let told = [
        "XFORWARD NAME=client.example ADDR=192.0.2.7 PORT=40021",
        "XFORWARD PROTO=ESMTP HELO=hello.example IDENT=4Sh0Wk2Z1lz5 SOURCE=REMOTE",
    ];
    for line in told {
        assert_eq!(client.say(line).await, "250 2.0.0 forwarded");
    }
    client.mail().await;
    client.say("XFORWARD ADDR=IPV6:2001:db8::7").await;
    client.mail().await;
    client.mail().await;

    let [all, address, own] = &server.mails()[..] else {
        panic!("three mails")
    };
    let (origin, peer) = (&all.envelope.origin, own.envelope.origin.client.unwrap());
    assert_eq!(origin.client, Some("192.0.2.7:40021".parse().unwrap()));
    assert_eq!(origin.rdns.as_deref(), Some("client.example"));
    assert_eq!(origin.helo.as_deref(), Some("hello.example"));
    assert_eq!(origin.peer, Some(peer));
    assert_eq!(all.envelope.facts["peer_queue_id"], "4Sh0Wk2Z1lz5");
    assert_eq!(all.envelope.facts["client_protocol"], "ESMTP");
    // Ours is from whom we had it.
    let HeaderEdit::Add { field, .. } = &all.envelope.header_edits[0] else {
        panic!("{:?}", all.envelope.header_edits)
    };
    let field = String::from_utf8_lossy(field);
    let start = "Received: from front.example (client.example [127.0.0.1])\r\n\tby mx.example ";
    assert!(field.starts_with(start), "{field}");

    // What was not told is not known, and nothing is left of the mail before.
    let origin = &address.envelope.origin;
    assert_eq!(origin.client, Some("[2001:db8::7]:0".parse().unwrap()));
    assert_eq!((&origin.rdns, &origin.helo), (&None, &None));
    assert_eq!(origin.peer, Some(peer));
    assert!(!address.envelope.facts.contains_key("peer_queue_id"));
    let origin = &own.envelope.origin;
    assert_eq!(
        (origin.peer, origin.helo.as_deref()),
        (None, Some("front.example"))
    );
}

#[tokio::test]
async fn a_stranger_tells_nothing_and_a_neighbour_is_not_to_blame_for_its_clients() {
    let mut config = config();
    config.session.limits.refused_recipients = 3;
    let stranger = Server::start(config.clone(), MemoryQueue::default(), GRACE);
    config.xforward_networks = Networks::parse(["127.0.0.1"]).unwrap();
    let neighbour = Server::start(config, MemoryQueue::default(), GRACE);
    for (server, told, last) in [
        (&stranger, "550 5.7.1", "421 "),
        (&neighbour, "250 ", "550 "),
    ] {
        let mut client = greeted(server).await;
        client.say("EHLO front.example").await;
        assert!(client.say("XFORWARD NAME=a").await.starts_with(told));
        client.say("MAIL FROM:<a@client.example>").await;
        for _ in 0..2 {
            client.say("RCPT TO:<nobody@mx.example>").await;
        }
        client
            .send(b"RCPT TO:<nobody@mx.example>\r\nNOOP\r\n")
            .await;
        client.reply().await;
        let next = client.reply().await;
        assert_eq!(next.starts_with("421 "), last == "421 ", "{next}");
    }
}
