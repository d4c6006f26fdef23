//! What is found after a crash at the wrong moment.

use super::*;
use postroad_envelope::Route;

use crate::HoldRule;

fn rule(name: &str, domain: &str, created_at: Timestamp) -> HoldRule {
    HoldRule {
        name: name.to_owned(),
        filter: Filter::to(domain),
        by: "eve".to_owned(),
        reason: String::new(),
        created_at,
    }
}

#[test]
fn a_living_mail_whose_record_moved_behind_the_end_of_a_job_lives() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["x@a.example", "y@b.example"]);
    house.segment = 2;
    let both = house.lease(RELAY, at(1));
    house.settle(&both[0], &delivered(), at(2));
    house.checkpoint(at(3));
    for (location, kind, payload) in house.log.clone() {
        let kept = house.queue.prepare_keep(location, kind, &payload).unwrap();
        if let Some(kept) = kept.filter(|_| location.segment == SegmentNumber(1)) {
            house.commit(kept);
        }
    }
    house
        .log
        .retain(|(location, ..)| location.segment == SegmentNumber(2));
    let before = house.queue.index.jobs(id(1)).unwrap();
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (house, ..) = house.reopen(folder.path(), at(4));
    assert_eq!(house.queue.index.jobs(id(1)).unwrap(), before);
    assert_eq!(house.queue.finished(id(1)).unwrap(), None);
    assert_eq!(house.queue.stats().jobs, 1);
}

#[test]
fn a_block_of_finished_ids_ends_no_mail_that_owes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["x@a.example"]);
    house.insert(2, &["y@b.example"]);
    for leased in house.lease(RELAY, at(1)) {
        let outcome = match leased.lease.job == key(1, 0) {
            true => failed(),
            false => delivered(),
        };
        house.settle(&leased, &outcome, at(1));
    }
    house.checkpoint(at(1));
    for from in [Lsn(0), Lsn(3)] {
        house.replay(from);
        assert!(house.queue.debt(id(1)).unwrap().is_some());
        assert!(house.queue.finished(id(2)).unwrap().is_some());
    }
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (house, ..) = house.reopen(folder.path(), at(2));
    assert!(house.queue.debt(id(1)).unwrap().is_some());
    assert!(house.queue.finished(id(2)).unwrap().is_some());
}

#[test]
fn what_came_since_the_last_checkpoint_is_to_be_held_against_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    house.insert(1, &["x@a.example"]);
    house.checkpoint(at(1));
    house.insert(2, &["x@a.example"]);
    house.insert(3, &["x@hold.test"]);
    let (house, ..) = house.reopen(folder.path(), at(2));
    assert_eq!(house.queue.take_unchecked(), [id(2)]);
    assert_eq!(house.queue.take_unchecked(), []);
}

#[test]
fn what_a_route_lets_go_a_rule_still_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    let rules = [
        rule("later", "hold.test", at(9)),
        rule("odd", "hold.test", at(0)),
    ];
    house.queue.set_hold_rules(rules.into());
    house.insert(1, &["x@hold.test"]);
    let away = Route::new(RELAY, "hold.test", "released");
    let prepared = house
        .queue
        .prepare(key(1, 0), Instruction::Reroute(away.clone()), at(1))
        .unwrap();
    assert_eq!(prepared.hold(), Some("rule odd"));
    house.commit(prepared);
    assert_eq!(house.lease(RELAY, at(1)).len(), 0);
    let release = house
        .queue
        .prepare(key(1, 0), Instruction::Release, at(2))
        .unwrap();
    assert_eq!(release.hold(), None);
    house.commit(release);
    assert_eq!(house.lease(RELAY, at(2)).len(), 1);

    // No rule that was there when it came: it goes.
    house
        .queue
        .set_hold_rules([rule("later", "hold.test", at(9))].into());
    house.insert(2, &["x@hold.test"]);
    let prepared = house
        .queue
        .prepare(key(2, 0), Instruction::Reroute(away), at(3))
        .unwrap();
    assert_eq!(prepared.hold(), None);
}
