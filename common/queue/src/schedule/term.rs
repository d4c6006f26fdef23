use postroad_envelope::Timestamp;

use crate::Deadline;

/// What is done to a job that is still there at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// It is given up. The last attempt falls on that moment, so a worker has the time of a lease to come for it.
    GivesUp(Timestamp),
    /// It is returned, and nothing is tried any more (RFC 2852 §4.1.3, `R`).
    Returns(Timestamp),
    /// Its sender is told, and it goes on (RFC 2852 §4.1.3, `N`).
    Tells(Timestamp),
}

impl Term {
    /// By the end of its life, and what its sender asked for.
    pub fn of(expires_at: Timestamp, deadline: Option<Deadline>) -> Self {
        match deadline {
            Some(Deadline { by, .. }) if by.return_after && by.at <= expires_at => {
                Self::Returns(by.at)
            }
            Some(Deadline { by, told: false }) if !by.return_after && by.at < expires_at => {
                Self::Tells(by.at)
            }
            _ => Self::GivesUp(expires_at),
        }
    }

    /// When that is done.
    pub(super) fn end(self) -> Timestamp {
        match self {
            Self::GivesUp(at) | Self::Returns(at) | Self::Tells(at) => at,
        }
    }

    /// Whether no worker may have it before that is done.
    pub(super) fn bars(self, now: Timestamp) -> bool {
        match self {
            Self::GivesUp(_) => false,
            Self::Returns(at) | Self::Tells(at) => at <= now,
        }
    }

    /// Until when it may wait for this.
    pub(super) fn clip(self, wait: Timestamp) -> Timestamp {
        match self {
            Self::GivesUp(_) => wait,
            Self::Returns(at) | Self::Tells(at) => wait.min(at),
        }
    }
}

/// The same in as many octets as a moment has, with whether its sender is still to hear that it takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedTerm(u64);

/// The lowest bits say which; times end ten million years early.
const KINDS: u64 = 3;
const ON_DELAY: u64 = 4;

impl PackedTerm {
    pub fn new(term: Term, on_delay: bool) -> Self {
        let (at, kind) = match term {
            Term::GivesUp(at) => (at, 0),
            Term::Returns(at) => (at, 1),
            Term::Tells(at) => (at, 2),
        };
        let kind = kind | if on_delay { ON_DELAY } else { 0 };
        Self(at.as_millis().min(u64::MAX >> KINDS) << KINDS | kind)
    }

    /// Whether its sender is still to hear that it takes long.
    pub fn on_delay(self) -> bool {
        self.0 & ON_DELAY != 0
    }
}

impl From<PackedTerm> for Term {
    fn from(PackedTerm(packed): PackedTerm) -> Self {
        let at = Timestamp::from_millis(packed >> KINDS);
        match packed & 3 {
            1 => Self::Returns(at),
            2 => Self::Tells(at),
            _ => Self::GivesUp(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let at = Timestamp::from_millis(1_800_000_000_123);
        for term in [Term::GivesUp(at), Term::Returns(at), Term::Tells(at)] {
            for on_delay in [false, true] {
                let packed = PackedTerm::new(term, on_delay);
                assert_eq!((Term::from(packed), packed.on_delay()), (term, on_delay));
            }
        }
    }
}
