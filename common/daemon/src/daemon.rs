//! The tasks of a process: their parent, how they stop, and in which order.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::error::DaemonError;
use crate::shutdown::Shutdown;

/// The parent of the main tasks. The end of any of them - done, failed or panicked - stops all; so
/// does SIGTERM or SIGINT. First the work is told to stop; once all of it has ended, the support
/// (what the work leans on: a queue, a health socket) is. Whatever has not ended within the grace
/// period is dropped; a second signal drops it at once.
pub struct Daemon {
    grace: Duration,
    work: Stage,
    support: Stage,
}

#[derive(Default)]
struct Stage {
    shutdown: Shutdown,
    tasks: JoinSet<Result<(), DaemonError>>,
    names: HashMap<Id, String>,
}

impl Daemon {
    /// Without tasks yet.
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            work: Stage::default(),
            support: Stage::default(),
        }
    }

    /// What the work listens to. Requesting it stops the daemon.
    pub fn shutdown(&self) -> Shutdown {
        self.work.shutdown.clone()
    }

    /// Starts a main task; it gets the [`Shutdown`] it must obey.
    pub fn spawn<F, T>(&mut self, name: impl Into<String>, task: F)
    where
        F: FnOnce(Shutdown) -> T,
        T: Future<Output = Result<(), DaemonError>> + Send + 'static,
    {
        self.work.spawn(name.into(), task);
    }

    /// Starts a task that is told to stop only when all of the work has ended.
    pub fn spawn_support<F, T>(&mut self, name: impl Into<String>, task: F)
    where
        F: FnOnce(Shutdown) -> T,
        T: Future<Output = Result<(), DaemonError>> + Send + 'static,
    {
        self.support.spawn(name.into(), task);
    }

    /// Runs until everything has ended, with SIGTERM and SIGINT as the request to stop.
    pub async fn run(self) -> Result<(), DaemonError> {
        let mut signals = Signals::new()?;
        self.run_until(async move || signals.next().await).await
    }

    /// As [`Daemon::run`], with the request to stop from elsewhere: the first time `stop_request`
    /// resolves everything is told to stop, the second time it is dropped.
    pub async fn run_until(
        mut self,
        mut stop_request: impl AsyncFnMut() -> &'static str,
    ) -> Result<(), DaemonError> {
        let shutdown = self.shutdown();
        let first = tokio::select! {
            ended = self.work.next() => ended,
            ended = self.support.next() => ended,
            reason = stop_request() => Ended::asked(reason),
            () = shutdown.requested() => Ended::asked("request"),
        };
        info!(event = "stopping", reason = %first.reason);
        let mut result = first.result;
        shutdown.request();

        let deadline = Instant::now() + self.grace;
        let mut drain = async || {
            for stage in [&mut self.work, &mut self.support] {
                stage.shutdown.request();
                while !stage.tasks.is_empty() {
                    let ended = stage.next().await;
                    if result.is_ok() {
                        result = ended.result;
                    }
                }
            }
        };
        let dropped = tokio::select! {
            () = drain() => None,
            () = sleep_until(deadline) => Some("the grace period is over"),
            reason = stop_request() => Some(reason),
        };
        if let Some(reason) = dropped {
            for stage in [&mut self.work, &mut self.support] {
                stage.drop_all(reason).await;
            }
        }
        result
    }
}

impl Stage {
    fn spawn<F, T>(&mut self, name: String, task: F)
    where
        F: FnOnce(Shutdown) -> T,
        T: Future<Output = Result<(), DaemonError>> + Send + 'static,
    {
        let handle = self.tasks.spawn(task(self.shutdown.clone()));
        self.names.insert(handle.id(), name);
    }

    /// The next task that ends; never resolves while there is none.
    async fn next(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(joined) => self.ended(joined),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, joined: Result<(Id, Result<(), DaemonError>), JoinError>) -> Ended {
        let (id, result) = match joined {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(DaemonError::software(error))),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        if let Err(error) = &result {
            error!(event = "fault", task = name, %error);
        }
        Ended {
            reason: format!("the task {name} ended"),
            result,
        }
    }

    async fn drop_all(&mut self, reason: &str) {
        for task in self.names.values() {
            warn!(event = "fault", task, reason, "dropped before its end");
        }
        self.tasks.shutdown().await;
    }
}

struct Ended {
    reason: String,
    result: Result<(), DaemonError>,
}

impl Ended {
    fn asked(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            result: Ok(()),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen = |kind| signal(kind).map_err(DaemonError::software);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn note(log: &Log, what: &'static str) {
        log.lock().unwrap().push(what);
    }

    async fn never() -> &'static str {
        std::future::pending().await
    }

    #[tokio::test]
    async fn the_end_of_one_task_stops_the_work_and_then_the_support() {
        let log = Log::default();
        let mut daemon = Daemon::new(Duration::from_secs(30));
        let at = log.clone();
        daemon.spawn_support("queue", async move |stop| {
            stop.requested().await;
            note(&at, "support");
            Ok(())
        });
        let at = log.clone();
        daemon.spawn("slow", async move |stop| {
            stop.requested().await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            note(&at, "slow work");
            Ok(())
        });
        daemon.spawn("short", async |_| Ok(()));
        daemon.run_until(never).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["slow work", "support"]);
    }

    #[tokio::test]
    async fn the_first_error_decides_the_status_and_a_panic_is_our_fault() {
        let mut daemon = Daemon::new(Duration::from_secs(30));
        daemon.spawn("busy", async |_| {
            Err(DaemonError::temporary("port 25 is busy"))
        });
        daemon.spawn("other", async |stop| {
            stop.requested().await;
            Err(DaemonError::software("late"))
        });
        let error = daemon.run_until(never).await.unwrap_err();
        assert_eq!(
            (error.status(), error.to_string()),
            (75, "port 25 is busy".to_owned())
        );

        let mut daemon = Daemon::new(Duration::from_secs(30));
        daemon.spawn("panics", async |_| panic!("on purpose"));
        assert_eq!(daemon.run_until(never).await.unwrap_err().status(), 70);
    }

    /// A daemon with one task that ignores the request to stop, ended by `stops` signals.
    async fn stubborn(stops: usize, grace: Duration) -> Result<(), DaemonError> {
        let (send, mut stop) = mpsc::channel(2);
        for _ in 0..stops {
            send.send("SIGTERM").await.unwrap();
        }
        let mut daemon = Daemon::new(grace);
        daemon.spawn("stubborn", async |_| std::future::pending().await);
        let request = async move || match stop.recv().await {
            Some(reason) => reason,
            None => never().await,
        };
        daemon.run_until(request).await
    }

    #[tokio::test]
    async fn the_grace_period_ends_a_stubborn_task_and_a_second_signal_does_at_once() {
        let grace = Duration::from_millis(50);
        let begun = Instant::now();
        stubborn(1, grace).await.unwrap();
        assert!(begun.elapsed() >= grace);
        let hour = Duration::from_secs(3600);
        let ended = tokio::time::timeout(Duration::from_secs(60), stubborn(2, hour)).await;
        ended
            .expect("a second signal does not wait for the grace period")
            .unwrap();
    }

    #[tokio::test]
    async fn a_request_from_within_stops_without_an_error() {
        let mut daemon = Daemon::new(Duration::from_secs(30));
        let request = daemon.shutdown();
        daemon.spawn("waits", async |stop| {
            stop.requested().await;
            Ok(())
        });
        request.request();
        assert!(daemon.run_until(never).await.is_ok());
    }
}
