use jiff::tz::TimeZone;
use postroad_envelope::{BodyKind, Notify, Ret};
use proptest::prelude::*;

use super::*;

/// A file as Postfix 3.7 writes it.
fn file(records: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, value) in records {
        out.push(*kind);
        let mut len = value.len();
        while len > 0x7f {
            out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
            len >>= 7;
        }
        out.push(u8::try_from(len).unwrap());
        out.extend_from_slice(value);
    }
    out
}

const SIZE: &[u8] = b"           5525             835               3              22            5525               7";

fn sample() -> Vec<u8> {
    let long = [b'x'; 300];
    file(&[
        (b'C', SIZE),
        (b'T', b"1795764197 318411"),
        (b'A', b"log_ident=4FC9E9980C0"),
        (b'A', b"envelope_id=abc+1"),
        (b'A', b"ret_flags=2"),
        (b'S', "j\u{fc}rgen@x.test".as_bytes()),
        (b'A', b"encoding=8bit"),
        (b'A', b"log_client_name=unknown"),
        (b'A', b"log_client_address=192.0.2.9"),
        (b'A', b"log_client_port=58460"),
        (b'A', b"log_helo_name=client.test"),
        (b'A', b"client_address=192.0.2.1"),
        (b'A', b"client_port=4025"),
        (b'A', b"log_protocol_name=ESMTP"),
        (b'A', b"dsn_orig_rcpt=rfc822;ok@ok.test"),
        (b'O', b"ok@ok.test"),
        (b'D', b"ok@ok.test"),
        (b'A', b"notify_flags=10"),
        (b'A', b"dsn_orig_rcpt=rfc822;orig+b@z.test"),
        (b'O', b"b@far.test"),
        (b'R', b"b@far.test"),
        (b'A', b"notify_flags=1"),
        (b'O', b"list@old.test"),
        (b'R', b"one two@far.test"),
        (b'M', b""),
        (b'N', b"Received: from x"),
        (b'N', b"\tby y"),
        (b'N', b"Subject: s"),
        (b'N', b""),
        (b'N', b".dot"),
        (b'L', &long),
        (b'N', b"\xff\0\rend"),
        (b'N', b"*** HEADER EXTRACTED deferred/4/4FC9E9980C0 ***"),
        (b'X', b""),
        (b'A', b"encoding=8bit"),
        (b'E', b""),
    ])
}

fn utc() -> TimeZone {
    TimeZone::UTC
}

fn taken(octets: &[u8], folder: &str) -> Result<WaitingMail, MailFault> {
    let found = Found {
        folder: Some(folder),
        name: "4FC9E9980C0",
    };
    read(octets, found, Zone(&utc()))
}

/// What postcat prints of the sample.
fn printed() -> Vec<u8> {
    let mut text = "*** ENVELOPE RECORDS deferred/4/4FC9E9980C0 ***\nmessage_size:            5525             835               3              22            5525               7\n\
        message_arrival_time: Fri Nov 27 07:23:17 2026\ncreate_time: Fri Nov 27 07:23:17 2026\nnamed_attribute: log_ident=4FC9E9980C0\n\
        named_attribute: envelope_id=abc+1\nnamed_attribute: ret_flags=2\nsender: j\u{fc}rgen@x.test\nnamed_attribute: encoding=8bit\n\
        named_attribute: log_client_name=unknown\nnamed_attribute: log_client_address=192.0.2.9\nnamed_attribute: log_client_port=58460\n\
        named_attribute: log_helo_name=client.test\nnamed_attribute: client_address=192.0.2.1\nnamed_attribute: client_port=4025\nnamed_attribute: log_protocol_name=ESMTP\nnamed_attribute: dsn_orig_rcpt=rfc822;ok@ok.test\n\
        original_recipient: ok@ok.test\ndone_recipient: ok@ok.test\nnamed_attribute: notify_flags=10\nnamed_attribute: dsn_orig_rcpt=rfc822;orig+b@z.test\n\
        original_recipient: b@far.test\nrecipient: b@far.test\nnamed_attribute: notify_flags=1\noriginal_recipient: list@old.test\nrecipient: one two@far.test\n\
        *** MESSAGE CONTENTS deferred/4/4FC9E9980C0 ***\nReceived: from x\n\tby y\nSubject: s\n\n.dot\n"
        .as_bytes()
        .to_vec();
    text.extend_from_slice(&[b'x'; 300]);
    text.extend_from_slice(b"\xff\0\rend\n*** HEADER EXTRACTED deferred/4/4FC9E9980C0 ***\n");
    text.extend_from_slice(b"*** HEADER EXTRACTED deferred/4/4FC9E9980C0 ***\nnamed_attribute: encoding=8bit\n*** MESSAGE FILE END deferred/4/4FC9E9980C0 ***\n");
    text
}

