//! Mail that its sender gave a time (RFC 2852).

use postroad_envelope::DeliverBy;

use super::*;
use crate::Instruction;

fn insert(house: &mut House, by: u64, return_after: bool) {
    let mut envelope = envelope(1, &["carol@a.example"]);
    envelope.deliver_by = Some(DeliverBy {
        at: at(by),
        return_after,
        trace: false,
    });
    let content = Content::Inline(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n"));
    let admitted = house.queue.prepare_insert(envelope, content, at(0), &route);
    let Admission::New(prepared) = admitted.unwrap() else {
        panic!("its id is new")
    };
    house.commit(prepared);
}

/// Does what the queue says is to be done about time that is over.
fn look(house: &mut House, now: Timestamp) -> Vec<Instruction> {
    let over = house.queue.out_of_time(&|_, _| None, now, 9);
    let told: Vec<_> = over.iter().map(|(_, told)| told.clone()).collect();
    for (job, instruction) in over {
        let prepared = house.queue.prepare(job, instruction, now).unwrap();
        house.commit(prepared);
    }
    told
}

fn debt(house: &House) -> Vec<(&'static str, String)> {
    let debt = house.queue.debt(id(1)).unwrap();
    let outcomes = debt.into_iter().flat_map(|debt| debt.recipients);
    outcomes
        .map(|(_, outcome)| (outcome.action(), outcome.report().status.to_string()))
        .collect()
}

fn pay(house: &mut House, now: Timestamp) {
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    let prepared = house.queue.prepare_report(&debt, None, now, &route);
    house.commit(prepared.unwrap().unwrap());
}

fn no_answer() -> Outcome {
    Outcome::Delayed(StatusReport::local("4.4.1".parse().unwrap(), "no answer"))
}

#[test]
fn what_is_to_be_returned_is_tried_no_more_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    insert(&mut house, 200, true);
    let leased = house.lease(RELAY, at(1)).remove(0);
    assert_eq!(leased.state.expires_at, at(200));
    let (settled, _) = house.settle(&leased, &no_answer(), at(2));
    assert_eq!(settled.retry_at, Some(at(170)), "a last chance");
    let (mut house, ..) = house.reopen(folder.path(), at(170));
    let leased = house.lease(RELAY, at(170)).remove(0);
    let (settled, _) = house.settle(&leased, &no_answer(), at(171));
    assert_eq!(settled.retry_at, Some(at(200)));
    assert_eq!(look(&mut house, at(199)), []);
    assert!(house.lease(RELAY, at(200)).is_empty());
    assert_eq!(look(&mut house, at(200)), [Instruction::Expire(None)]);
    assert_eq!(debt(&house), [("failed", "5.4.7".to_owned())]);
    assert_eq!(look(&mut house, at(201)), []);
}

#[test]
fn what_nobody_came_for_in_time_is_returned() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    insert(&mut house, 200, true);
    house.queue.tick(at(1));
    assert_eq!(look(&mut house, at(199)), []);
    assert_eq!(look(&mut house, at(200)), [Instruction::Expire(None)]);
    assert_eq!(debt(&house), [("failed", "5.4.7".to_owned())]);
}

#[test]
fn an_attempt_under_way_at_the_end_of_the_time_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    insert(&mut house, 200, true);
    let leased = house.lease(RELAY, at(199)).remove(0);
    assert_eq!(look(&mut house, at(201)), []);
    let (settled, _) = house.settle(&leased, &no_answer(), at(202));
    assert_eq!(settled.done[0].1.report().status.to_string(), "5.4.7");
}

#[test]
fn what_is_only_told_of_goes_on_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    insert(&mut house, 100, false);
    let leased = house.lease(RELAY, at(1)).remove(0);
    assert_eq!(leased.state.expires_at, at(5 * 86400));
    let (settled, _) = house.settle(&leased, &no_answer(), at(2));
    let retry = settled.retry_at.unwrap();
    assert!(retry > at(200));
    // It is woken to be told of, and for nothing else.
    assert_eq!(house.queue.next_wakeup(), Some(at(100)));
    assert!(house.lease(RELAY, at(100)).is_empty());
    assert_eq!(look(&mut house, at(100)), [Instruction::TellLate(None)]);
    assert_eq!(debt(&house), [("delayed", "4.4.7".to_owned())]);
    let (mut house, ..) = house.reopen(folder.path(), at(101));
    assert_eq!(debt(&house), [("delayed", "4.4.7".to_owned())]);
    pay(&mut house, at(103));
    assert_eq!(look(&mut house, at(104)), []);
    assert_eq!(house.queue.next_wakeup(), Some(retry));
    let leased = house.lease(RELAY, retry).remove(0);
    let (settled, _) = house.settle(&leased, &no_answer(), retry);
    assert_eq!(settled.owed, []);
    assert_eq!(debt(&house), []);
}

#[test]
fn an_attempt_that_ends_after_the_time_is_told_of_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    insert(&mut house, 100, false);
    let leased = house.lease(RELAY, at(99)).remove(0);
    let (settled, _) = house.settle(&leased, &no_answer(), at(102));
    assert_eq!(settled.owed, [RecipientIndex(0)]);
    assert_eq!(debt(&house), [("delayed", "4.4.7".to_owned())]);
}

/// A worker that hands it back cannot make it wait beyond its time.
#[test]
fn a_job_handed_back_is_woken_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    insert(&mut house, 100, true);
    let lease = house.lease(RELAY, at(50)).remove(0).lease;
    let long = std::time::Duration::from_secs(600);
    let back = house.queue.hand_back(lease.job, lease.fence, long, at(51));
    back.unwrap();
    assert!(house.lease(RELAY, at(100)).is_empty());
    assert_eq!(look(&mut house, at(100)), [Instruction::Expire(None)]);
}
