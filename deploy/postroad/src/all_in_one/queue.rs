//! The queue of this process, and what happens when its disk fails: it alone starts again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use postroad_daemon::{Check, CommonConfig, DaemonError, ReloadPart, Shutdown};
use postroad_directory::DirectoryHandle;
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_metrics::Metrics;
use postroad_queue_client::{
    AdmitRequest, ContentStream, Count, Counted, QueueError, QueueService, Submission, Withdrawn,
    WorkChannel, WorkHello,
};
use postroad_queued::{Config, LocalQueue, RunningQueue, ServeError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The queue that runs at the moment. While there is none, callers hear that it is not available, which an SMTP client
/// hears as 451.
#[derive(Debug, Default)]
pub struct QueueSlot {
    current: ArcSwapOption<LocalQueue>,
}

impl QueueSlot {
    /// The queue, if it runs.
    pub fn queue(&self) -> Result<Arc<LocalQueue>, QueueError> {
        let away = || QueueError::Unavailable("the queue is starting again".to_owned());
        self.current.load_full().ok_or_else(away)
    }
}

#[async_trait]
impl QueueService for QueueSlot {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        self.queue()?.admit(request).await
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        self.queue()?.submit(envelope).await
    }

    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        self.queue()?.work(hello).await
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.queue()?.read(queue_id, offset).await
    }

    async fn read_part(
        &self,
        queue_id: QueueId,
        offset: u64,
        length: u64,
    ) -> Result<ContentStream, QueueError> {
        self.queue()?.read_part(queue_id, offset, length).await
    }

    async fn read_any(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.queue()?.read_any(queue_id, offset).await
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.queue()?.record(events).await
    }

    async fn count(&self, count: Count) -> Result<Counted, QueueError> {
        self.queue()?.count(count).await
    }

    async fn withdraw(&self, queue_id: QueueId, account: &str) -> Result<Withdrawn, QueueError> {
        self.queue()?.withdraw(queue_id, account).await
    }
}

/// Starts the queue, and starts it again after a failure of its storage.
pub struct QueueKeeper {
    /// As it is for the next start of a queue.
    pub config: Arc<ArcSwap<Config>>,
    pub common: Arc<CommonConfig>,
    pub directory: DirectoryHandle,
    pub slot: Arc<QueueSlot>,
    pub ready: Check,
    /// What the agents tell of the queue they lean on.
    pub leaning: Vec<Check>,
    pub metrics: Metrics,
}

impl QueueKeeper {
    /// How a changed configuration is put into force.
    pub fn reload_part(&self) -> ReloadPart {
        let (slot, next) = (Arc::clone(&self.slot), Arc::clone(&self.config));
        postroad_queued::reload_part(
            move || slot.queue().ok().map(|queue| LocalQueue::clone(&queue)),
            move |config| next.store(Arc::new(config.clone())),
        )
    }

    /// Opens the queue and gives it to the agents.
    pub async fn open(&self) -> Result<(LocalQueue, RunningQueue), ServeError> {
        let begun_with = self.config.load_full();
        let (queue, running) = postroad_queued::start(
            Config::clone(&begun_with),
            &self.common,
            self.directory.clone(),
            &self.metrics,
        )
        .await?;
        self.hand_out(Some(Arc::new(queue.clone())));
        let now = self.config.load_full();
        if !Arc::ptr_eq(&begun_with, &now) {
            // While it started nobody could tell it.
            queue.renew(Config::clone(&now));
        }
        Ok((queue, running))
    }

    /// Gives the agents a queue, or takes it away.
    fn hand_out(&self, queue: Option<Arc<LocalQueue>>) {
        let there = queue.is_some();
        self.slot.current.store(queue);
        for check in &self.leaning {
            match there {
                true => check.ready(),
                false => check.not_ready("the queue is away: it starts again"),
            }
        }
    }

