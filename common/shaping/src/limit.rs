//! What may be configured: so many connections at once, so many connections or mails in a time.

use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

use postroad_envelope::Timestamp;

/// Parts of a window that are counted together: what is in one is forgotten together, late rather than early.
const PARTS: u64 = 60;
/// The longest window.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// So many in a time; written `100/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub most: u32,
    /// In any stretch of this length; from a second to a week.
    pub per: Duration,
}

/// A rate that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rate: write a number, a slash and a time of a second to a week, such as \"100/1m\" or \"20/10s\""
)]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let rate = || {
            let (most, per) = text.split_once('/')?;
            let per = per.trim();
            let unit = per.find(|c: char| !c.is_ascii_digit())?;
            let (count, unit) = per.split_at(unit);
            let count: u64 = if count.is_empty() {
                1
            } else {
                count.parse().ok()?
            };
            let seconds: u64 = match unit.trim() {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 24 * 3600,
                _ => return None,
            };
            let per = Duration::from_secs(count.checked_mul(seconds)?);
            let most: u32 = most.trim().parse().ok()?;
            let fits = most > 0 && !per.is_zero() && per <= LONGEST;
            fits.then_some(Self { most, per })
        };
        rate().ok_or_else(|| RateError(text.to_owned()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.per.as_secs();
        let (count, unit) = match seconds {
            s if s % (24 * 3600) == 0 => (s / (24 * 3600), 'd'),
            s if s % 3600 == 0 => (s / 3600, 'h'),
            s if s % 60 == 0 => (s / 60, 'm'),
            s => (s, 's'),
        };
        write!(f, "{}/{count}{unit}", self.most)
    }
}

/// What is configured for a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Connections at once; none: any number.
    pub connections: Option<u32>,
    /// Mails in a time.
    pub messages: Option<Rate>,
    /// Connections in a time.
    pub connects: Option<Rate>,
}

impl Limits {
    /// The tighter of both, limit by limit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let tighter = |one: Option<Rate>, other: Option<Rate>| match (one, other) {
            (Some(one), Some(other)) if other.slower_than(&one) => Some(other),
            (one, other) => one.or(other),
        };
        Self {
            connections: match (self.connections, other.connections) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            messages: tighter(self.messages, other.messages),
            connects: tighter(self.connects, other.connects),
        }
    }
}

impl Rate {
    fn slower_than(&self, other: &Self) -> bool {
        u128::from(self.most) * other.per.as_millis()
            < u128::from(other.most) * self.per.as_millis()
    }
}

/// What happened within the time of a rate. No stretch of that length, wherever it begins, has more than the rate allows.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    rate: Rate,
    /// When a part began, and what is counted in it; oldest first.
    parts: VecDeque<(Timestamp, u32)>,
    total: u32,
}

impl Window {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            parts: VecDeque::new(),
            total: 0,
        }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// None: there is room for one more; else when to ask again.
    pub fn full_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some(&(began, count)) = self.parts.front() {
            if now < self.leaves(began) {
                break;
            }
            self.total = self.total.saturating_sub(count);
            self.parts.pop_front();
        }
        if self.total < self.rate.most {
            return None;
        }
        let oldest = self.parts.front().map(|&(began, _)| self.leaves(began));
        Some(
            oldest
                .unwrap_or(now)
                .max(now.plus(Duration::from_millis(1))),
        )
    }

    pub fn count(&mut self, now: Timestamp) {
        self.total = self.total.saturating_add(1);
        let part = self.part();
        match self.parts.back_mut() {
            // Also if the clock was set back.
            Some((began, count)) if now < began.plus(part) => *count = count.saturating_add(1),
            _ => self.parts.push_back((now, 1)),
        }
    }

    /// One that was counted did not happen.
    pub fn take_back(&mut self) {
        if let Some((_, count)) = self.parts.back_mut()
            && *count > 0
        {
            *count -= 1;
            self.total = self.total.saturating_sub(1);
        }
    }

    fn part(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.rate.per.as_millis()).unwrap_or(u64::MAX) / PARTS)
    }

    fn leaves(&self, began: Timestamp) -> Timestamp {
        began.plus(self.part()).plus(self.rate.per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["100/1m", "1/1s", "20/10s", "5000/1h", "7/2d"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!("100/m".parse(), Ok("100 / 60s".parse::<Rate>().unwrap()));
        for text in [
            "", "100", "0/1m", "100/", "100/0s", "100/1w", "1/8d", "-1/1m", "1/1m1s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_stretch_of_a_window_has_more_than_its_rate() {
        let mut window = Window::new("10/1m".parse().unwrap());
        let (mut now, mut begun) = (Timestamp::from_millis(5_000_000), Vec::new());
        while begun.len() < 200 {
            match window.full_until(now) {
                None => {
                    window.count(now);
                    begun.push(now);
                    now = now.plus(Duration::from_millis(137));
                }
                Some(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        for eleven in begun.windows(11) {
            assert!(eleven[10].since(eleven[0]) >= Duration::from_secs(60));
        }
        let took = begun[199].since(begun[0]).as_secs();
        assert!(took < 61 * 20, "the allowance is used: {took} s");
    }

    #[test]
    fn the_tighter_limit_holds() {
        let limits = |connections, messages: &str| Limits {
            connections,
            messages: messages.parse().ok(),
            connects: None,
        };
        let both = limits(Some(5), "100/1m").and(limits(None, "2/1s"));
        assert_eq!(both, limits(Some(5), "100/1m"));
        assert_eq!(
            limits(None, "").and(limits(Some(3), "9/1h")),
            limits(Some(3), "9/1h")
        );
    }
}
