use bytes::Bytes;
use postroad_envelope::{
    MAX_NEXT_HOPS, MAX_NEXT_HOPS_TEXT, Outcome, RecipientIndex, RemoteHost, StatusReport,
    WeightedHop,
};
use postroad_journal::{ContentNonce, ContentRef, RecordDraft};
use postroad_reply::{MAILBOX_UNAVAILABLE_550, Reply};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    Digest, Fence, Progress, Revision,
    samples::{at, envelope, full_envelope, id, job_state, key},
};

fn payload(draft: &RecordDraft) -> Bytes {
    draft.parts.concat().into()
}

fn mail(content: Content) -> MailRecord {
    MailRecord {
        envelope: full_envelope(),
        content,
        digest: Digest {
            len: 1,
            crc32c: 2,
            envelope: 3,
        },
        jobs: vec![job_state(9, 2)],
    }
}

#[test]
fn a_mail_comes_back_whole_and_its_content_is_not_copied() {
    let content = Bytes::from_static(b"Subject: x\r\n\r\nbody\0\xff");
    for content in [
        Content::Inline(content.clone()),
        Content::Inline(Bytes::new()),
        Content::File(ContentRef {
            nonce: ContentNonce([7; 16]),
            len: 1 << 40,
            crc: u32::MAX,
        }),
    ] {
        let record = mail(content.clone());
        let draft = record.draft();
        assert_eq!(draft.kind, MAIL);
        if let Content::Inline(bytes) = &content {
            assert_eq!(draft.parts[1].as_ptr(), bytes.as_ptr());
        }
        let read = MailRecord::decode(payload(&draft)).unwrap();
        assert_eq!(read, record);
        let jobs = Vec::new();
        let without = MailRecord::decode_mail(payload(&draft)).unwrap();
        assert_eq!(without, MailRecord { jobs, ..record });
    }
}

#[test]
fn a_mail_copied_forward_keeps_all_but_its_first_states() {
    let record = mail(Content::Inline(Bytes::from_static(b"content")));
    // A field of a later release in the head.
    let whole = payload(&record.draft());
    let mut head = prost::bytes::Bytes::copy_from_slice(&whole);
    let len = prost::encoding::decode_varint(&mut head).unwrap() as usize;
    let later = [&head[..len], &[0xfa, 0x3e, 2, b'h', b'i']].concat();
    let mut whole = Vec::new();
    prost::encode_length_delimiter(later.len(), &mut whole).unwrap();
    whole.extend([&later, &b"content"[..]].concat());

    let moved = payload(&moved_draft(whole.into()).unwrap());
    let read = MailRecord::decode(moved.clone()).unwrap();
    assert_eq!(
        read,
        MailRecord {
            jobs: Vec::new(),
            ..record
        }
    );
    assert!(moved.windows(5).any(|w| w == [0xfa, 0x3e, 2, b'h', b'i']));
    assert_eq!(
        moved_draft(moved.clone())
            .map(|draft| payload(&draft))
            .unwrap(),
        moved
    );
}

#[test]
fn a_state_keeps_what_it_does_not_know() {
    let state = job_state(1, 2);
    let later = [
        &encode_state(&state)[..],
        &[0xfa, 0x3e, 2, b'h', b'i', 0xa0, 0x3f, 5],
    ]
    .concat();
    let read = decode_state(&later).unwrap();
    assert_eq!(read.unknown, later[later.len() - 8..]);
    let again = decode_state(&encode_state(&read.reported(at(3)))).unwrap();
    assert_eq!(again.unknown, later[later.len() - 8..]);
    assert_eq!(again.revision, Revision(2));
}

/// Old and new releases read each other's: a socket is a host that the old one does not find.
#[test]
fn a_socket_stands_where_a_host_does() {
    let mut state = job_state(1, 1);
    state.next_hop = Some("unix:/run/dovecot/lmtp".parse().unwrap());
    let bytes = encode_state(&state);
    assert_eq!(decode_state(&bytes).unwrap(), state);
    let stored = wire::JobState::decode(&bytes[..]).unwrap();
    let host = stored.next_hop.unwrap();
    assert_eq!(
        (host.host.as_str(), host.port),
        ("unix:/run/dovecot/lmtp", 0)
    );
    for host in ["unix:24", "[2001:db8::1]:24"] {
        state.next_hop = Some(host.parse().unwrap());
        assert_eq!(decode_state(&encode_state(&state)).unwrap(), state);
    }
}

