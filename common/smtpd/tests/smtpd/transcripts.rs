//! Runs the transcripts of the bare machine over real TCP and TLS: packet by packet, and octet by octet.

use std::{path::Path, time::Duration};

use crate::fakes::MemoryQueue;
use crate::server::{Client, Server};
use crate::transcript::{Step, Transcript, line_matches};
use postroad_address::Domain;
use postroad_net::Networks;
use postroad_sasl::Mechanism;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::SmtpdConfig;

#[tokio::test]
async fn packet_by_packet() {
    for transcript in transcripts() {
        run(&transcript, usize::MAX).await;
    }
}

#[tokio::test]
async fn octet_by_octet() {
    for transcript in transcripts() {
        if !transcript.is_set("one packet") {
            run(&transcript, 1).await;
        }
    }
}

fn transcripts() -> Vec<Transcript> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Transcript::all(&here.join("../smtp-session/tests/transcripts"))
}

async fn run(transcript: &Transcript, step: usize) {
    let name = &transcript.name;
    let server = Server::start(config(transcript), MemoryQueue::default(), Duration::ZERO);
    let mut client = server.connect().await;
    for expected in &transcript.steps {
        match expected {
            Step::Client(octets) => {
                for chunk in octets.chunks(step) {
                    client.send(chunk).await;
                }
            }
            Step::Server(lines) => {
                for line in lines {
                    expect(&mut client, name, line).await;
                }
            }
            Step::Tls => client.start_tls().await,
            Step::Mail(content) => {
                let mails = server.mails();
                assert_eq!(
                    mails.last().map(|mail| &mail.content[..]),
                    Some(&content[..]),
                    "{name}"
                );
            }
            Step::Closed => assert_eq!(client.line().await, None, "{name}: not closed"),
        }
    }
    server.shutdown.cancel();
    drop(client);
    server.task.await.unwrap();
}

/// The id of the mail stands before `queued`, which the machine alone does not know.
async fn expect(client: &mut Client, name: &str, line: &str) {
    let said = client.line().await.unwrap_or_default();
    let queued = line.ends_with("queued") && said.ends_with(" queued");
    assert!(
        line_matches(line, &said) || queued && said.starts_with("250 2.0.0 "),
        "{name}: expected {line:?}, the server said {said:?}"
    );
}

fn config(transcript: &Transcript) -> SmtpdConfig {
    let flavour = match transcript {
        set if set.is_set("lmtp") => Flavour::Lmtp,
        set if set.is_set("submission") => Flavour::Submission,
        _ => Flavour::Smtp,
    };
    let mut session = ServerConfig::new(Domain::parse("mx.example").unwrap(), flavour);
    session.offers.starttls = transcript.is_set("starttls");
    session.offers.chunking = !transcript.is_set("no chunking");
    if flavour == Flavour::Submission {
        session.offers.auth = Mechanism::ALL.to_vec();
    }
    if let Some(size) = transcript.number("size") {
        session.limits.size = size;
    }
    if let Some(commands) = transcript.number("idle commands") {
        session.limits.idle_commands = u32::try_from(commands).unwrap();
    }
    let neighbours = transcript.is_set("xforward").then_some("127.0.0.1");
    SmtpdConfig {
        xforward_networks: Networks::parse(neighbours).unwrap(),
        implicit_tls: transcript.is_set("tls"),
        ..SmtpdConfig::new("test", session)
    }
}
