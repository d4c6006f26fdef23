//! What is stored is what was sent: random octets in DATA and BDAT, in random pieces, through a real socket into the queue.
//!
//! `POSTROAD_SEED` repeats a run, `POSTROAD_PROPERTY_RUNS` says how many times two mails come on one connection.
#![allow(clippy::print_stdout, reason = "says how to repeat a run")]

use std::{env, ops::Range, time::Duration};

use postroad_address::Domain;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::SmtpdConfig;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::yield_now;

use crate::fakes::MemoryQueue;
use crate::server::{Client, Server};

const RUNS: u64 = 50;
const GRACE: Duration = Duration::from_secs(20);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Chance that can be repeated by what is printed.
fn chance() -> (StdRng, u64) {
    let seed = number("POSTROAD_SEED").unwrap_or_else(rand::random);
    let runs = number("POSTROAD_PROPERTY_RUNS").unwrap_or(RUNS);
    println!("POSTROAD_SEED={seed} POSTROAD_PROPERTY_RUNS={runs}");
    (StdRng::seed_from_u64(seed), runs)
}

fn server() -> Server {
    let name = Domain::parse("mx.example").unwrap();
    let mut config = SmtpdConfig::new("test", ServerConfig::new(name, Flavour::Smtp));
    // Each mail is a case, and refused ones are mistakes.
    config.session.limits.errors = u32::MAX;
    Server::start(config, MemoryQueue::default(), GRACE)
}

/// Sound lines, octets that matter more often than others, or any octets; now and then more than is read at once.
fn content(chance: &mut StdRng) -> Vec<u8> {
    let most = [12, 80, 700, 150_000][chance.random_range(0..4)];
    let length = chance.random_range(0..=most);
    let kind = chance.random_range(0..4);
    let mut content = Vec::with_capacity(length + 2);
    while content.len() < length {
        match (kind, chance.random_range(0..6)) {
            (0, _) => content.push(chance.random()),
            (1, 0) => content.push(b'\r'),
            (1, 1) => content.push(b'\n'),
            (_, 2) => content.push(b'.'),
            (_, 3 | 1) => content.extend_from_slice(b"\r\n"),
            (_, 4) => content.extend_from_slice(b"\r\n.\r\n"),
            _ => content.push(chance.random_range(b' '..=0xff)),
        }
    }
    content
}

/// RFC 5321 §2.3.8: CR and LF only together, and §4.5.2: no NUL.
fn has_sound_lines(content: &[u8]) -> bool {
    let count = |octet: u8| content.iter().filter(|it| **it == octet).count();
    let pairs = content.windows(2).filter(|it| *it == b"\r\n").count();
    count(b'\r') == pairs && count(b'\n') == pairs && count(0) == 0
}

/// RFC 5321 §4.5.2: a dot is put before one at the beginning of a line.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    for (at, octet) in content.iter().enumerate() {
        let line = content.get(..at).unwrap_or_default();
        if *octet == b'.' && (line.is_empty() || line.ends_with(b"\r\n")) {
            out.push(b'.');
        }
        out.push(*octet);
    }
    out
}

/// Where something is cut: few places or many, at no place more than `most` apart if there are many.
fn pieces(length: usize, chance: &mut StdRng) -> Vec<Range<usize>> {
    let most = [1, 9, 200, 70_000][chance.random_range(0..4)].max(length / 500);
    let mut cuts = Vec::new();
    let mut at = 0;
    while at < length {
        let end = (at + chance.random_range(1..=most.max(1))).min(length);
        cuts.push(at..end);
        at = end;
    }
    cuts
}

impl Client {
    /// In pieces; the server reads what is there after each.
    async fn send_in_pieces(&mut self, octets: &[u8], chance: &mut StdRng) {
        for piece in pieces(octets.len(), chance) {
            self.send(&octets[piece]).await;
            yield_now().await;
        }
    }

    async fn begin_mail(&mut self, parameters: &str) {
        let mail = format!("MAIL FROM:<a@client.example>{parameters}");
        for line in [&mail, "RCPT TO:<b@mx.example>"] {
            let said = self.say(line).await;
            assert!(said.starts_with("250 "), "{said}");
        }
    }
}

/// What the queue has of the newest mail, after the reply said so.
fn judge(server: &Server, mails: &mut usize, said: &str, sent: &[u8], is_good: bool) {
    let stored = server.mails();
    if is_good {
        *mails += 1;
        assert!(said.starts_with("250 2.0.0 "), "{said}");
        assert_eq!(stored.last().unwrap().content, sent);
    } else {
        assert!(said.starts_with("550 5.6.0 "), "{said}");
    }
    assert_eq!(stored.len(), *mails);
}

#[tokio::test]
async fn what_data_brings_through_a_socket_is_stored_octet_for_octet_or_refused() {
    let (mut chance, runs) = chance();
    let server = server();
    let mut mails = 0;
    for _ in 0..runs {
        let mut client = server.connect().await;
        client.reply().await;
        client.say("EHLO client.example").await;
        // Another mail on the same connection follows whatever became of the first.
        for _ in 0..2 {
            let mut sent = content(&mut chance);
            if !sent.is_empty() && !sent.ends_with(b"\r\n") {
                sent.extend_from_slice(b"\r\n");
            }
            client.begin_mail("").await;
            assert!(client.say("DATA").await.starts_with("354 "));
            let wire = [&stuffed(&sent)[..], b".\r\n"].concat();
            client.send_in_pieces(&wire, &mut chance).await;
            let said = client.reply().await;
            judge(&server, &mut mails, &said, &sent, has_sound_lines(&sent));
        }
        client.say("QUIT").await;
    }
}

#[tokio::test]
async fn what_bdat_brings_through_a_socket_is_stored_octet_for_octet_or_refused() {
    let (mut chance, runs) = chance();
    let server = server();
    let mut mails = 0;
    for _ in 0..runs {
        let mut client = server.connect().await;
        client.reply().await;
        client.say("EHLO client.example").await;
        for _ in 0..2 {
            let (sent, anything) = (content(&mut chance), chance.random());
            let parameters = if anything { " BODY=BINARYMIME" } else { "" };
            client.begin_mail(parameters).await;
            let chunks = pieces(sent.len(), &mut chance);
            let replies = chunks.len() + 1;
            let mut wire = Vec::new();
            for chunk in chunks {
                wire.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(&sent[chunk]);
            }
            wire.extend_from_slice(b"BDAT 0 LAST\r\n");
            client.send_in_pieces(&wire, &mut chance).await;
            let mut said = String::new();
            for _ in 0..replies {
                said = client.reply().await;
            }
            let is_good = anything || has_sound_lines(&sent);
            judge(&server, &mut mails, &said, &sent, is_good);
        }
        client.say("QUIT").await;
    }
}
