use proptest::{prelude::*, test_runner::TestRng};

use super::*;
use crate::samples::at;

impl Entries {
    /// Chunks are sorted and not empty, begin behind their bounds, and have their wake-ups.
    pub fn check(&self) {
        let keys: Vec<_> = self.range(..).map(Entry::job).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        assert_eq!(keys.len(), self.len);
        for phase in Phase::ALL {
            let there = self.range(..).filter(|entry| entry.phase == phase);
            assert_eq!(there.count(), self.in_phase(phase), "{phase:?}");
        }
        let mut wakes = BTreeSet::new();
        let mut last = None;
        for (&bound, chunk) in &self.chunks {
            let first = chunk.entries.first().map(|entry| entry.key);
            assert!(last < Some(bound) && Some(bound) <= first);
            assert!(chunk.entries.len() <= CHUNK);
            let earliest = chunk.entries.iter().filter_map(Entry::wake).min();
            assert_eq!(chunk.earliest, earliest);
            wakes.extend(earliest.map(|at| (at, bound)));
            last = chunk.entries.last().map(|entry| entry.key);
        }
        assert_eq!(self.wakes, wakes);
    }
}

fn key(number: u32) -> JobKey {
    // Some mails have several jobs.
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&(number / 3).to_be_bytes());
    JobKey {
        queue_id: QueueId::from_bytes(bytes),
        number: number % 3,
    }
}

fn entry(number: u32, phase: Phase, seconds: u64) -> Entry {
    Entry {
        key: key(number).into(),
        destination: super::super::Destinations::default()
            .join("a.example".into(), postroad_envelope::StoreName::default()),
        sender: SenderPrint::UNKNOWN,
        revision: Revision(1),
        term: PackedTerm::new(crate::Term::GivesUp(at(0)), false),
        at: at(seconds),
        class: RouteClass::Relay,
        priority: 0,
        phase,
        changing: false,
    }
}

fn waiting(numbers: impl IntoIterator<Item = u32>) -> Entries {
    let mut entries = Entries::default();
    for number in numbers {
        entries.put(entry(number, Phase::Waiting, 5));
    }
    entries.check();
    entries
}

#[test]
fn an_entry_takes_56_octets_and_ascending_ones_leave_no_room_unused() {
    assert_eq!(size_of::<Entry>(), 56);
    let entries = waiting(0..10 * CHUNK as u32);
    assert_eq!(entries.chunks.len(), 10);
    // So do those that come nearly so, as of clients that submit at the same time.
    let nearly = (0..40 * CHUNK as u32).map(|number| number ^ 5);
    assert!(waiting(nearly).chunks.len() <= 45);
}

#[test]
fn few_entries_have_few_chunks() {
    let many = 100 * CHUNK as u32;
    let mut entries = waiting(0..many);
    for number in (0..many).filter(|number| number % 10 != 0) {
        entries.remove(key(number));
    }
    entries.check();
    assert_eq!(entries.len(), 10 * CHUNK);
    assert!(entries.chunks.len() < 30, "{}", entries.chunks.len());
    for number in 0..many {
        entries.remove(key(number));
    }
    assert_eq!((entries.len(), entries.chunks.len()), (0, 0));
    assert_eq!(entries.next_wakeup(), None);
}

#[test]
fn a_range_that_ends_before_it_begins_is_empty() {
    let entries = waiting(0..3 * CHUNK as u32);
    assert_eq!(entries.range(key(150)..=key(20)).count(), 0);
    assert_eq!(entries.range(key(20)..key(20)).count(), 0);
    assert_eq!(entries.range(key(20)..=key(20)).count(), 1);
    assert_eq!(waiting([]).range(key(1)..).count(), 0);
}

/// Against a tree, with numbers from so few that they meet, and more of one kind of step for a while.
fn steps(rng: &mut TestRng) {
    let numbers = rng.random_range(1..2_000_u32);
    let (mut entries, mut model) = (Entries::default(), BTreeMap::new());
    for round in 0..8 {
        let removals = rng.random_range(1..10);
        for _ in 0..numbers {
            let number = rng.random_range(0..numbers);
            let phases = [Phase::Waiting, Phase::Ready, Phase::Leased, Phase::Held];
            let phase = phases[rng.random_range(0..phases.len())];
            let seconds = rng.random_range(0..50);
            let job = key(number);
            match rng.random_range(0..12) {
                kind if kind < removals => {
                    let removed = entries.remove(job).map(|entry| entry.job());
                    assert_eq!(removed, model.remove(&job).map(|_| job));
                }
                10 => {
                    entries.change(job, |entry| entry.changing = true);
                    model
                        .entry(job)
                        .and_modify(|known: &mut Known| known.2 = true);
                }
                _ => {
                    entries.put(entry(number, phase, seconds));
                    model.insert(job, (phase, at(seconds), false));
                }
            }
        }
        entries.check();
        compare(&entries, &model, round, rng.random_range(0..numbers));
    }
}

type Known = (Phase, Timestamp, bool);

fn compare(entries: &Entries, model: &BTreeMap<JobKey, Known>, round: u32, pivot: u32) {
    let seen = |entry: &Entry| (entry.job(), (entry.phase, entry.at, entry.changing));
    let known = |(&job, &known): (&JobKey, &Known)| (job, known);
    let (first, last) = (key(pivot / 2), key(pivot + round));
    let ours = entries.range(first..=last).map(seen);
    assert!(ours.eq(model.range(first..=last).map(known)));
    let behind = (Bound::Excluded(last), Bound::Unbounded);
    let ours = entries.range(behind).map(seen).rev();
    assert!(ours.eq(model.range(behind).map(known).rev()));
    assert!(
        entries
            .range(..last)
            .map(seen)
            .eq(model.range(..last).map(known))
    );
    assert_eq!(
        entries.get(first).map(seen),
        model.get(&first).map(|known| (first, *known))
    );
    let wakes = model.iter().filter(|(_, (phase, _, changing))| {
        !changing && matches!(phase, Phase::Waiting | Phase::Leased)
    });
    let next = wakes.map(|(job, (_, at, _))| (*at, *job)).min();
    let woken = entries.first_to_wake().map(|entry| (entry.at, entry.job()));
    assert_eq!(woken, next);
    assert_eq!(entries.next_wakeup(), next.map(|(at, _)| at));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn it_holds_what_a_tree_would_hold(seed in any::<u64>()) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        steps(&mut TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes));
    }
}
