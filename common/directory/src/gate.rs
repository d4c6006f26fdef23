use std::{sync::Arc, thread, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Keeps the number of passwords that are checked at one time, and with it memory and processors, within bounds.
#[derive(Debug, Clone)]
pub struct AuthGate {
    permits: Arc<Semaphore>,
    patience: Duration,
}

/// What came of a log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthVerdict {
    /// Right; the name of the account (its folded address).
    Accepted(String),
    /// Unknown account, wrong password, no password, or disabled: nobody is told which.
    Refused,
    /// Too many others are being checked (454 4.7.0).
    Busy,
}

impl AuthGate {
    /// At most `permits` checks at one time; one that waited for longer than `patience` is told to come back.
    pub fn new(permits: usize, patience: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS))),
            patience,
        }
    }

    /// Runs a check on a blocking thread, which tells the name of the account if the password is its.
    pub async fn check(
        &self,
        check: impl FnOnce() -> Option<String> + Send + 'static,
    ) -> AuthVerdict {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        let Ok(Ok(permit)) = timeout(self.patience, waiting).await else {
            return AuthVerdict::Busy;
        };
        // The permit goes with the work: a client that hangs up does not make room for the next before it is done.
        let checked = spawn_blocking(move || {
            let _permit = permit;
            check()
        });
        match checked.await {
            Ok(Some(name)) => AuthVerdict::Accepted(name),
            Ok(None) => AuthVerdict::Refused,
            Err(_) => AuthVerdict::Busy,
        }
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
    use std::path::Path;

    use super::*;
    use crate::{Directory, hash_password};

    #[tokio::test]
    async fn full_means_busy() {
        let hash = hash_password(b"pw", [1; 16]).unwrap();
        let text = format!(
            "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"bob@a.example\"\npassword_hash = \"{hash}\"\n"
        );
        let directory = Arc::new(Directory::parse(Path::new("d.toml"), &text).unwrap());
        let gate = AuthGate::new(1, Duration::from_millis(20));
        let verify = |password: &'static str| {
            let directory = Arc::clone(&directory);
            gate.check(move || {
                let account = directory.verify("Bob@a.example", password.as_bytes());
                account.map(|account| account.name())
            })
        };
        assert_eq!(
            verify("pw").await,
            AuthVerdict::Accepted("bob@a.example".to_owned())
        );
        assert_eq!(verify("wrong").await, AuthVerdict::Refused);
        let held = Arc::clone(&gate.permits).acquire_owned().await.unwrap();
        assert_eq!(verify("pw").await, AuthVerdict::Busy);
        drop(held);
        assert_eq!(
            verify("pw").await,
            AuthVerdict::Accepted("bob@a.example".to_owned())
        );
    }
}
