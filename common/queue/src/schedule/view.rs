//! What operators ask of the schedule.

use std::collections::BTreeSet;

use postroad_envelope::{MailState, QueueId, Timestamp};

use super::{Entry, Phase, Schedule, SenderPrint, destinations::DestinationNumber};
use crate::JobKey;

/// Which jobs are looked for: those that fit all that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scan<'a> {
    /// Where they stand, for operators.
    pub state: Option<MailState>,
    /// Where they go.
    pub destination: Option<&'a str>,
    /// Where they go: to one of these.
    pub destinations: Option<&'a BTreeSet<String>>,
    /// Whose mail they may be of.
    pub sender: Option<SenderPrint>,
}

/// A stretch of the schedule, looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Mails with a job that fits, in the order asked for.
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
            Self::Held | Self::HeldOwing => MailState::Held,
        }
    }
}

impl Schedule {
    /// Mails of a range of ids with a job that fits; looks at so many jobs, and at all of the last mail.
    pub fn scan(
        &self,
        scan: &Scan<'_>,
        (first, last): (QueueId, QueueId),
        newest_first: bool,
        most: u64,
        now: Timestamp,
    ) -> Scanned {
        let key = |queue_id, number| JobKey { queue_id, number };
        let mut jobs = self.entries.range(key(first, 0)..=key(last, u32::MAX));
        let mut scanned = Scanned::default();
        let destinations = self.wanted(scan);
        if destinations.as_ref().is_some_and(BTreeSet::is_empty) {
            return scanned;
        }
        let fits = |entry: &Entry| {
            let state = entry.phase.state(entry.at, now);
            destinations
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&entry.destination))
                && scan.sender.is_none_or(|sender| sender.may_be(entry.sender))
                && scan.state.is_none_or(|wanted| wanted == state)
        };
        let mut current = None;
        let mut look = |entry: &Entry| {
            let queue_id = entry.job().queue_id;
            if scanned.looked >= most && current != Some(queue_id) {
                scanned.next = Some(queue_id);
                return false;
            }
            current = Some(queue_id);
            scanned.looked += 1;
            if fits(entry) && scanned.mails.last() != current.as_ref() {
                scanned.mails.push(queue_id);
            }
            true
        };
        if newest_first {
            jobs.rev().all(&mut look);
        } else {
            jobs.all(&mut look);
        }
        scanned
    }

    /// The destinations that a scan asks for; none: any.
    fn wanted(&self, scan: &Scan<'_>) -> Option<BTreeSet<DestinationNumber>> {
        let one = scan.destination.map(|name| self.destinations.numbers(name));
        let several = scan.destinations.map(|all| {
            let numbers = all.iter().map(|name| self.destinations.numbers(name));
            numbers.flatten().collect::<BTreeSet<_>>()
        });
        match (one, several) {
            (None, several) => several,
            (Some(one), None) => Some(one.into_iter().collect()),
            (Some(one), Some(several)) => Some(
                one.into_iter()
                    .filter(|one| several.contains(one))
                    .collect(),
            ),
        }
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

    fn in_state(state: MailState) -> Scan<'static> {
        Scan {
            state: Some(state),
            ..Scan::default()
        }
    }

    #[test]
    fn mails_are_found_by_the_state_of_any_job_in_both_directions_and_in_stretches() {
        let schedule = schedule();
        let all = (id(0), id(255));
        let mut found = schedule.scan(&in_state(MailState::Held), all, false, u64::MAX, at(9));
        assert_eq!(found.mails, [id(3), id(6), id(9)]);
        assert_eq!((found.looked, found.next), (18, None));
        found = schedule.scan(
            &in_state(MailState::Held),
            (id(4), id(9)),
            true,
            u64::MAX,
            at(9),
        );
        assert_eq!(found.mails, [id(9), id(6)]);
        let delayed = schedule.scan(&in_state(MailState::Delayed), all, false, u64::MAX, at(9));
        assert_eq!(delayed.mails.len(), 9);
        let due = schedule.scan(&in_state(MailState::Due), all, false, u64::MAX, at(500));
        assert_eq!(due.mails.len(), 9);

        // A stretch that is shorter than a mail ends behind it all the same.
        for (newest_first, most) in [(false, 5), (true, 5), (false, 1), (true, 1)] {
            let (mut range, mut seen, mut turns) = (all, Vec::new(), 0);
            loop {
                let held = in_state(MailState::Held);
                let found = schedule.scan(&held, range, newest_first, most, at(9));
                seen.extend(found.mails);
                turns += 1;
                assert!(turns <= 9, "it goes on");
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

    #[test]
    fn mails_are_found_by_destination_and_sender_together() {
        let mut schedule = schedule();
        let (alice, bob) = (
            SenderPrint::of("alice@a.test"),
            SenderPrint::of("bob@b.test"),
        );
        for number in 11..=14 {
            let state = JobState {
                destination: if number % 2 == 0 {
                    "even.test"
                } else {
                    "odd.test"
                }
                .to_owned(),
                ..job_state(number, 1)
            };
            let sender = if number < 13 { alice } else { bob };
            schedule.place_new([&state], sender);
            // Later states do not say whose it is.
            schedule.place(&state.rescheduled(at(500), at(0)));
        }
        let find = |destination, sender, state| {
            let scan = Scan {
                state,
                destination,
                sender,
                ..Scan::default()
            };
            let found = schedule.scan(&scan, (id(10), id(255)), false, u64::MAX, at(9));
            found.mails
        };
        assert_eq!(find(Some("even.test"), None, None), [id(12), id(14)]);
        assert_eq!(find(None, Some(alice), None), [id(11), id(12)]);
        assert_eq!(find(Some("even.test"), Some(bob), None), [id(14)]);
        assert_eq!(find(Some("odd.test"), None, Some(MailState::Held)), []);
        assert_eq!(find(Some("nowhere.test"), None, None), []);
        // Of the others nobody knows the sender: whoever asks looks at them too.
        let any = Scan {
            sender: Some(alice),
            ..Scan::default()
        };
        let found = schedule.scan(&any, (id(0), id(10)), false, u64::MAX, at(9));
        assert_eq!(found.mails.len(), 9);
    }
}