fn hop(text: &str, weight: u16, preference: u16) -> WeightedHop {
    WeightedHop {
        hop: text.parse().unwrap(),
        weight,
        preference,
    }
}

/// A release that knows of one next hop alone goes by the first; what it changes counts more than what it does not know of.
#[test]
fn of_several_next_hops_each_release_knows_the_first() {
    let mut state = job_state(1, 1);
    let hops = vec![hop("a.test:587", 3, 0), hop("unix:/run/lmtp", 0, 10)];
    state.take(postroad_envelope::Route {
        source: Some("bulk".parse().unwrap()),
        ..state.route().through(hops)
    });
    let bytes = encode_state(&state);
    assert_eq!(decode_state(&bytes).unwrap(), state);
    let mut stored = wire::JobState::decode(&bytes[..]).unwrap();
    assert_eq!(stored.next_hop.as_ref().unwrap().host, "a.test");
    stored.next_hop.as_mut().unwrap().port = 25;
    let rerouted = decode_state(&stored.encode_to_vec()).unwrap();
    assert_eq!(rerouted.next_hop, Some("a.test:25".parse().unwrap()));
    assert_eq!(rerouted.next_hops, []);
    stored.next_hop = None;
    assert_eq!(decode_state(&stored.encode_to_vec()).unwrap().next_hops, []);
}

#[test]
fn a_state_fits_into_the_index_however_long_a_remote_talks() {
    let mut state = job_state(1, 100);
    // The most that a route may have.
    let most = MAX_NEXT_HOPS_TEXT / MAX_NEXT_HOPS - "00:65535".len();
    let hops = (10..10 + MAX_NEXT_HOPS).map(|n| {
        hop(
            &format!("{n}{}:65535", "x".repeat(most)),
            u16::MAX,
            u16::MAX,
        )
    });
    state.take(postroad_envelope::Route {
        source: Some("x".repeat(64).parse().unwrap()),
        rule: "x".repeat(128),
        destination: "x".repeat(255),
        ..state.route().through(hops.collect())
    });
    for (n, recipient) in state.recipients.iter_mut().enumerate() {
        let mut report = StatusReport::local("5.1.1".parse().unwrap(), format!("{n}").repeat(500));
        report.reply = Some(Reply::plain(
            MAILBOX_UNAVAILABLE_550,
            format!("{n}ä").repeat(5000),
        ));
        report.remote = Some(RemoteHost {
            name: "mx.".repeat(100),
            address: Some("192.0.2.1:25".parse().unwrap()),
            tls: None,
            tls_policy: None,
        });
        recipient.index = RecipientIndex(u32::MAX - n as u32);
        recipient.progress = Progress::Done(Outcome::Failed(report));
    }
    let bytes = encode_state(&state);
    assert!(bytes.len() <= MAX_STATE, "{}", bytes.len());
    let read = decode_state(&bytes).unwrap();
    assert_eq!(read.recipients.len(), 100);
    assert_eq!(read.next_hops, state.next_hops);
    let report = read.recipients[99].last_report().unwrap();
    assert_eq!(report.status.to_string(), "5.1.1");
    // Alike, they cost one report, and nothing is cut.
    let same = StatusReport::local("5.1.1".parse().unwrap(), "no such user");
    for recipient in &mut state.recipients {
        recipient.progress = Progress::Done(Outcome::Failed(same.clone()));
    }
    assert_eq!(decode_state(&encode_state(&state)).unwrap(), state);
}

