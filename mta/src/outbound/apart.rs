//! Hosts that were seen to take one domain in a transaction, and refused the others until they were sent by themselves.
//!
//! Remembered for a time, so that not each mail finds it out anew. An error in it costs a transaction and no mail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A host may change its mind.
const KEEP: Duration = Duration::from_secs(3600);
/// Hosts that are remembered.
const MOST: usize = 1000;

/// By the hosts' names; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Apart(Arc<Mutex<HashMap<String, Instant>>>);

impl Apart {
    /// Seen now.
    pub fn learn(&self, host: &str, now: Instant) {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MOST {
            hosts.retain(|_, seen| now.duration_since(*seen) < KEEP);
        }
        if hosts.len() >= MOST {
            hosts.clear();
        }
        hosts.insert(host.to_owned(), now);
    }

    /// Whether the host is one.
    pub fn knows(&self, host: &str, now: Instant) -> bool {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = hosts.get(host);
        seen.is_some_and(|seen| now.duration_since(*seen) < KEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_for_a_time_and_not_all_are_for_ever() {
        let (apart, now) = (Apart::default(), Instant::now());
        apart.learn("mx.test", now);
        assert!(apart.knows("mx.test", now));
        assert!(!apart.knows("mx.other.test", now));
        assert!(!apart.knows("mx.test", now + KEEP));
        for number in 0..MOST {
            apart.learn(&number.to_string(), now);
        }
        let known = apart.0.lock().unwrap().len();
        assert!((1..MOST).contains(&known), "{known}");
    }
}
