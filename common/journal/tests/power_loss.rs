//! The power fails during an append: of what was not synced any sectors may have reached the disk, in any
//! order. Whatever they are, all that was committed is there, groups are whole, and nothing comes back later.
mod common;

use common::{all, open, payload, small};
use postroad_journal::{Journal, Options, RecordDraft, RecordKind};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, fs, ops::Range, path::Path};

const SECTOR: usize = 512;
/// The header and its copy, synced before the file has its name.
const HEADER: usize = 128;

type Disk = BTreeMap<String, Vec<u8>>;

fn segments(folder: &Path) -> Disk {
    let listed = fs::read_dir(folder.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = listed.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    named
        .filter(|(name, _)| name.starts_with('0'))
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect()
}

/// Sectors of both, at random.
fn mixed(random: &mut StdRng, old: &[u8], new: &[u8]) -> Vec<u8> {
    let reached = random.random_range(0.0..=1.0);
    let pairs = old.chunks(SECTOR).zip(new.chunks(SECTOR));
    pairs
        .flat_map(|(old, new)| {
            if random.random_bool(reached) {
                new
            } else {
                old
            }
            .to_vec()
        })
        .collect()
}

/// A state the disk may be in when the power fails between two syncs.
fn after_power_cut(random: &mut StdRng, synced: &Disk, written: &Disk) -> Disk {
    let new: Vec<&String> = written
        .keys()
        .filter(|name| !synced.contains_key(*name))
        .collect();
    let begun = random.random_range(0..=new.len());
    let mut disk = Disk::new();
    for (name, bytes) in written {
        let last_begun = if begun == 0 {
            synced.keys().last()
        } else {
            Some(new[begun - 1])
        };
        if last_begun.is_none_or(|last| name > last) {
            continue;
        }
        let state = if Some(name) != last_begun {
            bytes.clone() // synced when the next segment was begun
        } else if let Some(old) = synced.get(name) {
            mixed(random, old, bytes)
        } else {
            // Prepared or recycled: what lies under the new records is anything.
            let mut old = payload(random.random(), bytes.len());
            let end = bytes.len() - HEADER;
            old[..HEADER].copy_from_slice(&bytes[..HEADER]);
            old[end..].copy_from_slice(&bytes[end..]);
            mixed(random, &old, bytes)
        };
        disk.insert(name.clone(), state);
    }
    disk
}

fn group(
    random: &mut StdRng,
    records: Range<usize>,
    longest: usize,
) -> (Vec<RecordDraft>, Vec<Vec<u8>>) {
    let payloads: Vec<Vec<u8>> = (0..random.random_range(records))
        .map(|_| payload(random.random(), random.random_range(0..longest)))
        .collect();
    let drafts = payloads
        .iter()
        .map(|payload| RecordDraft::new(RecordKind(1), payload.clone()));
    (drafts.collect(), payloads)
}

fn commit(random: &mut StdRng, journal: &mut Journal, log: &mut Vec<Vec<u8>>) {
    let (drafts, payloads) = group(random, 1..5, 900);
    journal.append_group(&drafts).unwrap();
    log.extend(payloads);
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        prepare_ahead: 0,
        ..small()
    };
    let mut log: Vec<Vec<u8>> = Vec::new();
    for round in 0..4 {
        let (mut journal, _) = open(folder.path(), options);
        for _ in 0..random.random_range(0..4) {
            commit(&mut random, &mut journal, &mut log);
        }
        let synced = segments(folder.path());
        // Each of these was written, none acknowledged: the power fails before the last sync returns.
        let mut uncertain = Vec::new();
        for _ in 0..random.random_range(0..3) {
            let (drafts, payloads) = group(&mut random, 1..3, 200);
            journal.append_unsynced(&drafts).unwrap();
            uncertain.push(payloads);
        }
        let (drafts, payloads) = group(&mut random, 1..9, 1500);
        journal.append_group(&drafts).unwrap();
        uncertain.push(payloads);
        drop(journal);
        let disk = after_power_cut(&mut random, &synced, &segments(folder.path()));
        for name in segments(folder.path()).keys() {
            fs::remove_file(folder.path().join("segments").join(name)).unwrap();
        }
        for (name, bytes) in &disk {
            fs::write(folder.path().join("segments").join(name), bytes).unwrap();
        }
        let (journal, recovery) = open(folder.path(), options);
        let (found, damage) = all(&journal);
        assert_eq!(damage, [], "seed {seed} round {round}");
        assert_eq!(
            (&recovery.missing[..], &recovery.unreadable[..]),
            (&[][..], &[][..]),
            "seed {seed} round {round}"
        );
        let mut possible = vec![log.clone()];
        for group in uncertain {
            log.extend(group);
            possible.push(log.clone());
        }
        assert!(
            possible.contains(&found),
            "seed {seed} round {round}: {} records",
            found.len()
        );
        log = found;
    }
    let (mut journal, _) = open(folder.path(), options);
    commit(&mut random, &mut journal, &mut log);
    drop(journal);
    assert_eq!(
        all(&open(folder.path(), options).0),
        (log, vec![]),
        "seed {seed}"
    );
}

#[test]
fn whatever_sectors_reached_the_disk_commits_are_there_and_groups_are_whole() {
    (0..150).for_each(run);
}
