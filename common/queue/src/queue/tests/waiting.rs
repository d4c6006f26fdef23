//! Mail that is due and waits for hosts that do not take it.

use std::time::Duration;

use postroad_envelope::Notify;

use super::*;
use crate::{Instruction, Waits};

const HOUR: u64 = 3600;
const LATE: u64 = 4 * HOUR;

fn house(folder: &Path) -> House {
    let mut options = Options::default();
    options.retry.tell_after = Some(Duration::from_secs(LATE));
    House::open_with(folder, options, at(0))
}

fn insert(house: &mut House, change: fn(&mut postroad_envelope::Envelope)) {
    let mut envelope = envelope(1, &["carol@a.example"]);
    change(&mut envelope);
    let content = Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"));
    let admitted = house.queue.prepare_insert(envelope, content, at(0), &route);
    let Admission::New(prepared) = admitted.unwrap() else {
        panic!("its id is new")
    };
    house.commit(prepared);
}

fn down(class: RouteClass, destination: &str) -> Option<Waits> {
    assert_eq!(class, RELAY);
    (destination == "a.example").then(|| Waits {
        why: StatusReport::local("4.4.1".parse().unwrap(), "mx.a.example is down"),
        until: Some(at(5 * 86400 + HOUR)),
    })
}

fn in_line(_: RouteClass, _: &str) -> Option<Waits> {
    Some(Waits {
        why: StatusReport::local("4.4.5".parse().unwrap(), "others go before"),
        until: None,
    })
}

type Why = fn(RouteClass, &str) -> Option<Waits>;

fn look(house: &mut House, why: Why, now: Timestamp) -> Vec<Instruction> {
    house.queue.tick(now);
    let over = house.queue.out_of_time(&why, now, 9);
    let told: Vec<_> = over.iter().map(|(_, told)| told.clone()).collect();
    for (job, instruction) in over {
        let prepared = house.queue.prepare(job, instruction, now).unwrap();
        house.commit(prepared);
    }
    told
}

/// What the sender is owed: action, status, text.
fn debt(house: &House) -> Vec<(&'static str, String, String)> {
    let debt = house.queue.debt(id(1)).unwrap();
    let outcomes = debt.into_iter().flat_map(|debt| debt.recipients);
    let told = outcomes.map(|(_, outcome)| {
        let report = outcome.report();
        (
            outcome.action(),
            report.status.to_string(),
            report.text.clone(),
        )
    });
    told.collect()
}

fn pay(house: &mut House, now: Timestamp) {
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    let prepared = house.queue.prepare_report(&debt, None, now, &route);
    house.commit(prepared.unwrap().unwrap());
}

#[test]
fn whoever_waits_for_long_is_told_why_once_and_again_when_the_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = house(folder.path());
    insert(&mut house, |_| ());
    assert_eq!(look(&mut house, down, at(LATE - 1)), []);
    let told = look(&mut house, down, at(LATE));
    assert!(
        matches!(&told[..], [Instruction::TellWaiting(_)]),
        "{told:?}"
    );
    let [(action, status, text)] = &debt(&house)[..] else {
        panic!("one is owed")
    };
    assert_eq!((*action, &**status), ("delayed", "4.4.1"));
    assert!(
        text.starts_with("mx.a.example is down; it is tried again at "),
        "{text}"
    );
    pay(&mut house, at(LATE + 3));
    assert_eq!(
        look(&mut house, down, at(LATE + HOUR)),
        [],
        "it is told once"
    );
    let (mut house, ..) = house.reopen(folder.path(), at(LATE + HOUR));
    assert_eq!(
        look(&mut house, down, at(LATE + HOUR)),
        [],
        "also after a restart"
    );

    // Nobody would come: there is no last chance to wait for.
    let end = 5 * 86400;
    assert_eq!(look(&mut house, down, at(end - 1)), []);
    let told = look(&mut house, down, at(end));
    assert!(
        matches!(&told[..], [Instruction::Expire(Some(_))]),
        "{told:?}"
    );
    let [(action, status, text)] = &debt(&house)[..] else {
        panic!("one is owed")
    };
    assert_eq!((*action, &**status), ("failed", "5.4.7"));
    assert!(text.ends_with("mx.a.example is down"), "{text}");
}

