//! Values with units. A bare number is refused: it hides whether seconds or minutes were meant.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const TIME_UNITS: [(&str, u64); 6] = [
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A span of time, written with its unit: `"500ms"`, `"30s"`, `"4m"`, `"1h30m"`, `"5d"`, `"2w"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u64);

impl Interval {
    /// So many milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(n)
    }
    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(n.saturating_mul(1_000))
    }
    /// So many minutes.
    pub const fn minutes(n: u64) -> Self {
        Self(n.saturating_mul(60_000))
    }
    /// So many hours.
    pub const fn hours(n: u64) -> Self {
        Self(n.saturating_mul(3_600_000))
    }
    /// So many days.
    pub const fn days(n: u64) -> Self {
        Self(n.saturating_mul(24 * 3_600_000))
    }
    /// For the clock.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
    /// For times in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl From<Interval> for Duration {
    fn from(interval: Interval) -> Self {
        interval.as_duration()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        // Weeks are read, but days are what people compare.
        for (unit, size) in TIME_UNITS.into_iter().skip(1) {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for Interval {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        let mut total: u64 = 0;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let (number, unit, after) = split(rest);
            let size = unit_size(unit, &TIME_UNITS).filter(|size| *size < smallest);
            let part = number.parse::<u64>().ok().zip(size);
            total = part
                .and_then(|(number, size)| number.checked_mul(size))
                .and_then(|part| total.checked_add(part))
                .ok_or(UnitError::Interval)?;
            smallest = size.unwrap_or_default();
            rest = after;
        }
        match smallest {
            u64::MAX => Err(UnitError::Interval),
            _ => Ok(Self(total)),
        }
    }
}

/// A number of octets, written with its unit: `"512B"`, `"64KiB"`, `"25MiB"`, `"1GiB"`, `"10MB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many octets.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }
    /// So many times 1024 octets.
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }
    /// So many times 1024² octets.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }
    /// So many times 1024³ octets.
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }
    /// The number of octets.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
    /// The number of octets, for sizes in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match exact {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => f.write_str("0B"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit, after) = split(text.trim());
        number
            .parse::<u64>()
            .ok()
            .zip(unit_size(unit.trim(), &SIZE_UNITS))
            .filter(|_| after.is_empty())
            .and_then(|(number, size)| number.checked_mul(size))
            .map(Self)
            .ok_or(UnitError::ByteSize)
    }
}

/// A text that is no value with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No interval.
    #[error("an interval with its unit, such as \"30s\", \"4m\", \"1h30m\" or \"5d\"")]
    Interval,
    /// No size.
    #[error("a size with its unit, such as \"64KiB\", \"25MiB\" or \"1GiB\"")]
    ByteSize,
}

/// Splits `1h30m` into `1`, `h` and `30m`.
fn split(text: &str) -> (&str, &str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    (number, unit, after)
}

fn unit_size(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, size)| *size)
}

macro_rules! serde_by_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        fmt::Display::fmt(&UnitError::$type, f)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse()
                            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

serde_by_text!(Interval);
serde_by_text!(ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_round_trip() {
        for (text, millis, shown) in [
            ("30s", 30_000, "30s"),
            ("4m", 240_000, "4m"),
            ("5d", 432_000_000, "5d"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("250ms", 250, "250ms"),
            ("2w", 1_209_600_000, "14d"),
            ("0s", 0, "0s"),
        ] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!(interval.as_millis(), millis, "{text}");
            assert_eq!(interval.to_string(), shown);
            assert_eq!(shown.parse(), Ok(interval));
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "30m1h",
            "1s1s",
            "5 d",
            "5y",
            "1h x",
            "999999999999999w",
        ] {
            assert_eq!(text.parse::<Interval>(), Err(UnitError::Interval), "{text}");
        }
    }

    #[test]
    fn sizes_round_trip() {
        for (text, bytes, shown) in [
            ("25MiB", 25 << 20, "25MiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("10MB", 10_000_000, "10MB"),
            ("1 GiB", 1 << 30, "1GiB"),
            ("1500B", 1500, "1500B"),
            ("0B", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.as_u64(), bytes, "{text}");
            assert_eq!(size.to_string(), shown);
            assert_eq!(shown.parse(), Ok(size));
        }
        for text in [
            "",
            "25",
            "MiB",
            "-1B",
            "1.5GiB",
            "25mib",
            "1MiB1KiB",
            "99999999TiB",
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::ByteSize), "{text}");
        }
    }
}
