//! What a failing disk does to an open journal.
use super::*;
use crate::RecordKind;

fn open(folder: &Path) -> Journal {
    let entropy: Entropy = Arc::new(|bytes| bytes.fill(0x5a));
    let options = Options {
        segment_bytes: 4096,
        prepare_ahead: 0,
        open_files: 2,
        ..Options::default()
    };
    Journal::open(folder, options, entropy).unwrap().0
}

fn draft(text: &'static str) -> RecordDraft {
    RecordDraft::new(RecordKind(1), text)
}

fn assert_poisoned(journal: &mut Journal, kept: &Location) {
    let poisoned = |outcome: Result<()>| {
        assert!(
            matches!(outcome, Err(JournalError::Poisoned)),
            "{outcome:?}"
        )
    };
    poisoned(journal.append_group(&[draft("later")]).map(drop));
    poisoned(journal.append_unsynced(&[draft("later")]).map(drop));
    poisoned(journal.append_group::<RecordDraft>(&[]).map(drop));
    poisoned(journal.sync());
    poisoned(journal.reclaim_oldest().map(drop));
    poisoned(journal.read(kept).map(drop));
    poisoned(
        journal
            .replay(Lsn(0), |_| ControlFlow::Continue(()))
            .map(drop),
    );
    assert_eq!(
        journal.reader().read(kept).unwrap(),
        "kept",
        "readers go on with what was committed"
    );
}

#[test]
fn a_failed_write_poisons_and_nothing_of_it_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    let kept = journal.append_group(&[draft("kept")]).unwrap()[0];
    let active = journal.active.as_mut().unwrap();
    active.file = File::open(&active.path).unwrap(); // read-only, so each write fails
    let failure = journal.append_group(&[draft("lost")]);
    assert!(
        matches!(failure, Err(JournalError::Io { doing: "write", .. })),
        "{failure:?}"
    );
    assert_poisoned(&mut journal, &kept);
    assert_eq!(journal.segments()[0].last_lsn, kept.lsn);
    drop(journal);
    assert_eq!(open(folder.path()).last_lsn(), kept.lsn);
}

#[test]
fn a_failed_sync_poisons_even_though_the_write_went_well() {
    let folder = tempfile::tempdir().unwrap();
    for doing in [Journal::sync, |journal: &mut Journal| {
        journal.append_group(&[draft("x")]).map(drop)
    }] {
        let mut journal = open(folder.path());
        let kept = journal.append_group(&[draft("kept")]).unwrap()[0];
        journal.append_unsynced(&[draft("hint")]).unwrap();
        // The null device takes all bytes and cannot be synced.
        journal.active.as_mut().unwrap().file =
            OpenOptions::new().write(true).open("/dev/null").unwrap();
        let failure = doing(&mut journal);
        assert!(
            matches!(failure, Err(JournalError::Io { doing: "sync", .. })),
            "{failure:?}"
        );
        assert_poisoned(&mut journal, &kept);
    }
}

#[test]
fn a_segment_that_cannot_be_begun_poisons() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    let kept = journal.append_group(&[draft("kept")]).unwrap()[0];
    // A prepared segment whose disk is full.
    let prepared = folder.path().join("segments/ready-0000000009.seg");
    std::os::unix::fs::symlink("/dev/full", &prepared).unwrap();
    let drafts = [draft("a"), draft("b")];
    let outcome = journal.write_group(&drafts, &[1, 1], &[prepared], true);
    assert!(
        matches!(outcome, Err(JournalError::Io { doing: "write", .. })),
        "{outcome:?}"
    );
    drop(journal);
    let mut journal = open(folder.path());
    assert_eq!(journal.last_lsn(), kept.lsn, "half a group is no group");
    journal.append_group(&[draft("next")]).unwrap();
}

#[test]
fn without_room_for_a_segment_nothing_is_written_and_later_calls_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    let kept = journal.append_group(&[draft("kept")]).unwrap()[0];
    // In the way of the helper's file.
    let in_the_way = folder.path().join("segments/preparing.tmp");
    fs::create_dir(&in_the_way).unwrap();
    let large = RecordDraft::new(RecordKind(1), vec![1; 3000]);
    for _ in 0..2 {
        let refused = journal.append_group(&[large.clone(), large.clone()]);
        assert!(
            matches!(refused, Err(JournalError::NoSegment(_))),
            "{refused:?}"
        );
    }
    // What fits into the active segment still goes in: settlements go on when the disk is full.
    let small = journal.append_group(&[draft("small")]).unwrap()[0];
    assert_eq!((small.segment, small.lsn), (kept.segment, kept.lsn.next()));
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(
        journal.append_group(&[large.clone(), large]).unwrap().len(),
        2
    );
}

