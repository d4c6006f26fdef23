mod checks;
mod crashes;
mod deadline;
mod lists;
mod reclaim;
mod restarts;
mod waiting;

use std::path::Path;

use bytes::Bytes;
use postroad_envelope::{Filter, MailState, Outcome, RecipientIndex, RouteClass, StatusReport};
use postroad_journal::{
    ContentNonce, ContentRef, RecordDraft, RecordKind, RecordRef, SegmentNumber,
};
use postroad_reply::SUCCESS_2_0_0;

use super::*;
use crate::{
    Content, Holder, Lease, Phase, StaleLease,
    record::{MailRecord, Snapshot},
    samples::{at, envelope, id, key, mailbox, route},
};

mod usage;

/// A queue with a journal in memory: records with the places they would have.
struct House {
    options: Options,
    queue: Queue,
    log: Vec<(Location, RecordKind, Bytes)>,
    segment: u32,
    next: u64,
}

const LOCAL: RouteClass = RouteClass::Local;
const RELAY: RouteClass = RouteClass::Relay;

impl House {
    fn open(folder: &Path, now: Timestamp) -> Self {
        Self::open_with(folder, Options::default(), now)
    }

    fn open_with(folder: &Path, options: Options, now: Timestamp) -> Self {
        let (queue, report) = Queue::open(folder, options.clone(), now).unwrap();
        assert_eq!((report.needs_replay_from, report.rebuilt), (Lsn(0), None));
        let mut house = Self {
            options,
            queue,
            log: Vec::new(),
            segment: 1,
            next: 1,
        };
        house.start(now);
        house
    }

    fn start(&mut self, now: Timestamp) {
        self.queue.finish_replay(now).unwrap();
        let epoch = self.queue.prepare_epoch().unwrap();
        self.commit(epoch);
    }

    /// Ends this queue and opens another on the same log; tells where the replay began and whether it was a rebuild.
    fn reopen(self, folder: &Path, now: Timestamp) -> (Self, Lsn, bool) {
        let Self {
            options,
            queue,
            log,
            segment,
            next,
        } = self;
        drop(queue);
        let (queue, report) = Queue::open(folder, options.clone(), now).unwrap();
        let mut house = Self {
            options,
            queue,
            log,
            segment,
            next,
        };
        let from = report.needs_replay_from;
        house.replay(from);
        house.start(now);
        (house, from, report.rebuilt.is_some())
    }

    fn replay(&self, from: Lsn) {
        for (location, kind, payload) in self.log.iter().filter(|(l, ..)| l.lsn >= from) {
            let record = RecordRef {
                lsn: location.lsn,
                location: *location,
                kind: *kind,
                payload,
            };
            self.queue.replay(record).unwrap();
        }
    }

    fn append(&mut self, records: &[RecordDraft]) -> Vec<Location> {
        let mut locations = Vec::new();
        for draft in records {
            let payload: Bytes = draft.parts.concat().into();
            let location = Location {
                segment: SegmentNumber(self.segment),
                offset: u32::try_from(self.next).unwrap(),
                len: u32::try_from(payload.len()).unwrap(),
                lsn: Lsn(self.next),
            };
            self.next += 1;
            self.log.push((location, draft.kind, payload));
            locations.push(location);
        }
        locations
    }

    fn commit(&mut self, prepared: Prepared) -> Applied {
        let locations = self.append(prepared.records());
        self.queue.apply(prepared, &locations).unwrap()
    }

    fn checkpoint(&mut self, now: Timestamp) {
        let prepared = self.queue.prepare_checkpoint(now);
        let lsn = Lsn(self.next);
        self.commit(prepared);
        self.queue.checkpoint(lsn, now).unwrap();
    }

    fn admit(&self, number: u8, to: &[&str]) -> Admission {
        let content = Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"));
        self.queue
            .prepare_insert(envelope(number, to), content, at(0), &route)
            .unwrap()
    }

    fn insert(&mut self, number: u8, to: &[&str]) -> Applied {
        match self.admit(number, to) {
            Admission::New(prepared) => self.commit(prepared),
            other => panic!("{other:?}"),
        }
    }

    fn lease(&self, class: RouteClass, now: Timestamp) -> Vec<Leased> {
        self.queue.tick(now);
        self.queue.lease(class, &holder(), 100, now).unwrap()
    }

