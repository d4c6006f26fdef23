use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::samples::key;

fn room(ranks: &Ranks) -> usize {
    ranks.chunks.iter().map(VecDeque::capacity).sum()
}

#[test]
fn jobs_that_come_in_their_order_have_little_more_room_than_they_use() {
    assert_eq!(size_of::<Ranked>(), 28);
    let mut ranks = Ranks::default();
    for rank in 0..100 {
        ranks.insert(rank, key(1, 0));
    }
    assert!(room(&ranks) <= 100 + CHUNK / 4, "{}", room(&ranks));
    for rank in 100..10_000 {
        ranks.insert(rank, key(1, 0));
    }
    assert!(room(&ranks) <= 10_000 + CHUNK, "{}", room(&ranks));
    for rank in 0..9_999 {
        assert_eq!(ranks.first(), Some(rank));
        ranks.pop_first();
    }
    assert!(room(&ranks) <= 8, "{}", room(&ranks));
}

#[test]
fn negative_ranks_come_first() {
    let mut ranks = Ranks::default();
    for rank in [1, i64::MAX, -1, i64::MIN, 0] {
        assert!(ranks.insert(rank, key(1, 0)));
    }
    assert!(!ranks.insert(0, key(1, 0)), "twice");
    let firsts = std::iter::from_fn(|| {
        let first = ranks.first();
        ranks.pop_first();
        first
    });
    assert!(firsts.eq([i64::MIN, -1, 0, 1, i64::MAX]));
}

proptest! {
    #[test]
    fn they_are_what_a_tree_would_be(
        steps in proptest::collection::vec((0_u8..7, 0_i64..60, 0_u8..20), 0..4_000),
    ) {
        let (mut ranks, mut model) = (Ranks::default(), BTreeSet::new());
        for (kind, rank, number) in steps {
            let job = key(number, 0);
            match kind {
                0 => prop_assert_eq!(ranks.remove(rank, job), model.remove(&(rank, job))),
                1 => prop_assert_eq!(ranks.pop_first(), model.pop_first().map(|(_, job)| job)),
                _ => prop_assert_eq!(ranks.insert(rank, job), model.insert((rank, job))),
            }
            prop_assert_eq!(ranks.first(), model.first().map(|(rank, _)| *rank));
            prop_assert_eq!(ranks.is_empty(), model.is_empty());
        }
        prop_assert!(ranks.jobs().eq(model.iter().map(|(_, job)| *job)));
        prop_assert!(ranks.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
    }
}
