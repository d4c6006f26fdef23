//! Random sequences of all that may happen, against a simple model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What may happen, with small numbers so that it happens to the same jobs.
#[derive(Debug, Clone)]
enum Act {
    Insert(u8, u8),
    Pass(u64),
    Lease(u64, usize),
    Extend(usize),
    HandBack(usize),
    Settle(usize, bool),
    /// A prepared settlement reaches its commit.
    Commit,
    Drop(u64),
    Resume(usize, u64),
    Hold(u8),
    Release(u8),
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let stream = 1_u64..4;
    let act = prop_oneof![
        4 => (0_u8..12, 0_u8..3).prop_map(|(n, d)| Act::Insert(n, d)),
        4 => (1_u64..200).prop_map(Act::Pass),
        6 => (stream.clone(), 1_usize..4).prop_map(|(s, n)| Act::Lease(s, n)),
        1 => any::<usize>().prop_map(Act::Extend),
        2 => any::<usize>().prop_map(Act::HandBack),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(n, done)| Act::Settle(n, done)),
        4 => Just(Act::Commit),
        1 => stream.clone().prop_map(Act::Drop),
        2 => (any::<usize>(), stream).prop_map(|(n, s)| Act::Resume(n, s)),
        1 => (0_u8..12).prop_map(Act::Hold),
        1 => (0_u8..12).prop_map(Act::Release),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..120)
}

/// The simple model: durable states, every lease ever given, and what waits for its commit.
struct Model {
    schedule: Schedule,
    states: BTreeMap<JobKey, JobState>,
    ended: BTreeSet<JobKey>,
    given: Vec<Lease>,
    preparing: Vec<JobState>,
    now: Timestamp,
    epoch: u64,
}

impl Model {
    fn new() -> Self {
        let schedule = ready(&[]);
        let (states, ended) = (BTreeMap::new(), BTreeSet::new());
        Self {
            schedule,
            states,
            ended,
            given: Vec::new(),
            preparing: Vec::new(),
            now: at(0),
            epoch: 1,
        }
    }

    fn pick(&self, n: usize) -> Option<Lease> {
        self.given.get(n % self.given.len().max(1)).cloned()
    }

