//! What is appended comes back: while open, after opening again, from any number on.
mod common;

use common::{all, open, payload, small};
use postroad_journal::{JournalError, Lsn, Options, RecordDraft, RecordKind};

#[test]
fn records_come_back_in_order_with_their_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, recovery) = open(folder.path(), small());
    assert_eq!(recovery.last_lsn, Lsn(0));
    let drafts = [
        RecordDraft::new(RecordKind(1), "one"),
        RecordDraft::new(RecordKind(65535), "")
            .with_part("tw")
            .with_part("o"),
        RecordDraft::new(RecordKind(3), ""),
    ];
    let locations = journal.append_group(&drafts).unwrap();
    assert_eq!(
        locations
            .iter()
            .map(|location| location.lsn.0)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(journal.read(&locations[1]).unwrap(), "two");
    assert_eq!(journal.read_range(&locations[0], 1..9).unwrap(), "ne");
    drop(journal);
    let (journal, recovery) = open(folder.path(), small());
    assert_eq!((recovery.last_lsn, recovery.torn), (Lsn(3), None));
    let mut seen = Vec::new();
    let replay = journal
        .replay(Lsn(0), |record| {
            seen.push((
                record.kind.0,
                record.location,
                String::from_utf8(record.payload.to_vec()).unwrap(),
            ));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        (replay.records, replay.last, replay.damage.len()),
        (3, Some(Lsn(3)), 0)
    );
    let expected = [(1, "one"), (65535, "two"), (3, "")];
    let expected = expected
        .iter()
        .zip(&locations)
        .map(|((kind, text), at)| (*kind, *at, (*text).to_owned()));
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[test]
fn a_group_runs_over_as_many_segments_as_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    let drafts: Vec<_> = (0..40)
        .map(|at| RecordDraft::new(RecordKind(1), payload(at, 700)))
        .collect();
    let locations = journal.append_group(&drafts).unwrap();
    assert!(journal.segments().len() >= 8, "{:?}", journal.segments());
    for (at, location) in locations.iter().enumerate() {
        assert_eq!(journal.read(location).unwrap(), payload(at as u64, 700));
    }
    drop(journal);
    let (journal, _) = open(folder.path(), small());
    assert_eq!(all(&journal).0.len(), 40);
}

#[test]
fn replay_starts_at_the_number_asked_for_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    for at in 0..40 {
        journal
            .append_group(&[RecordDraft::new(RecordKind(1), payload(at, 500))])
            .unwrap();
    }
    let mut seen = Vec::new();
    let replay = journal
        .replay(Lsn(17), |record| {
            seen.push(record.lsn.0);
            if record.lsn == Lsn(30) {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!(seen, (17..=30).collect::<Vec<_>>());
    assert!(replay.stopped);
}

#[test]
fn replay_from_a_checkpoint_does_not_read_older_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    for at in 0..40 {
        journal
            .append_group(&[RecordDraft::new(RecordKind(1), payload(at, 500))])
            .unwrap();
    }
    let segments = journal.segments();
    // A folder in the place of the oldest segment cannot be read as a file.
    let oldest = common::segment_path(folder.path(), segments[0].number);
    std::fs::remove_file(&oldest).unwrap();
    std::fs::create_dir(&oldest).unwrap();
    let (mut seen, from) = (0, segments[1].first_lsn);
    let replay = journal
        .replay(from, |_| {
            seen += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((replay.damage.len(), seen), (0, 40 - from.previous().0));
}

#[test]
fn a_record_that_fits_nowhere_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    let longest = journal.longest_payload();
    let fits = RecordDraft::new(RecordKind(1), vec![7; longest]);
    let too_long = RecordDraft::new(RecordKind(1), vec![7; longest + 1]);
    let refused = journal.append_group(&[fits.clone(), too_long]);
    assert!(matches!(refused, Err(JournalError::TooLarge { len, max }) if len == max + 1));
    assert_eq!(all(&journal).0.len(), 0);
    let location = journal.append_group(&[fits]).unwrap()[0];
    assert_eq!(journal.read(&location).unwrap().len(), longest);
}

#[test]
fn numbers_are_never_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = Lsn(0);
    for _ in 0..4 {
        let (mut journal, recovery) = open(folder.path(), small());
        assert_eq!(recovery.last_lsn, last);
        assert!(recovery.next_lsn > last);
        last = journal
            .append_group(&[RecordDraft::new(RecordKind(1), "x")])
            .unwrap()[0]
            .lsn;
        assert_eq!(last, recovery.next_lsn);
    }
}

#[test]
fn opening_without_appending_writes_no_segment() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        assert_eq!(open(folder.path(), small()).0.segments(), []);
    }
}

#[test]
fn hints_are_read_at_once_and_ride_with_the_next_group() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    let hint = journal
        .append_unsynced(&[RecordDraft::new(RecordKind(9), "hint")])
        .unwrap()[0];
    assert_eq!(journal.read(&hint).unwrap(), "hint");
    journal
        .append_group(&[RecordDraft::new(RecordKind(1), "mail")])
        .unwrap();
    journal
        .append_unsynced(&[RecordDraft::new(RecordKind(9), "last hint")])
        .unwrap();
    drop(journal);
    let (journal, _) = open(folder.path(), small());
    assert_eq!(
        all(&journal).0,
        [b"hint".to_vec(), b"mail".to_vec(), b"last hint".to_vec()]
    );
}

#[test]
fn a_second_opener_is_told_who_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), small());
    let second =
        postroad_journal::Journal::open(folder.path(), small(), common::entropy(2)).map(|_| ());
    let holder = format!("process {}", std::process::id());
    assert!(matches!(second, Err(JournalError::Locked { holder: found, .. }) if found == holder));
    drop(first);
    open(folder.path(), small());
}

#[test]
fn a_folder_of_another_format_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), small()));
    std::fs::write(folder.path().join("FORMAT"), "postroad-journal 2\n").unwrap();
    let opened =
        postroad_journal::Journal::open(folder.path(), Options::default(), common::entropy(2))
            .map(|_| ());
    assert!(matches!(
        opened,
        Err(JournalError::LaterFormat {
            format: 2,
            newest: 1,
            ..
        })
    ));
    for text in ["postroad-journal 0\n", "postroad-journal\n", ""] {
        std::fs::write(folder.path().join("FORMAT"), text).unwrap();
        let opened =
            postroad_journal::Journal::open(folder.path(), Options::default(), common::entropy(2))
                .map(|_| ());
        assert!(matches!(opened, Err(JournalError::Format { found, .. }) if found == text.trim()));
    }
    std::fs::remove_file(folder.path().join("FORMAT")).unwrap();
    let opened =
        postroad_journal::Journal::open(folder.path(), Options::default(), common::entropy(2))
            .map(|_| ());
    assert!(matches!(opened, Err(JournalError::Format { .. })));
}