#[test]
fn why_a_job_is_not_done_is_read_without_the_rest_of_its_state() {
    let found = StatusReport::local("4.4.1".parse().unwrap(), "nobody answers");
    let told = StatusReport {
        reply: Some(Reply::plain(MAILBOX_UNAVAILABLE_550, "nobody there")),
        ..found.clone()
    };
    let mut states = vec![job_state(1, 3)];
    for progress in [
        Progress::Pending(Some(told)),
        Progress::Pending(Some(found.clone())),
        Progress::Done(Outcome::Failed(found)),
    ] {
        let mut state = job_state(1, 3);
        state.recipients[1].progress = progress;
        states.push(state);
    }
    let reasons = states.iter().filter_map(JobState::reason);
    assert_eq!(reasons.count(), 2);
    for state in &mut states {
        assert_eq!(
            reason_of_state(&encode_state(state)).unwrap(),
            state.reason()
        );
        state.hold = Some("rule spam".to_owned());
        assert_eq!(
            reason_of_state(&encode_state(state)).unwrap(),
            state.reason()
        );
    }
    assert!(reason_of_state(b"\xff").is_err());
}

#[test]
fn marks_come_back() {
    let hint = LeaseHint {
        job: key(1, 2),
        revision: Revision(3),
        agent: "mta".to_owned(),
        fence: Fence {
            epoch: 4,
            counter: 5,
        },
        deadline: at(6),
    };
    let hints = LeaseHints(vec![hint.clone()]);
    let checkpoint = Checkpoint {
        epoch: 4,
        at: at(1),
        leases: vec![hint],
        retired_before: postroad_journal::Lsn(9),
        living_jobs: Some(7),
    };
    let snapshot = Snapshot([("rules".to_owned(), vec![0, 255])].into());
    let finished = Finished {
        queue_id: id(1),
        at: at(2),
        digest: Digest::default(),
    };
    let block = FinishedBlock(vec![finished]);
    for (draft, record) in [
        (hints.draft(), Record::LeaseHints(hints.clone())),
        (checkpoint.draft(), Record::Checkpoint(checkpoint.clone())),
        (snapshot.draft(), Record::Snapshot(snapshot.clone())),
        (block.draft(), Record::FinishedBlock(block.clone())),
        (encode_epoch(7), Record::Epoch(7)),
    ] {
        assert_eq!(
            Record::decode(draft.kind, &payload(&draft)).unwrap(),
            record
        );
    }
    let later = RecordKind(999);
    assert_eq!(Record::decode(later, b"?").unwrap(), Record::Unknown(later));
}

/// The first release's octets: a change here is a change of the format on disk.
#[test]
fn golden_state() {
    let state = job_state(1, 1);
    let message = wire::JobState::decode(&encode_state(&state)[..]).unwrap();
    assert_eq!(message.recipients[0].notify, 1);
    let crc = crc32c::crc32c(&encode_state(&state));
    assert_eq!(
        crc,
        0xec6c_a6b9,
        "encoded: {:02x?}",
        &encode_state(&state)[..]
    );
}

proptest! {
    #[test]
    fn arbitrary_octets_never_panic(kind in 0_u16..9, payload: Vec<u8>) {
        let _ = Record::decode(RecordKind(kind), &payload);
    }

    #[test]
    fn damaged_records_never_panic(at in 0_usize..400, with: u8) {
        let whole = payload(&mail(Content::Inline(Bytes::from_static(b"content"))).draft());
        let mut bytes = whole.to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = Record::decode(MAIL, &bytes);
        let _ = Record::decode(MAIL, &bytes[..at]);
        let state = &mut encode_state(&job_state(1, 3)).to_vec();
        let at = at % state.len();
        state[at] = with;
        let _ = Record::decode(JOB_STATE, state);
        let _ = moved_draft(bytes.into());
    }

    #[test]
    fn any_sender_and_size_come_back(size: u64, priority: i8, account in proptest::option::of(".{0,20}")) {
        let mut envelope = envelope(1, &["bob@example.com"]);
        (envelope.size, envelope.priority, envelope.account) = (size, priority, account);
        let record = MailRecord { envelope, ..mail(Content::Inline(Bytes::new())) };
        prop_assert_eq!(MailRecord::decode(payload(&record.draft())).unwrap(), record);
    }
}