    fn granted(&mut self, leases: Vec<Lease>) {
        for lease in leases {
            assert!(
                !self.ended.contains(&lease.job),
                "settled, and back: {lease:?}"
            );
            assert_eq!(lease.revision, self.states[&lease.job].revision);
            assert!(
                self.given.iter().all(|old| old.fence != lease.fence),
                "a fence twice"
            );
            assert!(self.preparing.iter().all(|state| state.key != lease.job));
            self.given.push(lease);
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.now;
        match act {
            Act::Insert(n, destination) => {
                let state = JobState {
                    due: now,
                    ..to(n, &format!("d{destination}.example"))
                };
                if !self.states.contains_key(&state.key) && !self.ended.contains(&state.key) {
                    self.schedule.place(&state);
                    self.states.insert(state.key, state);
                }
            }
            Act::Pass(seconds) => {
                self.now = now.plus(Duration::from_secs(seconds));
                self.schedule.tick(self.now);
            }
            Act::Lease(stream, max) => {
                self.schedule.tick(now);
                let leases = self.schedule.lease(CLASS, &holder(stream), max, now);
                self.granted(leases);
            }
            Act::Extend(n) => {
                if let Some(lease) = self.pick(n) {
                    let _ = self.schedule.extend(lease.job, lease.fence, now);
                }
            }
            Act::HandBack(n) => {
                if let Some(lease) = self.pick(n) {
                    let _ = self
                        .schedule
                        .hand_back(lease.job, lease.fence, Duration::ZERO, now);
                }
            }
            Act::Settle(n, done) => {
                let Some(lease) = self.pick(n) else { return };
                if self
                    .schedule
                    .begin_settle(lease.job, lease.fence, now)
                    .is_ok()
                {
                    let state = self.states[&lease.job].clone();
                    assert_eq!(state.revision, lease.revision, "settled on a changed job");
                    let report = StatusReport::local("2.0.0".parse().unwrap(), "done");
                    let outcome = (RecipientIndex(0), Outcome::Delivered(report));
                    let outcomes = if done { vec![outcome] } else { Vec::new() };
                    let retry = now.plus(Duration::from_secs(60));
                    self.preparing.push(state.settled(
                        outcomes,
                        crate::TakenOver::default(),
                        Some(retry),
                        now,
                    ));
                }
            }
            Act::Commit => {
                for state in std::mem::take(&mut self.preparing) {
                    self.commit(state);
                }
            }
            Act::Drop(stream) => drop(self.schedule.drop_stream(stream, now)),
            Act::Resume(n, stream) => {
                let Some(l) = self.pick(n) else { return };
                let resumed =
                    self.schedule
                        .resume(l.job, l.fence, l.revision, &holder(stream), now);
                self.granted(resumed.into_iter().collect());
            }
            Act::Hold(n) => self.change(key(n, 0), Some("why".to_owned())),
            Act::Release(n) => self.change(key(n, 0), None),
            Act::Restart => self.restart(),
        }
    }

    fn change(&mut self, job: JobKey, hold: Option<String>) {
        if self.schedule.begin_change(job).is_ok() {
            self.preparing
                .push(self.states[&job].clone().held(hold, self.now));
        }
    }

    fn commit(&mut self, state: JobState) {
        self.schedule.place(&state);
        if state.has_ended() {
            self.states.remove(&state.key);
            self.ended.insert(state.key);
        } else {
            self.states.insert(state.key, state);
        }
    }

    /// What was not committed is lost; half of the living leases left a hint.
    fn restart(&mut self) {
        let hints: Vec<LeaseHint> = self.schedule.leases().step_by(2).map(hint).collect();
        self.preparing.clear();
        self.epoch += 1;
        self.schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
        self.states
            .values()
            .for_each(|state| self.schedule.place(state));
        hints
            .iter()
            .for_each(|hint| self.schedule.await_resume(hint, self.now));
        self.schedule.begin_epoch(self.epoch);
    }

    fn check(&self) {
        let living: Vec<_> = self.schedule.jobs().map(|(key, ..)| key).collect();
        assert!(
            living.iter().eq(self.states.keys()),
            "a job was lost or made up"
        );
        self.schedule.entries.check();
        for entry in self.schedule.after(None) {
            let job = entry.job();
            let ready = self.schedule.ready.values().flat_map(ReadyQueue::jobs);
            let ready = ready.filter(|known| *known == job).count();
            let held = usize::from(entry.phase == Phase::Held && !entry.changing);
            let places = usize::from(entry.wake().is_some()) + ready + held;
            assert_eq!(places, usize::from(!entry.changing), "{job} {entry:?}");
            assert_eq!(
                entry.phase == Phase::Leased,
                self.schedule.leases.contains_key(&job)
            );
        }
        for entry in self.schedule.after(None) {
            let leased = |lease: &&Lease| {
                let of = self.schedule.entries.get(lease.job).unwrap();
                (of.class, of.destination) == (entry.class, entry.destination)
            };
            let leased = self.schedule.leases.values().filter(leased).count();
            let ready = self.schedule.ready.get(&self.schedule.lane_of(entry));
            let counted = ready.map_or(0, |ready| ready.leases(entry.destination));
            assert_eq!(leased, counted as usize, "{entry:?}");
        }
        let valid = |lease: &&Lease| {
            self.schedule
                .leases
                .get(&lease.job)
                .is_some_and(|now| now.fence == lease.fence)
        };
        let mut valid: Vec<_> = self
            .given
            .iter()
            .filter(valid)
            .map(|lease| lease.job)
            .collect();
        let all = valid.len();
        valid.sort_unstable();
        valid.dedup();
        assert_eq!(valid.len(), all, "two valid leases for one job");
    }
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_it(acts in acts()) {
        let mut model = Model::new();
        for act in acts {
            model.act(act);
            model.check();
        }
    }
}
