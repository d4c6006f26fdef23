//! Whole conversations.

use std::sync::Arc;

use bytes::BytesMut;
use postroad_address::Domain;
use postroad_sasl::{
    Circumstances, ContextAnswer, CramSecret, Mechanism, SCRAM_ITERATIONS, Secret, ServerExchange,
    Step,
};
use postroad_smtp_session::{
    CloseReason, Event, Flavour, PolicyReply, ServerConfig, ServerSession,
};

use crate::pieces;

/// What came of a conversation.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    said: Vec<u8>,
    stored: Vec<Vec<u8>>,
    closed: Option<CloseReason>,
}

/// What comes before BDAT; the first is that of content which may be anything.
const ENVELOPES: [&str; 2] = [
    "EHLO a.example\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@mx.example>\r\n",
    "EHLO a.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@mx.example>\r\n",
];

/// A server that takes everything, and is spoken to in these pieces.
fn converse(flavour: Flavour, pieces: &[&[u8]]) -> Outcome {
    let host = Domain::parse("mx.example").expect("a domain");
    let mut config = ServerConfig::new(host, flavour);
    (config.require_tls, config.require_auth) = (false, false);
    config.limits.size = 1 << 16;
    let mut session = ServerSession::new(Arc::new(config), false);
    let (mut input, mut content) = (BytesMut::new(), Vec::new());
    let mut outcome = Outcome {
        said: Vec::new(),
        stored: Vec::new(),
        closed: None,
    };
    for piece in [&b""[..]].iter().chain(pieces) {
        input.extend_from_slice(piece);
        while let Some(event) = session.receive(&mut input) {
            match event {
                Event::Content(octets) => content.extend_from_slice(&octets),
                Event::ContentRefused(_) | Event::Reset => content.clear(),
                Event::ContentEnd => {
                    outcome.stored.push(std::mem::take(&mut content));
                    session.answer(PolicyReply::Accept);
                }
                Event::Closed(reason) => outcome.closed = Some(reason),
                _ => session.answer(PolicyReply::Accept),
            }
        }
        outcome.said.extend_from_slice(&session.take_output());
        // What waits for the rest of a line is never more than a line.
        assert!(input.len() <= 16 << 10 || session.is_closed());
    }
    outcome
}

/// The same octets get the same replies and are the same mails, however they come in pieces. Whoever sends content without waiting
/// for 354 is found out only where it comes in one piece, so such conversations are left out.
pub fn whole_session(input: &[u8]) {
    for flavour in [Flavour::Smtp, Flavour::Submission, Flavour::Lmtp] {
        let whole = converse(flavour, &[input]);
        let parts = converse(flavour, &pieces(input));
        let guessed = |outcome: &Outcome| outcome.closed == Some(CloseReason::CommandInjection);
        if !guessed(&whole) && !guessed(&parts) {
            assert_eq!(parts, whole);
        }
    }
}

/// Chunks are stored as they were sent, or refused for their line ends, wherever they and the packets are cut; and whatever comes
/// in the place of chunks is read the same way in one piece and in many.
pub fn bdat(input: &[u8]) {
    for (envelope, anything) in ENVELOPES.into_iter().zip([true, false]) {
        let mut sent = envelope.as_bytes().to_vec();
        for chunk in pieces(input) {
            sent.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
            sent.extend_from_slice(chunk);
        }
        sent.extend_from_slice(b"BDAT 0 LAST\r\nNOOP\r\n");
        let parts: Vec<&[u8]> = sent.chunks(usize::from(octet_of(input)) + 1).collect();
        let outcome = converse(Flavour::Smtp, &parts);
        let stored = if anything || has_sound_lines(input) {
            vec![input.to_vec()]
        } else {
            Vec::new()
        };
        assert_eq!(outcome.stored, stored);
        assert!(outcome.said.ends_with(b"\r\n250 2.0.0 ok\r\n"));

        let raw = [envelope.as_bytes(), input].concat();
        let whole = converse(Flavour::Smtp, &[&raw]);
        let parts = converse(Flavour::Smtp, &pieces(&raw));
        let guessed = |outcome: &Outcome| outcome.closed == Some(CloseReason::CommandInjection);
        if !guessed(&whole) && !guessed(&parts) {
            assert_eq!(parts, whole);
        }
    }
}

fn octet_of(input: &[u8]) -> u8 {
    input.last().copied().unwrap_or_default()
}

/// Whether each CR has its LF and each LF its CR, and there is no NUL: RFC 5321 §2.3.8.
fn has_sound_lines(content: &[u8]) -> bool {
    let count = |wanted: &[u8]| {
        content
            .windows(wanted.len())
            .filter(|it| *it == wanted)
            .count()
    };
    let pairs = count(b"\r\n");
    count(b"\r") == pairs && count(b"\n") == pairs && !content.contains(&0)
}

/// Whatever a client answers, an exchange ends after a few lines, and with no proof of a password that it does not know.
pub fn sasl(input: &[u8]) {
    let lines: Vec<&[u8]> = input.split(|octet| *octet == b'\n').collect();
    let circumstances = Circumstances {
        nonce: &[7; 18],
        binding: Some(&[8; 32]),
        offers_binding: true,
    };
    for mechanism in Mechanism::ALL {
        let mut step = ServerExchange::start(mechanism, None, circumstances);
        for line in &lines {
            step = match step {
                Step::Challenge { next, .. } => next.respond(line),
                Step::Ask { query, next } => next.answer(&secret(query.kind)),
                // Whatever a library would make of it.
                Step::Call { next, .. } => next.answer(ContextAnswer::Octets(line.to_vec())),
                _ => break,
            };
        }
        if let Step::Verify(credentials) = step {
            let holds = postroad_sasl::Evidence::Proof { holds: true };
            assert_ne!(credentials.evidence, holds, "{mechanism}");
        }
    }
}

/// Of nobody: no password has these.
fn secret(kind: postroad_sasl::SecretKind) -> Secret {
    match kind {
        postroad_sasl::SecretKind::Cram => Secret::Cram(CramSecret::new(&[0x55; 64])),
        postroad_sasl::SecretKind::Scram(hash) => {
            let (stored, server) = (vec![1; hash.octets()], vec![2; hash.octets()]);
            let keys = postroad_sasl::ScramKeys::from_parts(
                hash,
                SCRAM_ITERATIONS,
                &[3; 16],
                stored,
                server,
            );
            Secret::Scram(keys)
        }
    }
}
