use std::time::Duration;

use postroad_envelope::{Cause, Timestamp};

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
    /// How long after its arrival the sender of a mail that still waits is told so, where that is wanted; none: never.
    pub tell_after: Option<Duration>,
    /// Other terms for some destinations and causes; the first that fits is taken.
    pub special: Vec<SpecialRetry>,
    /// Whether somebody is told of mails without a sender that fail.
    pub double_bounces: bool,
}

/// Terms of its own for what goes to some destinations, or fails for some causes. What it does not say is as for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialRetry {
    /// Destinations in ASCII; with `true` all domains below, and not the domain itself. Empty: all.
    pub domains: Vec<(bool, String)>,
    /// Causes of the last attempt. Empty: all.
    pub causes: Vec<Cause>,
    /// See [`RetrySchedule::first`].
    pub first: Option<Duration>,
    /// See [`RetrySchedule::longest`].
    pub longest: Option<Duration>,
    /// See [`RetrySchedule::give_up`]. Where a cause is named it only shortens a mail's life.
    pub give_up: Option<Duration>,
}

impl SpecialRetry {
    fn is_for(&self, destination: &str) -> bool {
        let is_it = |(below, domain): &(bool, String)| match below {
            false => destination == domain,
            true => destination
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        };
        self.domains.is_empty() || self.domains.iter().any(is_it)
    }

    fn is_about(&self, cause: Option<Cause>) -> bool {
        self.causes.is_empty() || cause.is_some_and(|cause| self.causes.contains(&cause))
    }
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(4 * 60),
            longest: Duration::from_secs(4 * 3600),
            give_up: Duration::from_secs(5 * 86400),
            jitter_percent: 10,
            tell_after: None,
            special: Vec::new(),
            double_bounces: false,
        }
    }
}

impl RetrySchedule {
    /// When a mail that arrived then fails.
    pub fn expires_at(&self, arrived_at: Timestamp) -> Timestamp {
        arrived_at.plus(self.give_up)
    }

    /// The same of a mail to this destination, as far as nothing was tried yet.
    pub fn expires_at_of(&self, destination: &str, arrived_at: Timestamp) -> Timestamp {
        let mut special = self.special.iter();
        let own = special.find(|one| one.causes.is_empty() && one.is_for(destination));
        let life = own.and_then(|one| one.give_up).unwrap_or(self.give_up);
        arrived_at.plus(life)
    }

    /// Which of the special terms hold for this destination after a failure of this cause: the first that fits, by its number.
    pub fn special_for(&self, destination: &str, cause: Option<Cause>) -> Option<usize> {
        let fits = |one: &SpecialRetry| one.is_for(destination) && one.is_about(cause);
        self.special.iter().position(fits)
    }

