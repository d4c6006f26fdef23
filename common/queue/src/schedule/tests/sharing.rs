//! Who gets the leases when there are fewer of them than jobs. Time is a number here.

use std::collections::{BTreeSet, VecDeque};

use super::*;

fn with(fairness: Fairness, jobs: &[JobState]) -> Schedule {
    let mut schedule = Schedule::new(LeaseTimes::default(), fairness);
    schedule.begin_epoch(1);
    jobs.iter().for_each(|state| schedule.place(state));
    schedule.tick(at(0));
    schedule
}

fn order(schedule: &mut Schedule, now: Timestamp) -> Vec<u8> {
    let leases = schedule.lease(CLASS, &holder(1), 99, now);
    let numbers = leases.iter().map(|lease| lease.job.queue_id.to_bytes()[15]);
    numbers.collect()
}

#[test]
fn a_destination_has_no_more_leases_than_it_may_have() {
    let two = Fairness {
        max_leases: 2,
        ..Fairness::default()
    };
    let slow = (1..=4).map(|number| to(number, "slow.example"));
    let jobs: Vec<_> = slow.chain([to(5, "other.example")]).collect();
    let schedule = &mut with(two, &jobs);
    let leases = schedule.lease(CLASS, &holder(1), 99, at(0));
    assert_eq!(leases.len(), 3, "two of the slow one's, one of the other's");
    assert_eq!(schedule.ready_len(CLASS), 2);
    // Each way in which a lease ends makes room for one more.
    let [first, _, second] = &leases[..] else {
        panic!("{leases:?}")
    };
    let wait = Duration::from_secs(60);
    schedule
        .hand_back(first.job, first.fence, wait, at(1))
        .unwrap();
    let third = schedule.lease(CLASS, &holder(2), 99, at(1));
    assert_eq!(third.len(), 1);
    schedule
        .begin_settle(second.job, second.fence, at(1))
        .unwrap();
    assert!(order(schedule, at(1)).is_empty(), "not before its commit");
    schedule.remove(second.job);
    assert_eq!(order(schedule, at(1)), [4]);
    // The one handed back is ready again, and waits until the leases run out.
    schedule.tick(at(61));
    assert!(order(schedule, at(61)).is_empty());
    assert_eq!(schedule.free_stream(&holder(2), at(62)), 1);
    schedule.tick(at(62));
    assert_eq!(order(schedule, at(62)).len(), 1);
}

