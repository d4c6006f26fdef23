//! Mails that do not come to their end, or are refused there; conversations that end.

use super::*;

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
