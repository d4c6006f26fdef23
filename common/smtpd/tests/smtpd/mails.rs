//! Mails through a real socket into a queue in memory.

mod endings;
mod neighbours;

use std::time::Duration;

use crate::fakes::MemoryQueue;
use crate::server::{Client, Server};
use postroad_address::Domain;
use postroad_envelope::{BULK_PRIORITY, HeaderEdit, Protocol};
use postroad_net::Networks;
use postroad_queue_client::QueueError;
use postroad_sasl::Mechanism;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::SmtpdConfig;
use tokio::io::AsyncWriteExt;

const GRACE: Duration = Duration::from_secs(20);

fn config() -> SmtpdConfig {
    let name = Domain::parse("mx.example").unwrap();
    SmtpdConfig::new("test", ServerConfig::new(name, Flavour::Smtp))
}

fn start(queue: MemoryQueue) -> Server {
    Server::start(config(), queue, GRACE)
}

async fn greeted(server: &Server) -> Client {
    let mut client = server.connect().await;
    assert_eq!(client.reply().await, "220 mx.example ESMTP Postroad");
    client
}

#[tokio::test]
async fn what_mail_asks_for_is_in_the_envelope_as_far_as_it_is_granted() {
    let mut config = config();
    config.session.offers.future_release = Some(Duration::from_secs(86_400));
    config.session.offers.mt_priority = Some(2);
    config.session.offers.deliver_by = Some(0);
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = greeted(&server).await;
    client.say("EHLO client.example").await;
    let mail = "MAIL FROM:<a@client.example> HOLDFOR=3600 MT-PRIORITY=5 BY=7200;RT";
    let said = client.say(mail).await;
    assert!(said.starts_with("250 2.3.6 "), "{said}");
    client.say("RCPT TO:<b@mx.example>").await;
    client.say("DATA").await;
    let said = client.say("Precedence: bulk\r\n\r\nx\r\n.").await;
    assert!(said.starts_with("250 2.0.0 "), "{said}");
    let [mail] = &server.mails()[..] else {
        panic!("one mail")
    };
    let (envelope, second) = (&mail.envelope, Duration::from_secs(1));
    assert_eq!(envelope.priority, 2);
    let rests = envelope.not_before.unwrap().since(envelope.received_at);
    assert_eq!(rests, 3600 * second);
    let by = envelope.deliver_by.unwrap();
    // From MAIL on, however long the content takes.
    let said_at = envelope.queue_id.minted_at();
    assert_eq!(by.at.since(said_at), 7200 * second);
    assert!(by.return_after && by.trace);
}

#[tokio::test]
async fn the_envelope_says_all_and_the_content_is_what_was_sent() {
    let mut config = config();
    config.session.offers.starttls = true;
    config.session.offers.auth = Mechanism::PASSWORDS.to_vec();
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = greeted(&server).await;
    client.say("EHLO client.example").await;
    client.say("STARTTLS").await;
    client.start_tls().await;
    client.say("EHLO client.example").await;
    assert!(
        client
            .say("AUTH PLAIN AGJvYgBzZWNyZXQ=")
            .await
            .starts_with("235 ")
    );
    client
        .say("MAIL FROM:<a@client.example> BODY=8BITMIME RET=HDRS ENVID=e1")
        .await;
    client.say("RCPT TO:<all@mx.example> NOTIFY=NEVER").await;
    client.say("RCPT TO:<c@mx.example>").await;
    client.say("DATA").await;
    client
        .send(b"Received: x\r\nMessage-ID: <1@c.example>\r\n\r\n..dot\r\n\xff\r\n.\r\n")
        .await;
    let reply = client.reply().await;

    let [mail] = &server.mails()[..] else {
        panic!("one mail")
    };
    let envelope = &mail.envelope;
    assert_eq!(reply, format!("250 2.0.0 {} queued", envelope.queue_id));
    assert_eq!(
        mail.content,
        &b"Received: x\r\nMessage-ID: <1@c.example>\r\n\r\n.dot\r\n\xff\r\n"[..]
    );
    let recipients: Vec<_> = envelope
        .recipients
        .iter()
        .map(|r| (r.index.0, r.address.to_string()))
        .collect();
    assert_eq!(
        recipients,
        [
            (0, "b@mx.example".to_owned()),
            (1, "c@MX.example".to_owned())
        ]
    );
    assert_eq!(
        envelope.recipients[1]
            .original
            .as_ref()
            .unwrap()
            .to_string(),
        "all@mx.example"
    );
    assert_eq!(
        (envelope.hop_count, envelope.account.as_deref()),
        (1, Some("bob"))
    );
    assert_eq!(envelope.facts["message_id"], "<1@c.example>");
    assert_eq!(envelope.envid.as_deref(), Some("e1"));
    assert_eq!(
        envelope.origin.protocol,
        Protocol::Esmtp {
            tls: true,
            auth: true,
            utf8: false
        }
    );
    let fields: Vec<String> = envelope
        .header_edits
        .iter()
        .map(|edit| match edit {
            HeaderEdit::Add { field, .. } => String::from_utf8(field.clone()).unwrap(),
            HeaderEdit::Remove { .. } => panic!(),
        })
        .collect();
    assert!(
        fields[0].starts_with(
            "Received: from client.example (client.example [127.0.0.1])\r\n\t(TLS1.3 "
        )
    );
    assert!(fields[0].contains("with ESMTPSA") && !fields[0].contains("for <"));
    assert_eq!(fields[1], "Date: now\r\n");
}

