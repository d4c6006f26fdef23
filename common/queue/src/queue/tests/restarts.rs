//! A queue that ends and begins again.

use super::*;

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
fn what_is_held_is_shown_as_held_while_a_report_is_owed_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@a.example", "carol@a.example"]);
    let Leased { lease, .. } = house.lease(RELAY, at(0)).remove(0);
    let outcomes = vec![(RecipientIndex(0), failed())];
    let settled = house.queue.prepare_settle(
        lease.job,
        lease.fence,
        outcomes,
        crate::TakenOver::default(),
        at(1),
    );
    house.commit(settled.unwrap().0);
    let held = Filter {
        state: Some(MailState::Held),
        ..Filter::all()
    };
    let is_held = |house: &House| {
        let counts = house.queue.job_counts();
        assert_eq!(counts.held + counts.delayed, 1);
        let found = house.list(&held, None, 9).mails.len();
        assert_eq!(found, counts.held);
        found == 1
    };
    assert!(!is_held(&house));
    let hold = Instruction::Hold("suspect".to_owned());
    let hold = house.queue.prepare(key(1, 0), hold, at(2)).unwrap();
    house.commit(hold);
    assert!(is_held(&house));
    (house, _, _) = house.reopen(folder.path(), at(2));
    assert!(is_held(&house));
    assert_eq!(house.queue.tick(at(3)).reports, [id(1)]);
    assert!(is_held(&house), "until the report has come to its commit");
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    let paid = house.queue.prepare_report(&debt, None, at(3), &route);
    house.commit(paid.unwrap().unwrap());
    assert!(is_held(&house) && house.lease(RELAY, at(99)).is_empty());
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
    let late =
        house
            .queue
            .prepare_settle(job, fence, Vec::new(), crate::TakenOver::default(), at(2));
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
    assert_eq!(house.queue.free_stream(&holder(), at(61)), 3);
    let hints = house.queue.lease_hints().unwrap();
    house.append(&[hints]);
    let (house, _, _) = house.reopen(folder.path(), at(62));
    assert_eq!(given(&house, at(62)).len(), 3);
}
