use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

/// Feeds `wire` in steps; gives content, fault, and what was left behind the end (none: no end).
fn decode(wire: &[u8], step: usize) -> (Vec<u8>, Option<ContentFault>, Option<Vec<u8>>) {
    let mut decoder = DotDecoder::new(100);
    let (mut input, mut content) = (BytesMut::new(), Vec::new());
    let mut chunks = wire.chunks(step);
    while let Some(chunk) = chunks.next() {
        input.extend_from_slice(chunk);
        while let Some(piece) = decoder.decode(&mut input) {
            match piece {
                DotPiece::Content(bytes) => content.extend_from_slice(&bytes),
                DotPiece::End => {
                    let rest = chunks.flatten().copied();
                    let rest = input.iter().copied().chain(rest).collect();
                    return (content, decoder.fault(), Some(rest));
                }
            }
        }
    }
    (content, decoder.fault(), None)
}

/// What leaves before a fault, and the fault.
fn encode(content: &[u8], step: usize) -> (Vec<u8>, Result<(), ContentFault>) {
    let (mut encoder, mut out) = (DotEncoder::new(), BytesMut::new());
    let mut chunks = content.chunks(step);
    let encoded = chunks.try_for_each(|chunk| encoder.encode(chunk, &mut out));
    let ended = encoded.and_then(|()| encoder.finish(&mut out));
    (out.to_vec(), ended)
}

#[test]
fn rfc_5321_4_5_2_transparency() {
    let wire = b"..\r\n...x\r\n.x\r\n\r\n.\r\nQUIT\r\n";
    for step in 1..=wire.len() {
        let (content, fault, rest) = decode(wire, step);
        assert_eq!(content, b".\r\n..x\r\nx\r\n\r\n", "in steps of {step}");
        assert_eq!((fault, rest.as_deref()), (None, Some(&b"QUIT\r\n"[..])));
    }
    assert_eq!(decode(b".\r\n", 1), (vec![], None, Some(vec![])));
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_the_content() {
    let nul_behind_a_long_line = [&[b'x'; 101][..], b"\0"].concat();
    let cases: [(&[u8], ContentFault); 10] = [
        (b"x\n.\n", ContentFault::BareLf),
        (b"x\n.\r\n", ContentFault::BareLf),
        (b"x\r\n.\n", ContentFault::BareLf),
        (b"x\r.\r\n", ContentFault::BareCr),
        (b"x\r\n.\r", ContentFault::BareCr),
        (b"x\r\r\n.\r\r\n", ContentFault::BareCr),
        (b"\n.\r\n", ContentFault::BareLf),
        (b"x\0\r\n", ContentFault::Nul),
        (&[b'x'; 101], ContentFault::LineTooLong),
        (&nul_behind_a_long_line, ContentFault::LineTooLong),
    ];
    for (start, expected) in cases {
        let wire = [start, b"MAIL FROM:<a@b.example>\r\n.\r\nNOOP\r\n"].concat();
        for step in 1..=wire.len() {
            let (content, fault, rest) = decode(&wire, step);
            assert_eq!(fault, Some(expected), "{wire:?} in steps of {step}");
            assert_eq!(rest.as_deref(), Some(&b"NOOP\r\n"[..]));
            assert!(content.ends_with(b"MAIL FROM:<a@b.example>\r\n"));
        }
    }
}

#[test]
fn chunks_are_checked_across_their_borders() {
    let check = |chunks: &[&[u8]]| {
        let mut checker = ContentChecker::new(10);
        for chunk in chunks {
            checker.check(chunk);
        }
        checker.finish()
    };
    assert_eq!(check(&[b"a\r", b"\nb\r\n.\r\n"]), None);
    assert_eq!(check(&[b"a\r", b"", b"\n"]), None);
    assert_eq!(check(&[b"a\r", b"b"]), Some(ContentFault::BareCr));
    assert_eq!(check(&[b"a\r"]), Some(ContentFault::BareCr));
    assert_eq!(check(&[b"a", b"\nb"]), Some(ContentFault::BareLf));
    assert_eq!(
        check(&[b"01234", b"56789\r\n", b"0123456789\r", b"\n"]),
        None
    );
    assert_eq!(
        check(&[b"01234", b"567890"]),
        Some(ContentFault::LineTooLong)
    );
}

#[test]
fn what_leaves_is_canonical() {
    let leaves = |content: &[u8], step| {
        let (wire, ended) = encode(content, step);
        assert_eq!(ended, Ok(()), "{content:?} in steps of {step}");
        String::from_utf8(wire).unwrap()
    };
    assert_eq!(leaves(b"", 1), ".\r\n");
    assert_eq!(leaves(b".", 1), "..\r\n.\r\n");
    for step in 1..=20 {
        assert_eq!(
            leaves(b"a\r\n.\r\nb.\r\n..\r\n.d", step),
            "a\r\n..\r\nb.\r\n...\r\n..d\r\n.\r\n"
        );
        assert_eq!(leaves(b"\r\n\r\n.x\r\n", step), "\r\n\r\n..x\r\n.\r\n");
    }
}

#[test]
fn content_with_a_fault_never_ends() {
    let cases: [(&[u8], ContentFault); 7] = [
        (b"a\n.\r\n", ContentFault::BareLf),
        (b"a\r\n.\n", ContentFault::BareLf),
        (b"\n", ContentFault::BareLf),
        (b"a\r.\r\n", ContentFault::BareCr),
        (b"a\r\r\n", ContentFault::BareCr),
        (b"a\r", ContentFault::BareCr),
        (b"a\0\r\n", ContentFault::Nul),
    ];
    for (content, fault) in cases {
        for step in 1..=content.len() {
            let (wire, ended) = encode(content, step);
            assert_eq!(ended, Err(fault), "{content:?} in steps of {step}");
            assert!(!wire.ends_with(b"\r") && !wire.ends_with(b".\r\n"));
        }
    }
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(
        lines in proptest::collection::vec("[.a ]{0,6}", 0..12), encode_step in 1..9_usize, step in 1..9_usize,
    ) {
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let (wire, ended) = encode(content.as_bytes(), encode_step);
        prop_assert_eq!(ended, Ok(()));
        let (decoded, fault, rest) = decode(&wire, step);
        prop_assert_eq!(String::from_utf8(decoded).unwrap(), content);
        prop_assert_eq!((fault, rest), (None, Some(vec![])));
    }

    #[test]
    fn no_octets_can_smuggle_an_end(
        content in proptest::collection::vec(proptest::sample::select(b".\r\nx".as_slice()), 0..40), step in 1..9_usize,
    ) {
        let (wire, ended) = encode(&content, step);
        let (_, fault, rest) = decode(&wire, 3);
        let has_end = ended.is_ok().then(Vec::new);
        prop_assert_eq!((fault, rest), (None, has_end));
    }
}
