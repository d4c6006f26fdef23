use std::time::Duration;

use postroad_envelope::Timestamp;

/// When a mail is tried again (RFC 5321 §4.5.4.1): intervals that double from `first` to `longest`, each moved by up to
/// `jitter_percent` either way, until `give_up` after arrival, where the last attempt is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// After the first attempt.
    pub first: Duration,
    /// No interval is longer.
    pub longest: Duration,
    /// A mail's life, counted from arrival.
    pub give_up: Duration,
    /// Up to so many hundredths of an interval earlier or later.
    pub jitter_percent: u32,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(4 * 60),
            longest: Duration::from_secs(4 * 3600),
            give_up: Duration::from_secs(5 * 86400),
            jitter_percent: 10,
        }
    }
}

impl RetrySchedule {
    /// When a mail that arrived then fails.
    pub fn expires_at(&self, arrived_at: Timestamp) -> Timestamp {
        arrived_at.plus(self.give_up)
    }

    /// The time of the next attempt after `attempts` of them; none if the mail's time is over. The last one falls on
    /// the end of its time.
    pub fn next(
        &self,
        attempts: u32,
        now: Timestamp,
        expires_at: Timestamp,
        seed: u64,
    ) -> Option<Timestamp> {
        (now < expires_at).then(|| now.plus(self.interval(attempts, seed)).min(expires_at))
    }

    /// The interval after this many attempts (1 for the first).
    pub fn interval(&self, attempts: u32, seed: u64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let plain = self.first.saturating_mul(1 << doublings).min(self.longest);
        let millis = u64::try_from(plain.as_millis()).unwrap_or(u64::MAX / 256);
        let span = millis / 100 * u64::from(self.jitter_percent.min(100));
        // `mix` moves the interval by -span ..= +span.
        let moved = mix(seed ^ u64::from(attempts)) % (2 * span + 1);
        Duration::from_millis((millis + moved).saturating_sub(span))
    }
}

/// One step of splitmix64: every bit of the seed reaches every bit of the result.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn doubles_from_four_minutes_to_four_hours() {
        let plain = RetrySchedule {
            jitter_percent: 0,
            ..RetrySchedule::default()
        };
        let minutes: Vec<u64> = (1..=9)
            .map(|attempts| plain.interval(attempts, 7).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [4, 8, 16, 32, 64, 128, 240, 240, 240]);
        assert_eq!(plain.interval(u32::MAX, 7), plain.longest);
    }

    /// A change of these values would move the retries of every queue in the world.
    #[test]
    fn golden_jitter() {
        let schedule = RetrySchedule::default();
        let seconds: Vec<u64> = (1..=4)
            .map(|attempts| schedule.interval(attempts, 42).as_secs())
            .collect();
        assert_eq!(seconds, [229, 474, 959, 1824]);
        assert_eq!(schedule.interval(1, 43).as_secs(), 241);
    }

    #[test]
    fn the_last_attempt_falls_on_the_end() {
        let schedule = RetrySchedule::default();
        let end = schedule.expires_at(START);
        assert_eq!(end.since(START), Duration::from_secs(5 * 86400));
        let shortly_before = Timestamp::from_millis(end.as_millis() - 1000);
        assert_eq!(schedule.next(30, shortly_before, end, 1), Some(end));
        assert_eq!(schedule.next(31, end, end, 1), None);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(attempts in 1_u32.., seed: u64, first in 0_u64..100_000, longest in 0_u64..1_000_000) {
            let schedule = RetrySchedule {
                first: Duration::from_millis(first),
                longest: Duration::from_millis(longest),
                ..RetrySchedule::default()
            };
            let plain = RetrySchedule { jitter_percent: 0, ..schedule.clone() };
            let (moved, plain) = (schedule.interval(attempts, seed), plain.interval(attempts, seed));
            prop_assert!(moved <= plain * 11 / 10 && moved >= plain * 9 / 10);
            prop_assert_eq!(moved, schedule.interval(attempts, seed));
        }
    }
}
