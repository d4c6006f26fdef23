use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use zeroize::Zeroizing;

use crate::{Password, hashing::HashMemory, known::Known};

/// Keeps the number of passwords that are checked at one time, and with it memory and processors, within bounds.
#[derive(Debug, Clone)]
pub struct AuthGate {
    permits: Arc<Semaphore>,
    patience: Duration,
    known: Arc<Known>,
    memory: HashMemory,
}

/// What came of a log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthVerdict {
    /// Right; the name of the account (its folded address).
    Accepted(String),
    /// An app password of the account is right.
    ByAppPassword {
        /// The name of the account.
        account: String,
        /// What the app password is called.
        name: String,
        /// Why it does not open what it is shown for; none: it does.
        refused: Option<String>,
    },
    /// Unknown account, wrong password, no password, or disabled: nobody is told which.
    Refused,
    /// Too many others are being checked (454 4.7.0).
    Busy,
}

/// A password that somebody shows.
pub struct Shown {
    /// The name of the account, folded.
    pub account: String,
    /// The PHC string that is to check it, of an account or a decoy.
    pub verifier: Zeroizing<String>,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
}

/// How it was told whether a password is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It was hashed.
    Hashed,
    /// It was right a moment ago.
    Remembered,
    /// Not at all: too many others, or there is nothing to check it by.
    Nothing,
}

impl AuthGate {
    /// At most `permits` checks at one time; one that waited for longer than `patience` is told to come back.
    pub fn new(permits: usize, patience: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS))),
            patience,
            known: Arc::new(Known::new(Duration::ZERO, 0)),
            memory: HashMemory::default(),
        }
    }

    /// What was right is not hashed again for so long, of so many passwords at most.
    #[must_use]
    pub fn remembering(self, max_age: Duration, most: usize) -> Self {
        let known = Arc::new(Known::new(max_age, most));
        Self { known, ..self }
    }

    /// Whether a password fits its verifier; hashes it on a blocking thread, unless it did fit a moment ago.
    pub async fn check(&self, shown: Shown) -> (AuthVerdict, Work) {
        let now = Instant::now();
        let Shown {
            account,
            verifier,
            password,
        } = shown;
        if self.known.has(&account, &verifier, &password, now) {
            return (AuthVerdict::Accepted(account), Work::Remembered);
        }
        let (known, memory) = (Arc::clone(&self.known), self.memory.clone());
        let checked = self.run(move || {
            let Ok(one) = Password::parse(&verifier) else {
                return (AuthVerdict::Refused, Work::Nothing);
            };
            if !one.verify_in(&mut memory.lend(), &password) {
                return (AuthVerdict::Refused, Work::Hashed);
            }
            known.keep(&account, &verifier, &password, Instant::now());
            (AuthVerdict::Accepted(account), Work::Hashed)
        });
        let checked = checked.await.unwrap_or((AuthVerdict::Busy, Work::Nothing));
        if matches!(checked, (AuthVerdict::Accepted(_), _)) {
            self.known.forget_in_time();
        }
        checked
    }

    /// Runs other work of a log-in on a blocking thread; none: too many others are at it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        let permit = timeout(self.patience, waiting).await.ok()?.ok()?;
        // The permit goes with the work: a client that hangs up does not make room for the next before it is done.
        let done = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.ok()
    }
}

/// Two checks per processor, three seconds of patience.
impl Default for AuthGate {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self::new(2 * processors, Duration::from_secs(3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_password;

    fn shown(verifier: &str, password: &str) -> Shown {
        Shown {
            account: "bob@a.example".to_owned(),
            verifier: Zeroizing::new(verifier.to_owned()),
            password: Zeroizing::new(password.as_bytes().to_vec()),
        }
    }

    fn accepted(work: Work) -> (AuthVerdict, Work) {
        (AuthVerdict::Accepted("bob@a.example".to_owned()), work)
    }

    const REFUSED: (AuthVerdict, Work) = (AuthVerdict::Refused, Work::Hashed);

    #[tokio::test]
    async fn full_means_busy() {
        let hash = hash_password(b"pw", [1; 16]).unwrap();
        let gate = AuthGate::new(1, Duration::from_millis(20));
        let verify = |password| gate.check(shown(&hash, password));
        assert_eq!(verify("pw").await, accepted(Work::Hashed));
        assert_eq!(verify("wrong").await, REFUSED);
        let held = Arc::clone(&gate.permits).acquire_owned().await.unwrap();
        assert_eq!(verify("pw").await, (AuthVerdict::Busy, Work::Nothing));
        drop(held);
        assert_eq!(verify("pw").await, accepted(Work::Hashed));
    }

    #[tokio::test]
    async fn what_was_right_is_not_hashed_again_and_what_was_wrong_is() {
        let [one, other] = [1, 2].map(|salt| hash_password(b"pw", [salt; 16]).unwrap());
        let gate = AuthGate::default().remembering(Duration::from_secs(60), 10);
        assert_eq!(gate.check(shown(&one, "pw")).await, accepted(Work::Hashed));
        let again = gate.check(shown(&one, "pw")).await;
        assert_eq!(again, accepted(Work::Remembered));
        for _ in 0..2 {
            assert_eq!(gate.check(shown(&one, "wrong")).await, REFUSED);
        }
        // The account has another verifier now.
        let changed = gate.check(shown(&other, "pw")).await;
        assert_eq!(changed, accepted(Work::Hashed));
    }
}
