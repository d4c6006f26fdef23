//! A policy that was fetched: how long it counts, and when it is fetched again (RFC 8461 §3.3, §5.1, §10.2).

use crate::{Policy, Record};

/// A policy is looked for again after so many seconds although its id is the same, that it does not run out while mail to the
/// domain is rare (RFC 8461 §10.2).
const REFRESH: u64 = 24 * 3600;
/// After a fetch that failed the next is that far off, whatever mail there is (RFC 8461 §3.3).
const PAUSE: u64 = 300;

/// One policy with when it was fetched, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The policy.
    pub policy: Policy,
    /// What the record called this version.
    pub id: String,
    /// When.
    pub fetched_at: u64,
}

/// What is to be done for a mail to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The domain has no policy that counts.
    None,
    /// The kept one counts, and is new enough.
    Use,
    /// Fetch; if that fails the kept one counts if it is still alive.
    Fetch,
}

impl Kept {
    /// Whether it counts at this time.
    pub fn is_alive(&self, now: u64) -> bool {
        // A clock that was set back makes nothing live longer than it should.
        let age = now.checked_sub(self.fetched_at);
        age.is_some_and(|age| age < self.policy.max_age)
    }

    /// For a file: a line of our own, then the policy.
    pub fn to_text(&self) -> String {
        format!("{} {}\n{}", self.id, self.fetched_at, self.policy)
    }

    /// From a file; whatever is no such text is as if it were not there.
    pub fn from_text(text: &str) -> Option<Self> {
        let (head, policy) = text.split_once('\n')?;
        let (id, fetched_at) = head.split_once(' ')?;
        let record = Record::of(&[format!("v=STSv1; id={id};")])?;
        Some(Self {
            policy: Policy::parse(policy.as_bytes()).ok()?,
            id: record.id,
            fetched_at: fetched_at.parse().ok()?,
        })
    }
}

/// What follows from what is kept, what the DNS said, and when a fetch failed last. A `record` that could not be had is as one
/// that is not there: what was fetched before counts until its end, or whoever can keep answers from us could switch it off.
pub fn next(
    kept: Option<&Kept>,
    record: Option<&Record>,
    failed_at: Option<u64>,
    now: u64,
) -> Next {
    let alive = kept.filter(|kept| kept.is_alive(now));
    let use_kept = match alive {
        Some(_) => Next::Use,
        None => Next::None,
    };
    let paused = failed_at.is_some_and(|at| now.checked_sub(at).is_some_and(|ago| ago < PAUSE));
    let Some(record) = record.filter(|_| !paused) else {
        return use_kept;
    };
    match alive {
        Some(kept) if kept.id == record.id && now.saturating_sub(kept.fetched_at) < REFRESH => {
            Next::Use
        }
        _ => Next::Fetch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn kept(age: u64, max_age: u64) -> Kept {
        let text = format!("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: {max_age}\n");
        Kept {
            policy: Policy::parse(text.as_bytes()).unwrap(),
            id: "one".to_owned(),
            fetched_at: NOW - age,
        }
    }

    fn record(id: &str) -> Record {
        Record { id: id.to_owned() }
    }

    #[test]
    fn a_policy_is_fetched_when_it_is_new_old_or_not_there() {
        let week = 7 * 86400;
        let (same, other) = (record("one"), record("two"));
        let (fresh, old, dead) = (kept(60, week), kept(2 * 86400, week), kept(week, week));
        for (kept, record, failed_at, expected) in [
            (None, None, None, Next::None),
            (None, Some(&same), None, Next::Fetch),
            (None, Some(&same), Some(NOW - 299), Next::None),
            (None, Some(&same), Some(NOW - 300), Next::Fetch),
            (Some(&fresh), Some(&same), None, Next::Use),
            (Some(&fresh), Some(&other), None, Next::Fetch),
            (Some(&fresh), Some(&other), Some(NOW), Next::Use),
            // RFC 8461 §5.1: no record, and none to be had, change nothing.
            (Some(&fresh), None, None, Next::Use),
            (Some(&old), Some(&same), None, Next::Fetch),
            (Some(&old), None, None, Next::Use),
            (Some(&dead), Some(&same), None, Next::Fetch),
            (Some(&dead), None, None, Next::None),
        ] {
            let found = next(kept, record, failed_at, NOW);
            assert_eq!(found, expected, "{kept:?} {record:?} {failed_at:?}");
        }
    }

    #[test]
    fn a_policy_of_the_future_does_not_count() {
        let mut future = kept(0, 86400);
        future.fetched_at = NOW + 1;
        assert!(!future.is_alive(NOW));
        assert!(!kept(0, 0).is_alive(NOW));
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let kept = kept(5, 100);
        assert_eq!(Kept::from_text(&kept.to_text()), Some(kept.clone()));
        for damaged in [
            "",
            "one",
            "one 5",
            "one x\nversion: STSv1",
            "a b\n",
            "../x 5\n",
        ] {
            assert_eq!(Kept::from_text(damaged), None, "{damaged}");
        }
        let half = kept.to_text();
        assert_eq!(Kept::from_text(&half[..half.len() / 2]), None);
    }
}
