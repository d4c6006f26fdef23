mod checks;
mod crashes;
mod lists;

use std::path::Path;

use bytes::Bytes;
use postroad_envelope::{Filter, MailState, Outcome, RecipientIndex, StatusReport};
use postroad_journal::{ContentNonce, ContentRef, RecordKind, RecordRef, SegmentNumber};
use postroad_reply::SUCCESS_2_0_0;

use super::*;
use crate::{
    Content, Phase, StaleLease,
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
            .prepare_settle(lease.job, lease.fence, all, now)
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
fn a_debt_survives_a_restart_and_a_refused_report_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@a.example", "carol@b.example"]);
    for leased in house.lease(RELAY, at(0)) {
        house.settle(&leased, &failed(), at(1));
    }
    (house, _, _) = house.reopen(folder.path(), at(2));
    assert_eq!(house.queue.tick(at(3)).reports, [id(1)]);
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    assert_eq!(debt.recipients.len(), 2);
    let bad = Some((envelope(2, &[]), Content::Inline(Bytes::new())));
    assert!(
        house
            .queue
            .prepare_report(&debt, bad, at(3), &route)
            .is_err()
    );
    let paid = house
        .queue
        .prepare_report(&debt, None, at(3), &route)
        .unwrap()
        .unwrap();
    assert_eq!(house.commit(paid).finished.len(), 1);
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

#[test]
fn late_results_are_refused_also_by_another_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    let leased = house.lease(LOCAL, at(0)).remove(0);
    let hints = house.queue.lease_hints().unwrap();
    house.append(&[hints]);
    (house, _, _) = house.reopen(folder.path(), at(1));
    let Lease {
        job,
        fence,
        revision,
        ..
    } = leased.lease;
    let late = house.queue.prepare_settle(job, fence, Vec::new(), at(2));
    assert!(matches!(late, Err(QueueError::Stale(StaleLease { .. }))));
    assert!(house.lease(LOCAL, at(2)).is_empty(), "waits for its worker");
    let again = house
        .queue
        .resume(job, fence, revision, &holder(), at(3))
        .unwrap()
        .unwrap();
    assert_eq!((again.lease.fence.epoch, again.state), (2, leased.state));
    assert!(
        house
            .queue
            .resume(job, fence, revision, &holder(), at(3))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_checkpoint_keeps_living_leases_for_the_resume() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    house.lease(LOCAL, at(0));
    house.checkpoint(at(1));
    let (house, from, _) = house.reopen(folder.path(), at(2));
    assert!(from > Lsn(1));
    let summary = house.queue.show(id(1)).unwrap().unwrap();
    assert_eq!(summary.jobs[0].phase.unwrap().0, Phase::Resuming);
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
fn reopened_replayed_twice_or_rebuilt_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let house = lived_in(folder.path());
    let all = |house: &House| {
        let (mails, _, finished) = house.view();
        let states = mails
            .into_iter()
            .flat_map(|mail| mail.jobs)
            .map(|job| job.state);
        (states.collect::<Vec<_>>(), finished)
    };
    let before = all(&house);
    assert!(before.1.iter().flatten().count() > 0 && !before.0.is_empty());

    let (house, from, rebuilt) = house.reopen(folder.path(), at(20));
    assert!(from > Lsn(8) && !rebuilt);
    assert_eq!(all(&house), before);
    let (_, stats, _) = house.view();
    // From a point long before the checkpoint, twice, although the index knows the end.
    house.replay(Lsn(3));
    house.replay(Lsn(1));
    assert_eq!(all(&house), before);
    let (house, ..) = house.reopen(folder.path(), at(20));
    assert_eq!(house.view().1, stats);

    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (house, from, _) = house.reopen(folder.path(), at(20));
    assert_eq!(from, Lsn(0));
    assert_eq!(all(&house), before);
    assert_eq!(house.view().1, stats);
}

#[test]
fn a_broken_index_goes_to_quarantine_and_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let house = lived_in(folder.path());
    let House {
        options,
        queue,
        log,
        segment,
        next,
    } = house;
    drop(queue);
    let (reference, _, _) = {
        let (queue, report) = Queue::open(folder.path(), Options::default(), at(20)).unwrap();
        let house = House {
            options: options.clone(),
            queue,
            log: log.clone(),
            segment,
            next,
        };
        house.replay(report.needs_replay_from);
        house.view()
    };
    for damage in [&b"not a sled configuration"[..], &[0xff; 4096]] {
        let index = folder.path().join("index");
        for file in ["conf", "db"] {
            std::fs::write(index.join(file), damage).unwrap();
        }
        let (queue, report) = Queue::open(folder.path(), Options::default(), at(20)).unwrap();
        let aside = report.rebuilt.expect("quarantined");
        assert_eq!(std::fs::read(aside.join("conf")).unwrap(), damage);
        assert_eq!(report.needs_replay_from, Lsn(0));
        let house = House {
            options: options.clone(),
            queue,
            log: log.clone(),
            segment,
            next,
        };
        house.replay(Lsn(0));
        assert_eq!(house.view().0, reference);
    }
}

