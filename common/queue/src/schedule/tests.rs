mod sharing;
mod steps;

use postroad_envelope::{Outcome, RecipientIndex, StatusReport};

use super::*;
use crate::samples::{at, job_state, key};
use crate::{Instruction, StaleLease};

const CLASS: RouteClass = RouteClass::Relay;

fn holder(stream: u64) -> Holder {
    Holder {
        agent: "mta".into(),
        stream,
    }
}

/// Jobs wait for workers alone.
const NO_HOST: Waiting<'static> = Waiting {
    why: &|_, _| None,
    tell_after: None,
};

fn ready(jobs: &[JobState]) -> Schedule {
    let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
    schedule.begin_epoch(1);
    jobs.iter().for_each(|state| schedule.place(state));
    schedule.tick(at(0));
    schedule
}

fn to(number: u8, destination: &str) -> JobState {
    JobState {
        destination: destination.to_owned(),
        ..job_state(number, 1)
    }
}

#[test]
fn destinations_take_turns_and_the_urgent_go_first() {
    let urgent = JobState {
        priority: 5,
        ..to(4, "big.example")
    };
    let schedule = &mut ready(&[
        to(1, "big.example"),
        to(2, "big.example"),
        to(3, "big.example"),
        urgent,
        to(5, "small.example"),
    ]);
    let order: Vec<u8> = schedule
        .lease(CLASS, &holder(1), 9, at(0))
        .iter()
        .map(|l| l.job.queue_id.to_bytes()[15])
        .collect();
    assert_eq!(order, [4, 1, 5, 2, 3]);
    assert_eq!(schedule.ready_len(CLASS), 0);
}

#[test]
fn nothing_is_leased_before_its_epoch_its_time_or_in_another_class() {
    let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
    schedule.place(&JobState {
        due: at(10),
        ..job_state(1, 1)
    });
    schedule.tick(at(20));
    assert!(schedule.lease(CLASS, &holder(1), 1, at(20)).is_empty());
    schedule.begin_epoch(3);
    schedule.place(&JobState {
        due: at(30),
        ..job_state(1, 1)
    });
    assert_eq!(schedule.next_wakeup(), Some(at(30)));
    schedule.tick(at(29));
    assert!(schedule.lease(CLASS, &holder(1), 1, at(29)).is_empty());
    schedule.tick(at(30));
    assert!(
        schedule
            .lease(RouteClass::Local, &holder(1), 1, at(30))
            .is_empty()
    );
    let lease = &schedule.lease(CLASS, &holder(1), 1, at(30))[0];
    assert_eq!(
        lease.fence,
        Fence {
            epoch: 3,
            counter: 1
        }
    );
}

#[test]
fn a_lease_past_its_deadline_is_over_and_its_settlement_refused() {
    let schedule = &mut ready(&[job_state(1, 1)]);
    let lease = schedule.lease(CLASS, &holder(1), 1, at(0)).remove(0);
    let extended = schedule.extend(lease.job, lease.fence, at(200)).unwrap();
    assert_eq!(extended, at(500));
    let stale = StaleLease { job: lease.job };
    assert_eq!(
        schedule.begin_settle(lease.job, lease.fence, at(500)),
        Err(stale)
    );
    let expired = schedule.tick(at(500)).expired;
    assert_eq!(expired[0].fence, lease.fence);
    assert_eq!(schedule.extend(lease.job, lease.fence, at(501)), Err(stale));
    let next = schedule.lease(CLASS, &holder(2), 1, at(501)).remove(0);
    assert!(next.fence > lease.fence);
    assert_eq!(
        schedule.begin_settle(lease.job, lease.fence, at(502)),
        Err(stale)
    );
    assert!(schedule.begin_settle(next.job, next.fence, at(502)).is_ok());
}

#[test]
fn what_is_settling_belongs_to_nobody_else() {
    let schedule = &mut ready(&[job_state(1, 1)]);
    let lease = schedule.lease(CLASS, &holder(1), 1, at(0)).remove(0);
    schedule
        .begin_settle(lease.job, lease.fence, at(1))
        .unwrap();
    assert!(
        schedule
            .begin_settle(lease.job, lease.fence, at(1))
            .is_err()
    );
    schedule.drop_stream(1, at(2));
    assert_eq!(schedule.tick(at(9999)), Ticked::default());
    assert!(
        schedule
            .resume(lease.job, lease.fence, lease.revision, &holder(2), at(3))
            .is_none()
    );
    assert!(matches!(
        schedule.begin_change(lease.job),
        Err(QueueError::Busy(_))
    ));
    schedule.place(&job_state(1, 1).rescheduled(at(10_000), at(9999)));
    assert_eq!(
        schedule.phase(lease.job),
        Some((Phase::Waiting, at(10_000)))
    );
}

