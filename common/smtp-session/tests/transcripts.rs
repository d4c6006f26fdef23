//! Runs every transcript on the bare machine: packet by packet, and octet by octet.

#[path = "support/transcript.rs"]
mod transcript;

use std::{path::Path, sync::Arc};

use bytes::BytesMut;
use postroad_address::Domain;
use postroad_reply::*;
use postroad_sasl::{Identity, Mechanism};
use postroad_smtp_session::{Event, Flavour, PolicyReply, ServerConfig, ServerSession};
use transcript::{Step, Transcript, line_matches};

fn transcripts() -> Vec<Transcript> {
    Transcript::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts"))
}

#[test]
fn packet_by_packet() {
    for transcript in transcripts() {
        run(&transcript, usize::MAX);
    }
}

#[test]
fn octet_by_octet() {
    for transcript in transcripts() {
        // What a client sends too early shows only where it comes in one packet.
        if !transcript.is_set("one packet") {
            run(&transcript, 1);
        }
    }
}

fn run(transcript: &Transcript, step: usize) {
    let name = &transcript.name;
    let mut peer = Driver::new(transcript);
    peer.turn(&[]);
    for expected in &transcript.steps {
        match expected {
            Step::Client(octets) => octets.chunks(step).for_each(|chunk| peer.turn(chunk)),
            Step::Server(lines) => {
                let said = String::from_utf8(peer.said.split().to_vec()).unwrap();
                let said: Vec<&str> = said.split_terminator("\r\n").collect();
                let same = said.len() == lines.len()
                    && lines
                        .iter()
                        .zip(&said)
                        .all(|(line, said)| line_matches(line, said));
                assert!(
                    same,
                    "{name}: expected {lines:#?}, the server said {said:#?}"
                );
            }
            Step::Tls => {
                assert!(
                    std::mem::take(&mut peer.starting_tls),
                    "{name}: no STARTTLS"
                );
                peer.session.tls_started();
            }
            Step::Mail(content) => {
                let content = String::from_utf8_lossy(content);
                let last = peer.mails.last().map(|mail| String::from_utf8_lossy(mail));
                assert_eq!(last, Some(content), "{name}");
            }
            Step::Closed => assert!(peer.session.is_closed(), "{name}: not closed"),
        }
    }
    assert!(
        peer.said.is_empty(),
        "{name}: the server went on: {:?}",
        peer.said
    );
}

struct Driver {
    session: ServerSession,
    flavour: Flavour,
    input: BytesMut,
    said: BytesMut,
    content: Vec<u8>,
    mails: Vec<Vec<u8>>,
    starting_tls: bool,
}

impl Driver {
    fn new(transcript: &Transcript) -> Self {
        let flavour = match transcript {
            set if set.is_set("lmtp") => Flavour::Lmtp,
            set if set.is_set("submission") => Flavour::Submission,
            _ => Flavour::Smtp,
        };
        let mut config = ServerConfig::new(Domain::parse("mx.example").unwrap(), flavour);
        config.offers.starttls = transcript.is_set("starttls");
        config.offers.xforward = transcript.is_set("xforward");
        config.offers.chunking = !transcript.is_set("no chunking");
        if flavour == Flavour::Submission {
            config.offers.auth = Mechanism::ALL.to_vec();
        }
        if let Some(size) = transcript.number("size") {
            config.limits.size = size;
        }
        if let Some(commands) = transcript.number("idle commands") {
            config.limits.idle_commands = u32::try_from(commands).unwrap();
        }
        Self {
            session: ServerSession::new(Arc::new(config), transcript.is_set("tls")),
            flavour,
            input: BytesMut::new(),
            said: BytesMut::new(),
            content: Vec::new(),
            mails: Vec::new(),
            starting_tls: false,
        }
    }

    fn turn(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while let Some(event) = self.session.receive(&mut self.input) {
            self.decide(event);
        }
        self.said.extend_from_slice(&self.session.take_output());
    }

    fn decide(&mut self, event: Event) {
        let answer = match event {
            Event::Mail(mail) if mail.reverse_path.to_string().starts_with("refused@") => {
                PolicyReply::Refuse(Reply::new(
                    MAILBOX_UNAVAILABLE_550,
                    NOT_AUTHORIZED_5_7_1,
                    "not you",
                ))
            }
            Event::Rcpt(rcpt) if rcpt.forward_path.to_string().starts_with("nobody@") => {
                PolicyReply::Refuse(Reply::new(
                    MAILBOX_UNAVAILABLE_550,
                    BAD_MAILBOX_5_1_1,
                    "no such user",
                ))
            }
            Event::Authenticate(credentials) if credentials.password.reveal() == "secret" => {
                return self.session.authenticated(Identity {
                    account: credentials.authcid,
                    mechanism: credentials.mechanism,
                });
            }
            Event::Authenticate(_) => PolicyReply::Refuse(Reply::new(
                AUTH_INVALID_535,
                AUTH_INVALID_5_7_8,
                "authentication failed",
            )),
            Event::Content(octets) => return self.content.extend_from_slice(&octets),
            Event::ContentRefused(_) | Event::Reset => return self.content.clear(),
            Event::StartTls => {
                self.starting_tls = true;
                return;
            }
            Event::Closed(_) => return,
            Event::ContentEnd => {
                self.mails.push(std::mem::take(&mut self.content));
                let queued = Reply::new(OK_250, SUCCESS_2_0_0, "queued");
                match (self.flavour, self.session.transaction()) {
                    (Flavour::Lmtp, Some(transaction)) => {
                        let replies = transaction.recipients.iter().map(|rcpt| {
                            let text = format!("<{}> queued", rcpt.forward_path);
                            Reply::new(OK_250, SUCCESS_2_0_0, text)
                        });
                        let replies = replies.collect();
                        return self.session.answer_each(replies);
                    }
                    _ => PolicyReply::AcceptWith(queued),
                }
            }
            Event::Connected | Event::Hello(_) | Event::Mail(_) | Event::Rcpt(_) | Event::Data => {
                PolicyReply::Accept
            }
        };
        self.session.answer(answer);
    }
}
