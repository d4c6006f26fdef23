use bytes::Bytes;
use postroad_journal::{Location, Lsn, SegmentNumber};

use super::*;
use crate::{
    Options,
    samples::{at, envelope, route},
};

const START: u64 = 1000;

fn content() -> Content {
    Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"))
}

/// A mail whose id was minted so many seconds after the beginning.
fn minted(number: u8, seconds: u64) -> Envelope {
    let mut envelope = envelope(number, &["bob@far.test"]);
    envelope.queue_id = QueueId::mint(at(seconds), [number; 10]);
    envelope
}

fn newcomers() -> Newcomers {
    Newcomers::new(RetrySchedule::default(), Arc::default(), at(START))
}

fn ask(newcomers: &Newcomers, envelope: Envelope) -> Reception {
    let asked = newcomers.prepare_insert(envelope, content(), at(START), &route);
    asked.unwrap()
}

fn admitted(reception: Reception) -> Prepared {
    match reception {
        Reception::Answer(Admission::New(prepared)) => prepared,
        _ => panic!("not new"),
    }
}

fn place(lsn: u64) -> Location {
    Location {
        segment: SegmentNumber(1),
        offset: 128,
        len: 1,
        lsn: Lsn(lsn),
    }
}

fn learn(newcomers: &Newcomers, prepared: &Prepared) -> Option<Timestamp> {
    let record = &prepared.records()[0];
    let payload = record.parts.concat();
    newcomers.learn(RecordRef {
        lsn: Lsn(1),
        location: place(1),
        kind: record.kind,
        payload: &payload,
    })
}

#[test]
fn an_id_minted_before_the_start_waits_for_the_index() {
    let newcomers = newcomers();
    let before = ask(&newcomers, minted(1, START - 1));
    assert!(matches!(before, Reception::Unsure(..)));
    drop(admitted(ask(&newcomers, minted(2, START))));
}

#[test]
fn what_the_end_of_the_journal_holds_is_known_and_what_is_younger_is_new() {
    let earlier = newcomers();
    let kept = admitted(ask(&earlier, minted(1, START + 5)));
    let newcomers = Newcomers::new(RetrySchedule::default(), Arc::default(), at(2 * START));
    assert_eq!(learn(&newcomers, &kept), Some(at(START)));
    newcomers.learnt_since(at(START));
    let known = ask(&newcomers, minted(1, START + 5));
    assert!(matches!(known, Reception::Answer(Admission::Known)));
    let mut other = minted(1, START + 5);
    other.recipients = envelope(1, &["else@far.test"]).recipients;
    let other = ask(&newcomers, other);
    assert!(matches!(other, Reception::Answer(Admission::Conflict)));
    // Within what clocks may differ only the index can tell.
    let close = ask(&newcomers, minted(2, START + 59));
    assert!(matches!(close, Reception::Unsure(..)));
    drop(admitted(ask(&newcomers, minted(3, START + 60))));
}

#[test]
fn where_all_of_the_journal_was_learnt_no_id_is_in_doubt() {
    let newcomers = newcomers();
    newcomers.learnt_since(Timestamp::default());
    drop(admitted(ask(&newcomers, minted(1, 0))));
}

#[test]
fn repeated_mails_are_joined_before_and_known_after_their_commit() {
    let newcomers = newcomers();
    let first = admitted(ask(&newcomers, minted(1, START)));
    let joined = ask(&newcomers, minted(1, START));
    assert!(matches!(joined, Reception::Answer(Admission::InFlight(..))));
    newcomers.committed(first);
    let known = ask(&newcomers, minted(1, START));
    assert!(matches!(known, Reception::Answer(Admission::Known)));
    let given_up = admitted(ask(&newcomers, minted(2, START)));
    newcomers.abandon(given_up);
    drop(admitted(ask(&newcomers, minted(2, START))));
}

#[test]
fn a_mail_under_way_while_the_queue_catches_up_stays_one_mail() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(folder.path(), Options::default(), at(START)).unwrap();
    queue.finish_replay(at(START)).unwrap();
    let newcomers = newcomers();
    let under_way = admitted(ask(&newcomers, minted(1, START)));
    newcomers.caught_up(Arc::new(queue));
    let late = ask(&newcomers, minted(1, START));
    assert!(matches!(late, Reception::CaughtUp(..)));
    let queue = newcomers.queue().unwrap();
    let again = |queue: &Queue| {
        let asked = queue.prepare_insert(minted(1, START), content(), at(START), &route);
        asked.unwrap()
    };
    assert!(matches!(again(&queue), Admission::InFlight(..)));
    queue.apply(under_way, &[place(1)]).unwrap();
    assert!(matches!(again(&queue), Admission::Known));
    assert_eq!(queue.living_jobs(), 1);
}

#[test]
fn what_is_replayed_after_loading_is_scheduled() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(folder.path(), Options::default(), at(START)).unwrap();
    queue.load().unwrap();
    let prepared = admitted(ask(&newcomers(), minted(1, START)));
    let record = &prepared.records()[0];
    let payload = record.parts.concat();
    let replayed = queue.replay(RecordRef {
        lsn: Lsn(1),
        location: place(1),
        kind: record.kind,
        payload: &payload,
    });
    assert_eq!(replayed.unwrap(), None);
    assert_eq!(queue.finish_replay(at(START)).unwrap(), 1);
    assert_eq!(queue.tick(at(START)).reports, Vec::new());
    assert_eq!(queue.ready_len(postroad_envelope::RouteClass::Relay), 1);
}

#[test]
fn quotas_hold_while_the_queue_catches_up_and_what_is_under_way_counts_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let mut quotas = Quotas::default();
    quotas.domain.mails = 2;
    let quotas = Arc::new(quotas);
    let options = Options {
        quotas: Arc::clone(&quotas),
        ..Options::default()
    };
    let (queue, _) = Queue::open(folder.path(), options, at(START)).unwrap();
    queue.finish_replay(at(START)).unwrap();
    let newcomers = Newcomers::new(RetrySchedule::default(), quotas, at(START));
    let refused = |number| {
        let envelope = minted(number, START);
        let asked = newcomers.prepare_insert(envelope, content(), at(START), &route);
        matches!(asked, Err(QueueError::OverQuota(_)))
    };
    let under_way = admitted(ask(&newcomers, minted(1, START)));
    let given_up = admitted(ask(&newcomers, minted(2, START)));
    assert!(refused(3));
    newcomers.abandon(given_up);
    let committed = admitted(ask(&newcomers, minted(3, START)));
    newcomers.committed(committed);
    assert!(refused(4));

    // The one that was committed is replayed, and counted, before; here it is not.
    newcomers.caught_up(Arc::new(queue));
    let queue = newcomers.queue().unwrap();
    let counted = || {
        let usage = queue.usage(&[crate::Scope::Domain]).unwrap();
        usage[0].1.first().map(|(_, used, _)| used.mails)
    };
    assert_eq!(counted(), Some(1));
    queue.apply(under_way, &[place(1)]).unwrap();
    assert_eq!(counted(), Some(1));
    assert_eq!(
        queue.index.count().unwrap(),
        *queue.index.usage().clone().unwrap()
    );
}
