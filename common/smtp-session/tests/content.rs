//! What is stored is what was sent, and content ends at its end and nowhere else, whatever it is made of and however it comes in pieces.

use std::sync::Arc;

use bytes::BytesMut;
use postroad_address::Domain;
use postroad_smtp_session::*;
use proptest::prelude::*;

const END: &[u8] = b"\r\n.\r\n";
const ENVELOPE: &[u8] =
    b"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n";

/// A server that takes everything, and what it was given of the content.
struct Receiver {
    session: ServerSession,
    input: BytesMut,
    content: Vec<u8>,
    stored: Vec<Vec<u8>>,
    said: String,
}

impl Receiver {
    /// With recipients, before the content.
    fn new(body: &str) -> Self {
        let host = Domain::parse("mx.example").unwrap();
        let config = ServerConfig::new(host, Flavour::Smtp);
        let mut receiver = Self {
            session: ServerSession::new(Arc::new(config), false),
            input: BytesMut::new(),
            content: Vec::new(),
            stored: Vec::new(),
            said: String::new(),
        };
        let envelope = String::from_utf8_lossy(ENVELOPE);
        let envelope = envelope.replace("example>\r\nRCPT", &format!("example>{body}\r\nRCPT"));
        receiver.hears(envelope.as_bytes());
        receiver.said.clear();
        receiver
    }

    fn hears(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while let Some(event) = self.session.receive(&mut self.input) {
            match event {
                Event::Content(piece) => self.content.extend_from_slice(&piece),
                Event::ContentRefused(_) | Event::Reset => self.content.clear(),
                Event::ContentEnd => {
                    self.stored.push(std::mem::take(&mut self.content));
                    self.session.answer(PolicyReply::Accept);
                }
                Event::Closed(_) => {}
                _ => self.session.answer(PolicyReply::Accept),
            }
        }
        let output = self.session.take_output();
        self.said.push_str(&String::from_utf8_lossy(&output));
    }

    /// In pieces of these lengths, the last one again and again.
    fn hears_in_pieces(&mut self, mut octets: &[u8], lengths: &[usize]) {
        let mut lengths = lengths.iter().copied();
        let mut length = 1;
        while !octets.is_empty() {
            length = lengths.next().unwrap_or(length).clamp(1, octets.len());
            let (piece, rest) = octets.split_at(length);
            self.hears(piece);
            octets = rest;
        }
    }
}

/// Whether content is made of lines that end with CRLF, and of no NUL.
fn is_sound(content: &[u8]) -> bool {
    let before = |at: usize| at.checked_sub(1).and_then(|at| content.get(at));
    content.iter().enumerate().all(|(at, octet)| match octet {
        b'\n' => before(at) == Some(&b'\r'),
        b'\r' => content.get(at + 1) == Some(&b'\n'),
        0 => false,
        _ => true,
    })
}

/// RFC 5321 §4.5.2, for whatever it may be: a dot is put before one at the beginning of content or behind CRLF.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, &octet) in content.iter().enumerate() {
        let begins = at == 0
            || content
                .get(..at)
                .is_some_and(|head| head.ends_with(b"\r\n"));
        if octet == b'.' && begins {
            out.push(b'.');
        }
        out.push(octet);
    }
    out
}

