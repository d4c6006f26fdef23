//! Whatever lies in the queue: what our client writes can be read in one way only, and that is what was stored; or nothing that ends
//! (RFC 5321 §2.3.8, §4.5.2; RFC 3030).

use bytes::BytesMut;
use postroad_address::{ForwardPath, ReversePath};
use postroad_envelope::BodyKind;
use postroad_smtp::HeloName;
use postroad_smtp_session::*;
use proptest::prelude::*;

/// What followed DATA, or MAIL and RCPT where there are chunks, and whether it came to its end.
fn written(content: &[u8], pieces: &[usize], chunking: bool, body: BodyKind) -> (Vec<u8>, bool) {
    let config = ClientConfig {
        chunking,
        ..ClientConfig::new(HeloName::parse("client.example").unwrap())
    };
    let mut client = ClientSession::new(config, false);
    let hear = |client: &mut ClientSession, said: &str| {
        let progress = client.receive(&mut BytesMut::from(said)).unwrap();
        (progress, client.take_output())
    };
    hear(&mut client, "220 mx.example\r\n");
    let offers = "PIPELINING\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 8BITMIME";
    hear(&mut client, &format!("250-mx.example\r\n250-{offers}\r\n"));
    assert_eq!(client.send(mail(content, body)), None);
    let (mut progress, _) = hear(&mut client, "250 ok\r\n250 ok\r\n");
    if progress.is_none() {
        (progress, _) = hear(&mut client, "354 go on\r\n");
    }
    assert_eq!(progress, Some(Progress::SendContent));
    let (mut wire, mut rest) = (Vec::new(), content);
    let mut sizes = pieces.iter().cycle();
    let mut ended = true;
    while ended && !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = more;
        ended = client.content(piece).is_ok();
        wire.extend_from_slice(&client.take_output());
    }
    // Whoever goes on regardless does no harm either.
    for piece in [&b".\r\n"[..], rest] {
        if !ended {
            assert!(client.content(piece).is_err());
        }
    }
    ended &= client.content_end().is_ok();
    wire.extend_from_slice(&client.take_output());
    (wire, ended)
}

fn mail(content: &[u8], body: BodyKind) -> OutgoingMail {
    OutgoingMail {
        reverse_path: ReversePath::Null,
        recipients: vec![OutgoingRecipient {
            forward_path: ForwardPath::parse("b@mx.example").unwrap(),
            notify: None,
            orcpt: None,
        }],
        size: content.len() as u64,
        body,
        smtputf8: false,
        utf8_header: false,
        requiretls: false,
        ret: None,
        envid: None,
        priority: 0,
        deliver_by: None,
        auth: None,
    }
}

/// RFC 3030 §3, RFC 6152 §3: never sent, and the reason is what the host lacks.
#[test]
fn content_is_not_sent_to_a_host_that_does_not_take_it() {
    for (offers, body, lacks) in [
        ("8BITMIME", BodyKind::BinaryMime, "binary content"),
        (
            "CHUNKING\r\n250 BINARYMIME",
            BodyKind::BinaryMime,
            "binary content",
        ),
        ("PIPELINING", BodyKind::EightBitMime, "8-bit content"),
    ] {
        let config = ClientConfig::new(HeloName::parse("client.example").unwrap());
        let mut client = ClientSession::new(config, false);
        let said = format!("220 mx.example\r\n250-mx.example\r\n250 {offers}\r\n");
        let said = said.replacen("250 CHUNKING", "250-CHUNKING", 1);
        let mut said = BytesMut::from(said.as_str());
        while !said.is_empty() {
            let _ = client.receive(&mut said).unwrap();
        }
        client.take_output();
        let Some(Progress::Done(results)) = client.send(mail(b"", body)) else {
            panic!("it was sent to a host with {offers}");
        };
        let unfit = |result: &RecipientResult| matches!(result, RecipientResult::Unfit { text, .. } if text.contains(lacks));
        assert!(results.iter().all(unfit), "{offers}: {results:?}");
        assert!(client.take_output().is_empty());
    }
}

