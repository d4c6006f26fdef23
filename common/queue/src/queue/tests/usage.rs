//! Counters against the entries of the index, after any operations.

use postroad_envelope::{Envelope, Route};

use super::*;
use crate::{Quotas, Scope, Usage};

const SEEDS: u64 = 12;
const STEPS: usize = 120;

/// Chance by a seed: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % limit
    }

    fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }
}

fn options(retire: bool, account_mails: u64) -> Options {
    let mut quotas = Quotas::default();
    quotas.account.mails = account_mails;
    // Where nobody has a quota nothing is counted.
    quotas.tenant.octets = u64::MAX;
    Options {
        retire,
        quotas: Arc::new(quotas),
        ..Options::default()
    }
}

/// The id's number must fit into an octet.
fn some_mail(chance: &mut Chance, number: u8) -> (Envelope, Content) {
    let domains = [
        "demo.test",
        "drop.test",
        "hold.test",
        "a.example",
        "b.example",
    ];
    let to: Vec<String> = (0..=chance.below(4))
        .map(|n| format!("u{n}@{}", chance.of(&domains)))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut envelope = envelope(number, &to);
    envelope.tenant = chance.of(&["acme", "other"]).to_owned();
    envelope.account = chance
        .of(&[None, Some("A@demo.test"), Some("b@demo.test")])
        .map(str::to_owned);
    let content = vec![b'x'; 1 + chance.below(1000)];
    (envelope, Content::Inline(content.into()))
}

struct Run {
    seed: u64,
    house: House,
    chance: Chance,
    now: u64,
    number: u8,
}

impl Run {
    fn insert(&mut self) {
        self.number += 1;
        let (envelope, content) = some_mail(&mut self.chance, self.number);
        let before = self.house.queue.index.usage().clone();
        let asked = self
            .house
            .queue
            .prepare_insert(envelope, content, at(self.now), &route);
        let prepared = match asked {
            Ok(Admission::New(prepared)) => prepared,
            Err(QueueError::OverQuota(over)) => {
                // Reports may have brought it beyond the quota, others may not.
                assert_eq!(over.scope, Scope::Account);
                assert!(over.used.mails >= over.quota.mails);
                assert_eq!(*self.house.queue.index.usage(), before);
                return;
            }
            other => panic!("{other:?}"),
        };
        assert_ne!(
            *self.house.queue.index.usage(),
            before,
            "counted before its commit"
        );
        if self.chance.below(5) == 0 {
            self.house.queue.abandon(prepared);
            assert_eq!(*self.house.queue.index.usage(), before);
        } else {
            self.house.commit(prepared);
        }
    }

    fn settle(&mut self) {
        let outcome = match self.chance.below(3) {
            0 => delivered(),
            1 => delayed(),
            _ => failed(),
        };
        let class = self.chance.of(&[LOCAL, RELAY]);
        let leased = self.house.lease(class, at(self.now));
        for leased in leased.iter().take(2) {
            self.house.settle(leased, &outcome, at(self.now));
        }
        self.house.queue.free_stream(&holder(), at(self.now));
    }

    fn instruct(&mut self) {
        let instruction = match self.chance.below(6) {
            0 => Instruction::Hold("why".to_owned()),
            1 => Instruction::Release,
            2 => Instruction::Drop,
            3 => Instruction::Expire(None),
            4 => Instruction::Reroute(Route::new(RELAY, "elsewhere.example", "rerouted")),
            _ => Instruction::Schedule(at(self.now + 100)),
        };
        let job = key(
            1 + u8::try_from(self.chance.below(usize::from(self.number) + 1)).unwrap(),
            0,
        );
        let job = JobKey {
            number: u32::try_from(self.chance.below(2)).unwrap(),
            ..job
        };
        if let Ok(prepared) = self.house.queue.prepare(job, instruction, at(self.now)) {
            self.house.commit(prepared);
        }
    }

    fn report(&mut self) {
        let id = id(1 + u8::try_from(self.chance.below(usize::from(self.number) + 1)).unwrap());
        let Some(debt) = self.house.queue.debt(id).unwrap() else {
            return;
        };
        self.number += 1;
        let report = some_mail(&mut self.chance, self.number);
        let prepared = self
            .house
            .queue
            .prepare_report(&debt, Some(report), at(self.now), &route);
        if let Some(prepared) = prepared.unwrap() {
            self.house.commit(prepared);
        }
    }

