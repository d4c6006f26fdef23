//! What submitters, workers, operators and senders of reports do.

use std::{collections::BTreeSet, time::Duration};

use postroad_envelope::{Outcome, QueueId, RecipientIndex, RouteClass, StatusReport};
use postroad_queue::{Admission, Holder, Instruction, QueueError, Revision, TakenOver};

use crate::{
    acts::{Said, Told},
    book::{Given, Next},
    house::House,
    model::{Durable, Job, LEASE, Mail, Place, key},
    shapes::{REPORT, SHAPES, id, route, route_to},
};

/// The number of the shape of reports.
const REPORT_SHAPE: usize = SHAPES.len();

fn holder(stream: u64) -> Holder {
    Holder {
        agent: "worker".into(),
        stream,
    }
}

fn report(status: &str) -> StatusReport {
    StatusReport::local(status.parse().unwrap(), "so it was")
}

impl House {
    pub fn insert(&mut self, number: u8, shape: usize) {
        let (id, said, now) = (id(number), &SHAPES[shape], self.book.now);
        // Nobody repeats an id a day later whose first mail is not even retired.
        if self.book.ended.get(&id).is_some_and(|ended| ended.leaving) && !self.must_know(id) {
            return;
        }
        let envelope = said.envelope(id, now);
        let queue = self.queue();
        let admission = queue.prepare_insert(envelope, said.content(id), now, &route);
        let admission = admission.unwrap();
        let waiting = self.pending.iter().flat_map(|(_, next)| next);
        let in_flight = waiting.filter_map(|next| match next {
            Next::Mail(known, mail) if *known == id => Some(mail.shape),
            _ => None,
        });
        let in_flight = in_flight.max();
        let living = self.book.living.get(&id).map(|mail| mail.shape);
        let ended = self.book.ended.get(&id).map(|ended| ended.mail.shape);
        match (&admission, in_flight, living, ended) {
            (Admission::InFlight(..), Some(known), ..) => assert_eq!(known, shape),
            (Admission::Known, None, Some(known), _) => assert_eq!(known, shape),
            (Admission::Known, None, None, Some(known)) => assert_eq!(known, shape),
            (Admission::Conflict, Some(known), ..)
            | (Admission::Conflict, None, Some(known), _)
            | (Admission::Conflict, None, None, Some(known)) => assert_ne!(known, shape),
            (Admission::New(_), None, None, ended) => {
                assert!(ended.is_none() || !self.must_know(id), "{id} is forgotten");
            }
            what => panic!("{id}, shape {shape}: {what:?}"),
        }
        if let Admission::New(prepared) = admission {
            let mail = Mail::accepted(shape, said, now);
            self.pending.push((prepared, vec![Next::Mail(id, mail)]));
        }
    }

    /// Whether the id of a mail that ended must still be known.
    fn must_know(&self, id: QueueId) -> bool {
        let window_from = self.queue().window_from(self.book.now);
        let ended = self.book.ended.get(&id);
        ended.is_some_and(|ended| ended.at >= window_from)
    }

    pub fn report(&mut self, mail: usize, with_mail: bool) {
        let owing: Vec<QueueId> = self
            .book
            .living
            .iter()
            .filter(|(_, mail)| mail.owes())
            .map(|(id, _)| *id)
            .collect();
        let Some(&about) = mail.checked_rem(owing.len()).and_then(|at| owing.get(at)) else {
            return;
        };
        let (queue, now) = (self.queue(), self.book.now);
        let debt = queue.debt(about).unwrap().expect("it owes");
        let mail = &self.book.living[&about];
        let owed = mail.jobs.values().flat_map(|job| &job.durable.recipients);
        let owed: BTreeSet<u32> = owed.filter(|r| r.owed).map(|r| r.index).collect();
        let told: Vec<u32> = debt.recipients.iter().map(|(index, _)| index.0).collect();
        assert!(told.iter().copied().eq(owed), "{told:?}");

        let number = 100 + self.reports;
        let report =
            with_mail.then(|| (REPORT.envelope(id(number), now), REPORT.content(id(number))));
        let prepared = queue.prepare_report(&debt, report, now, &route).unwrap();
        let jobs: Vec<_> = mail
            .jobs
            .iter()
            .filter(|(_, job)| job.durable.owes())
            .map(|(number, job)| (key(about, *number), job.clone()))
            .collect();
        let busy = jobs.iter().position(|(_, job)| job.changing);
        assert_eq!(prepared.is_none(), busy.is_some());
        let Some(prepared) = prepared else {
            // Those that were begun are where they were before they were told of.
            for (job, _) in jobs.iter().take(busy.unwrap_or_default()) {
                let state = self.book.job_mut(*job).expect("it lives");
                state.place = state.durable.place();
            }
            return;
        };
        let mut next = Vec::new();
        for (job, state) in jobs {
            self.book.job_mut(job).expect("it lives").changing = true;
            next.push(Next::Job(job, state.durable.reported(now)));
        }
        if with_mail {
            self.reports += 1;
            next.push(Next::Mail(
                id(number),
                Mail::accepted(REPORT_SHAPE, &REPORT, now),
            ));
        }
        self.pending.push((prepared, next));
    }