    fn settle(&mut self, leased: &Leased, outcome: &Outcome, now: Timestamp) -> (Settled, Applied) {
        let all = leased
            .state
            .pending()
            .map(|index| (index, outcome.clone()))
            .collect();
        let lease = &leased.lease;
        let (prepared, settled) = self
            .queue
            .prepare_settle(
                lease.job,
                lease.fence,
                all,
                crate::TakenOver::default(),
                now,
            )
            .unwrap();
        (settled, self.commit(prepared))
    }

    fn list(&self, filter: &Filter, from: Option<QueueId>, limit: usize) -> Page {
        let listing = Listing::oldest(filter, from, limit);
        self.queue.list(&listing, at(1), &|| true).unwrap()
    }

    /// All that can be seen from outside.
    fn view(&self) -> (Vec<MailSummary>, Stats, Vec<Option<Finished>>) {
        let page = self.list(&Filter::all(), None, 1000);
        let finished = (0..20)
            .map(|n| self.queue.finished(id(n)).unwrap())
            .collect();
        (page.mails, self.queue.stats(), finished)
    }
}

fn holder() -> Holder {
    Holder {
        agent: "worker".into(),
        stream: 1,
    }
}

fn delivered() -> Outcome {
    Outcome::Delivered(StatusReport::local(SUCCESS_2_0_0, "filed"))
}

fn delayed() -> Outcome {
    Outcome::Delayed(StatusReport::local(
        "4.4.1".parse().unwrap(),
        "connection refused",
    ))
}

fn failed() -> Outcome {
    Outcome::Failed(StatusReport::local(
        "5.1.1".parse().unwrap(),
        "no such user",
    ))
}

/// A little of everything, with a checkpoint in the middle.
fn lived_in(folder: &Path) -> House {
    let mut house = House::open(folder, at(0));
    for number in 1..=8 {
        house.insert(
            number,
            &["bob@demo.test", "carol@a.example", "dave@b.example"],
        );
    }
    for (n, leased) in house.lease(LOCAL, at(10)).iter().enumerate() {
        house.settle(leased, [&delivered(), &delayed(), &failed()][n % 3], at(11));
    }
    house.checkpoint(at(12));
    for (n, leased) in house.lease(RELAY, at(13)).iter().enumerate().take(12) {
        house.settle(
            leased,
            [&delivered(), &delivered(), &delivered(), &delayed()][n % 4],
            at(14),
        );
    }
    let held = house
        .queue
        .prepare(key(8, 0), Instruction::Hold("why".to_owned()), at(15));
    let held = held.unwrap();
    house.commit(held);
    house
}

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
    assert!(matches!(house.admit(1, to), Admission::InFlight));
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
fn delayed_is_tried_again_until_its_time_is_over_and_then_the_sender_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@a.example"]);
    let (mut now, mut tries) = (at(0), 0);
    let settled = loop {
        let leased = house.lease(RELAY, now).remove(0);
        tries += 1;
        let (settled, _) = house.settle(&leased, &delayed(), now);
        match settled.retry_at {
            Some(at) => now = at,
            None => break settled,
        }
    };
    assert!((30..45).contains(&tries), "{tries}");
    assert_eq!(now, at(5 * 86400));
    assert_eq!(settled.owed, [RecipientIndex(0)]);
    assert_eq!(settled.done[0].1.report().status.to_string(), "5.4.7");

    let report_at = house.queue.next_wakeup().unwrap();
    assert_eq!(house.queue.tick(report_at).reports, [id(1)]);
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    assert_eq!(debt.recipients, settled.done);
    let mut dsn = envelope(2, &["alice@demo.test"]);
    dsn.reverse_path = postroad_address::ReversePath::Null;
    let dsn = Some((dsn, Content::Inline(Bytes::from_static(b"sorry"))));
    let paid = house
        .queue
        .prepare_report(&debt, dsn.clone(), report_at, &route)
        .unwrap()
        .unwrap();
    assert!(
        house
            .queue
            .prepare_report(&debt, None, report_at, &route)
            .unwrap()
            .is_none()
    );
    let applied = house.commit(paid);
    assert_eq!(applied.finished[0].finished.queue_id, id(1));
    assert_eq!(house.queue.debt(id(1)).unwrap(), None);
    // Never a report about a report.
    let leased = house.lease(LOCAL, report_at).remove(0);
    let (settled, applied) = house.settle(&leased, &failed(), report_at);
    assert!(settled.owed.is_empty() && applied.finished.len() == 1);
}