    fn retire(&mut self) {
        for leaving in self.house.queue.index.leaving(None, 3).unwrap() {
            self.house
                .queue
                .index
                .forget_leaving(leaving.mail.queue_id)
                .unwrap();
        }
    }

    fn step(&mut self) {
        self.now += 1;
        match self.chance.below(9) {
            0..=2 => self.insert(),
            3 | 4 => self.settle(),
            5 | 6 => self.instruct(),
            7 => self.report(),
            _ => match self.chance.below(3) {
                0 => self.house.checkpoint(at(self.now)),
                _ => self.retire(),
            },
        }
    }

    fn check(&self) -> Usage {
        let counted = *self.house.queue.index.usage().clone().unwrap();
        let found = self.house.queue.index.count().unwrap();
        assert_eq!(counted, found, "seed {}", self.seed);
        counted
    }
}

#[test]
fn counters_say_what_the_index_holds_after_any_operations_and_starts() {
    let mut most = 0;
    for seed in 0..SEEDS {
        let folder = tempfile::tempdir().unwrap();
        let options = options(seed % 2 == 0, if seed % 3 == 0 { 9 } else { 0 });
        let mut run = Run {
            seed,
            house: House::open_with(folder.path(), options, at(0)),
            chance: Chance(seed),
            now: 0,
            number: 0,
        };
        for step in 0..STEPS {
            run.step();
            let counted = run.check();
            most = most.max(counted.of(Scope::Tenant, "acme").mails);
            if step % 40 == 39 {
                if step % 80 == 39 {
                    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
                }
                run.house = run.house.reopen(folder.path(), at(run.now)).0;
                assert_eq!(run.check(), counted, "seed {seed}");
            }
        }
        // When all has left nothing is counted.
        for number in 0..=run.number {
            for job in 0..5 {
                if let Ok(prepared) =
                    run.house
                        .queue
                        .prepare(key(number, job), Instruction::Drop, at(run.now))
                {
                    run.house.commit(prepared);
                }
            }
        }
        assert_eq!(run.check(), Usage::default(), "seed {seed}");
    }
    assert!(most > 10, "the queue never held much: {most}");
}

#[test]
fn of_many_at_once_no_more_come_in_than_there_is_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open_with(folder.path(), options(false, 5), at(0));
    let barrier = std::sync::Barrier::new(8);
    let prepared: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let (queue, barrier) = (&house.queue, &barrier);
                scope.spawn(move || {
                    let mut envelope = envelope(number, &["x@a.example"]);
                    envelope.account = Some("a@demo.test".to_owned());
                    let content = Content::Inline(Bytes::from_static(b"x"));
                    barrier.wait();
                    queue.prepare_insert(envelope, content, at(0), &route)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let admitted = prepared
        .iter()
        .filter(|it| matches!(it, Ok(Admission::New(_))));
    assert_eq!(admitted.count(), 5);
}

#[test]
fn a_repeated_mail_and_a_report_are_taken_where_the_quota_is_used_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open_with(folder.path(), options(false, 1), at(0));
    let mail = |number| {
        let mut envelope = envelope(number, &["x@a.example"]);
        envelope.account = Some("a@demo.test".to_owned());
        (envelope, Content::Inline(Bytes::from_static(b"x")))
    };
    let ask = |house: &House, number| {
        let (envelope, content) = mail(number);
        house.queue.prepare_insert(envelope, content, at(0), &route)
    };
    let Ok(Admission::New(prepared)) = ask(&house, 1) else {
        panic!()
    };
    assert!(matches!(ask(&house, 1), Ok(Admission::InFlight(..))));
    assert!(matches!(ask(&house, 2), Err(QueueError::OverQuota(_))));
    house.commit(prepared);
    assert!(matches!(ask(&house, 1), Ok(Admission::Known)));
    assert!(matches!(ask(&house, 2), Err(QueueError::OverQuota(_))));
    let leased = house.lease(RELAY, at(1)).remove(0);
    house.settle(&leased, &failed(), at(2));
    let debt = house.queue.debt(id(1)).unwrap().unwrap();
    let report = house
        .queue
        .prepare_report(&debt, Some(mail(3)), at(3), &route);
    house.commit(report.unwrap().unwrap());
    // The report took the place of the mail it is about.
    assert!(matches!(ask(&house, 2), Err(QueueError::OverQuota(_))));
    let leased = house.lease(RELAY, at(4)).remove(0);
    house.settle(&leased, &delivered(), at(5));
    assert!(matches!(ask(&house, 2), Ok(Admission::New(_))));
}
