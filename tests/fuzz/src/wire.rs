//! Decoders of single things.

use bytes::{Bytes, BytesMut};
use postroad_address::{Domain, ForwardPath, Mailbox, ReversePath};
use postroad_envelope::{EditPlace, HeaderEdit};
use postroad_message::{HeaderBlock, HeaderSplitter, Split, apply_edits, split};
use postroad_queue::MailRecord;
use postroad_smtp::{Command, ContentChecker, DotDecoder, DotPiece, Extension, ReplyDecoder};

use crate::pieces;

/// A command that is understood is the same when it is written and read again.
pub fn command(input: &[u8]) {
    let Ok(parsed) = Command::parse(input) else {
        return;
    };
    // What is never sent by us is written without its argument.
    if parsed == Command::Etrn {
        return;
    }
    let mut written = BytesMut::new();
    parsed.write_to(&mut written);
    let line = written.strip_suffix(b"\r\n").expect("a line");
    assert!(!line.contains(&b'\r') && !line.contains(&b'\n'));
    // Written in full it may be longer than a line may be.
    if let Ok(again) = Command::parse(line) {
        assert_eq!(again, parsed);
    }
}

/// However a reply comes in pieces, it is the same one; and one that is understood can be said again.
pub fn reply(input: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut buffer) = (ReplyDecoder::default(), BytesMut::new());
        let mut read = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(reply) = decoder.decode(&mut buffer) {
                let failed = reply.is_err();
                read.push(reply.map_err(|error| error.to_string()));
                if failed {
                    return read;
                }
            }
        }
        read
    };
    let whole = read(&[input]);
    assert_eq!(read(&pieces(input)), whole);
    for reply in whole.into_iter().flatten() {
        let again = read(&[&reply.to_wire()]);
        assert_eq!(again.len(), 1, "{reply:?}");
    }
}

/// A line of a reply to EHLO is the same when it is written and read again.
pub fn capabilities(input: &[u8]) {
    let Ok(line) = str::from_utf8(input) else {
        return;
    };
    if line.contains(['\r', '\n']) {
        return;
    }
    let written = Extension::parse(line).to_string();
    assert_eq!(Extension::parse(&written).to_string(), written);
}

/// An address that is understood is the same when it is written and read again, and its domain's forms are of one domain.
pub fn address(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    if let Ok(mailbox) = Mailbox::parse(text) {
        let written = mailbox.to_string();
        assert_eq!(
            Mailbox::parse(&written).expect("as it was written"),
            mailbox
        );
        assert!(!written.contains(['\r', '\n', '\0']));
        let domain = mailbox.domain();
        let again = Domain::parse(domain.a_label()).expect("its A-labels");
        assert_eq!(again.a_label(), domain.a_label());
        assert!(domain.a_label().is_ascii());
    }
    if let Ok(path) = ForwardPath::parse(text) {
        assert_eq!(ForwardPath::parse(&path.to_string()).as_ref(), Ok(&path));
    }
    if let Ok(path) = ReversePath::parse(text) {
        assert_eq!(ReversePath::parse(&path.to_string()).as_ref(), Ok(&path));
    }
}

/// Content is the same however it comes in pieces, its faults are too, and it ends where CRLF.CRLF ends it.
pub fn content(input: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut buffer) = (DotDecoder::new(1000), BytesMut::new());
        let (mut content, mut ended) = (Vec::new(), false);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while !ended && let Some(found) = decoder.decode(&mut buffer) {
                match found {
                    DotPiece::Content(octets) => content.extend_from_slice(&octets),
                    DotPiece::End => ended = true,
                }
            }
        }
        (content, ended, decoder.fault(), buffer.to_vec())
    };
    let whole = read(&[input]);
    let (parts, ended, fault, left) = read(&pieces(input));
    assert_eq!((&parts, ended), (&whole.0, whole.1));
    if ended {
        assert_eq!((fault, &left), (whole.2, &whole.3));
        let stream = [b"\r\n", input].concat();
        let end = stream.windows(5).position(|window| window == b"\r\n.\r\n");
        assert_eq!(end.expect("it has an end") + 3, input.len() - left.len());
    }
    let mut checker = ContentChecker::new(1000);
    for piece in pieces(input) {
        checker.check(piece);
    }
    let mut at_once = ContentChecker::new(1000);
    at_once.check(input);
    assert_eq!(checker.finish(), at_once.finish());
}

/// A header is found however it comes in pieces, and an edit does what it says.
pub fn header(input: &[u8]) {
    let mut splitter = HeaderSplitter::new(1 << 20);
    let mut found = None;
    let mut taken = 0;
    for piece in pieces(input) {
        taken += piece.len();
        match splitter.push(piece) {
            Ok(Split::Incomplete) => {}
            Ok(Split::Complete { header, rest }) => {
                found = Some((header, rest));
                break;
            }
            Err(_) => return,
        }
    }
    let (header, rest) = found.unwrap_or_else(|| splitter.finish());
    let again = [&header[..], &rest[..]].concat();
    assert_eq!(again, input.get(..taken).unwrap_or_default());
    assert_eq!(split(&again).0, &header[..]);

    let block = HeaderBlock::parse(&header);
    let edits = [
        HeaderEdit::Remove {
            name: "Bcc".to_owned(),
            occurrence: None,
        },
        HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"X-Added: yes\r\n".to_vec(),
        },
    ];
    let edited = apply_edits(&header, &edits);
    let edited = HeaderBlock::parse(&edited);
    assert!(!edited.has("Bcc"));
    assert_eq!(edited.first("X-Added").as_deref(), Some("yes"));
    assert_eq!(edited.count("Received"), block.count("Received"));
}

/// What the disk gives is a mail, or an error.
pub fn record(input: &[u8]) {
    if let Ok(record) = MailRecord::decode(Bytes::copy_from_slice(input)) {
        let payload = record.draft().parts.concat();
        let again = MailRecord::decode(payload.into()).expect("as it was written");
        assert_eq!(again.envelope, record.envelope);
    }
}
