//! How many connections at once: begin with few, grow with what goes well, find the most that a site bears.
//!
//! As long as nothing was refused each success makes room for one more, so the number doubles with each round of answers. A
//! refusal because of their number shows where the end is. From then on one more is tried now and then, each time later if it was
//! refused again.

use std::time::Duration;

use postroad_envelope::Timestamp;

/// Before one more than the most that is known to be borne is tried, at first.
const FIRST_HOLD: Duration = Duration::from_secs(120);
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// After one more was borne.
const GROWTH: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Width {
    allowed: u32,
    /// It was refused to have more.
    bounded: bool,
    /// So many at once were borne since the bound was found.
    proven: u32,
    /// One more than was known to be borne is being tried.
    trial: bool,
    /// When it was refused to have more: what began before was counted with what was refused.
    crowded_at: Timestamp,
    hold: Duration,
    grow_at: Timestamp,
}

impl Width {
    pub fn new(first: u32) -> Self {
        Self {
            allowed: first.max(1),
            bounded: false,
            proven: 0,
            trial: false,
            crowded_at: Timestamp::default(),
            hold: FIRST_HOLD,
            grow_at: Timestamp::default(),
        }
    }

    /// So many at once.
    pub fn allowed(&self) -> u32 {
        self.allowed
    }

    /// Whether the end was found.
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// Whether so many at once were borne, so that a refusal is about something else.
    pub fn has_borne(&self, at_once: u32) -> bool {
        at_once <= self.proven
    }

    /// One of so many, begun then, went well. `wanted`: more would have been begun had more been allowed.
    pub fn fine(&mut self, at_once: u32, wanted: bool, began: Timestamp, now: Timestamp) {
        if began > self.crowded_at && at_once > self.proven {
            self.proven = at_once;
            if self.trial && at_once >= self.allowed {
                (self.trial, self.hold) = (false, FIRST_HOLD);
                self.grow_at = now.plus(GROWTH);
            }
        }
        let used = at_once >= self.allowed && wanted;
        if used && (!self.bounded || now >= self.grow_at) {
            self.allowed = self.allowed.saturating_add(1);
            self.trial = self.bounded;
            self.grow_at = now.plus(self.hold);
        }
    }

    /// One of so many was refused because there were too many.
    pub fn crowded(&mut self, at_once: u32, now: Timestamp) {
        self.crowded_at = now;
        let borne = at_once.saturating_sub(1).max(1);
        if borne >= self.allowed && self.bounded {
            // It was begun before the bound was found.
            return;
        }
        if self.trial {
            self.trial = false;
            self.hold = (self.hold * 2).min(LONGEST_HOLD);
        }
        self.bounded = true;
        self.allowed = borne.min(self.allowed);
        self.proven = self.proven.min(self.allowed);
        self.grow_at = now.plus(self.hold);
    }

    /// The site has trouble: half as many, and growth from there.
    pub fn halve(&mut self, now: Timestamp) {
        self.allowed = (self.allowed / 2).max(1);
        self.proven = self.proven.min(self.allowed);
        (self.bounded, self.trial) = (true, false);
        self.grow_at = now.plus(GROWTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn the_bound_is_found_and_then_tried_ever_more_seldom() {
        let (mut width, mut refused) = (Width::new(2), Vec::new());
        for second in 0..4 * 3600 {
            let at_once = width.allowed();
            match at_once > 5 {
                true => {
                    refused.push(second);
                    width.crowded(at_once, at(second));
                }
                false => width.fine(at_once, true, at(second), at(second)),
            }
        }
        assert_eq!(width.allowed(), 5);
        assert!(refused[0] < 10, "{refused:?}");
        assert!(refused.len() < 9, "{refused:?}");
        assert!(width.has_borne(5) && !width.has_borne(6));
    }

    #[test]
    fn a_site_that_bears_more_again_is_given_more() {
        let mut width = Width::new(2);
        (0..20).for_each(|_| width.fine(width.allowed(), true, at(0), at(0)));
        assert_eq!(width.allowed(), 22);
        width.halve(at(1));
        assert_eq!(width.allowed(), 11);
        (1..300).for_each(|second| width.fine(width.allowed(), true, at(second), at(second)));
        assert!(width.allowed() > 20, "{}", width.allowed());
        let before = width.allowed();
        (300..900).for_each(|second| width.fine(1, false, at(second), at(second)));
        assert_eq!(
            width.allowed(),
            before,
            "who does not need more is not given more"
        );
    }
}
