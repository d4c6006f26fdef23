//! Results, instructions, and those that come too late.

use super::*;

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
    let change = Change::State(Arc::new(newer.into()));
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