#[test]
fn handed_back_is_due_after_the_delay_at_the_same_revision() {
    let schedule = &mut ready(&[job_state(1, 1)]);
    let lease = schedule.lease(CLASS, &holder(1), 1, at(0)).remove(0);
    schedule
        .hand_back(lease.job, lease.fence, Duration::from_secs(7), at(1))
        .unwrap();
    assert_eq!(schedule.next_wakeup(), Some(at(8)));
    schedule.tick(at(8));
    assert_eq!(
        schedule.lease(CLASS, &holder(1), 1, at(8))[0].revision,
        lease.revision
    );
}

#[test]
fn a_dropped_stream_has_its_grace_and_can_be_resumed() {
    let schedule = &mut ready(&[job_state(1, 1), job_state(2, 1)]);
    let leases = schedule.lease(CLASS, &holder(1), 2, at(0));
    assert_eq!(schedule.drop_stream(1, at(1)), 2);
    let first = &leases[0];
    let again = schedule
        .resume(first.job, first.fence, first.revision, &holder(2), at(5))
        .unwrap();
    assert_ne!(again.fence, first.fence);
    let expired = schedule.tick(at(11)).expired;
    assert_eq!(expired, leases[1..]);
    assert!(
        schedule
            .begin_settle(first.job, first.fence, at(12))
            .is_err()
    );
    assert!(
        schedule
            .begin_settle(again.job, again.fence, at(12))
            .is_ok()
    );
}

#[test]
fn what_a_worker_that_left_in_peace_was_given_is_due_at_once() {
    let schedule = &mut ready(&[job_state(1, 1), job_state(2, 1), job_state(3, 1)]);
    let mine = schedule.lease(CLASS, &holder(1), 2, at(0));
    let other = schedule.lease(CLASS, &holder(2), 1, at(0));
    schedule
        .begin_settle(mine[0].job, mine[0].fence, at(1))
        .unwrap();
    assert_eq!(schedule.free_stream(&holder(1), at(1)), 1);
    schedule.tick(at(1));
    let again = schedule.lease(CLASS, &holder(3), 9, at(1));
    assert_eq!(
        again.iter().map(|l| l.job).collect::<Vec<_>>(),
        [mine[1].job]
    );
    assert_eq!(
        schedule.phase(other[0].job).map(|(phase, _)| phase),
        Some(Phase::Leased)
    );
}

#[test]
fn only_hinted_jobs_wait_for_their_workers_after_a_restart() {
    let hint = |number, revision| LeaseHint {
        job: key(number, 0),
        revision: Revision(revision),
        agent: "mta".to_owned(),
        fence: Fence {
            epoch: 1,
            counter: 9,
        },
        deadline: at(300),
    };
    let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
    (1..=3).for_each(|number| schedule.place(&job_state(number, 1)));
    schedule.await_resume(&hint(1, 1), at(10));
    schedule.await_resume(&hint(2, 7), at(10));
    schedule.begin_epoch(2);
    schedule.tick(at(10));
    assert_eq!(schedule.ready_len(CLASS), 2);
    assert_eq!(schedule.phase(key(1, 0)), Some((Phase::Resuming, at(40))));
    let fence = hint(1, 1).fence;
    let wrong = Fence {
        epoch: 1,
        counter: 8,
    };
    assert!(
        schedule
            .resume(key(1, 0), wrong, Revision(1), &holder(1), at(11))
            .is_none()
    );
    assert!(
        schedule
            .resume(key(1, 0), fence, Revision(2), &holder(1), at(11))
            .is_none()
    );
    let lease = schedule
        .resume(key(1, 0), fence, Revision(1), &holder(1), at(11))
        .unwrap();
    assert_eq!(lease.fence.epoch, 2);
}

#[test]
fn after_the_grace_a_hinted_job_is_for_all() {
    let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
    schedule.place(&job_state(1, 1));
    let hint = LeaseHint {
        job: key(1, 0),
        revision: Revision(1),
        agent: String::new(),
        fence: Fence::default(),
        deadline: at(20),
    };
    schedule.await_resume(&hint, at(10));
    schedule.begin_epoch(2);
    schedule.tick(at(19));
    assert_eq!(schedule.ready_len(CLASS), 0);
    // Not longer than the lease itself would have lasted.
    schedule.tick(at(20));
    assert_eq!(schedule.ready_len(CLASS), 1);
}