#[test]
fn what_may_be_refused_leaves_a_segment_to_what_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 4096,
        prepare_ahead: 1,
        ..Options::default()
    };
    let entropy: Entropy = Arc::new(|bytes| bytes.fill(0x5a));
    let (mut journal, _) = Journal::open(folder.path(), options, entropy).unwrap();
    let large = RecordDraft::new(RecordKind(1), vec![1; 3000]);
    journal
        .append_sparing(std::slice::from_ref(&large))
        .unwrap();
    let reclaimer = journal.reclaimer();
    assert!(!reclaimer.is_short());
    // In the way of the helper's file.
    let in_the_way = folder.path().join("segments/preparing.tmp");
    fs::create_dir(&in_the_way).unwrap();

    let refused = |outcome: Result<Vec<Location>>| {
        assert!(
            matches!(outcome, Err(JournalError::NoSegment(_))),
            "{outcome:?}"
        );
    };
    refused(journal.append_sparing(std::slice::from_ref(&large)));
    assert!(reclaimer.is_short());
    journal.append_sparing(&[draft("fits")]).unwrap();
    journal.append_group(std::slice::from_ref(&large)).unwrap();
    // There is room in the newest; but what would end this has none any more after it.
    refused(journal.append_sparing(&[draft("would fit")]));
    assert!(reclaimer.is_short());
    reclaimer.reclaim_oldest().unwrap().unwrap();
    assert!(!reclaimer.is_short());
    journal.append_sparing(&[draft("fits again")]).unwrap();
    refused(journal.append_sparing(std::slice::from_ref(&large)));

    fs::remove_dir(&in_the_way).unwrap();
    while reclaimer.is_short() {
        std::thread::yield_now();
    }
    journal
        .append_sparing(std::slice::from_ref(&large))
        .unwrap();
}

#[test]
fn the_last_of_the_room_is_left_to_others() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).append_group(&[draft("kept")]).unwrap();
    let options = Options {
        segment_bytes: 4096,
        prepare_ahead: 1,
        keep_free: u64::MAX,
        ..Options::default()
    };
    let entropy: Entropy = Arc::new(|bytes| bytes.fill(0x5a));
    let (mut journal, _) = Journal::open(folder.path(), options, entropy).unwrap();
    let refused = journal.append_group(&[draft("refused")]);
    let Err(JournalError::NoSegment(why)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(why.kind(), std::io::ErrorKind::StorageFull);
    let files = fs::read_dir(folder.path().join("segments")).unwrap();
    assert_eq!(files.count(), 1, "what was begun is gone again");
}

#[test]
fn segments_are_given_up_by_another_thread_while_records_are_appended() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    let reclaimer = journal.reclaimer();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let reclaiming = scope.spawn(|| {
            let mut given_up = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                given_up += u32::from(reclaimer.reclaim_oldest().unwrap().is_some());
            }
            given_up
        });
        let mut last = None;
        // Some ten segments.
        for _ in 0..400 {
            last = journal.append_group(&[draft("another")]).unwrap().pop();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reclaiming.join().unwrap() > 0);
        last.unwrap()
    });
    assert_eq!(journal.read(&last).unwrap(), "another");
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(journal.last_lsn(), last.lsn);
    assert_eq!(journal.read(&last).unwrap(), "another");
}

#[test]
fn once_the_journal_is_closed_nothing_of_its_folder_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    for _ in 0..200 {
        journal.append_group(&[draft("kept")]).unwrap();
    }
    let (reader, reclaimer) = (journal.reader(), journal.reclaimer());
    let first = journal.segments()[0].number;
    assert_eq!(reclaimer.reclaim_oldest().unwrap(), Some(first));
    drop(journal);
    let journal = open(folder.path());
    let segments = journal.segments();
    assert!(segments.len() > 1);
    let refused = reclaimer.reclaim_oldest();
    assert!(matches!(refused, Err(JournalError::Closed)), "{refused:?}");
    let refused = reader.blank_segment(segments[0].number, |_| true);
    assert!(matches!(refused, Err(JournalError::Closed)), "{refused:?}");
    assert_eq!(journal.segments(), segments);
    let mut read = 0;
    let counted = journal.replay(Lsn(0), |_| {
        read += 1;
        ControlFlow::Continue(())
    });
    assert!(counted.unwrap().damage.is_empty());
    assert!(read > 0);
}