    /// Runs the queue until told to stop. Ends early only if the configuration or the sockets do not work.
    pub async fn keep(
        self,
        first: (LocalQueue, RunningQueue),
        stop: Shutdown,
    ) -> Result<(), DaemonError> {
        let mut next = Ok(first);
        let mut pause = FIRST_PAUSE;
        loop {
            let failed = match next {
                Ok((queue, running)) => {
                    pause = FIRST_PAUSE;
                    let ended = self.live(queue, running, &stop).await;
                    self.hand_out(None);
                    match ended {
                        Err(failed) if mended_by_restart(&failed) => failed,
                        ended => return ended.map_err(ServeError::into_daemon_error),
                    }
                }
                Err(failed) => failed,
            };
            error!(event = "fault", task = "queued", error = %failed, delay_ms = pause.as_millis(), "the queue starts again");
            self.ready.not_ready(failed.to_string());
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.requested() => return Err(failed.into_daemon_error()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            next = self.open().await;
            if next.is_ok() {
                info!(event = "ready", task = "queued");
            }
        }
    }

    /// One life of the queue with its sockets. The sockets outlive the leases: workers of other processes must be
    /// able to settle while the queue drains.
    async fn live(
        &self,
        queue: LocalQueue,
        running: RunningQueue,
        stop: &Shutdown,
    ) -> Result<(), ServeError> {
        let (stop_queue, stop_sockets) = (CancellationToken::new(), CancellationToken::new());
        let grace = self.common.shutdown_grace.as_duration() / 2;
        let sockets = postroad_queued::serve_rpc(&queue, &self.common, stop_sockets.clone());
        let runs = running.run(stop_queue.clone(), grace);
        let health = async {
            queue.keep_check(&self.ready).await;
            std::future::pending::<()>().await;
        };
        tokio::pin!(sockets, runs, health);
        let served = tokio::select! {
            () = &mut health => None,
            ended = &mut runs => {
                self.hand_out(None);
                stop_sockets.cancel();
                let _ = sockets.await;
                return ended;
            }
            failed = &mut sockets => Some(failed),
            () = stop.requested() => None,
        };
        stop_queue.cancel();
        let ended = runs.await;
        stop_sockets.cancel();
        let served = match served {
            Some(served) => served,
            None => sockets.await,
        };
        ended.and(served)
    }
}

fn mended_by_restart(failed: &ServeError) -> bool {
    matches!(
        failed,
        ServeError::Disk(_) | ServeError::Index(_) | ServeError::Open { .. } | ServeError::Task(_)
    )
}

#[cfg(test)]
mod tests {
    use postroad_daemon::HealthState;
    use postroad_directory::Directory;

    use super::*;

    #[tokio::test]
    async fn without_a_queue_clients_are_told_to_come_again() {
        let slot = QueueSlot::default();
        let error = slot.record(Vec::new()).await.unwrap_err();
        assert_eq!(error.to_reply().code().to_string(), "451");
    }

    #[tokio::test]
    async fn agents_are_ready_while_there_is_a_queue() {
        let folder = tempfile::tempdir().unwrap();
        let directory = "[[domain]]\nname = \"demo.test\"\npostmaster = \"a@demo.test\"\n[[account]]\naddress = \"a@demo.test\"\n";
        let directory = Directory::parse("directory.toml".as_ref(), directory).unwrap();
        let (queued, msa) = (HealthState::new(), HealthState::new());
        let mut config = Config::default();
        config.disk.reserve_percent = 0;
        let keeper = QueueKeeper {
            config: Arc::new(ArcSwap::from_pointee(config)),
            common: Arc::new(CommonConfig {
                state_dir: folder.path().to_owned(),
                run_dir: folder.path().to_owned(),
                ..CommonConfig::default()
            }),
            directory: DirectoryHandle::from_directory(directory),
            slot: Arc::default(),
            ready: queued.check("queue"),
            leaning: vec![msa.dependency("queue")],
            metrics: Metrics::new("queued"),
        };
        assert!(!msa.is_ready());
        let (queue, running) = keeper.open().await.unwrap();
        assert!(msa.is_ready());
        let stop = CancellationToken::new();
        stop.cancel();
        running.run(stop, Duration::ZERO).await.unwrap();
        drop(queue);
        keeper.hand_out(None);
        let told = msa.snapshot("msa").checks["queue"].reason.clone();
        assert_eq!(told.as_deref(), Some("the queue is away: it starts again"));
    }
}
