use super::*;
use crate::{CheckCursor, CheckRules, Checked, Ledger, Part, Suspect};

#[test]
fn a_living_job_that_nobody_would_try_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["bob@demo.test"]);
    house.insert(2, &["bob@demo.test"]);
    let mut ledger = Ledger::new(Part::default());
    for (location, kind, payload) in &house.log {
        let record = RecordRef {
            lsn: location.lsn,
            location: *location,
            kind: *kind,
            payload,
        };
        ledger.see(record).unwrap();
    }
    let rules = CheckRules {
        replayed_from: None,
        window_from: at(0),
    };
    let mut look = || {
        let (mut found, mut cursor) = (Vec::new(), Some(CheckCursor::start()));
        while let Some(at) = cursor {
            let piece = house
                .queue
                .check_piece(&mut ledger, &rules, at, 10, &mut found);
            cursor = piece.unwrap();
        }
        found
    };
    assert_eq!(look(), []);
    house.queue.core().schedule.remove(key(2, 0));
    assert_eq!(look(), [Suspect::Job(key(2, 0))]);
}
