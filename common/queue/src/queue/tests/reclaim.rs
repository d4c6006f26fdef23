//! Segments that are given up.

use super::*;

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
    let settled = house.queue.prepare_settle(
        lease.job,
        lease.fence,
        all,
        crate::TakenOver::default(),
        at(2),
    );
    let kept = house.queue.prepare_keep(place, kind, &payload);
    assert!(matches!(kept, Err(QueueError::Busy(_))), "{kept:?}");
    house.commit(settled.unwrap().0);
    let kept = house.queue.prepare_keep(place, kind, &payload).unwrap();
    assert!(kept.is_none());
}

#[test]
fn however_many_have_finished_each_record_of_them_fits_into_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        longest_record: 700,
        ..Options::default()
    };
    let mut house = House::open_with(folder.path(), options, at(0));
    for number in 1..=60 {
        house.insert(number, &["x@a.example"]);
    }
    loop {
        let some = house.lease(RELAY, at(1));
        if some.is_empty() {
            break;
        }
        for leased in some {
            house.settle(&leased, &delivered(), at(2));
        }
    }
    let checkpoint = house.queue.prepare_checkpoint(at(3));
    let blocks = &checkpoint.records()[1..];
    assert_eq!(blocks.len(), 6);
    assert!(blocks.iter().all(|block| block.payload_len() <= 700));
    house.commit(checkpoint);
    assert!(house.queue.prepare_finished().is_none());
    // Only the blocks are left, and are enough.
    let is_block = |kind| kind == crate::record::FINISHED_BLOCK;
    house.log.retain(|(_, kind, _)| is_block(*kind));
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (house, ..) = house.reopen(folder.path(), at(4));
    let known = (1..=60).filter(|number| house.queue.finished(id(*number)).unwrap().is_some());
    assert_eq!(known.count(), 60);
}

#[test]
fn a_block_copied_forward_changes_nothing_but_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["x@a.example"]);
    let leased = house.lease(RELAY, at(1)).remove(0);
    house.settle(&leased, &delivered(), at(2));
    house.checkpoint(at(3));
    let is_block = |kind| kind == crate::record::FINISHED_BLOCK;
    let block = house.log.iter().find(|(_, kind, _)| is_block(*kind));
    let (location, kind, payload) = block.unwrap().clone();
    // As if it had been forgotten: whoever copies it has no reason to remember.
    house.queue.index.forget_finished(id(1)).unwrap();
    let kept = house.queue.prepare_keep(location, kind, &payload).unwrap();
    house.segment = 2;
    house.commit(kept.unwrap());
    assert_eq!(house.queue.finished(id(1)).unwrap(), None);
    let places = house.queue.index.blocks().unwrap();
    assert!(places.iter().any(|(at, _)| at.segment == SegmentNumber(2)));
    // A start that replays it knows the id again.
    house.replay(Lsn(0));
    assert_eq!(house.queue.finished(id(1)).unwrap().unwrap().at, at(2));
}
