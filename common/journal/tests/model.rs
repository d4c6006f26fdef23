//! Random appends, hints, reclaims and openings against a plain list.
mod common;

use common::{open, payload, small};
use postroad_journal::{Journal, JournalError, Location, Lsn, RecordDraft, RecordKind};
use proptest::prelude::*;
use std::ops::ControlFlow;

#[derive(Clone, Debug)]
enum Act {
    Commit(Vec<usize>),
    Hint(usize),
    Reclaim,
    Reopen,
    ReplayFrom(prop::sample::Index),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => prop::collection::vec(0..1200_usize, 0..6).prop_map(Act::Commit),
        2 => (0..60_usize).prop_map(Act::Hint),
        1 => Just(Act::Reclaim),
        2 => Just(Act::Reopen),
        2 => any::<prop::sample::Index>().prop_map(Act::ReplayFrom),
    ]
}

/// What should be there: locations and payloads, oldest first.
type Model = Vec<(Location, Vec<u8>)>;

fn replayed(journal: &Journal, from: Lsn) -> Model {
    let mut found = Vec::new();
    let replay = journal
        .replay(from, |record| {
            found.push((record.location, record.payload.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(replay.damage, []);
    found
}

fn check(journal: &Journal, model: &Model) {
    assert_eq!(&replayed(journal, Lsn(0)), model);
    assert!(model.is_sorted_by(|a, b| a.0.lsn < b.0.lsn));
    for (location, payload) in model {
        assert_eq!(&journal.read(location).unwrap()[..], &payload[..]);
    }
    let segments = journal.segments();
    assert!(segments.is_sorted_by(|a, b| a.last_lsn < b.first_lsn && a.sealed));
    for (location, _) in model {
        let segment = segments
            .iter()
            .find(|segment| segment.number == location.segment)
            .unwrap();
        assert!((segment.first_lsn..=segment.last_lsn).contains(&location.lsn));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_is_a_list(acts in prop::collection::vec(act(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path(), small()).0;
        let (mut model, mut gone) = (Model::new(), Model::new());
        let mut seed = 0;
        for act in acts {
            let mut append = |sizes: &[usize], hint: bool| {
                let payloads: Vec<_> = sizes.iter().map(|size| { seed += 1; payload(seed, *size) }).collect();
                let drafts: Vec<_> = payloads.iter().map(|payload| RecordDraft::new(RecordKind(1), payload.clone())).collect();
                let append = if hint { Journal::append_unsynced } else { Journal::append_group };
                model.extend(append(&mut journal, &drafts).unwrap().into_iter().zip(payloads));
            };
            match act {
                Act::Commit(sizes) => append(&sizes, false),
                Act::Hint(size) => append(&[size], true),
                Act::Reclaim => {
                    if let Some(number) = journal.reclaim_oldest().unwrap() {
                        gone.extend(model.extract_if(.., |(location, _)| location.segment == number));
                    }
                }
                Act::Reopen => {
                    drop(journal);
                    let (opened, recovery) = open(folder.path(), small());
                    journal = opened;
                    prop_assert!(recovery.torn.is_none() && recovery.missing.is_empty());
                    check(&journal, &model);
                }
                Act::ReplayFrom(index) if !model.is_empty() => {
                    let from = index.index(model.len());
                    prop_assert_eq!(&replayed(&journal, model[from].0.lsn)[..], &model[from..]);
                }
                Act::ReplayFrom(_) => {}
            }
        }
        check(&journal, &model);
        for (location, _) in &gone {
            prop_assert!(matches!(journal.read(location), Err(JournalError::Gone)));
        }
    }
}