#[test]
fn held_jobs_and_debtors_are_not_leased() {
    let failed = Outcome::Failed(StatusReport::local("5.1.1".parse().unwrap(), "no"));
    let owing = job_state(1, 2).settled(
        vec![(RecipientIndex(0), failed)],
        crate::TakenOver::default(),
        Some(at(0)),
        at(0),
    );
    let held = job_state(2, 1).held(Some("suspect".to_owned()), at(0));
    let schedule = &mut ready(&[owing.clone(), held]);
    assert_eq!(schedule.ready_len(CLASS), 0);
    assert_eq!(schedule.phase(key(2, 0)).unwrap().0, Phase::Held);
    assert_eq!(schedule.tick(at(1)).reports, []);
    assert_eq!(schedule.tick(at(2)).reports, [key(1, 0).queue_id]);
    // Not paid: named again later.
    assert_eq!(schedule.tick(at(61)).reports, []);
    assert_eq!(schedule.tick(at(62)).reports, [key(1, 0).queue_id]);
    schedule.begin_change(key(1, 0)).unwrap();
    schedule.place(&owing.reported(at(62)));
    schedule.tick(at(62));
    assert_eq!(schedule.ready_len(CLASS), 1);
}

#[test]
fn jobs_nobody_came_for_run_out_of_time() {
    let schedule = &mut ready(&[job_state(1, 1)]);
    let end = at(5 * 86400);
    assert_eq!(schedule.out_of_time(&NO_HOST, end, 9), []);
    assert_eq!(
        schedule.out_of_time(&NO_HOST, end.plus(Duration::from_secs(300)), 9),
        [(key(1, 0), Instruction::Expire(None))]
    );
}

#[test]
fn much_mail_is_looked_at_in_stretches() {
    let many = u32::try_from(STRETCH + 5).unwrap();
    let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
    for number in 0..many {
        let key = key(1, number);
        schedule.place(&JobState {
            key,
            ..job_state(1, 1)
        });
    }
    let end = at(6 * 86400);
    schedule.tick(end);
    assert_eq!(schedule.ready_len(CLASS), STRETCH);
    assert!(schedule.next_wakeup().is_some_and(|at| at <= end));
    schedule.tick(end);
    assert_eq!(schedule.ready_len(CLASS), STRETCH + 5);
    assert_eq!(schedule.next_wakeup(), None);

    let most = usize::MAX;
    let look = |schedule: &mut Schedule, most| -> Vec<JobKey> {
        let over = schedule.out_of_time(&NO_HOST, end, most).into_iter();
        over.map(|(job, _)| job).collect()
    };
    let first = look(&mut schedule, most);
    assert_eq!((first.len(), first[0]), (STRETCH, key(1, 0)));
    let second = look(&mut schedule, most);
    assert_eq!(second.len(), STRETCH);
    assert_eq!(second[..6].last(), Some(&key(1, 0)));
    // On from where the most were found.
    let third = look(&mut schedule, 1);
    let fourth = look(&mut schedule, 1);
    assert_eq!(third[0].number + 1, fourth[0].number);
    let (mut seen, mut behind) = (0, None);
    while let Some(last) = schedule.stretch(behind).map(|(job, ..)| job).last() {
        seen += schedule.stretch(behind).count();
        behind = Some(last);
    }
    assert_eq!(seen, STRETCH + 5);
}

#[test]
fn the_oldest_due_job_is_found_by_looking_at_stretches() {
    let schedule = &mut ready(&[job_state(1, 1), job_state(2, 2)]);
    assert_eq!(schedule.oldest_due(), None, "nobody has looked");
    schedule.out_of_time(&NO_HOST, at(9), 9);
    assert_eq!(schedule.oldest_due(), Some(at(0)));
    let leases = schedule.lease(CLASS, &holder(1), 2, at(9));
    assert_eq!(schedule.oldest_due(), None, "all are with workers");
    schedule
        .hand_back(leases[0].job, leases[0].fence, Duration::ZERO, at(9))
        .unwrap();
    schedule.tick(at(9));
    schedule.out_of_time(&NO_HOST, at(9), 9);
    assert_eq!(schedule.oldest_due(), Some(at(9)));
}

fn hint(lease: &Lease) -> LeaseHint {
    LeaseHint {
        job: lease.job,
        revision: lease.revision,
        agent: "mta".to_owned(),
        fence: lease.fence,
        deadline: lease.deadline,
    }
}