#[tokio::test]
async fn mail_for_many_is_bulk() {
    let server = start(MemoryQueue::default());
    let mut client = greeted(&server).await;
    for (field, priority) in [("List-Id: <l.test>", BULK_PRIORITY), ("Subject: hello", 0)] {
        client.begin("b@mx.example").await;
        client
            .send(format!("{field}\r\n\r\nbody\r\n.\r\n").as_bytes())
            .await;
        assert!(client.reply().await.starts_with("250 2.0.0 "));
        assert_eq!(
            server.mails().last().unwrap().envelope.priority,
            priority,
            "{field}"
        );
    }
}

#[tokio::test]
async fn headers_bodies_and_nothing() {
    let server = start(MemoryQueue::default());
    let mut client = greeted(&server).await;
    let long = format!("Subject: x\r\n\r\n{}", "..dots\r\n".repeat(40_000));
    for content in [
        "",
        "\r\n",
        "no header at all\r\n",
        "Subject: only\r\n",
        "\r\nbody\r\n",
        &long,
    ] {
        client.begin("b@mx.example").await;
        client.send(format!("{content}.\r\n").as_bytes()).await;
        assert!(
            client.reply().await.starts_with("250 2.0.0 "),
            "{content:?}"
        );
        let stored = server.mails().last().unwrap().content.clone();
        assert_eq!(stored, content.replace("..dots", ".dots").as_bytes());
    }
}

#[tokio::test]
async fn two_hundred_recipients_in_one_packet() {
    let server = start(MemoryQueue::default());
    let mut client = greeted(&server).await;
    let mut packet = "EHLO c.example\r\nMAIL FROM:<a@client.example>\r\n".to_owned();
    (0..200).for_each(|index| packet.push_str(&format!("RCPT TO:<u{index}@mx.example>\r\n")));
    client.send(format!("{packet}DATA\r\n").as_bytes()).await;
    while !client.reply().await.starts_with("354 ") {}
    client.send(b"x: y\r\n.\r\n").await;
    assert!(client.reply().await.starts_with("250 2.0.0 "));
    let recipients = &server.mails()[0].envelope.recipients;
    assert_eq!(recipients.len(), 200);
    assert!(
        recipients
            .iter()
            .zip(0..)
            .all(|(recipient, index)| recipient.index.0 == index)
    );
}

#[tokio::test]
async fn twenty_five_mebibytes_wait_for_a_slow_queue() {
    let server = start(MemoryQueue::closed_gate());
    let mut client = greeted(&server).await;
    client.begin("b@mx.example").await;
    let body =
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(400 << 10);
    assert!(body.len() >= 25 << 20);
    let mut content = b"Subject: large\r\n\r\n".to_vec();
    content.extend_from_slice(&body);
    let mut stream = client.stream.take().unwrap();
    let wire = content.clone();
    let mut writing = tokio::spawn(async move {
        stream.write_all(&wire).await.unwrap();
        stream.write_all(b".\r\n").await.unwrap();
        stream
    });
    tokio::select! {
        biased;
        _ = &mut writing => panic!("25 MiB were taken while the queue took nothing"),
        () = server.queue_saw(|counts| counts.chunks == 1) => {}
    }
    server.queue.gate.add_permits(10_000);
    client.stream = Some(writing.await.unwrap());
    assert!(client.reply().await.starts_with("250 2.0.0 "));
    assert!(server.mails()[0].content == content);
}
