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
