//! Guessing passwords is made slow: the answer to a failed log-in waits, longer with each failure of one network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures older than this are forgotten.
const MEMORY: Duration = Duration::from_secs(600);
/// Networks remembered; beyond them the oldest half goes.
const NETWORKS: usize = 10_000;

/// Failed log-ins by network.
pub struct Slowdown {
    first: Duration,
    longest: Duration,
    failures: Arc<Mutex<HashMap<IpAddr, Failures>>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Slowdown {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: Arc::default(),
        }
    }

    /// With other delays and the same memory.
    pub fn with_delays(&self, first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: Arc::clone(&self.failures),
        }
    }

    /// Counts a failure and says how long its answer waits.
    pub fn failed(&self, client: IpAddr, now: Instant) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= NETWORKS {
            make_room(&mut failures, now);
        }
        let entry = failures.entry(network(client)).or_insert(Failures {
            count: 0,
            last: now,
        });
        if now.saturating_duration_since(entry.last) > MEMORY {
            entry.count = 0;
        }
        entry.last = now;
        entry.count = entry.count.saturating_add(1);
        let factor = 1_u32.checked_shl(entry.count - 1).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// A right password: its owner had mistyped it before, if there were failures.
    pub fn succeeded(&self, client: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&network(client));
    }
}

fn make_room(failures: &mut HashMap<IpAddr, Failures>, now: Instant) {
    failures.retain(|_, entry| now.saturating_duration_since(entry.last) <= MEMORY);
    if failures.len() >= NETWORKS {
        let mut times: Vec<Instant> = failures.values().map(|entry| entry.last).collect();
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or(now);
        failures.retain(|_, entry| entry.last > middle);
    }
}

/// One customer's network: an IPv4 address, or the first 64 bits of an IPv6 address.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn doubles_up_to_the_longest_and_forgets() {
        let slow = Slowdown::new(SECOND, 5 * SECOND);
        let (client, now) = ("2001:db8::1".parse().unwrap(), Instant::now());
        let neighbour = "2001:db8::ffff".parse().unwrap();
        assert_eq!(slow.failed(client, now), SECOND);
        assert_eq!(slow.failed(neighbour, now), 2 * SECOND);
        for _ in 0..70 {
            slow.failed(client, now);
        }
        assert_eq!(slow.failed(client, now), 5 * SECOND);
        assert_eq!(slow.failed("192.0.2.1".parse().unwrap(), now), SECOND);
        assert_eq!(slow.failed(client, now + MEMORY + SECOND), SECOND);
        slow.failed(client, now);
        slow.succeeded(client);
        assert_eq!(slow.failed(client, now), SECOND);
    }

    #[test]
    fn its_memory_is_bounded() {
        let slow = Slowdown::new(SECOND, SECOND);
        let now = Instant::now();
        for number in 0..2 * NETWORKS as u32 {
            let client = IpAddr::from(number.to_be_bytes());
            slow.failed(client, now + Duration::from_millis(number.into()));
        }
        assert!(slow.failures.lock().unwrap().len() <= NETWORKS);
    }
}
