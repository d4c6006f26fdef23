//! What recovery makes of torn, damaged, stale and forged bytes.
mod common;

use common::{all, open, payload, segment_path, small};
use postroad_journal::{
    Journal, JournalError, Location, Lsn, Options, RecordDraft, RecordKind, SegmentNumber,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Few files and no helper at work: these tests open journals by the hundred.
fn lean() -> Options {
    Options {
        prepare_ahead: 0,
        ..small()
    }
}

fn draft(payload: impl Into<bytes::Bytes>) -> RecordDraft {
    RecordDraft::new(RecordKind(1), payload)
}

/// Changes the bytes of a segment while nobody has it open.
fn change(folder: &Path, segment: SegmentNumber, change: impl FnOnce(&mut Vec<u8>)) {
    let path = segment_path(folder, segment);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

fn start_of(location: &Location) -> usize {
    location.offset as usize
}

const HEADER: usize = 40;

#[test]
fn a_tail_torn_at_any_byte_is_the_end_and_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("first")]).unwrap();
    let last = journal.append_group(&[draft("the last record")]).unwrap()[0];
    drop(journal);
    let path = segment_path(folder.path(), last.segment);
    let whole = fs::read(&path).unwrap();
    let size = HEADER + last.len as usize;
    for cut in 0..=size {
        for truncate in [false, true] {
            let mut torn = whole.clone();
            torn[start_of(&last) + cut..].fill(0);
            torn.truncate(if truncate {
                start_of(&last) + cut
            } else {
                torn.len()
            });
            fs::write(&path, torn).unwrap();
            let (journal, recovery) = open(folder.path(), lean());
            let (payloads, damage) = all(&journal);
            assert_eq!(damage, [], "cut {cut}");
            // The last byte of a payload may itself be zero; this one's is not.
            assert_eq!(payloads.len(), if cut == size { 2 } else { 1 }, "cut {cut}");
            assert_eq!(recovery.last_lsn.0, payloads.len() as u64);
            assert!(recovery.next_lsn > last.lsn);
        }
    }
}

#[test]
fn a_torn_record_does_not_come_back_when_its_bytes_do() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("first")]).unwrap();
    let torn = journal.append_group(&[draft("torn")]).unwrap()[0];
    drop(journal);
    let path = segment_path(folder.path(), torn.segment);
    let whole = fs::read(&path).unwrap();
    change(folder.path(), torn.segment, |bytes| {
        bytes[start_of(&torn) + HEADER] ^= 1
    });
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("next")]).unwrap();
    drop(journal);
    fs::write(&path, whole).unwrap();
    let (journal, _) = open(folder.path(), lean());
    assert_eq!(
        all(&journal),
        (vec![b"first".to_vec(), b"next".to_vec()], vec![])
    );
}

#[test]
fn a_group_is_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("first")]).unwrap();
    let group: Vec<_> = (0..20).map(|at| draft(payload(at, 300))).collect();
    let locations = journal.append_group(&group).unwrap();
    drop(journal);
    // The group runs over segments; its last record, in the newest, did not reach the disk.
    let last = locations.last().unwrap();
    assert!(last.segment > locations[0].segment);
    change(folder.path(), last.segment, |bytes| {
        bytes[start_of(last)..][..HEADER].fill(0)
    });
    for _ in 0..2 {
        let (journal, recovery) = open(folder.path(), lean());
        assert_eq!(recovery.last_lsn, Lsn(1));
        assert_eq!(all(&journal), (vec![b"first".to_vec()], vec![]));
    }
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("next")]).unwrap();
    drop(journal);
    let (journal, _) = open(folder.path(), lean());
    assert_eq!(
        all(&journal),
        (vec![b"first".to_vec(), b"next".to_vec()], vec![])
    );
    let numbers: Vec<_> = journal
        .segments()
        .iter()
        .map(|segment| segment.number.0)
        .collect();
    assert_eq!(
        numbers.len(),
        2,
        "segments that hold nothing are removed: {numbers:?}"
    );
}