#[test]
fn instructions_change_jobs_that_nobody_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@a.example"]);
    let job = key(1, 0);
    let tell = |house: &mut House, instruction, now| {
        let prepared = house.queue.prepare(job, instruction, now).unwrap();
        house.commit(prepared)
    };
    tell(&mut house, Instruction::Hold("suspect".to_owned()), at(1));
    assert!(house.lease(RELAY, at(99)).is_empty());
    (house, _, _) = house.reopen(folder.path(), at(99));
    assert!(house.lease(RELAY, at(99)).is_empty());
    tell(&mut house, Instruction::Release, at(100));
    let leased = house.lease(RELAY, at(100)).remove(0);
    assert!(matches!(
        house.queue.prepare(job, Instruction::Drop, at(100)),
        Err(QueueError::Busy(_))
    ));
    let (settled, _) = house.settle(&leased, &delayed(), at(101));
    assert!(settled.retry_at.unwrap() > at(200));
    tell(&mut house, Instruction::Retry, at(102));
    assert_eq!(house.lease(RELAY, at(102)).len(), 1);
    house.queue.drop_stream(1, at(102));
    house.queue.tick(at(150));
    let local = route(
        &envelope(1, &[]),
        &postroad_envelope::Recipient::new(RecipientIndex(0), mailbox("x@demo.test")),
    );
    tell(&mut house, Instruction::Reroute(local), at(151));
    assert_eq!(house.lease(RELAY, at(152)), []);
    let summary = house.queue.show(id(1)).unwrap().unwrap();
    assert_eq!(summary.jobs[0].phase.unwrap().0, Phase::Ready);
    assert_eq!(
        tell(&mut house, Instruction::Drop, at(153)).finished.len(),
        1
    );
    assert!(matches!(
        house.queue.prepare(job, Instruction::Drop, at(154)),
        Err(QueueError::NoSuchJob(_))
    ));
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

/// A state that cannot be read must not take its job out of everyone's reach.
#[test]
fn a_change_that_cannot_be_prepared_leaves_the_job_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    let leased = house.lease(LOCAL, at(1)).remove(0);
    let (job, fence) = (leased.lease.job, leased.lease.fence);
    house.queue.index.spoil(job);
    let all = vec![(RecipientIndex(0), delivered())];
    let settled = house
        .queue
        .prepare_settle(job, fence, all, crate::TakenOver::default(), at(2));
    assert!(matches!(settled, Err(QueueError::Unreadable { .. })));
    assert!(house.queue.extend(job, fence, at(3)).is_ok());
    assert_eq!(house.queue.tick(at(3600)).expired.len(), 1);
    let hold = Instruction::Hold("suspect".to_owned());
    let held = house.queue.prepare(job, hold, at(3600));
    assert!(matches!(held, Err(QueueError::Unreadable { .. })));
    assert_eq!(house.queue.ready_len(LOCAL), 1);
}

#[test]
fn a_debt_that_changed_is_not_paid_by_the_old_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    let leased = house.lease(LOCAL, at(1)).remove(0);
    house.settle(&leased, &failed(), at(2));
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    let urgent = Instruction::Priority(9);
    let changed = house.queue.prepare(leased.lease.job, urgent, at(3));
    house.commit(changed.unwrap());
    let paid = house.queue.prepare_report(&debt, None, at(4), &route);
    assert!(paid.unwrap().is_none());
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    let paid = house.queue.prepare_report(&debt, None, at(5), &route);
    house.commit(paid.unwrap().unwrap());
    assert_eq!(house.queue.debt(id(1)).unwrap(), None);
}

#[test]
fn a_settlement_of_another_revision_is_late() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    let leased = house.lease(LOCAL, at(1)).remove(0);
    let newer = leased.state.clone().rescheduled(at(50), at(2));
    let change = Change::State(Box::new(newer));
    house
        .queue
        .index
        .apply(leased.mail.location, &change)
        .unwrap();
    let all = vec![(RecipientIndex(0), delivered())];
    let lease = &leased.lease;
    let settled = house.queue.prepare_settle(
        lease.job,
        lease.fence,
        all,
        crate::TakenOver::default(),
        at(3),
    );
    assert!(matches!(settled, Err(QueueError::Stale(_))));
    assert!(house.lease(LOCAL, at(4)).is_empty());
    assert_eq!(house.lease(LOCAL, at(51)).len(), 1);
}
