//! How long a client is waited for in each state (RFC 5321 §4.5.3.2), by a clock that stands still while anything happens; and how
//! much one connection may bring.

use std::sync::Arc;
use std::time::Duration;

use postroad_address::Domain;
use postroad_daemon::Interval;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{SmtpdConfig, Timeouts};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::fakes::MemoryQueue;
use crate::server::{Client, Server};

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(20);

/// A time of its own for each state.
fn config() -> SmtpdConfig {
    let name = Domain::parse("mx.example").unwrap();
    let mut config = SmtpdConfig::new("test", ServerConfig::new(name, Flavour::Smtp));
    let timeouts = Timeouts {
        tls_handshake: Interval::seconds(11),
        greeting: Interval::minutes(4),
        command: Interval::minutes(6),
        data_initiation: Interval::minutes(2),
        data_block: Interval::minutes(3),
        final_dot: Interval::minutes(7),
    };
    timeouts.apply(&mut config);
    config.timeouts.queue = 60 * SECOND;
    config
}

/// What is said next, and after how long.
async fn hears(client: &mut Client) -> (String, Duration) {
    let (began, mut said) = (Instant::now(), Vec::new());
    let stream = client.stream.as_mut().unwrap();
    while !said.ends_with(b"\n") {
        let mut octet = [0];
        match stream.read(&mut octet).await {
            Ok(0) | Err(_) => break,
            Ok(_) => said.extend(octet),
        }
    }
    (String::from_utf8(said).unwrap(), began.elapsed())
}

fn about(took: Duration, wanted: Duration) -> bool {
    (wanted..wanted + SECOND).contains(&took)
}

#[tokio::test(start_paused = true)]
async fn each_state_has_its_own_time() {
    let server = Server::start(config(), MemoryQueue::default(), GRACE);
    let late = "421 4.4.2 time-out, closing the connection\r\n";
    for (lines, wanted) in [
        (&[][..], 240),
        (&["EHLO c.example"], 360),
        (&["EHLO c.example", "MAIL FROM:<a@c.example>"], 360),
        (
            &[
                "EHLO c.example",
                "MAIL FROM:<a@c.example>",
                "RCPT TO:<b@mx.example>",
                "DATA",
            ],
            120,
        ),
    ] {
        let mut client = server.connect().await;
        client.reply().await;
        for line in lines {
            client.say(line).await;
        }
        let (said, took) = hears(&mut client).await;
        assert_eq!(said, late, "{lines:?}");
        assert!(about(took, wanted * SECOND), "{lines:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_began_has_its_time_for_each_block() {
    let server = Server::start(config(), MemoryQueue::default(), GRACE);
    let mut client = server.connect().await;
    client.reply().await;
    client.begin("b@mx.example").await;
    // The first octet is in time for 354, and what follows has three minutes for each block of 18,000 octets.
    tokio::time::sleep(100 * SECOND).await;
    client.send(b"Subject: x\r\n\r\n").await;
    tokio::time::sleep(170 * SECOND).await;
    client.send(&b"a line of text\r\n".repeat(1200)).await;
    let (said, took) = hears(&mut client).await;
    assert!(said.starts_with("421 4.4.2 "), "{said}");
    assert!(about(took, 180 * SECOND), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time() {
    let mut config = config();
    config.implicit_tls = true;
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = server.connect_plain().await;
    let (said, took) = hears(&mut client).await;
    assert!(
        said.is_empty() && about(took, 11 * SECOND),
        "{said} {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_final_dot_is_answered_while_the_client_listens() {
    // One permit for the content, none for the commit.
    let queue = MemoryQueue {
        gate: Arc::new(Semaphore::new(1)),
        ..MemoryQueue::default()
    };
    let server = Server::start(config(), queue, GRACE);
    let mut client = server.connect().await;
    client.reply().await;
    client.begin("b@mx.example").await;
    client.send(b"\r\nx\r\n.\r\n").await;
    let (said, took) = hears(&mut client).await;
    assert!(said.starts_with("451 4.3.0 "), "{said}");
    assert!(about(took, 420 * SECOND), "{took:?}");
}

#[tokio::test]
async fn a_connection_brings_so_much_and_the_cut_is_counted() {
    let mut config = config();
    config.session.limits.mails = 2;
    let server = Server::start(config, MemoryQueue::default(), GRACE);
    let mut client = server.connect().await;
    client.reply().await;
    client.say("EHLO c.example").await;
    client.mail().await;
    client.mail().await;
    let said = client.say("MAIL FROM:<a@c.example>").await;
    assert!(said.starts_with("421 4.7.0 too many mails"), "{said}");
    assert_eq!(client.line().await, None);
    let page = postroad_metrics::page(&[&server.metrics]);
    let cut =
        "postroad_conversations_cut_total{agent=\"msa\",listener=\"test\",limit=\"mails\"} 1\n";
    assert!(page.contains(cut), "{page}");
    assert_eq!(server.mails().len(), 2);
}