#[test]
fn an_interrupted_group_is_reported_and_settled_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("first")]).unwrap();
    let group = journal
        .append_group(&[draft("a"), draft("b"), draft("c")])
        .unwrap();
    drop(journal);
    change(folder.path(), group[1].segment, |bytes| {
        bytes[start_of(&group[1]) + HEADER] ^= 1
    });
    let (journal, recovery) = open(folder.path(), lean());
    let torn = recovery.torn.unwrap();
    assert_eq!(
        (torn.end.lsn, torn.end.offset, torn.records),
        (Lsn(1), group[0].offset, 2)
    );
    assert_eq!(journal.last_lsn(), Lsn(1));
    drop(journal);
    assert_eq!(open(folder.path(), lean()).1.torn, None);
}

/// Ten committed groups in one segment, with `spoil` done to the fifth.
fn spoiled_in_the_middle(spoil: impl FnOnce(&mut [u8])) -> (tempfile::TempDir, Vec<Location>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    let locations: Vec<_> = (0..10)
        .map(|at| journal.append_group(&[draft(payload(at, 90))]).unwrap()[0])
        .collect();
    drop(journal);
    change(folder.path(), locations[4].segment, |bytes| {
        spoil(&mut bytes[start_of(&locations[4])..start_of(&locations[5])]);
    });
    (folder, locations)
}

#[test]
fn damage_in_the_middle_goes_to_quarantine_and_the_rest_goes_on() {
    for bit in [
        0,
        8 * 8,
        10 * 8 + 7,
        17 * 8,
        24 * 8,
        28 * 8,
        39 * 8 + 7,
        40 * 8,
        129 * 8,
    ] {
        let (folder, locations) = spoiled_in_the_middle(|record| record[bit / 8] ^= 1 << (bit % 8));
        let (journal, recovery) = open(folder.path(), lean());
        assert_eq!((recovery.last_lsn, recovery.torn), (Lsn(10), None));
        let (payloads, damage) = all(&journal);
        let expected: Vec<_> = (0..10)
            .filter(|at| *at != 4)
            .map(|at| payload(at, 90))
            .collect();
        assert_eq!(payloads, expected, "bit {bit}");
        let [damage] = &damage[..] else {
            panic!("one damage, not {damage:?}")
        };
        assert_eq!(
            (damage.segment, damage.start, damage.end),
            (SegmentNumber(1), locations[4].offset, locations[5].offset)
        );
        assert_eq!(
            (damage.lsn_before, damage.lsn_after, damage.fresh),
            (Lsn(4), Some(Lsn(6)), true)
        );
        let segment = fs::read(segment_path(folder.path(), SegmentNumber(1))).unwrap();
        let copy = damage.copy.clone().unwrap();
        assert_eq!(
            fs::read(&copy).unwrap(),
            segment[damage.start as usize..damage.end as usize]
        );
        let report = fs::read_to_string(copy.with_extension("txt")).unwrap();
        assert!(
            report.contains("record before  4\nrecord after   6\n"),
            "{report}"
        );
        assert!(
            matches!(journal.read(&locations[4]), Err(JournalError::Damaged(at)) if at == locations[4])
        );
        assert_eq!(journal.read(&locations[5]).unwrap(), payload(5, 90));
        drop(journal);
        let again = all(&open(folder.path(), lean()).0).1;
        assert_eq!(
            (again.len(), again[0].fresh),
            (1, false),
            "a person hears of it once"
        );
    }
}

#[test]
fn zeros_in_the_middle_are_damage_too() {
    let (folder, _) = spoiled_in_the_middle(|record| record.fill(0));
    let (payloads, damage) = all(&open(folder.path(), lean()).0);
    assert_eq!((payloads.len(), damage.len()), (9, 1));
}

#[test]
fn damage_at_the_end_of_a_sealed_segment_is_damage_and_not_a_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    let last = journal
        .append_group(&[draft("first"), draft("second")])
        .unwrap()[1];
    drop(journal);
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("third")]).unwrap();
    drop(journal);
    change(folder.path(), last.segment, |bytes| {
        bytes[start_of(&last)..].fill(0)
    });
    let (journal, recovery) = open(folder.path(), lean());
    let (payloads, damage) = all(&journal);
    assert_eq!(payloads, [b"first", b"third"]);
    assert_eq!(
        (recovery.torn, damage.len(), damage[0].lsn_after),
        (None, 1, None)
    );
}

