use std::{collections::BTreeMap, path::Path};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;
use crate::index::{Index, open};

fn index(folder: &Path) -> Index {
    let opened = open(folder, 1 << 20, Timestamp::from_millis(1)).unwrap();
    Index::new(opened, true).0
}

fn end(number: u64, at: u64) -> Finished {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Finished {
        queue_id: QueueId::mint(Timestamp::from_millis(1000 + number), random),
        at: Timestamp::from_millis(at),
        digest: Digest {
            len: number,
            crc32c: u32::MAX,
            envelope: u64::MAX - number,
        },
    }
}

fn packed_ids(index: &Index) -> Vec<Vec<QueueId>> {
    let blocks = index.trees.ended.iter();
    let ids = blocks.map(|item| {
        let block = decode(&item.unwrap().1).unwrap();
        block.iter().map(|end| end.queue_id).collect()
    });
    ids.collect()
}

#[test]
fn ids_that_end_in_order_fill_their_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path());
    for number in 0..250 {
        index.remember_finished(&end(number, 9999)).unwrap();
        if number % 70 == 69 {
            index.pack_some().unwrap();
        }
    }
    let lengths = |index: &Index| packed_ids(index).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(&index), [100, 100, 10]);
    assert_eq!(index.trees.done.len(), 40);
    // One that comes late goes where it belongs.
    index.forget_finished(end(7, 0).queue_id).unwrap();
    for number in [7, 300] {
        index.remember_finished(&end(number, 9999)).unwrap();
    }
    index.pack_some().unwrap();
    assert_eq!(lengths(&index), [100, 100, 51]);
    for number in (0..250).chain([300]) {
        let known = index.finished(end(number, 0).queue_id).unwrap();
        assert_eq!(known, Some(end(number, 9999)), "{number}");
    }
}

#[test]
fn what_took_days_and_ended_just_now_keeps_no_other_id() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path());
    let many = u64::try_from(LOOKED_AT).unwrap() + 500;
    for number in 0..many + 300 {
        let at = if number < many { 900_000 } else { 5000 };
        index.remember_finished(&end(number, at)).unwrap();
    }
    while index.trees.done.len() > 0 {
        index.pack_some().unwrap();
    }
    for number in 0..many {
        index
            .remember_finished(&end(10_000 + number, 900_000))
            .unwrap();
    }
    for number in many..many + 9 {
        index
            .remember_finished(&end(10_000 + number, 50_000))
            .unwrap();
    }
    let before = Timestamp::from_millis(800_000);
    let forgotten: usize = (0..2).map(|_| index.forget_ids(before).unwrap()).sum();
    assert_eq!(forgotten, 309);
    // And again from the beginning.
    index.remember_finished(&end(1, 7000)).unwrap();
    let forgotten: usize = (0..2).map(|_| index.forget_ids(before).unwrap()).sum();
    assert_eq!(forgotten, 1);
}

#[test]
fn many_are_packed_by_checkpoints_until_few_are_loose() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path());
    let many = u64::try_from(LOOSE + A_TIME).unwrap();
    index.remember_finished(&end(0, 5)).unwrap();
    index.pack_finished().unwrap();
    for number in 1..many {
        index.remember_finished(&end(number, 5)).unwrap();
    }
    let before = index.trees.done.len();
    index.pack_finished().unwrap();
    assert_eq!(before - index.trees.done.len(), A_TIME);
    index.pack_finished().unwrap();
    assert_eq!(index.trees.done.len(), LOOSE);
    assert_eq!(index.trees.ended.len(), A_TIME / FULL);
}

#[test]
fn what_a_crash_left_in_two_blocks_is_one_id() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path());
    let all: Vec<Finished> = (0..60).map(|number| end(number, 5)).collect();
    let key = IVec::from(&all[0].queue_id.to_bytes());
    index.replace(&key, &[&all]).unwrap();
    // Halved, but for the first half: the second has one more since.
    let mut second = all[30..].to_vec();
    second.push(end(60, 5));
    let at = IVec::from(&second[0].queue_id.to_bytes());
    index.replace(&at, &[&second]).unwrap();
    *lock(&index.packed.newest) = Some(end(60, 5).queue_id);
    let late = end(12, 7);
    index.remember_finished(&late).unwrap();
    index.pack_some().unwrap();
    assert_eq!(index.finished(late.queue_id).unwrap(), Some(late));
    assert_eq!(
        index.finished(end(60, 0).queue_id).unwrap(),
        Some(end(60, 5))
    );
    assert!(index.forget_finished(end(40, 0).queue_id).unwrap());
    assert_eq!(index.finished(end(40, 0).queue_id).unwrap(), None);
}

#[test]
fn packed_or_not_they_are_as_a_map_has_them() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut index = index(folder.path());
    let mut model = BTreeMap::new();
    for step in 0..3000_u64 {
        match random.random_range(0..100) {
            0..80 => {
                // Most are young.
                let number = step.saturating_sub(random.random_range(0..10_u64).pow(4));
                let end = end(number, 2000 + step);
                index.remember_finished(&end).unwrap();
                model.insert(end.queue_id, end);
            }
            80..85 => {
                let known: Vec<_> = model.keys().copied().collect();
                let Some(id) = known.choose(&mut random) else {
                    continue;
                };
                assert!(index.forget_finished(*id).unwrap(), "seed {seed}");
                assert!(!index.forget_finished(*id).unwrap());
                model.remove(id);
            }
            85 => {
                let before = Timestamp::from_millis(1500 + step / 2);
                for _ in 0..3 {
                    index.forget_ids(before).unwrap();
                }
                model.retain(|_, end| end.at >= before);
            }
            86 => {
                drop(index);
                index = self::index(folder.path());
            }
            _ => drop(index.pack_some().unwrap()),
        }
    }
    for number in 0..3000 {
        let id = end(number, 0).queue_id;
        assert_eq!(
            index.finished(id).unwrap(),
            model.get(&id).copied(),
            "{number}, seed {seed}"
        );
    }
    let blocks = packed_ids(&index);
    assert!(
        blocks
            .iter()
            .all(|block| block.len() <= FULL && block.is_sorted())
    );
    assert!(blocks.concat().is_sorted());
}