#[test]
fn a_file_and_what_postcat_prints_of_it_are_the_same_mail() {
    let mail = taken(&sample(), "deferred").unwrap();
    assert_eq!(mail, taken(&printed(), "whatever").unwrap());
    let envelope = &mail.envelope;
    assert_eq!(envelope.received_at.to_string(), "2026-11-27T07:23:17.000Z");
    assert_eq!(envelope.reverse_path.to_string(), "j\u{fc}rgen@x.test");
    assert!(envelope.smtputf8 && envelope.body == BodyKind::EightBitMime);
    assert_eq!(
        (envelope.envid.as_deref(), envelope.ret),
        (Some("abc+1"), Some(Ret::Headers))
    );
    assert_eq!(envelope.hop_count, 1);
    assert_eq!(
        envelope.origin.client.unwrap().to_string(),
        "192.0.2.9:58460"
    );
    assert_eq!(envelope.origin.peer.unwrap().to_string(), "192.0.2.1:4025");
    assert_eq!(envelope.origin.helo.as_deref(), Some("client.test"));
    assert_eq!(mail.done, [RecipientIndex(0)]);
    let [ok, b, list] = envelope.recipients.as_slice() else {
        panic!("three recipients");
    };
    assert_eq!(ok.notify, Notify::default());
    let some = Notify::On {
        success: true,
        failure: false,
        delay: true,
    };
    assert_eq!(
        (b.notify, b.orcpt.as_ref().unwrap().address.as_str()),
        (some, "orig+b@z.test")
    );
    assert_eq!(list.notify, Notify::Never);
    assert_eq!(list.address.to_string(), "\"one two\"@far.test");
    assert_eq!(list.original.as_ref().unwrap().to_string(), "list@old.test");
    assert!(
        mail.content
            .starts_with(b"Received: from x\r\n\tby y\r\nSubject: s\r\n\r\n.dot\r\nxxx")
    );
    assert!(
        mail.content
            .ends_with(b"x\xff\0\rend\r\n*** HEADER EXTRACTED deferred/4/4FC9E9980C0 ***\r\n")
    );
    assert!(!mail.held && taken(&sample(), "hold").unwrap().held);
}

#[test]
fn its_id_is_the_same_each_time_and_another_for_another_mail() {
    let one = taken(&sample(), "deferred").unwrap().envelope.queue_id;
    assert_eq!(taken(&sample(), "hold").unwrap().envelope.queue_id, one);
    let found = Found {
        folder: None,
        name: "4FC9E9980C1",
    };
    let other = read(&sample(), found, Zone(&utc()))
        .unwrap()
        .envelope
        .queue_id;
    assert_ne!(other, one);
}

#[test]
fn newer_records_are_at_the_end() {
    let head = file(&[
        (b'C', SIZE),
        (b'T', b"1795764197 0"),
        (b'S', b""),
        (b'R', b"a@b.test"),
        (b'M', b""),
        (b'N', b"Subject: old"),
    ]);
    let target = head.len() + 12 + 2;
    let jump = format!("{target:>12}");
    let mut octets = head.clone();
    octets.extend(file(&[(b'p', jump.as_bytes())]));
    octets.extend(file(&[
        (b'N', b"X: 1"),
        (b'p', b"           0"),
        (b'X', b""),
        (b'E', b""),
    ]));
    let mail = taken(&octets, "deferred").unwrap();
    assert_eq!(mail.content, b"Subject: old\r\nX: 1\r\n");
    let circle = file(&[(b'C', SIZE), (b'p', b"99")]);
    assert_eq!(circle.len(), 101);
    let mut circle = circle;
    let at = circle.len() - 4;
    circle.truncate(at);
    circle.extend(file(&[(b'p', at.to_string().as_bytes())]));
    assert_eq!(
        taken(&circle, "deferred"),
        Err(MailFault::Cut("its records lead in a circle"))
    );
}

#[test]
fn what_is_no_mail_is_told() {
    assert_eq!(taken(b"Hello", "deferred"), Err(MailFault::NoMail));
    assert_eq!(taken(&sample(), "maildrop"), Err(MailFault::NotTakenUp));
    let cut = &sample()[..400];
    assert!(matches!(taken(cut, "deferred"), Err(MailFault::Cut(_))));
    let half = &printed()[..900];
    assert!(matches!(taken(half, "deferred"), Err(MailFault::Cut(_))));
    let done = file(&[
        (b'C', SIZE),
        (b'T', b"1 0"),
        (b'S', b""),
        (b'D', b"a@b.test"),
        (b'M', b""),
        (b'X', b""),
        (b'E', b""),
    ]);
    assert_eq!(taken(&done, "deferred"), Err(MailFault::Nobody));
}

#[test]
fn clocks_have_a_zone() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let found = Found {
        folder: None,
        name: "x",
    };
    let mail = read(&printed(), found, Zone(&zone)).unwrap();
    assert_eq!(
        mail.envelope.received_at.to_string(),
        "2026-11-27T05:23:17.000Z"
    );
}

proptest! {
    #[test]
    fn arbitrary_octets_are_no_reason_to_fall(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = taken(&octets, "deferred");
        let _ = taken(&[&b"C"[..], &octets].concat(), "deferred");
        let _ = taken(&[&b"*** ENVELOPE RECORDS a ***\n"[..], &octets].concat(), "deferred");
    }

    #[test]
    fn any_flip_of_an_octet_is_a_mail_or_a_fault(at in 0_usize..700, octet: u8) {
        let mut octets = sample();
        if let Some(slot) = octets.get_mut(at) {
            *slot = octet;
        }
        let _ = taken(&octets, "deferred");
    }
}
