//! Jobs that wait for too long, found by looking at all of them again and again.

use std::time::Duration;

use postroad_envelope::{RouteClass, StatusReport, Timestamp};

use super::{Phase, STRETCH, Schedule, Term, entries::Entry};
use crate::{Instruction, JobKey};

/// Why jobs wait though they are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// For their senders.
    pub why: StatusReport,
    /// Nobody takes them before then; none: they wait for their turn.
    pub until: Option<Timestamp>,
}

impl Waits {
    /// Told of what goes on: also when it is tried again.
    pub fn for_now(&self) -> StatusReport {
        let mut why = self.why.clone();
        if let Some(until) = self.until {
            why.text = format!("{}; it is tried again at {}", why.text, until.to_rfc5322());
        }
        why
    }
}

/// What [`Schedule::out_of_time`] is to know of jobs that are due and that no worker gets.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// Whether those of a class and destination wait for hosts that do not take them.
    pub why: &'a dyn Fn(RouteClass, &str) -> Option<Waits>,
    /// For how long they may before their senders are told; none: for ever.
    pub tell_after: Option<Duration>,
}

impl Waiting<'_> {
    /// Whether its sender is to hear by now that it takes long, as far as its id tells.
    fn is_late(&self, entry: &Entry, now: Timestamp) -> bool {
        let begun = entry.job().queue_id.minted_at();
        let after = self.tell_after.filter(|_| entry.term.on_delay());
        after.is_some_and(|after| begun.plus(after) <= now)
    }
}

/// A look at all jobs, in stretches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    jobs: usize,
    oldest_due: Option<Timestamp>,
}

impl Schedule {
    /// Jobs that are ready and wait for too long, with what they are to be told. First those that a worker would have had otherwise;
    /// then those that no worker came for: each call looks at a stretch of the schedule, the next one goes on behind it, and from
    /// the end to the beginning. On its way it finds [`Schedule::oldest_due`].
    pub fn out_of_time(
        &mut self,
        waiting: &Waiting<'_>,
        now: Timestamp,
        max: usize,
    ) -> Vec<(JobKey, Instruction)> {
        let mut over = Vec::new();
        while over.len() < max
            && let Some(job) = self.barred.pop_first()
        {
            let entry = self.entries.get(job);
            over.extend(entry.and_then(|entry| self.overdue(entry, waiting, now)));
        }
        let known = over.len();
        let begin = self.looked_to;
        let before = begin.map(|begin| self.entries.range(..=begin));
        let before = before.into_iter().flatten();
        let mut last = None;
        let Look {
            mut jobs,
            mut oldest_due,
        } = self.look;
        for entry in self.after(begin).chain(before).take(STRETCH) {
            if over.len() >= max {
                break;
            }
            let job = entry.job();
            last = Some(job);
            jobs += 1;
            if entry.phase == Phase::Ready {
                oldest_due = Some(oldest_due.unwrap_or(entry.at).min(entry.at));
            }
            let found = self.overdue(entry, waiting, now);
            let is_known = |(known, _): &(JobKey, Instruction)| *known == job;
            over.extend(found.filter(|_| !over.iter().take(known).any(is_known)));
        }
        self.looked_to = last.or(begin);
        self.look = Look { jobs, oldest_due };
        if jobs >= self.entries.len() {
            self.oldest_due = std::mem::take(&mut self.look).oldest_due;
        }
        over
    }

    fn overdue(
        &self,
        entry: &Entry,
        waiting: &Waiting<'_>,
        now: Timestamp,
    ) -> Option<(JobKey, Instruction)> {
        let end = Term::from(entry.term).end();
        let is_late = waiting.is_late(entry, now);
        let is_idle = entry.phase == Phase::Ready && !entry.changing;
        if !is_idle || !(is_late || end <= now) {
            return None;
        }
        let name = self.destinations.name(entry.destination);
        let waits = (waiting.why)(entry.class, name);
        // An attempt that falls on the end of its time must still have its chance, if anybody would take it.
        let is_closed = waits.as_ref().is_some_and(|waits| waits.until.is_some());
        let chance = if is_closed {
            Duration::ZERO
        } else {
            self.times.duration
        };
        let why = |waits: Option<Waits>| waits.map(|waits| waits.why);
        let told = match Term::from(entry.term) {
            Term::GivesUp(at) if at.plus(chance) <= now => Instruction::Expire(why(waits)),
            Term::Returns(at) if at <= now => Instruction::Expire(why(waits)),
            Term::Tells(at) if at <= now => Instruction::TellLate(why(waits)),
            _ if now < end => Instruction::TellWaiting(waits?.for_now()),
            _ => return None,
        };
        Some((entry.job(), told))
    }

    /// Since when the job is due that waits longest for a worker; none: none waited when all were last looked at by
    /// [`Schedule::out_of_time`]. Whoever has taken it since is not known here.
    pub fn oldest_due(&self) -> Option<Timestamp> {
        self.oldest_due.filter(|_| self.in_phase(Phase::Ready) > 0)
    }
}
