//! Who asked for how many verifiers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);
/// Callers remembered. More can only come with a certificate of their own each.
const CALLERS: usize = 1000;

/// Gives each caller its turns.
#[derive(Default)]
pub struct Desk(Mutex<HashMap<String, Caller>>);

struct Caller {
    /// How many it may have now.
    left: f64,
    seen: Instant,
    /// Whether it was refused the last time.
    refused: bool,
}

/// Whether a caller may have one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Granted,
    /// Not now, and that was so before.
    Refused,
    /// Not now, for the first time since it last could.
    RefusedFirst,
}

impl Desk {
    /// Takes one of the `per_minute` verifiers that a caller may have.
    pub fn take(&self, caller: &str, per_minute: u32, now: Instant) -> Turn {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = f64::from(per_minute);
        if callers.len() >= CALLERS && !callers.contains_key(caller) {
            // Whoever came not for a minute has all of its own again.
            callers.retain(|_, known| now.saturating_duration_since(known.seen) < MINUTE);
        }
        if callers.len() >= CALLERS && !callers.contains_key(caller) {
            return Turn::Refused;
        }
        let known = callers.entry(caller.to_owned()).or_insert(Caller {
            left: most,
            seen: now,
            refused: false,
        });
        let passed = now.saturating_duration_since(known.seen).as_secs_f64();
        known.left = (known.left + passed * most / MINUTE.as_secs_f64()).min(most);
        known.seen = now;
        if known.left >= 1.0 {
            known.left -= 1.0;
            known.refused = false;
            return Turn::Granted;
        }
        match std::mem::replace(&mut known.refused, true) {
            true => Turn::Refused,
            false => Turn::RefusedFirst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_and_gets_them_back_with_time() {
        let desk = Desk::default();
        let start = Instant::now();
        for _ in 0..60 {
            assert_eq!(desk.take("a", 60, start), Turn::Granted);
        }
        assert_eq!(desk.take("a", 60, start), Turn::RefusedFirst);
        assert_eq!(desk.take("a", 60, start), Turn::Refused);
        assert_eq!(desk.take("b", 60, start), Turn::Granted);
        let later = start + Duration::from_millis(1100);
        assert_eq!(desk.take("a", 60, later), Turn::Granted);
        assert_eq!(desk.take("a", 60, later), Turn::RefusedFirst);
    }

    #[test]
    fn its_memory_is_bounded() {
        let desk = Desk::default();
        let start = Instant::now();
        for number in 0..CALLERS {
            assert_eq!(desk.take(&number.to_string(), 1, start), Turn::Granted);
        }
        assert_eq!(desk.take("one more", 1, start), Turn::Refused);
        assert_eq!(desk.take("one more", 1, start + MINUTE), Turn::Granted);
    }
}