/// Admits what it was told, so often.
struct Turnstile(BTreeMap<&'static str, usize>, usize);

impl Gate for Turnstile {
    fn admits(&mut self, _: RouteClass, destination: &Arc<str>, _: Timestamp) -> bool {
        self.1 += 1;
        self.0.get(&**destination).is_none_or(|left| *left > 0)
    }

    fn granted(&mut self, _: &Lease, _: RouteClass, destination: &Arc<str>) {
        if let Some(left) = self.0.get_mut(&**destination) {
            *left -= 1;
        }
    }
}

#[test]
fn a_destination_that_a_gate_refused_waits_until_it_is_open_again() {
    let slow = (1..=4).map(|number| to(number, "slow.example"));
    let jobs: Vec<_> = slow.chain([to(5, "other.example")]).collect();
    let schedule = &mut with(Fairness::default(), &jobs);
    let mut gate = Turnstile([("slow.example", 1)].into(), 0);
    let store = StoreName::default();
    let mut order = |schedule: &mut Schedule, left: usize, now| {
        gate.0.insert("slow.example", left);
        let leases = schedule.lease_through(&mut gate, (CLASS, &store), &holder(1), 99, at(now));
        let numbers = leases.iter().map(|lease| lease.job.queue_id.to_bytes()[15]);
        (numbers.collect::<Vec<_>>(), std::mem::take(&mut gate.1))
    };
    assert_eq!(order(schedule, 1, 0).0, [1, 5]);
    // It is not asked about again, whatever else comes or ends.
    schedule.place(&to(6, "slow.example"));
    schedule.tick(at(0));
    let leases: Vec<_> = schedule.leases().cloned().collect();
    for lease in &leases {
        schedule.remove(lease.job);
    }
    assert_eq!(order(schedule, 9, 1), (vec![], 0));
    assert_eq!(
        schedule.take_ended(),
        leases.iter().map(|lease| lease.fence).collect::<Vec<_>>()
    );
    schedule.reopen(CLASS, "slow.example");
    assert_eq!(order(schedule, 2, 2).0, [2, 3]);
    schedule.reopen(CLASS, "slow.example");
    schedule.reopen(CLASS, "unknown.example");
    assert_eq!(order(schedule, 9, 3).0, [4, 6]);
    assert_eq!(schedule.ready_len(CLASS), 0);
}

#[test]
fn limits_follow_class_and_destination() {
    let fairness = Fairness {
        max_leases: 1,
        max_leases_of: [
            ("wide.example".to_owned(), 3),
            ("all.example".to_owned(), 0),
        ]
        .into(),
        ..Fairness::default()
    };
    for (class, destination, limit) in [
        (RouteClass::Relay, "far.example", Some(1)),
        (RouteClass::Lmtp, "far.example", Some(1)),
        (RouteClass::Relay, "wide.example", Some(3)),
        (RouteClass::Local, "wide.example", Some(3)),
        (RouteClass::Relay, "all.example", None),
        (RouteClass::Local, "ours.example", None),
    ] {
        assert_eq!(
            fairness.limit(class, destination),
            limit,
            "{class} {destination}"
        );
    }
}

#[test]
fn jobs_that_have_waited_long_enough_overtake_more_urgent_ones() {
    let job = |number, priority, due| JobState {
        priority,
        due: at(due),
        ..job_state(number, 1)
    };
    // Ten minutes a step: bulk of -2 counts as if it had come 1,200 seconds later, urgent of 1 as 600 earlier.
    let none = Fairness {
        minimum_share: 0,
        ..Fairness::default()
    };
    let jobs = [
        job(1, -2, 0),
        job(2, 0, 1190),
        job(3, 0, 1210),
        job(4, 1, 1795),
        job(5, 1, 1820),
    ];
    let schedule = &mut with(none, &jobs);
    schedule.tick(at(2000));
    assert_eq!(order(schedule, at(2000)), [2, 4, 1, 3, 5]);
}

/// Jobs come at a steady rate, and workers take a second for each.
struct Line {
    schedule: Schedule,
    second: u64,
    number: u64,
    free: usize,
    under_way: VecDeque<Lease>,
    /// Leases of each lane in this minute, and the longest wait.
    leases: BTreeMap<i8, (u64, Duration)>,
}

const WORKERS: usize = 20;
const BULK: i8 = -5;
const PERSONAL: i8 = 0;

impl Line {
    fn new() -> Self {
        Self {
            schedule: with(Fairness::default(), &[]),
            second: 0,
            number: 0,
            free: WORKERS,
            under_way: VecDeque::new(),
            leases: BTreeMap::new(),
        }
    }

    fn arrive(&mut self, priority: i8, count: u64) {
        for _ in 0..count {
            self.number += 1;
            let mut random = [0; 10];
            random[2..].copy_from_slice(&self.number.to_be_bytes());
            let queue_id = QueueId::mint(at(self.second), random);
            self.schedule.place(&JobState {
                key: JobKey {
                    queue_id,
                    number: 0,
                },
                class: RouteClass::Local,
                destination: format!("d{}.example", self.number % 7),
                priority,
                due: at(self.second),
                ..job_state(1, 1)
            });
        }
    }

    fn second(&mut self, bulk: u64, personal: u64) {
        for lease in std::mem::take(&mut self.under_way) {
            self.schedule.remove(lease.job);
            self.free += 1;
        }
        self.arrive(BULK, bulk);
        self.arrive(PERSONAL, personal);
        let now = at(self.second);
        while self.schedule.next_wakeup().is_some_and(|at| at <= now) {
            self.schedule.tick(now);
        }
        let leases = self
            .schedule
            .lease(RouteClass::Local, &holder(1), self.free, now);
        self.free -= leases.len();
        for lease in &leases {
            let wait = now.since(lease.due_at);
            let lane = self.lane(lease);
            let (count, longest) = self.leases.entry(lane).or_default();
            (*count, *longest) = (*count + 1, wait.max(*longest));
        }
        self.under_way.extend(leases);
        self.second += 1;
    }

    fn lane(&self, lease: &Lease) -> i8 {
        self.schedule.entries.get(lease.job).unwrap().priority
    }

    /// One minute; tells what bulk and personal mail got.
    fn minute(&mut self, bulk: u64, personal: u64) -> [(u64, Duration); 2] {
        self.leases.clear();
        (0..60).for_each(|_| self.second(bulk, personal));
        [BULK, PERSONAL].map(|lane| self.leases.get(&lane).copied().unwrap_or_default())
    }
}

/// Leases in a minute, all of them taken.
const CAPACITY: u64 = 60 * WORKERS as u64;

#[test]
fn bulk_gets_its_share_while_personal_mail_alone_is_too_much() {
    let mut line = Line::new();
    for minute in 0..10 {
        let [(bulk, _), (personal, _)] = line.minute(4, 30);
        assert_eq!(bulk + personal, CAPACITY, "nobody is idle");
        assert!(
            bulk >= CAPACITY / 10,
            "minute {minute}: {bulk} of {CAPACITY}"
        );
        assert!(
            bulk <= CAPACITY / 10 + 1,
            "and personal mail has the rest: {bulk}"
        );
    }
}

#[test]
fn personal_mail_is_not_held_up_while_bulk_alone_is_too_much() {
    let mut line = Line::new();
    for minute in 0..10 {
        let [(bulk, _), (personal, wait)] = line.minute(60, 4);
        assert_eq!(bulk + personal, CAPACITY, "nobody is idle");
        assert_eq!(personal, 4 * 60, "minute {minute}");
        assert_eq!(wait, Duration::ZERO, "minute {minute}");
    }
}

#[test]
fn personal_mail_gets_its_share_also_when_a_mountain_of_bulk_is_older() {
    let mut line = Line::new();
    line.arrive(BULK, 20 * CAPACITY);
    // Nobody works for two hours: all the bulk is older now than its priority counts.
    line.second = 2 * 3600;
    let mut all = 0;
    for minute in 0..10 {
        let [(bulk, _), (personal, _)] = line.minute(0, 4);
        assert_eq!(bulk + personal, CAPACITY, "nobody is idle");
        assert!(personal >= CAPACITY / 10 - 1, "minute {minute}: {personal}");
        all += personal;
    }
    assert!(all >= CAPACITY, "{all} of {}", 10 * CAPACITY);
}

#[test]
fn a_share_that_nobody_used_is_not_saved_up() {
    let mut line = Line::new();
    line.minute(0, 30);
    // Bulk comes after a minute without any, and gets no more than its share at once.
    let [(bulk, _), _] = line.minute(20, 30);
    assert!(
        (CAPACITY / 10 - 1..=CAPACITY / 10 + 1).contains(&bulk),
        "{bulk}"
    );
}

#[test]
fn a_store_gets_its_own_jobs_and_its_absence_holds_up_no_other() {
    let of = |number, store: &str| JobState {
        class: RouteClass::Local,
        store: store.parse().unwrap(),
        ..to(number, "a.example")
    };
    let (default, b, c) = (
        StoreName::default(),
        "b".parse().unwrap(),
        "c".parse().unwrap(),
    );
    let mut schedule = ready(&[]);
    for number in 1..=50 {
        schedule.place(&of(number, "b"));
    }
    schedule.place(&of(51, "default"));
    schedule.place(&of(52, "default"));
    schedule.tick(at(0));
    let mut lease = |store, max| {
        let leases = schedule.lease_in(RouteClass::Local, store, &holder(1), max, at(0));
        let numbers = leases.iter().map(|lease| lease.job.queue_id.to_bytes()[15]);
        numbers.collect::<Vec<_>>()
    };
    let of_default: BTreeSet<u8> = lease(&default, 9).into_iter().collect();
    assert_eq!(of_default, BTreeSet::from([51, 52]));
    assert_eq!(lease(&c, 9), [0; 0]);
    let of_b = lease(&b, 2);
    assert!(of_b.len() == 2 && of_b.iter().all(|number| *number <= 50));
    assert_eq!(schedule.ready_len(RouteClass::Local), 48);
    // A job that moves is the other's.
    let moves = (1..=50).find(|number| !of_b.contains(number)).unwrap();
    schedule.place(&JobState {
        revision: Revision(2),
        ..of(moves, "default")
    });
    schedule.tick(at(0));
    let leases = schedule.lease_in(RouteClass::Local, &default, &holder(1), 9, at(0));
    assert_eq!(leases[0].job.queue_id.to_bytes()[15], moves);
    let leases = schedule.lease_in(RouteClass::Local, &b, &holder(1), 99, at(0));
    assert_eq!(leases.len(), 47);
}

#[test]
fn local_jobs_are_unclear_until_their_worker_has_said_what_became_of_them() {
    let mut schedule = ready(&[]);
    let local = JobState {
        class: RouteClass::Local,
        ..to(1, "a.example")
    };
    let lease = |schedule: &mut Schedule, now| {
        schedule.tick(now);
        schedule
            .lease(RouteClass::Local, &holder(1), 1, now)
            .remove(0)
    };
    schedule.place(&local);
    let first = lease(&mut schedule, at(0));
    assert!(!schedule.is_unclear(first.job));
    // Its worker is lost.
    schedule.tick(first.deadline);
    assert!(schedule.is_unclear(first.job));
    let second = lease(&mut schedule, first.deadline);
    let (job, fence) = (second.job, second.fence);
    schedule
        .hand_back(job, fence, Duration::ZERO, first.deadline)
        .unwrap();
    assert!(
        schedule.is_unclear(job),
        "what the first one did is not known"
    );
    schedule.set_clear(job, true);
    assert!(!schedule.is_unclear(job));
    schedule.set_clear(job, false);
    // An operator's change says nothing of it; the end does.
    schedule.place(&JobState {
        revision: Revision(2),
        ..local
    });
    assert!(schedule.is_unclear(job));
    schedule.remove(job);
    schedule.set_clear(job, false);
    assert!(!schedule.is_unclear(job));
    // Other mail has no store that could be asked.
    let relayed = to(2, "a.example");
    schedule.place(&relayed);
    schedule.set_clear(relayed.key, false);
    assert!(!schedule.is_unclear(relayed.key));
}
