//! Mails come in, go through, and are known afterwards.

use super::*;

#[test]
fn one_job_for_each_route_and_domain_and_at_most_a_hundred_in_each() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    let many: Vec<String> = (0..150).map(|n| format!("u{n}@demo.test")).collect();
    let mut to: Vec<&str> = many.iter().map(String::as_str).collect();
    to.extend(["x@a.example", "y@b.example", "z@A.example"]);
    house.insert(1, &to);
    let show = house.queue.show(id(1)).unwrap().unwrap();
    let sizes: Vec<_> = show
        .jobs
        .iter()
        .map(|job| (&job.state.destination[..], job.state.recipients.len()))
        .collect();
    assert_eq!(
        sizes,
        [
            ("demo.test", 100),
            ("demo.test", 50),
            ("a.example", 2),
            ("b.example", 1)
        ]
    );
    assert_eq!(show.mail.recipients, 153);
}

#[test]
fn a_mail_that_is_held_has_its_days_from_its_release_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    let mut held = envelope(1, &["bob@demo.test"]);
    held.not_before = Some(at(86400));
    let content = Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"));
    let admitted = house.queue.prepare_insert(held, content, at(0), &route);
    let Admission::New(prepared) = admitted.unwrap() else {
        panic!("its id is new")
    };
    house.commit(prepared);
    assert!(house.lease(LOCAL, at(86399)).is_empty());
    let (house, ..) = house.reopen(folder.path(), at(86399));
    assert!(house.lease(LOCAL, at(86399)).is_empty());
    let leased = house.lease(LOCAL, at(86400)).remove(0);
    assert_eq!(leased.state.expires_at, at(6 * 86400));
}

#[test]
fn a_mail_goes_through_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test", "carol@a.example"]);
    let local = house.lease(LOCAL, at(1)).remove(0);
    assert!(house.lease(LOCAL, at(1)).is_empty());
    let payload = house
        .log
        .iter()
        .find(|(place, ..)| *place == local.mail.location)
        .unwrap();
    let record = MailRecord::decode(payload.2.clone()).unwrap();
    assert_eq!(record.envelope.expires_at, Some(at(5 * 86400)));
    assert!(house.queue.lease_hints().is_some() && house.queue.lease_hints().is_none());

    let (settled, applied) = house.settle(&local, &delivered(), at(2));
    assert_eq!((settled.done.len(), settled.retry_at), (1, None));
    assert_eq!(applied.finished, []);
    let relay = house.lease(RELAY, at(2)).remove(0);
    let (_, applied) = house.settle(&relay, &delivered(), at(3));
    assert_eq!(applied.finished[0].finished.queue_id, id(1));
    assert_eq!(house.queue.show(id(1)).unwrap(), None);
    assert_eq!(house.queue.stats(), Stats::default());
    assert_eq!(house.queue.finished(id(1)).unwrap().unwrap().at, at(3));
}

#[test]
fn a_submission_may_be_repeated_but_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    let to = &["bob@demo.test"];
    let Admission::New(first) = house.admit(1, to) else {
        panic!()
    };
    assert!(matches!(house.admit(1, to), Admission::InFlight(..)));
    assert!(matches!(
        house.admit(1, &["eve@demo.test"]),
        Admission::Conflict
    ));
    house.queue.abandon(first);
    house.insert(1, to);
    assert!(matches!(house.admit(1, to), Admission::Known));
    let leased = house.lease(LOCAL, at(1)).remove(0);
    house.settle(&leased, &delivered(), at(2));
    for _ in 0..2 {
        assert!(matches!(house.admit(1, to), Admission::Known));
        assert!(matches!(
            house.admit(1, &["eve@demo.test"]),
            Admission::Conflict
        ));
        // Also after a rebuild.
        (house, _, _) = house.reopen(folder.path(), at(3));
    }
    house.checkpoint(at(4));
    house.queue.checkpoint(Lsn(1), at(2 * 86400)).unwrap();
    assert!(
        matches!(house.admit(1, to), Admission::New(_)),
        "the window has passed"
    );
}

#[test]
fn routes_that_hold_and_discard() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    assert_eq!(
        house
            .insert(1, &["a@drop.test", "b@drop.test"])
            .finished
            .len(),
        1
    );
    house.insert(2, &["a@drop.test", "b@hold.test"]);
    let stats = house.queue.stats();
    assert_eq!((stats.jobs, stats.by_phase["held"]), (1, 1));
}