/// By looking at each octet and its neighbours.
fn is_made_of_lines(content: &[u8]) -> bool {
    let neighbour = |at: Option<usize>| at.and_then(|at| content.get(at));
    content.iter().enumerate().all(|(at, octet)| match octet {
        b'\r' => neighbour(at.checked_add(1)) == Some(&b'\n'),
        b'\n' => neighbour(at.checked_sub(1)) == Some(&b'\r'),
        octet => *octet != 0,
    })
}

/// What the strictest of servers reads behind 354, and what is left for commands; none: it never ends.
fn strictly_read(wire: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut content, mut rest) = (Vec::new(), wire);
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")? + 2;
        let (line, more) = rest.split_at(end);
        rest = more;
        match line {
            b".\r\n" => return Some((content, rest)),
            [b'.', stuffed @ ..] => content.extend_from_slice(stuffed),
            line => content.extend_from_slice(line),
        }
    }
}

/// The octets of all chunks, and whether the last was there.
fn chunks(mut wire: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(end) = wire.windows(2).position(|two| two == b"\r\n") {
        let command = std::str::from_utf8(&wire[..end]).unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(words[0], "BDAT", "{command}");
        let size: usize = words[1].parse().unwrap();
        content.extend_from_slice(&wire[end + 2..end + 2 + size]);
        wire = &wire[end + 2 + size..];
        if words.get(2) == Some(&"LAST") {
            assert!(wire.is_empty(), "nothing follows the last");
            return (content, true);
        }
    }
    assert!(wire.is_empty());
    (content, false)
}

fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let hostile = prop_oneof![
        4 => Just(&b"\r\n"[..]),
        2 => Just(&b"."[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"\r\n.\r\n"[..]),
        2 => Just(&b"a"[..]),
        1 => Just(&b"\xe4"[..]),
    ];
    prop_oneof![
        4 => proptest::collection::vec(hostile, 0..16).prop_map(|parts| parts.concat()),
        // Lines, however they begin.
        4 => proptest::collection::vec("[.a]{0,4}\r\n", 0..8).prop_map(|lines| lines.concat().into()),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn data_is_read_in_one_way_and_as_it_was_stored(
        content in any_content(), pieces in proptest::collection::vec(1..9_usize, 1..6),
    ) {
        let (wire, ended) = written(&content, &pieces, false, BodyKind::EightBitMime);
        prop_assert_eq!(ended, is_made_of_lines(&content));
        let bare = wire.iter().enumerate().any(|(at, octet)| match octet {
            b'\r' => at + 1 < wire.len() && wire[at + 1] != b'\n',
            b'\n' => at == 0 || wire[at - 1] != b'\r',
            _ => false,
        });
        prop_assert!(!bare, "{wire:?}");
        match strictly_read(&wire) {
            Some((read, rest)) => {
                prop_assert!(ended && rest.is_empty(), "it ends too early: {wire:?}");
                // RFC 5321 §4.1.1.4: the last line gets its end if it has none.
                let whole = content.is_empty() || content.ends_with(b"\r\n");
                let expected = if whole { content } else { [&content[..], b"\r\n"].concat() };
                prop_assert_eq!(read, expected);
            }
            None => prop_assert!(!ended),
        }
    }

    #[test]
    fn chunks_hold_what_was_stored_and_no_last_one_follows_a_fault(
        content in any_content(), pieces in proptest::collection::vec(1..9_usize, 1..6), binary: bool,
    ) {
        let body = if binary { BodyKind::BinaryMime } else { BodyKind::EightBitMime };
        let (wire, ended) = written(&content, &pieces, true, body);
        prop_assert_eq!(ended, binary || is_made_of_lines(&content));
        let (read, last) = chunks(&wire);
        prop_assert_eq!(last, ended);
        if ended {
            prop_assert_eq!(read, content);
        } else {
            prop_assert!(read.is_empty() || is_made_of_lines(&read), "{read:?}");
        }
    }
}