#[test]
fn who_waits_for_his_turn_has_a_last_chance() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = house(folder.path());
    insert(&mut house, |_| ());
    assert_eq!(look(&mut house, in_line, at(LATE)).len(), 1);
    assert_eq!(debt(&house)[0].2, "others go before");
    pay(&mut house, at(LATE + 3));
    let end = 5 * 86400;
    assert_eq!(look(&mut house, in_line, at(end + 299)), []);
    assert_eq!(look(&mut house, in_line, at(end + 300)).len(), 1);
}

#[test]
fn who_does_not_want_to_hear_of_it_does_not() {
    let silent: fn(&mut postroad_envelope::Envelope) = |envelope| {
        envelope.recipients[0].notify = Notify::On {
            success: false,
            failure: true,
            delay: false,
        };
    };
    let report = |envelope: &mut postroad_envelope::Envelope| {
        envelope.reverse_path = postroad_address::ReversePath::Null;
    };
    for change in [silent, report] {
        let folder = tempfile::tempdir().unwrap();
        let mut house = house(folder.path());
        insert(&mut house, change);
        assert_eq!(look(&mut house, down, at(LATE + HOUR)), []);
        let (mut house, ..) = house.reopen(folder.path(), at(LATE + HOUR));
        assert_eq!(look(&mut house, down, at(LATE + HOUR)), []);
    }
}

#[test]
fn mail_that_waits_for_nothing_but_a_worker_is_not_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = house(folder.path());
    insert(&mut house, |_| ());
    assert_eq!(look(&mut house, |_, _| None, at(LATE + HOUR)), []);
    // Nor what a worker has.
    let lease = house.lease(RELAY, at(LATE + HOUR)).remove(0);
    assert_eq!(look(&mut house, down, at(LATE + HOUR + 1)), []);
    // What the host had said of the mail itself is not forgotten.
    let mut busy = StatusReport::local("4.2.2".parse().unwrap(), "452 mailbox full");
    let code = postroad_reply::ReplyCode::new(452).unwrap();
    busy.reply = Some(postroad_reply::Reply::plain(code, "mailbox full"));
    let (settled, _) = house.settle(&lease, &Outcome::Delayed(busy), at(LATE + HOUR + 2));
    assert_eq!(settled.owed.len(), 1, "an attempt tells by itself");
    pay(&mut house, at(LATE + HOUR + 5));
    let told = look(&mut house, down, at(5 * 86400));
    assert_eq!(told.len(), 1);
    let text = &debt(&house)[0].2;
    assert!(
        text.ends_with("is down; before that: 452 mailbox full"),
        "{text}"
    );
}

/// RFC 4865: the time that it was held back for does not count.
#[test]
fn mail_that_was_to_leave_later_is_late_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = house(folder.path());
    insert(&mut house, |envelope| envelope.not_before = Some(at(HOUR)));
    assert_eq!(look(&mut house, down, at(LATE + HOUR - 1)), []);
    assert_eq!(look(&mut house, down, at(LATE + HOUR)).len(), 1);
}

/// However long the hosts want to be left alone.
#[test]
fn a_job_handed_back_does_not_wait_beyond_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = house(folder.path());
    insert(&mut house, |_| ());
    let end = 5 * 86400;
    let lease = house.lease(RELAY, at(end - HOUR)).remove(0).lease;
    let day = Duration::from_secs(86400);
    let back = house
        .queue
        .hand_back(lease.job, lease.fence, day, at(end - HOUR));
    back.unwrap();
    assert_eq!(look(&mut house, down, at(end)).len(), 1);
}