    /// [`RetrySchedule::next`] by the terms for this destination and cause. A cause may shorten the mail's life, and never makes
    /// it longer; a mail whose life is over by that has had its last attempt.
    pub fn next_for(&self, what: &Tried<'_>, now: Timestamp, seed: u64) -> Option<Timestamp> {
        let special = self.special_for(what.destination, what.cause);
        let Some(special) = special.and_then(|number| self.special.get(number)) else {
            return self.next(what.attempts, now, what.expires_at, seed);
        };
        let terms = Self {
            first: special.first.unwrap_or(self.first),
            longest: special.longest.unwrap_or(self.longest),
            special: Vec::new(),
            ..self.clone()
        };
        let end = match special.give_up {
            Some(life) if !special.causes.is_empty() => {
                what.begun_at.plus(life).min(what.expires_at)
            }
            _ => what.expires_at,
        };
        terms.next(what.attempts, now, end, seed)
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

    /// When the life of a mail to this destination began: as it came, or at the end of the time that its sender wanted it held
    /// back for (RFC 4865).
    pub fn begun_at(
        &self,
        destination: &str,
        arrived_at: Timestamp,
        expires_at: Timestamp,
    ) -> Timestamp {
        let held = expires_at.since(self.expires_at_of(destination, arrived_at));
        arrived_at.plus(held)
    }

    /// Whether the sender of a mail that waits since then is to be told so by now.
    pub fn is_late(&self, begun_at: Timestamp, now: Timestamp) -> bool {
        self.tell_after
            .is_some_and(|after| now >= begun_at.plus(after))
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

/// A job that was tried.
#[derive(Debug, Clone, Copy)]
pub struct Tried<'a> {
    /// Where it goes.
    pub destination: &'a str,
    /// Why it is not done.
    pub cause: Option<Cause>,
    /// Attempts made, this one too.
    pub attempts: u32,
    /// When its life began.
    pub begun_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
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

    #[test]
    fn a_mail_is_late_from_its_own_beginning() {
        let hours = |hours: u64| START.plus(Duration::from_secs(hours * 3600));
        let mut schedule = RetrySchedule::default();
        let end = schedule.expires_at(START);
        let late = |schedule: &RetrySchedule, end, now| {
            schedule.is_late(schedule.begun_at("x.test", START, end), now)
        };
        assert!(!late(&schedule, end, hours(100)));
        schedule.tell_after = Some(Duration::from_secs(4 * 3600));
        assert!(!late(&schedule, end, hours(3)));
        assert!(late(&schedule, end, hours(4)));
        // Held back for a day.
        let held = schedule.expires_at(hours(24));
        assert!(!late(&schedule, held, hours(27)));
        assert!(late(&schedule, held, hours(28)));
        // With a life of its own, shorter than others have.
        assert!(late(&schedule, hours(10), hours(4)));
    }

    fn special() -> RetrySchedule {
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        let of = |domains: &[(bool, &str)], causes: &[Cause], first, give_up| SpecialRetry {
            domains: domains
                .iter()
                .map(|(below, name)| (*below, (*name).to_owned()))
                .collect(),
            causes: causes.to_vec(),
            first: minutes(first),
            longest: None,
            give_up: minutes(give_up),
        };
        RetrySchedule {
            jitter_percent: 0,
            special: vec![
                of(&[], &[Cause::Greylisted], 1, 60),
                of(
                    &[(true, "far.test"), (false, "slow.test")],
                    &[],
                    30,
                    20 * 24 * 60,
                ),
            ],
            ..RetrySchedule::default()
        }
    }

    fn after(cause: Option<Cause>, destination: &str, hours: u64) -> Option<u64> {
        let schedule = special();
        let now = START.plus(Duration::from_secs(hours * 3600));
        let tried = Tried {
            destination,
            cause,
            attempts: 1,
            begun_at: START,
            expires_at: schedule.expires_at_of(destination, START),
        };
        let next = schedule.next_for(&tried, now, 7)?;
        Some(next.since(now).as_secs() / 60)
    }

    #[test]
    fn causes_and_destinations_have_terms_of_their_own() {
        assert_eq!(after(None, "x.test", 0), Some(4));
        assert_eq!(after(Some(Cause::System), "x.test", 0), Some(4));
        assert_eq!(after(Some(Cause::Greylisted), "x.test", 0), Some(1));
        assert_eq!(after(None, "slow.test", 0), Some(30));
        assert_eq!(after(None, "mx.far.test", 0), Some(30));
        assert_eq!(after(None, "far.test", 0), Some(4));
        assert_eq!(after(None, "notfar.test", 0), Some(4));
    }

    #[test]
    fn a_cause_shortens_a_life_and_a_destination_sets_it() {
        // Greylisted for longer than its hour.
        assert_eq!(after(Some(Cause::Greylisted), "x.test", 2), None);
        assert_eq!(after(Some(Cause::System), "x.test", 2), Some(4));
        assert_eq!(after(None, "x.test", 6 * 24), None);
        assert_eq!(after(None, "slow.test", 6 * 24), Some(30));
        let schedule = special();
        let life = schedule.expires_at_of("slow.test", START).since(START);
        assert_eq!(life, Duration::from_secs(20 * 86400));
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
