use std::time::Duration;

use postroad_envelope::Timestamp;

/// A window is counted in so many parts: what is counted is forgotten up to one of them late, never early, so a limit holds for
/// every span as long as the window.
const PARTS: u64 = 12;

/// How often something happened within a window that moves with the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Milliseconds of one part.
    part: u64,
    /// Number of the part since 1970, and what was counted in it; ascending, at most `PARTS + 2`.
    parts: Vec<(u64, u64)>,
}

impl Tally {
    pub fn new(window: Duration) -> Self {
        Self {
            part: part_of(window),
            parts: Vec::new(),
        }
    }

    /// As it was kept. What makes no sense is left out.
    pub fn restored(window: Duration, parts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut tally = Self::new(window);
        for (number, count) in parts {
            let later = tally.parts.last().is_none_or(|(last, _)| *last < number);
            if later && tally.parts.len() <= PARTS as usize {
                tally.parts.push((number, count));
            }
        }
        tally
    }

    pub fn parts(&self) -> &[(u64, u64)] {
        &self.parts
    }

    pub fn add(&mut self, add: u64, now: Timestamp) {
        let number = now.as_millis() / self.part;
        // A clock that was set back would leave parts of the future behind for as long as it was set back.
        self.parts.retain(|(part, _)| lives(*part, number));
        match self.parts.iter_mut().find(|(part, _)| *part == number) {
            Some((_, count)) => *count = count.saturating_add(add),
            None => {
                let at = self.parts.partition_point(|(part, _)| *part < number);
                self.parts.insert(at, (number, add));
            }
        }
    }

    pub fn value(&self, now: Timestamp) -> u64 {
        self.living(now)
            .fold(0, |sum, (_, count)| count.saturating_add(sum))
    }

    pub fn is_over(&self, now: Timestamp) -> bool {
        self.living(now).next().is_none()
    }

    /// When there is room for so many more below a limit. None: never, for the limit itself is less.
    pub fn room_at(&self, add: u64, limit: u64, now: Timestamp) -> Option<Timestamp> {
        if add > limit {
            return None;
        }
        let (mut left, mut at) = (self.value(now), now);
        for (number, count) in self.living(now) {
            if left.saturating_add(add) <= limit {
                break;
            }
            left = left.saturating_sub(*count);
            at = Timestamp::from_millis(number.saturating_add(PARTS + 1).saturating_mul(self.part));
        }
        Some(at)
    }

    fn living(&self, now: Timestamp) -> impl Iterator<Item = &(u64, u64)> {
        let number = now.as_millis() / self.part;
        self.parts
            .iter()
            .filter(move |(part, _)| lives(*part, number))
    }
}

/// Whether a part counts when this one is under way.
fn lives(part: u64, number: u64) -> bool {
    part.saturating_add(PARTS) >= number && part <= number.saturating_add(1)
}

fn part_of(window: Duration) -> u64 {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    window.div_ceil(PARTS).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_a_part_late_at_most() {
        let mut tally = Tally::new(MINUTE);
        tally.add(3, after(0));
        tally.add(4, after(30));
        assert_eq!(tally.value(after(30)), 7);
        assert_eq!(tally.value(after(60)), 7);
        assert_eq!(tally.value(after(66)), 4);
        assert!(!tally.is_over(after(90)));
        assert!(tally.is_over(after(96)));
        tally.add(1, after(1000));
        assert_eq!(tally.parts().len(), 1);
    }

    #[test]
    fn it_says_when_there_is_room() {
        let mut tally = Tally::new(MINUTE);
        tally.add(6, after(0));
        tally.add(4, after(30));
        assert_eq!(tally.room_at(5, 20, after(31)), Some(after(31)));
        assert_eq!(tally.room_at(5, 10, after(31)), Some(after(65)));
        assert_eq!(tally.room_at(7, 10, after(31)), Some(after(95)));
        assert_eq!(tally.room_at(11, 10, after(31)), None);
        let then = tally.room_at(7, 10, after(31)).unwrap();
        assert_eq!(tally.value(then), 0);
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_nothing_behind() {
        let mut tally = Tally::new(MINUTE);
        tally.add(5, after(100_000));
        assert_eq!(tally.value(after(0)), 0);
        tally.add(1, after(0));
        assert_eq!(tally.value(after(1)), 1);
        assert_eq!(Tally::restored(MINUTE, tally.parts().to_vec()), tally);
    }

    proptest! {
        /// However the time goes, no span as long as the window has more than the value said.
        #[test]
        fn every_span_is_covered(steps in prop::collection::vec((0u64..40_000, 1u64..5), 1..60)) {
            let (mut tally, mut now) = (Tally::new(MINUTE), START);
            let mut all = Vec::new();
            for (wait, add) in steps {
                now = now.plus(Duration::from_millis(wait));
                tally.add(add, now);
                all.push((now, add));
                let within = all.iter().filter(|(at, _)| now.since(*at) <= MINUTE);
                let true_count: u64 = within.map(|(_, add)| add).sum();
                prop_assert!(tally.value(now) >= true_count);
                prop_assert!(tally.parts().len() <= PARTS as usize + 2);
                let room = tally.room_at(1, 5, now).unwrap();
                prop_assert!(tally.value(room) < 5);
                prop_assert!(room.since(now) <= MINUTE + Duration::from_secs(5));
            }
        }
    }
}