#[test]
fn one_bad_header_is_made_up_for_by_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    journal.append_group(&[draft("kept")]).unwrap();
    drop(journal);
    change(folder.path(), SegmentNumber(1), |bytes| {
        bytes[..128].fill(0)
    });
    let (journal, recovery) = open(folder.path(), lean());
    assert_eq!(recovery.unreadable, []);
    assert_eq!(all(&journal), (vec![b"kept".to_vec()], vec![]));
}

#[test]
fn a_segment_without_headers_is_damage_from_end_to_end() {
    // In the middle and as the newest: in both cases no number it may have used is used again.
    for victim in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let mut last = Lsn(0);
        for text in ["one", "two", "three"] {
            let (mut journal, _) = open(folder.path(), lean());
            last = journal.append_group(&[draft(text)]).unwrap()[0].lsn;
        }
        change(folder.path(), SegmentNumber(victim), |bytes| {
            bytes[..128].fill(0);
            let end = bytes.len() - 128;
            bytes[end..].fill(0);
        });
        let (mut journal, recovery) = open(folder.path(), lean());
        assert_eq!(
            (&recovery.unreadable[..], &recovery.missing[..]),
            (&[SegmentNumber(victim)][..], &[][..])
        );
        let (payloads, damage) = all(&journal);
        let texts = ["one", "two", "three"];
        let expected: Vec<_> = (1..)
            .zip(texts)
            .filter(|(at, _)| *at != victim)
            .map(|(_, text)| text.as_bytes())
            .collect();
        assert_eq!(payloads, expected);
        assert_eq!(
            (damage.len(), damage[0].segment),
            (1, SegmentNumber(victim))
        );
        let next = journal.append_group(&[draft("four")]).unwrap()[0];
        assert!(next.lsn > last && next.segment == SegmentNumber(4));
        drop(journal);
        assert_eq!(all(&open(folder.path(), lean()).0).0.len(), 3);
    }
}

#[test]
fn a_segment_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["one", "two", "three"] {
        open(folder.path(), lean())
            .0
            .append_group(&[draft(text)])
            .unwrap();
    }
    fs::remove_file(segment_path(folder.path(), SegmentNumber(2))).unwrap();
    let (journal, recovery) = open(folder.path(), lean());
    assert_eq!(recovery.missing, [SegmentNumber(2)]);
    assert_eq!(all(&journal).0, [b"one".to_vec(), b"three".to_vec()]);
    drop(journal);
    // Reclaimed from the old end, nothing is missing.
    fs::remove_file(segment_path(folder.path(), SegmentNumber(1))).unwrap();
    assert_eq!(open(folder.path(), lean()).1.missing, []);
}

#[test]
fn genuine_bytes_at_another_place_are_not_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), lean());
    let first = journal.append_group(&[draft("genuine")]).unwrap()[0];
    let bytes = fs::read(segment_path(folder.path(), first.segment)).unwrap();
    let genuine = bytes[start_of(&first)..][..HEADER + 8].to_vec();
    let carrier = journal.append_group(&[draft(genuine.repeat(3))]).unwrap()[0];
    let last = journal.append_group(&[draft("last")]).unwrap()[0];
    drop(journal);
    assert_eq!(all(&open(folder.path(), lean()).0).0.len(), 3);
    // Even when a search for the next record has to go through them.
    change(folder.path(), first.segment, |bytes| {
        bytes[start_of(&carrier)] ^= 1
    });
    let (journal, _) = open(folder.path(), lean());
    assert_eq!(all(&journal).0, [b"genuine".to_vec(), b"last".to_vec()]);
    drop(journal);
    // Nor as a later record behind a torn tail.
    change(folder.path(), first.segment, |bytes| {
        bytes[start_of(&last)] ^= 1
    });
    assert_eq!(all(&open(folder.path(), lean()).0).0, [b"genuine".to_vec()]);
}

fn ready_files(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    listed
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("ready-")
        })
        .collect()
}