    pub fn pass(&mut self, seconds: u64) {
        self.book.now = self.book.now.plus(Duration::from_secs(seconds));
        self.tick();
    }

    fn tick(&mut self) {
        let ticked = self.queue().tick(self.book.now);
        let (expired, reports) = self.book.tick();
        let fences = ticked.expired.iter().map(|lease| lease.fence);
        assert_eq!(fences.collect::<BTreeSet<_>>(), expired, "leases that end");
        assert!(ticked.reports.iter().eq(&reports), "reports to make");
    }

    pub fn lease(&mut self, class: RouteClass, stream: u64, max: usize) {
        self.tick();
        let expected = self.book.leasable(class).min(max);
        let now = self.book.now;
        let leased = self.queue().lease(class, &holder(stream), max, now);
        let leased = leased.unwrap();
        assert_eq!(leased.len(), expected, "leases of {class}");
        for leased in leased {
            let job = leased.lease.job;
            let state = self.book.job(job).expect("a lease for what lives");
            assert!(
                state.place == Place::Ready && !state.changing,
                "{job} {state:?}"
            );
            assert_eq!(state.durable.class, class);
            state.durable.check(&leased.state);
            self.book.granted(job, leased.lease.fence, stream);
        }
    }

    pub fn extend(&mut self, lease: usize) {
        let Some(given) = self.book.pick_lease(lease) else {
            return;
        };
        let now = self.book.now;
        let extended = self.queue().extend(given.job, given.fence, now);
        let is_valid = self.is_valid(given);
        assert_eq!(extended.is_ok(), is_valid, "{given:?}");
        if let Some(Job {
            place: Place::Leased {
                until, deadline, ..
            },
            ..
        }) = self.book.job_mut(given.job).filter(|_| is_valid)
        {
            (*until, *deadline) = (now.plus(LEASE), now.plus(LEASE));
            assert_eq!(extended.unwrap(), *until);
        }
    }

    fn is_valid(&self, given: Given) -> bool {
        let job = self.book.job(given.job);
        job.is_some_and(|job| job.valid_lease(self.book.now) == Some(given.fence))
    }

    pub fn hand_back(&mut self, lease: usize, delay: u64) {
        let Some(given) = self.book.pick_lease(lease) else {
            return;
        };
        let (now, delay) = (self.book.now, Duration::from_secs(delay));
        let taken = self.queue().hand_back(given.job, given.fence, delay, now);
        let is_valid = self.is_valid(given);
        assert_eq!(taken.is_ok(), is_valid, "{given:?}");
        if is_valid {
            let end = self
                .book
                .job(given.job)
                .expect("it is leased")
                .durable
                .expires_at;
            self.book
                .taken_back(given, now.plus(delay).min(end.max(now)));
        }
    }

    pub fn settle(&mut self, lease: usize, said: [Said; 3]) {
        let Some(given) = self.book.pick_lease(lease) else {
            return;
        };
        let now = self.book.now;
        let said: Vec<(u32, Said)> = (0..).zip(said).collect();
        let outcomes = said.iter().filter_map(|(index, said)| {
            let outcome = match said {
                Said::Nothing => return None,
                Said::Delivered => Outcome::Delivered(report("2.0.0")),
                Said::Relayed | Said::TakenOver => Outcome::Relayed(report("2.0.0")),
                Said::Delayed => Outcome::Delayed(report("4.4.1")),
                Said::Failed => Outcome::Failed(report("5.1.1")),
            };
            Some((RecipientIndex(*index), outcome))
        });
        let outcomes = outcomes.collect();
        let reporting = said.iter().filter(|(_, said)| *said == Said::TakenOver);
        let reporting: Vec<_> = reporting.map(|(index, _)| RecipientIndex(*index)).collect();
        let taken = TakenOver {
            reporting: &reporting,
            timed: &[],
        };
        let settled = self
            .queue()
            .prepare_settle(given.job, given.fence, outcomes, taken, now);
        assert_eq!(
            settled.is_ok(),
            self.is_valid(given),
            "{given:?} {settled:?}"
        );
        let Ok((prepared, settled)) = settled else {
            return;
        };
        let state = self.book.job_mut(given.job).expect("it lives");
        state.changing = true;
        let before = &state.durable;
        // The intervals have tests of their own; here only that it is in the time the mail has.
        let is_over = now >= before.expires_at;
        let retry = (!is_over).then_some(settled.state.due);
        assert!(retry.is_none_or(|at| at > now && at <= before.expires_at));
        let after = before.clone().settled(&said, retry, now);
        assert_eq!(settled.retry_at, retry.filter(|_| after.is_pending()));
        after.check(&settled.state);
        self.pending
            .push((prepared, vec![Next::Job(given.job, after)]));
    }

