//! Plain values for the tests of this crate.

use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::{
    BodyKind, DeliverBy, EditPlace, Envelope, HeaderEdit, HostPort, NextHop, Notify, Origin,
    OriginalRecipient, Protocol, QueueId, Recipient, RecipientIndex, Ret, Route, RouteClass,
    Timestamp, TlsFacts,
};

use crate::{Digest, JobKey, JobState, RecipientState, Revision};

/// So many seconds after the beginning of all tests.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

pub fn id(number: u8) -> QueueId {
    QueueId::mint(at(0), [number; 10])
}

pub fn key(number: u8, job: u32) -> JobKey {
    JobKey {
        queue_id: id(number),
        number: job,
    }
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

pub fn job_state(number: u8, recipients: u32) -> JobState {
    JobState {
        key: key(number, 0),
        revision: Revision(1),
        class: RouteClass::Relay,
        destination: "example.com".to_owned(),
        store: postroad_envelope::StoreName::default(),
        next_hop: None,
        next_hops: Vec::new(),
        source: None,
        rule: "mx".to_owned(),
        priority: 0,
        arrived_at: at(0),
        expires_at: at(5 * 86400),
        deadline: None,
        due: at(0),
        attempts: 0,
        changed_at: at(0),
        hold: None,
        debt_since: None,
        recipients: (0..recipients)
            .map(|n| RecipientState::new(RecipientIndex(n), Notify::default(), false))
            .collect(),
        of_jobs: 1,
        digest: Digest {
            len: 3,
            crc32c: 4,
            envelope: 5,
        },
        unknown: Default::default(),
    }
}

/// An ordinary mail to these addresses.
pub fn envelope(number: u8, to: &[&str]) -> Envelope {
    let sender = ReversePath::parse("alice@demo.test").unwrap();
    let mut envelope = Envelope::new(id(number), sender, at(0));
    let recipients = (0..).zip(to);
    envelope.recipients = recipients
        .map(|(n, to)| Recipient::new(RecipientIndex(n), mailbox(to)))
        .collect();
    envelope
}

/// Relays all but `demo.test`; `drop.test` is discarded, `hold.test` held.
pub fn route(_: &Envelope, recipient: &Recipient) -> Route {
    let domain = recipient.address.domain().a_label().to_owned();
    let class = match domain.as_str() {
        "demo.test" => RouteClass::Local,
        "drop.test" => RouteClass::Discard,
        "hold.test" => RouteClass::Hold,
        _ => RouteClass::Relay,
    };
    Route::new(class, domain, class.to_string())
}

/// Every field with something in it.
pub fn full_envelope() -> Envelope {
    let mut envelope = envelope(9, &["bob@example.com", "\"o d d\"@xn--bcher-kva.example"]);
    let map = |k: &str, v: &str| [(k.to_owned(), v.to_owned())].into_iter().collect();
    let bob = &mut envelope.recipients[0];
    bob.original = Some(mailbox("list@demo.test"));
    bob.notify = Notify::On {
        success: true,
        failure: false,
        delay: true,
    };
    bob.orcpt = Some(OriginalRecipient {
        address_type: "rfc822".to_owned(),
        address: "list@demo.test".to_owned(),
    });
    let host = NextHop::Host(HostPort {
        host: "2001:db8::1".to_owned(),
        port: 2525,
    });
    bob.route_override = Some((RouteClass::Lmtp, Some(host)));
    bob.target_folder = Some("Lists".to_owned());
    envelope.recipients[1].notify = Notify::Never;
    envelope.account = Some("alice".to_owned());
    envelope.tags = vec!["bulk".to_owned()];
    envelope.facts = map("message_id", "<1@demo.test>");
    envelope.listener = "submission".to_owned();
    envelope.priority = -9;
    envelope.not_before = Some(at(7));
    envelope.expires_at = Some(at(8));
    envelope.deliver_by = Some(DeliverBy {
        at: at(9),
        return_after: true,
        trace: true,
    });
    envelope.body = BodyKind::BinaryMime;
    envelope.smtputf8 = true;
    envelope.requiretls = true;
    envelope.envid = Some("QQ314159".to_owned());
    envelope.ret = Some(Ret::Headers);
    envelope.auth = Some(String::new());
    envelope.size = u64::MAX;
    envelope.verdicts = map("spf", "pass");
    envelope.trace_context = Some("00-1-2-01".to_owned());
    envelope.hop_count = 3;
    envelope.resent_of = Some(id(1));
    envelope.header_edits = vec![
        HeaderEdit::Add {
            place: EditPlace::Top,
            field: b"X: \xff\r\n".to_vec(),
        },
        HeaderEdit::Remove {
            name: "Bcc".to_owned(),
            occurrence: Some(0),
        },
    ];
    envelope.origin = Origin {
        client: Some("[2001:db8::2]:4711".parse().unwrap()),
        rdns: Some("client.example".to_owned()),
        helo: Some("client".to_owned()),
        tls: Some(TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: "C".to_owned(),
            verified: Some("client.example".to_owned()),
        }),
        account: Some("alice".to_owned()),
        protocol: Protocol::Esmtp {
            tls: true,
            auth: true,
            utf8: true,
        },
        peer: Some("192.0.2.25:25".parse().unwrap()),
    };
    envelope
}