#[test]
fn stale_records_of_a_recycled_segment_never_resurface() {
    let folder = tempfile::tempdir().unwrap();
    let one_ahead = Options {
        prepare_ahead: 1,
        ..small()
    };
    let (mut journal, _) = open(folder.path(), lean());
    let group: Vec<_> = (0..30).map(|at| draft(payload(at, 80))).collect();
    journal.append_group(&group).unwrap();
    drop(journal);
    // What a reclaimed segment's file is: full of genuine records under another number.
    let stale = fs::read(segment_path(folder.path(), SegmentNumber(1))).unwrap();
    fs::write(folder.path().join("segments/ready-0000000077.seg"), &stale).unwrap();
    let (mut journal, _) = open(folder.path(), one_ahead);
    let fresh = journal.append_group(&[draft(payload(100, 80))]).unwrap()[0];
    drop(journal);
    let reused = fs::read(segment_path(folder.path(), fresh.segment)).unwrap();
    assert_eq!(
        reused[1024..reused.len() - 128],
        stale[1024..stale.len() - 128],
        "the file was recycled"
    );
    let (journal, recovery) = open(folder.path(), one_ahead);
    assert_eq!((recovery.last_lsn, recovery.torn), (fresh.lsn, None));
    let (payloads, damage) = all(&journal);
    assert_eq!((payloads.len(), damage), (31, vec![]));
    assert_eq!(payloads[30], payload(100, 80));
}

#[test]
fn a_half_prepared_segment_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), lean()));
    let (tmp, short) = ("segments/preparing.tmp", "segments/ready-0000000004.seg");
    for name in [tmp, short] {
        fs::write(folder.path().join(name), b"short").unwrap();
    }
    let (mut journal, _) = open(folder.path(), lean());
    assert!(!folder.path().join(tmp).exists() && !folder.path().join(short).exists());
    journal.append_group(&[draft("x")]).unwrap();
}

fn fill(journal: &mut Journal, groups: u64) -> Vec<Location> {
    (0..groups)
        .map(|at| journal.append_group(&[draft(payload(at, 1000))]).unwrap()[0])
        .collect()
}

#[test]
fn a_reclaimed_segment_is_gone_for_readers_and_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    let locations = fill(&mut journal, 12);
    let reader = journal.reader();
    assert!(reader.read(&locations[0]).is_ok());
    let before = journal.segments();
    assert_eq!(journal.reclaim_oldest().unwrap(), Some(before[0].number));
    assert_eq!(journal.segments(), before[1..]);
    assert!(matches!(
        reader.read(&locations[0]),
        Err(JournalError::Gone)
    ));
    // Written over by what comes next, it is still gone, and what comes next is whole.
    let more = fill(&mut journal, 12);
    assert!(matches!(
        reader.read(&locations[0]),
        Err(JournalError::Gone)
    ));
    assert_eq!(reader.read(&more[0]).unwrap(), payload(0, 1000));
    while journal.reclaim_oldest().unwrap().is_some() {}
    assert_eq!(journal.segments().len(), 1, "the newest always stays");
    assert!(
        (1..=4).contains(&ready_files(folder.path()).len()),
        "some are recycled, not all are kept"
    );
    let left = all(&journal).0;
    drop(journal);
    let (journal, recovery) = open(folder.path(), small());
    assert_eq!((all(&journal).0, &recovery.missing[..]), (left, &[][..]));
}

#[test]
fn readers_see_the_right_bytes_or_that_they_are_gone_while_segments_are_recycled() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(folder.path(), small());
    let (offer, locations) = std::sync::mpsc::channel::<(u64, Location)>();
    let reader = journal.reader();
    let reading = std::thread::spawn(move || {
        let mut known = Vec::new();
        let (mut read, mut gone) = (0, 0);
        while let Ok(next) = locations.recv() {
            known.push(next);
            for (seed, location) in known.iter().rev().take(12) {
                match reader.read(location) {
                    Ok(found) => {
                        assert_eq!(found, payload(*seed, 700));
                        read += 1;
                    }
                    Err(JournalError::Gone) => gone += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        (read, gone)
    });
    for seed in 0..200 {
        let location = journal.append_group(&[draft(payload(seed, 700))]).unwrap()[0];
        offer.send((seed, location)).unwrap();
        while journal.segments().len() > 3 {
            journal.reclaim_oldest().unwrap();
        }
    }
    drop(offer);
    let (read, gone) = reading.join().unwrap();
    assert_eq!(
        read + gone,
        (1..=200).map(|known: u64| known.min(12)).sum::<u64>()
    );
    assert!(read > 0);
}