    pub fn drop_stream(&mut self, stream: u64) {
        let dropped = self.queue().drop_stream(stream, self.book.now);
        assert_eq!(dropped, self.book.drop_stream(stream));
    }

    pub fn free_stream(&mut self, stream: u64) {
        let freed = self.queue().free_stream(&holder(stream), self.book.now);
        assert_eq!(freed, self.book.free_stream(stream));
    }

    pub fn resume(&mut self, lease: usize, stream: u64) {
        let Some(given) = self.book.pick_lease(lease) else {
            return;
        };
        let (fence, revision) = (given.fence, Revision(given.revision));
        let (holder, now) = (holder(stream), self.book.now);
        let resumed = self
            .queue()
            .resume(given.job, fence, revision, &holder, now);
        let may = self.book.job(given.job);
        let may = may.is_some_and(|job| job.may_resume(fence, given.revision));
        let resumed = resumed.unwrap();
        assert_eq!(resumed.is_some(), may, "{given:?}");
        if let Some(again) = resumed {
            self.book.granted(given.job, again.lease.fence, stream);
        }
    }

    pub fn tell(&mut self, job: usize, told: Told) {
        let Some(job) = self.book.pick_job(job) else {
            return;
        };
        let instruction = match told {
            Told::Hold => Instruction::Hold("suspect".to_owned()),
            Told::Release => Instruction::Release,
            Told::Retry => Instruction::Retry,
            Told::Schedule(after) => {
                Instruction::Schedule(self.book.now.plus(Duration::from_secs(after)))
            }
            Told::Fail => Instruction::Fail(report("5.7.1")),
            Told::Expire => Instruction::Expire(None),
            Told::Drop => Instruction::Drop,
            Told::Reroute(domain) => Instruction::Reroute(route_to(domain)),
            Told::Priority(priority) => Instruction::Priority(priority),
        };
        self.instruct(job, instruction, told);
        let ended = self.book.ended.keys().next().copied();
        if let Some(ended) = ended.filter(|id| !self.book.living.contains_key(id)) {
            let refused = self
                .queue()
                .prepare(key(ended, 0), Instruction::Retry, self.book.now);
            assert!(
                matches!(refused, Err(QueueError::NoSuchJob(_))),
                "{refused:?}"
            );
        }
    }

    fn instruct(&mut self, job: postroad_queue::JobKey, instruction: Instruction, told: Told) {
        let now = self.book.now;
        let prepared = self.queue().prepare(job, instruction, now);
        let state = self.book.job_mut(job).expect("it lives");
        let is_busy = state.changing || matches!(state.place, Place::Leased { .. });
        match prepared {
            Ok(prepared) => {
                assert!(!is_busy, "{job} {state:?}");
                state.changing = true;
                let next: Durable = state.durable.clone().told(told, now);
                self.pending.push((prepared, vec![Next::Job(job, next)]));
            }
            Err(QueueError::Busy(_)) => assert!(is_busy, "{job} {state:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// The time of mails nobody came for is over.
    pub fn expire_old(&mut self, max: usize) {
        let now = self.book.now;
        let over = self.queue().out_of_time(&|_, _| None, now, max);
        let is_over = |job: &Job| {
            let end = job.durable.expires_at.plus(LEASE);
            job.place == Place::Ready && !job.changing && end <= now
        };
        let all = self.book.jobs().filter(|(_, job)| is_over(job)).count();
        assert_eq!(over.len(), all.min(max));
        for (job, instruction) in over {
            assert!(self.book.job(job).is_some_and(is_over), "{job}");
            self.instruct(job, instruction, Told::Expire);
        }
    }
}
