//! What goes out comes back the same, and nothing that comes in panics.

use postroad_address::Mailbox;
use postroad_envelope::{
    BodyKind, Cause, DeliverBy, EditPlace, Envelope, Event, EventKind, HeaderEdit, HostPort,
    NextHop, Notify, Origin, OriginalRecipient, Outcome, Protocol, QueueId, Recipient,
    RecipientIndex, RemoteHost, Ret, RouteClass, Stage, StatusReport, Timestamp, TlsFacts,
};
use postroad_proto::queue::v1;
use postroad_reply::{BAD_MAILBOX_5_1_1, MAILBOX_UNAVAILABLE_550, Reply};
use proptest::prelude::*;
use prost::Message as _;

fn full_envelope() -> Envelope {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let sender: Mailbox = "alice@demo.test".parse().expect("valid");
    let mut envelope = Envelope::new(QueueId::mint(now, [3; 10]), sender.clone().into(), now);
    let mut recipient = Recipient::new(
        RecipientIndex(4),
        "\"b b\"@[IPv6:2001:db8::1]".parse().expect("valid"),
    );
    recipient.original = Some(sender);
    recipient.notify = Notify::Never;
    recipient.orcpt = Some(OriginalRecipient {
        address_type: "rfc822".into(),
        address: "x@y.example".into(),
    });
    recipient.route_override = Some((
        RouteClass::Lmtp,
        Some(NextHop::Host(HostPort {
            host: "2001:db8::2".into(),
            port: 24,
        })),
    ));
    recipient.target_folder = Some("Lists.Rust".into());
    envelope.recipients = vec![recipient];
    envelope.account = Some("alice@demo.test".into());
    envelope.tags = vec!["bulk".into()];
    envelope
        .facts
        .insert("message_id".into(), "<1@demo.test>".into());
    envelope.verdicts.insert("spf".into(), "pass".into());
    envelope.priority = -9;
    envelope.not_before = Some(now);
    envelope.expires_at = Some(now);
    envelope.deliver_by = Some(DeliverBy {
        at: now,
        return_after: true,
        trace: false,
    });
    envelope.body = BodyKind::BinaryMime;
    envelope.smtputf8 = true;
    envelope.requiretls = true;
    envelope.envid = Some("abc".into());
    envelope.ret = Some(Ret::Headers);
    envelope.auth = Some(String::new());
    envelope.size = 77;
    envelope.trace_context = Some("00-1-2-01".into());
    envelope.hop_count = 3;
    envelope.resent_of = Some(QueueId::mint(now, [9; 10]));
    envelope.header_edits = vec![
        HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"X: \xff\r\n".to_vec(),
        },
        HeaderEdit::Remove {
            name: "Bcc".into(),
            occurrence: Some(1),
        },
    ];
    envelope.origin = Origin {
        client: Some("[2001:db8::5]:4711".parse().expect("valid")),
        rdns: Some("client.example".into()),
        helo: Some("client".into()),
        tls: Some(TlsFacts {
            version: "TLS1.3".into(),
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            verified: Some("client.example".into()),
        }),
        account: Some("alice@demo.test".into()),
        protocol: Protocol::Esmtp {
            tls: true,
            auth: true,
            utf8: false,
        },
        peer: Some("192.0.2.25:25".parse().expect("valid")),
    };
    envelope
}

#[test]
fn envelope_survives_the_wire() {
    let envelope = full_envelope();
    let bytes = v1::Envelope::from(&envelope).encode_to_vec();
    let back = Envelope::try_from(v1::Envelope::decode(bytes.as_slice()).expect("decodes"))
        .expect("valid");
    assert_eq!(back, envelope);
}

#[test]
fn outcome_and_event_survive_the_wire() {
    let outcome = Outcome::Failed(StatusReport {
        status: BAD_MAILBOX_5_1_1,
        text: "mx1.example said no".into(),
        remote: Some(RemoteHost {
            name: "mx1.example".into(),
            address: Some("192.0.2.1:25".parse().expect("valid")),
            tls: None,
            tls_policy: Some("verify (MTA-STS policy of b.example)".into()),
        }),
        reply: Some(Reply::new(
            MAILBOX_UNAVAILABLE_550,
            BAD_MAILBOX_5_1_1,
            "no such user",
        )),
        stage: Some(Stage::Rcpt),
        cause: Some(Cause::MailboxUnknown),
    });
    assert_eq!(Outcome::try_from(v1::Outcome::from(&outcome)), Ok(outcome));
    for kind in EventKind::ALL {
        let event = Event {
            queue_id: full_envelope().queue_id,
            at: Timestamp::from_millis(5),
            agent: "mta@a".into(),
            kind,
            recipients: vec![RecipientIndex(0)],
            text: "x".into(),
            fields: [("relay".to_owned(), "mx1".to_owned())].into(),
        };
        assert_eq!(Event::try_from(v1::Event::from(event.clone())), Ok(event));
    }
}

#[test]
fn bounds_are_checked() {
    let mut wire = v1::Envelope::from(&full_envelope());
    wire.tags = vec!["x".repeat(65)];
    assert_eq!(
        Envelope::try_from(wire).expect_err("too long").field,
        "tags"
    );
    let mut wire = v1::Envelope::from(&full_envelope());
    wire.priority = 300;
    assert_eq!(
        Envelope::try_from(wire).expect_err("out of range").field,
        "priority"
    );
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = v1::Envelope::decode(bytes.as_slice()) {
            let _ = Envelope::try_from(wire);
        }
        if let Ok(wire) = v1::Outcome::decode(bytes.as_slice()) {
            let _ = Outcome::try_from(wire);
        }
    }
}
