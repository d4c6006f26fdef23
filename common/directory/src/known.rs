//! Which passwords were right a moment ago, so that a client that comes again need not be waited for.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ring::hmac;

/// Octets of a tag.
const TAG: usize = 32;

/// Tags of verifiers together with the passwords that fitted them, under a key that this process made and keeps to itself.
///
/// Whatever is another of an account (its password, or that it is disabled) makes another verifier, and so another tag: nothing need be
/// told of changes.
pub struct Known {
    key: hmac::Key,
    tags: Mutex<HashMap<[u8; TAG], Instant>>,
    max_age: Duration,
    /// More are not remembered.
    most: usize,
    /// Whether a task waits for what is over.
    is_waiting: AtomicBool,
}

impl Known {
    /// Nothing is remembered for longer than this, and of no more than so many; zero: nothing at all.
    pub fn new(max_age: Duration, most: usize) -> Self {
        let key: [u8; 32] = rand::random();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            tags: Mutex::default(),
            max_age,
            most,
            is_waiting: AtomicBool::new(false),
        }
    }

    /// Whether this password fitted this verifier of this account a moment ago.
    pub fn has(&self, account: &str, verifier: &str, password: &[u8], now: Instant) -> bool {
        if self.max_age.is_zero() {
            return false;
        }
        let tag = self.tag(account, verifier, password);
        let tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.get(&tag)
            .is_some_and(|since| now.saturating_duration_since(*since) < self.max_age)
    }

    /// It did just now.
    pub fn keep(&self, account: &str, verifier: &str, password: &[u8], now: Instant) {
        if self.max_age.is_zero() {
            return;
        }
        let tag = self.tag(account, verifier, password);
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.retain(|_, since| now.saturating_duration_since(*since) < self.max_age);
        if tags.len() < self.most {
            tags.insert(tag, now);
        }
    }

    /// Forgets what is over, also where nobody logs in any more: a task waits for it while there is anything.
    pub fn forget_in_time(self: &Arc<Self>) {
        if self.max_age.is_zero() || self.is_waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let known = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(known.max_age).await;
                let now = Instant::now();
                let mut tags = known.tags.lock().unwrap_or_else(PoisonError::into_inner);
                tags.retain(|_, since| now.saturating_duration_since(*since) < known.max_age);
                if tags.is_empty() {
                    // Under the lock: who keeps something next finds that nobody waits.
                    known.is_waiting.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }

    fn tag(&self, account: &str, verifier: &str, password: &[u8]) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [account.as_bytes(), verifier.as_bytes(), password] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fitted_is_known_for_a_while_and_nothing_that_differs_is() {
        let (known, now) = (Known::new(Duration::from_secs(60), 2), Instant::now());
        known.keep("bob", "verifier", b"pw", now);
        assert!(known.has("bob", "verifier", b"pw", now));
        for (account, verifier, password) in [
            ("alice", "verifier", "pw"),
            ("bob", "another", "pw"),
            ("bob", "verifier", "pW"),
            ("bobv", "erifier", "pw"),
            ("bob", "verifierp", "w"),
        ] {
            assert!(!known.has(account, verifier, password.as_bytes(), now));
        }
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(known.has("bob", "verifier", b"pw", later(59)));
        assert!(!known.has("bob", "verifier", b"pw", later(60)));
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_though_nobody_comes() {
        let known = Arc::new(Known::new(Duration::from_millis(5), 2));
        for account in ["bob", "alice"] {
            known.keep(account, "verifier", b"pw", Instant::now());
            known.forget_in_time();
        }
        let empty = async {
            while known.is_waiting.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), empty)
            .await
            .unwrap();
        assert!(known.tags.lock().unwrap().is_empty());
    }

    #[test]
    fn it_is_bounded_and_can_be_switched_off() {
        let (known, now) = (Known::new(Duration::from_secs(1), 2), Instant::now());
        for number in 0..12 {
            known.keep(&number.to_string(), "", b"", now);
        }
        assert_eq!(known.tags.lock().unwrap().len(), 2);
        let later = now + Duration::from_secs(1);
        known.keep("x", "", b"", later);
        assert!(known.has("x", "", b"", later));
        assert_eq!(known.tags.lock().unwrap().len(), 1);

        let off = Known::new(Duration::ZERO, 2);
        off.keep("bob", "verifier", b"pw", now);
        assert!(!off.has("bob", "verifier", b"pw", now));
    }
}
