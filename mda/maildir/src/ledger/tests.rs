use super::*;
use std::thread;
use std::time::{Duration, Instant};

/// Makes every further write and sync of this ledger fail.
pub(crate) fn break_disk(ledger: &Ledger) {
    let mut state = ledger.lock();
    let segments = state.segments.as_mut().unwrap();
    segments.current.file = fs::File::open(ledger.folder.join("lock")).unwrap();
}

fn entry(number: u32) -> Entry {
    Entry {
        id: DeliveryId::new("q1", number).unwrap(),
        mailbox: "demo.test/bob/Maildir".into(),
        tmp_name: format!("tmp{number}"),
        final_name: "x".repeat(200),
    }
}

fn record(ledger: &Ledger, entry: Entry) -> Result<(), Unrecorded> {
    ledger.told(ledger.record(vec![entry]))
}

fn numbers_of(ledger: &Ledger) -> Vec<u32> {
    let living = ledger.living();
    let mut numbers: Vec<u32> = living
        .iter()
        .map(|entry| entry.id.recipient_index())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn segment_count(folder: &Path) -> usize {
    segment::numbers(folder).unwrap().len()
}

#[test]
fn what_was_recorded_is_there_again_and_what_was_forgotten_is_not() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3u32 {
        let (ledger, damages) = Ledger::open(folder.path()).unwrap();
        assert_eq!(damages, []);
        assert_eq!(
            numbers_of(&ledger),
            (0..round).map(|r| r * 10).collect::<Vec<_>>()
        );
        for number in 0..10 {
            record(&ledger, entry(round * 10 + number)).unwrap();
        }
        for number in 1..10 {
            ledger.forget(&entry(round * 10 + number).id);
        }
        assert_eq!(ledger.find(&entry(round * 10).id), Some(entry(round * 10)));
        assert_eq!(segment_count(folder.path()), 1);
    }
}

#[test]
fn all_who_wait_share_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path()).unwrap();
    // As if a thread were syncing: those who come now have to wait for the next group.
    let segments = ledger.lock().segments.take().unwrap();
    thread::scope(|scope| {
        let ledger = &ledger;
        let waiters: Vec<_> = (0..8)
            .map(|number| scope.spawn(move || record(ledger, entry(number))))
            .collect();
        let give_up = Instant::now() + Duration::from_secs(60);
        while ledger.lock().waiting.len() < 8 {
            assert!(Instant::now() < give_up, "not all threads came");
            thread::yield_now();
        }
        let state = ledger.lock();
        drop(ledger.write_group(state, segments));
        assert_eq!(numbers_of(ledger), (0..8).collect::<Vec<_>>());
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
    });
    drop(ledger);
    assert_eq!(
        numbers_of(&Ledger::open(folder.path()).unwrap().0),
        (0..8).collect::<Vec<_>>()
    );
}

#[test]
fn what_was_forgotten_a_moment_before_a_crash_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path()).unwrap();
    for number in 0..3 {
        record(&ledger, entry(number)).unwrap();
    }
    ledger.forget(&entry(1).id);
    ledger.tidy();
    ledger.forget(&entry(2).id);
    assert_eq!(numbers_of(&ledger), [0]);
    std::mem::forget(ledger);
    let (ledger, damages) = Ledger::open(folder.path()).unwrap();
    assert_eq!((numbers_of(&ledger), damages), (vec![0, 2], vec![]));
}

#[test]
fn threads_record_and_forget_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path()).unwrap();
    thread::scope(|scope| {
        for worker in 0..8u32 {
            let ledger = &ledger;
            scope.spawn(move || {
                for number in worker * 100..worker * 100 + 30 {
                    record(ledger, entry(number)).unwrap();
                    if number % 3 != 0 {
                        ledger.forget(&entry(number).id);
                    }
                }
            });
        }
    });
    let left = numbers_of(&ledger);
    assert_eq!(left.len(), 80);
    drop(ledger);
    assert_eq!(numbers_of(&Ledger::open(folder.path()).unwrap().0), left);
}

#[test]
fn segments_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path()).unwrap();
    record(&ledger, entry(9999)).unwrap();
    // Some 7 MiB of entries, in large groups.
    for round in 0..30u32 {
        let mut state = ledger.lock();
        for number in 0..800 {
            let waiting = Waiting {
                entries: vec![entry(number)],
                told: channel().0,
            };
            state.waiting.push(waiting);
        }
        let segments = state.segments.take().unwrap();
        drop(ledger.write_group(state, segments));
        for number in 0..800 {
            ledger.forget(&entry(number).id);
        }
        ledger.tidy();
        assert!(segment_count(folder.path()) <= 2, "round {round}");
    }
    assert_eq!(numbers_of(&ledger), [9999]);
    drop(ledger);
    assert_eq!(numbers_of(&Ledger::open(folder.path()).unwrap().0), [9999]);
}

#[test]
fn living_entries_may_fill_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path()).unwrap();
    for block in 0..8u32 {
        let mut state = ledger.lock();
        for number in 0..1000 {
            let waiting = Waiting {
                entries: vec![entry(block * 1000 + number)],
                told: channel().0,
            };
            state.waiting.push(waiting);
        }
        let segments = state.segments.take().unwrap();
        drop(ledger.write_group(state, segments));
    }
    assert!(segment_count(folder.path()) > 1);
    for number in 1..8000 {
        ledger.forget(&entry(number).id);
    }
    drop(ledger);
    let (ledger, damages) = Ledger::open(folder.path()).unwrap();
    assert_eq!((numbers_of(&ledger).len(), damages.len()), (1, 0));
}

#[test]
fn damage_is_told_and_kept_for_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(folder.path()).unwrap();
    for number in 0..3 {
        record(&ledger, entry(number)).unwrap();
    }
    drop(ledger);
    let path = folder.path().join(format!("segment-{:016x}", 1));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes
        .windows(4)
        .position(|window| window == b"tmp1")
        .unwrap();
    bytes[middle] = b'!';
    fs::write(&path, bytes).unwrap();

    let (ledger, damages) = Ledger::open(folder.path()).unwrap();
    assert_eq!(numbers_of(&ledger), [0, 2]);
    assert!(matches!(
        damages.as_slice(),
        [Damage {
            segment: 1,
            torn_tail: false,
            ..
        }]
    ));
    assert!(folder.path().join(format!("damaged-{:016x}", 1)).exists());
    drop(ledger);
    assert_eq!(Ledger::open(folder.path()).unwrap().1, [], "told once");
}
