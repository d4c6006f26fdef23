//! Mails through a real socket into a queue in memory.

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

#[tokio::test]
async fn half_a_mail_leaves_nothing() {
    let server = start(MemoryQueue::default());
    let mut client = greeted(&server).await;
    client.begin("b@mx.example").await;
    client.send(b"Subject: x\r\n\r\nhalf").await;
    server.queue_saw(|counts| counts.begun == 1).await;
    drop(client);
    server.queue_saw(|counts| counts.dropped == 1).await;
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn a_commit_outlives_its_conversation() {
    let server = Server::start(config(), MemoryQueue::closed_gate(), Duration::ZERO);
    let mut client = greeted(&server).await;
    client.begin("b@mx.example").await;
    client.send(b".\r\n").await;
    server.queue_saw(|counts| counts.finishing == 1).await;
    drop(client);
    server.shutdown.cancel();
    server.task.await.unwrap();
    assert!(server.queue.mails.lock().unwrap().is_empty());
    server.queue.gate.add_permits(1);
    server.smtpd.drain().await;
    assert_eq!(server.queue.mails.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_queue_says_is_what_the_client_hears() {
    let away = || Err(QueueError::Unavailable("away".into()));
    let cases = [
        (
            MemoryQueue {
                admit: away(),
                ..MemoryQueue::default()
            },
            "DATA",
            "451 4.3.0 ",
        ),
        (
            MemoryQueue {
                submit: away(),
                ..MemoryQueue::default()
            },
            "DATA\r\nx: y\r\n\r\n.",
            "451 4.3.0 ",
        ),
        (
            MemoryQueue {
                finish: Err(QueueError::Full("disk".into())),
                ..MemoryQueue::default()
            },
            "DATA\r\nx: y\r\n\r\n.",
            "452 4.3.1 ",
        ),
    ];
    for (queue, last, expected) in cases {
        let server = start(queue);
        let mut client = greeted(&server).await;
        client.say("HELO client.example").await;
        client.say("MAIL FROM:<a@client.example>").await;
        client.say("RCPT TO:<b@mx.example>").await;
        let mut reply = client.say(last).await;
        if reply.starts_with("354") {
            reply = client.reply().await;
        }
        assert!(reply.starts_with(expected), "{reply}");
        assert!(server.mails().is_empty());
        assert!(
            client.say("NOOP").await.starts_with("250 "),
            "the conversation goes on"
        );
    }
}

#[tokio::test]
async fn headers_that_are_refused() {
    let server = start(MemoryQueue::default());
    let mut client = greeted(&server).await;
    let cases = [
        (
            "X-Refuse: x\r\n\r\nbody\r\n".to_owned(),
            "550 5.6.0 not this",
        ),
        ("Received: x\r\n".repeat(51) + "\r\n", "554 5.4.6 "),
        (
            format!("X: {}\r\n", "x".repeat(990)).repeat(200),
            "552 5.3.4 ",
        ),
        ("Subject: x\r\n\r\nbare\n.\n\r\n".to_owned(), "550 5.6.0 "),
    ];
    for (content, expected) in cases {
        client.begin("b@mx.example").await;
        client.send(format!("{content}.\r\n").as_bytes()).await;
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn slow_clients_hear_421() {
    let mut config = config();
    config.timeouts.greeting = Duration::from_millis(200);
    config.timeouts.data = Duration::from_millis(200);
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = greeted(&server).await;
    client.send(b"NOO").await;
    assert!(client.reply().await.starts_with("421 4.4.2 "));
    assert_eq!(client.line().await, None);

    let mut client = greeted(&server).await;
    client.begin("b@mx.example").await;
    client.send(b"Subject: x\r\n\r\nbo").await;
    assert!(client.reply().await.starts_with("421 4.4.2 "));
    assert_eq!(client.line().await, None);
    server.queue_saw(|counts| counts.dropped == 1).await;
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn an_octet_now_and_then_does_not_hold_a_connection() {
    let mut config = config();
    config.timeouts.greeting = Duration::from_millis(300);
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = greeted(&server).await;
    let mut stream = client.stream.take().unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let end = tokio::time::Instant::now() + GRACE;
    while stream.write_all(b"x").await.is_ok() {
        assert!(tokio::time::Instant::now() < end, "still open");
        tick.tick().await;
    }
}

#[tokio::test]
async fn leaving_ends_what_was_begun_and_nothing_else() {
    let server = start(MemoryQueue::default());
    let (mut idle, mut busy) = (greeted(&server).await, greeted(&server).await);
    busy.begin("b@mx.example").await;
    server.shutdown.cancel();
    assert!(idle.reply().await.starts_with("421 4.3.2 "));
    assert_eq!(idle.line().await, None);
    busy.send(b"x: y\r\n.\r\n").await;
    assert!(busy.reply().await.starts_with("250 2.0.0 "));
    assert!(busy.reply().await.starts_with("421 4.3.2 "));
    assert_eq!(server.mails().len(), 1);
    drop((idle, busy));
    server.task.await.unwrap();

    let mut config = config();
    config.timeouts.leaving = Duration::from_millis(100);
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut busy = greeted(&server).await;
    busy.begin("b@mx.example").await;
    server.shutdown.cancel();
    assert!(busy.reply().await.starts_with("421 4.3.2 "));
}

#[tokio::test]
async fn what_happens_is_counted_under_the_listeners_name() {
    let mut config = config();
    config.session.offers.starttls = true;
    config.session.offers.auth = Mechanism::PASSWORDS.to_vec();
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let count = |name: &str, labels: &str| -> f64 {
        let page = postroad_metrics::page(&[&server.metrics]);
        let start = format!("{name}{{agent=\"msa\",listener=\"test\"{labels}}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{start} in {page}"))
            .parse()
            .unwrap()
    };
    let mut client = greeted(&server).await;
    client.say("EHLO client.example").await;
    client.say("STARTTLS").await;
    client.start_tls().await;
    client.say("EHLO client.example").await;
    client.say("AUTH PLAIN AGJvYgB3cm9uZw==").await;
    client.say("AUTH PLAIN AGJvYgBzZWNyZXQ=").await;
    client.say("MAIL FROM:<a@client.example>").await;
    client.say("RCPT TO:<nobody@mx.example>").await;
    client.say("RCPT TO:<all@mx.example>").await;
    client.say("DATA").await;
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n").await;
    assert!(client.reply().await.starts_with("250 2.0.0 "));
    assert_eq!(count("postroad_connections_total", ""), 1.0);
    assert_eq!(count("postroad_connections_open", ""), 1.0);
    assert_eq!(
        count("postroad_tls_sessions_total", ",version=\"TLS1.3\""),
        1.0
    );
    assert_eq!(count("postroad_logins_total", ",result=\"succeeded\""), 1.0);
    assert_eq!(count("postroad_logins_total", ",result=\"failed\""), 1.0);
    assert_eq!(count("postroad_mails_accepted_total", ""), 1.0);
    assert_eq!(count("postroad_accept_seconds_count", ""), 1.0);
    assert_eq!(count("postroad_mail_size_bytes_sum", ""), 17.0);
    let [mail] = &server.mails()[..] else {
        panic!("one mail")
    };
    let recipients = mail.envelope.recipients.len() as f64;
    assert_eq!(count("postroad_recipients_accepted_total", ""), recipients);
    let refused = ",stage=\"recipient\",severity=\"permanent\",reason=\"address\"";
    assert_eq!(count("postroad_refusals_total", refused), 1.0);
    client.say("QUIT").await;
    assert_eq!(client.line().await, None);
}
