//! Times and sizes for people.

use std::time::Duration;

/// `30 seconds`, `12 minutes`, `3 hours`: rounded up, so that whoever comes then is not too early.
pub fn in_words(time: Duration) -> String {
    let seconds = u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    let (number, unit) = match seconds {
        0..=90 => (seconds.max(1), "second"),
        91..=5400 => (seconds.div_ceil(60), "minute"),
        _ => (seconds.div_ceil(3600), "hour"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

/// `512 octets`, `1.5 KiB`, `20.0 MiB`.
pub fn octets(count: u64) -> String {
    let (unit, name) = match count {
        0..1024 => return format!("{count} octets"),
        1024..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let (whole, part) = (count / unit, count % unit * 10 / unit);
    format!("{whole}.{part} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (count, told) in [
            (0, "0 octets"),
            (1023, "1023 octets"),
            (1536, "1.5 KiB"),
            (20 << 20, "20.0 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(octets(count), told);
        }
    }

    #[test]
    fn times_are_rounded_up() {
        for (millis, told) in [
            (0, "1 second"),
            (1, "1 second"),
            (1_001, "2 seconds"),
            (90_000, "90 seconds"),
            (90_001, "2 minutes"),
            (600_000, "10 minutes"),
            (5_401_000, "2 hours"),
            (86_000_000, "24 hours"),
        ] {
            assert_eq!(in_words(Duration::from_millis(millis)), told);
        }
    }
}
