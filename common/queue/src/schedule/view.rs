//! What operators ask of the schedule.

use postroad_envelope::{MailState, QueueId, Timestamp};

use super::{Phase, Schedule};
use crate::JobKey;

/// A stretch of the schedule, looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Mails with a job in the state asked for, in the order asked for.
    pub mails: Vec<QueueId>,
    /// Jobs looked at.
    pub looked: u64,
    /// Where to go on; none: that was all.
    pub next: Option<QueueId>,
}

impl Phase {
    /// The state operators see; `at` is that of [`Schedule::phase`]. A job whose time has come is due, whether the
    /// schedule has noticed it or not.
    pub fn state(self, at: Timestamp, now: Timestamp) -> MailState {
        match self {
            Self::Leased | Self::Resuming => MailState::Leased,
            Self::Ready => MailState::Due,
            Self::Waiting if at <= now => MailState::Due,
            Self::Waiting | Self::Owing => MailState::Delayed,
            Self::Held => MailState::Held,
        }
    }
}

impl Schedule {
    /// Mails of a range of ids with a job in this state; looks at so many jobs, and at all of the last mail.
    pub fn in_state(
        &self,
        state: MailState,
        (first, last): (QueueId, QueueId),
        newest_first: bool,
        most: u64,
        now: Timestamp,
    ) -> Scanned {
        let key = |queue_id, number| JobKey { queue_id, number };
        let range = self.entries.range(key(first, 0)..=key(last, u32::MAX));
        let mut scanned = Scanned::default();
        let mut look = |job: &JobKey, phase: Phase, at| {
            let is_new = scanned.mails.last() != Some(&job.queue_id);
            if scanned.looked >= most && is_new {
                scanned.next = Some(job.queue_id);
                return false;
            }
            scanned.looked += 1;
            if is_new && phase.state(at, now) == state {
                scanned.mails.push(job.queue_id);
            }
            true
        };
        let mut jobs = range.map(|(job, entry)| (job, entry.phase, entry.at));
        let mut reversed = jobs.clone().rev();
        if newest_first {
            reversed.all(|(job, phase, at)| look(job, phase, at));
        } else {
            jobs.all(|(job, phase, at)| look(job, phase, at));
        }
        scanned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Fairness, JobState, LeaseTimes,
        samples::{at, id, job_state, key},
    };

    fn schedule() -> Schedule {
        let mut schedule = Schedule::new(LeaseTimes::default(), Fairness::default());
        for number in 1..=9 {
            let held = (number % 3 == 0).then(|| "why".to_owned());
            let first = job_state(number, 1);
            let second = JobState {
                key: key(number, 1),
                ..first.clone()
            };
            schedule.place(&first.held(held, at(0)));
            schedule.place(&second.rescheduled(at(500), at(0)));
        }
        schedule
    }

    #[test]
    fn mails_are_found_by_the_state_of_any_job_in_both_directions_and_in_stretches() {
        let schedule = schedule();
        let all = (id(0), id(255));
        let mut found = schedule.in_state(MailState::Held, all, false, u64::MAX, at(9));
        assert_eq!(found.mails, [id(3), id(6), id(9)]);
        assert_eq!((found.looked, found.next), (18, None));
        found = schedule.in_state(MailState::Held, (id(4), id(9)), true, u64::MAX, at(9));
        assert_eq!(found.mails, [id(9), id(6)]);
        let delayed = schedule.in_state(MailState::Delayed, all, false, u64::MAX, at(9));
        assert_eq!(delayed.mails.len(), 9);
        let due = schedule.in_state(MailState::Due, all, false, u64::MAX, at(500));
        assert_eq!(due.mails.len(), 9);

        for newest_first in [false, true] {
            let (mut range, mut seen, mut turns) = (all, Vec::new(), 0);
            loop {
                let found = schedule.in_state(MailState::Held, range, newest_first, 5, at(9));
                seen.extend(found.mails);
                turns += 1;
                match found.next {
                    Some(next) if newest_first => range.1 = next,
                    Some(next) => range.0 = next,
                    None => break,
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, [id(3), id(6), id(9)]);
            assert!(turns > 2, "{turns}");
        }
    }
}