#[test]
fn the_oldest_segment_can_go_when_what_lives_in_it_was_copied_forward() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = lived_in(folder.path());
    let file = ContentRef {
        nonce: ContentNonce([3; 16]),
        len: 9,
        crc: 1,
    };
    let admitted = house.queue.prepare_insert(
        envelope(9, &["x@a.example"]),
        Content::File(file),
        at(16),
        &route,
    );
    let Admission::New(prepared) = admitted.unwrap() else {
        panic!()
    };
    house.commit(prepared);
    let snapshot = house.queue.prepare_snapshot(&Snapshot::default());
    house.commit(snapshot);
    house.checkpoint(at(17));
    house.segment = 2;
    house.checkpoint(at(18));
    let leased = house.lease(RELAY, at(18));
    let before = house.view();
    for (location, kind, payload) in house.log.clone() {
        if location.segment == SegmentNumber(1)
            && let Some(kept) = house.queue.prepare_keep(location, kind, &payload).unwrap()
        {
            house.commit(kept);
        }
    }
    let live = house.queue.live_in_segment(SegmentNumber(1)).unwrap();
    assert_eq!((live.mails, live.snapshot), (vec![], None));
    house.queue.forget_segment(SegmentNumber(1)).unwrap();
    house
        .log
        .retain(|(location, ..)| location.segment != SegmentNumber(1));
    let same = |house: &House| {
        let after = house.view();
        assert_eq!(after.0.len(), before.0.len());
        for (after, before) in after.0.iter().zip(&before.0) {
            assert_eq!(after.mail.file, before.mail.file);
            let states = |mail: &MailSummary| {
                mail.jobs
                    .iter()
                    .map(|job| job.state.clone())
                    .collect::<Vec<_>>()
            };
            assert_eq!(states(after), states(before));
        }
        assert_eq!(after.2, before.2, "finished ids");
    };
    same(&house);
    // What was leased meanwhile is still held, and settles.
    house.settle(&leased[0], &delayed(), at(19));
    let before = house.view();
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (house, ..) = house.reopen(folder.path(), at(20));
    let after = house.view();
    assert_eq!(after.0.len(), before.0.len());
    assert_eq!(after.2, before.2);
    assert_eq!(
        house
            .queue
            .content_files()
            .map(Result::unwrap)
            .collect::<Vec<_>>(),
        [file]
    );
}

#[test]
fn what_finished_after_the_checkpoint_is_known_when_its_first_segment_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test", "carol@a.example"]);
    let local = house.lease(LOCAL, at(1)).remove(0);
    house.settle(&local, &delivered(), at(2));
    house.segment = 2;
    house.checkpoint(at(3));
    let relay = house.lease(RELAY, at(4)).remove(0);
    house.settle(&relay, &delivered(), at(5));
    let block = house.queue.prepare_finished().unwrap();
    house.commit(block);
    assert!(house.queue.prepare_finished().is_none());
    house.queue.forget_segment(SegmentNumber(1)).unwrap();
    house
        .log
        .retain(|(location, ..)| location.segment != SegmentNumber(1));
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (house, ..) = house.reopen(folder.path(), at(6));
    assert_eq!(house.queue.finished(id(1)).unwrap().unwrap().at, at(5));
    assert_eq!(house.queue.stats(), Stats::default());
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
    let settled = house.queue.prepare_settle(job, fence, all, at(2));
    assert!(matches!(settled, Err(QueueError::Unreadable { .. })));
    assert!(house.queue.extend(job, fence, at(3)).is_ok());
    assert_eq!(house.queue.tick(at(3600)).expired.len(), 1);
    let hold = Instruction::Hold("suspect".to_owned());
    let held = house.queue.prepare(job, hold, at(3600));
    assert!(matches!(held, Err(QueueError::Unreadable { .. })));
    assert_eq!(house.queue.ready_len(LOCAL), 1);
}

#[test]
fn a_mail_whose_job_is_being_changed_is_not_copied_forward() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    let leased = house.lease(LOCAL, at(1)).remove(0);
    let place = leased.mail.location;
    let record = house.log.iter().find(|(at, ..)| *at == place).unwrap();
    let (kind, payload) = (record.1, record.2.clone());
    let all = vec![(RecipientIndex(0), delivered())];
    let lease = &leased.lease;
    let settled = house
        .queue
        .prepare_settle(lease.job, lease.fence, all, at(2));
    let kept = house.queue.prepare_keep(place, kind, &payload);
    assert!(matches!(kept, Err(QueueError::Busy(_))), "{kept:?}");
    house.commit(settled.unwrap().0);
    let kept = house.queue.prepare_keep(place, kind, &payload).unwrap();
    assert!(kept.is_none());
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
    let settled = house
        .queue
        .prepare_settle(lease.job, lease.fence, all, at(3));
    assert!(matches!(settled, Err(QueueError::Stale(_))));
    assert!(house.lease(LOCAL, at(4)).is_empty());
    assert_eq!(house.lease(LOCAL, at(51)).len(), 1);
}

#[test]
fn after_a_restart_only_what_a_worker_still_held_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    for number in 1..=3 {
        house.insert(number, &["bob@demo.test"]);
    }
    let leased = house.lease(LOCAL, at(1));
    let back = &leased[0].lease;
    let soon = Duration::from_secs(1);
    house
        .queue
        .hand_back(back.job, back.fence, soon, at(2))
        .unwrap();
    let hints = house.queue.lease_hints().unwrap();
    house.append(&[hints]);
    let (mut house, _, _) = house.reopen(folder.path(), at(4));
    let given = |house: &House, now| -> Vec<JobKey> {
        let leased = house.lease(LOCAL, now);
        leased.iter().map(|leased| leased.lease.job).collect()
    };
    assert_eq!(given(&house, at(4)), [back.job]);

    // A worker that left in peace holds nothing.
    assert_eq!(given(&house, at(60)).len(), 2);
    assert_eq!(house.queue.free_stream(1, at(61)), 3);
    let hints = house.queue.lease_hints().unwrap();
    house.append(&[hints]);
    let (house, _, _) = house.reopen(folder.path(), at(62));
    assert_eq!(given(&house, at(62)).len(), 3);
}
