//! Leases of the other jobs of a mail, for a worker that sends them together.

use postroad_envelope::{QueueId, Timestamp};

use super::{Entry, Gate, Holder, Kinship, Lease, Phase, Schedule, Term};
use crate::JobKey;

impl Schedule {
    /// Grants up to `max` leases of what else of the leased mail is due and of its class, but for what is known to go to other hosts.
    /// What goes to the same ones needs no leave of the gate, since it takes no place of its own there; all other does as ever.
    pub fn lease_along(
        &mut self,
        gate: &mut dyn Gate,
        first: &Lease,
        max: usize,
        now: Timestamp,
    ) -> Vec<Lease> {
        let mut granted = Vec::new();
        let Some(leader) = self.entries.get(first.job).copied() else {
            return granted;
        };
        for job in self.also_due(&leader) {
            if granted.len() >= max {
                break;
            }
            granted.extend(self.grant_along(gate, &leader, job, (&first.holder, now)));
        }
        granted
    }

    fn also_due(&self, leader: &Entry) -> Vec<JobKey> {
        let queue_id: QueueId = leader.job().queue_id;
        let of_mail = |number| JobKey { queue_id, number };
        let mail = self.entries.range(of_mail(0)..=of_mail(u32::MAX));
        let due = mail.filter(|entry| entry.phase == Phase::Ready && !entry.changing);
        let alike = due.filter(|entry| entry.class == leader.class);
        alike.map(Entry::job).collect()
    }

    fn grant_along(
        &mut self,
        gate: &mut dyn Gate,
        leader: &Entry,
        job: JobKey,
        (holder, now): (&Holder, Timestamp),
    ) -> Option<Lease> {
        let entry = *self.entries.get(job)?;
        if Term::from(entry.term).bars(now) {
            return None;
        }
        let lane = self.lane_of(&entry);
        let name = self.destinations.name(entry.destination).clone();
        let ready = self.ready.get_mut(&lane)?;
        match gate.kinship(self.destinations.name(leader.destination), &name) {
            Kinship::Other => None,
            Kinship::Same if !ready.has_room(entry.destination) => None,
            Kinship::Same => {
                let lease = self.grant(job, holder, now)?;
                gate.went_along(&lease, entry.class, &name);
                Some(lease)
            }
            Kinship::Unknown if !ready.has_turns(entry.destination) => None,
            Kinship::Unknown if !gate.admits(entry.class, &name, now) => {
                ready.close(entry.destination);
                None
            }
            Kinship::Unknown => {
                let lease = self.grant(job, holder, now)?;
                gate.granted(&lease, entry.class, &name);
                Some(lease)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postroad_envelope::RouteClass;

    use super::*;
    use crate::samples::{at, job_state};
    use crate::{Fairness, JobState, LeaseTimes};

    /// `same.*` are behind one site, `else.*` behind others, of the rest nothing is known; and who was asked for.
    #[derive(Default)]
    struct Sites {
        asked: Vec<String>,
        granted: usize,
        along: usize,
        refuses: Option<&'static str>,
    }

    impl Gate for Sites {
        fn admits(&mut self, _: RouteClass, destination: &Arc<str>, _: Timestamp) -> bool {
            self.asked.push(destination.to_string());
            self.refuses != Some(&**destination)
        }

        fn granted(&mut self, _: &Lease, _: RouteClass, _: &Arc<str>) {
            self.granted += 1;
        }

        fn kinship(&mut self, one: &Arc<str>, other: &Arc<str>) -> Kinship {
            let is = |name: &Arc<str>, what: &str| name.starts_with(what);
            match is(one, "same.") && is(other, "same.") {
                true => Kinship::Same,
                false if is(other, "else.") => Kinship::Other,
                false => Kinship::Unknown,
            }
        }

        fn went_along(&mut self, _: &Lease, _: RouteClass, _: &Arc<str>) {
            self.along += 1;
        }
    }

    fn job(number: u32, destination: &str) -> JobState {
        let state = job_state(1, 1);
        JobState {
            key: JobKey {
                number,
                ..state.key
            },
            destination: destination.to_owned(),
            ..state
        }
    }

    fn schedule(jobs: &[JobState], fairness: Fairness) -> Schedule {
        let mut schedule = Schedule::new(LeaseTimes::default(), fairness);
        schedule.begin_epoch(1);
        jobs.iter().for_each(|state| schedule.place(state));
        schedule.tick(at(0));
        schedule
    }

    fn holder() -> Holder {
        Holder {
            agent: "mta".into(),
            stream: 1,
        }
    }

    fn along(schedule: &mut Schedule, sites: &mut Sites, max: usize) -> Vec<u32> {
        let class = RouteClass::Relay;
        let first = schedule.lease(class, &holder(), 1, at(0)).remove(0);
        let leases = schedule.lease_along(sites, &first, max, at(0));
        let fresh = leases.iter().all(|lease| lease.fence > first.fence);
        assert!(fresh && leases.iter().all(|lease| lease.holder == first.holder));
        leases.iter().map(|lease| lease.job.number).collect()
    }

    #[test]
    fn what_is_due_of_the_mail_goes_along_unless_it_is_known_to_go_elsewhere() {
        let later = JobState {
            due: at(60),
            ..job(4, "same.later")
        };
        let other_mail = JobState {
            destination: "same.b".to_owned(),
            ..job_state(2, 1)
        };
        let jobs = [
            job(0, "same.a"),
            job(1, "same.b"),
            job(2, "else.c"),
            job(3, "new.d"),
            later,
            other_mail,
        ];
        let (mut schedule, mut sites) = (schedule(&jobs, Fairness::default()), Sites::default());
        assert_eq!(along(&mut schedule, &mut sites, 9), [1, 3]);
        assert_eq!(
            sites.asked,
            ["new.d"],
            "what takes no place is not asked for"
        );
        assert_eq!((sites.granted, sites.along), (1, 1));
        assert_eq!(schedule.ready_len(RouteClass::Relay), 2);
        let rest = schedule.lease(RouteClass::Relay, &holder(), 9, at(60));
        assert_eq!(rest.len(), 2, "nothing was given twice or lost");
    }

    #[test]
    fn limits_and_gates_hold_for_what_goes_along() {
        let jobs = [job(0, "new.a"), job(1, "new.b"), job(2, "new.c")];
        let mut refusing = Sites {
            refuses: Some("new.b"),
            ..Sites::default()
        };
        let mut all = schedule(&jobs, Fairness::default());
        assert_eq!(along(&mut all, &mut refusing, 9), [2]);
        assert!(all.lease(RouteClass::Relay, &holder(), 9, at(0)).is_empty());
        all.reopen(RouteClass::Relay, "new.b");
        assert_eq!(all.lease(RouteClass::Relay, &holder(), 9, at(0)).len(), 1);

        let one_each = Fairness {
            max_leases: 1,
            ..Fairness::default()
        };
        let twice = [job(0, "same.a"), job(1, "same.a"), job(2, "same.b")];
        let mut few = schedule(&twice, one_each);
        assert_eq!(along(&mut few, &mut Sites::default(), 9), [2]);
        let mut full = schedule(&jobs, Fairness::default());
        assert!(along(&mut full, &mut Sites::default(), 0).is_empty());
    }
}