/// Octets that matter more often than others.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        4 => Just(b'\r'),
        4 => Just(b'\n'),
        4 => Just(b'.'),
        4 => Just(b'x'),
        1 => any::<u8>(),
    ];
    let lines = proptest::collection::vec("[.ax]{0,4}", 0..8);
    let lines = lines.prop_map(|lines| {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        text.into_bytes()
    });
    prop_oneof![proptest::collection::vec(octet, 0..60), lines]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_data_brings_is_stored_or_refused_whole(
        content in octets(), lengths in proptest::collection::vec(1_usize..9, 0..20),
    ) {
        let mut receiver = Receiver::new("");
        receiver.hears(b"DATA\r\n");
        let mut sent = stuffed(&content);
        if !content.is_empty() && !content.ends_with(b"\r\n") {
            sent.extend_from_slice(b"\r\n");
        }
        let whole: Vec<u8> = match content.is_empty() || content.ends_with(b"\r\n") {
            true => content.clone(),
            false => [&content[..], b"\r\n"].concat(),
        };
        sent.extend_from_slice(b".\r\n");
        receiver.hears_in_pieces(&sent, &lengths);
        let last = receiver.said.lines().last().unwrap_or_default().to_owned();
        if is_sound(&whole) {
            prop_assert_eq!(&receiver.stored, &[whole]);
            prop_assert!(last.starts_with("250 "), "{}", last);
        } else {
            prop_assert!(receiver.stored.is_empty());
            prop_assert!(last.starts_with("550 5.6.0"), "{}", last);
        }
        // Whatever it was, a command follows.
        receiver.hears(b"NOOP\r\n");
        prop_assert!(receiver.said.ends_with("250 2.0.0 ok\r\n"));
    }

    #[test]
    fn what_bdat_brings_is_stored_or_refused_whole(
        content in octets(), cuts in proptest::collection::vec(0_usize..20, 0..5),
        lengths in proptest::collection::vec(1_usize..9, 0..20), binary: bool,
    ) {
        let body = if binary { " BODY=BINARYMIME" } else { "" };
        let mut receiver = Receiver::new(body);
        let mut sent = Vec::new();
        let mut rest = &content[..];
        for cut in cuts {
            let (chunk, left) = rest.split_at(cut.min(rest.len()));
            sent.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
            sent.extend_from_slice(chunk);
            rest = left;
        }
        sent.extend_from_slice(format!("BDAT {} LAST\r\n", rest.len()).as_bytes());
        sent.extend_from_slice(rest);
        receiver.hears_in_pieces(&sent, &lengths);
        let last = receiver.said.lines().last().unwrap_or_default().to_owned();
        if binary || is_sound(&content) {
            prop_assert_eq!(&receiver.stored, &[content]);
            prop_assert!(last.starts_with("250 "), "{}", last);
        } else {
            prop_assert!(receiver.stored.is_empty());
            prop_assert!(last.starts_with("550 5.6.0"), "{}", last);
        }
        receiver.hears(b"NOOP\r\n");
        prop_assert!(receiver.said.ends_with("250 2.0.0 ok\r\n"));
    }
}

/// Every mixture of line ends and dots up to this length.
const LONGEST: u32 = 7;

#[test]
fn content_ends_at_crlf_dot_crlf_and_nowhere_else() {
    const ALPHABET: [u8; 4] = [b'\r', b'\n', b'.', b'x'];
    for length in 0..=LONGEST {
        for number in 0..4_usize.pow(length) {
            let mixture: Vec<u8> = (0..length)
                .map(|place| ALPHABET[number / 4_usize.pow(place) % 4])
                .collect();
            ends_only_there(&mixture);
        }
    }
}

/// Behind a line of content, before the true end.
fn ends_only_there(mixture: &[u8]) {
    let sent = [b"line\r\n", mixture, END].concat();
    let end = sent.windows(END.len()).position(|window| window == END);
    let end = end.expect("it has an end") + END.len();
    let mut receiver = Receiver::new("");
    receiver.hears(b"DATA\r\n");
    for (at, octet) in sent[..end].iter().enumerate() {
        assert!(
            receiver.session.awaits_content(),
            "{:?} ended before octet {at}",
            String::from_utf8_lossy(&sent)
        );
        receiver.hears(&[*octet]);
    }
    assert!(!receiver.session.awaits_content());
    let content = &sent[..end - 3];
    let refused = receiver.said.contains("\r\n550 5.6.0");
    assert_eq!(refused, !is_sound(content), "{content:?}");
    assert_eq!(receiver.stored.len(), usize::from(!refused));
}
