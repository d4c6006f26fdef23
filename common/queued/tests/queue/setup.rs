//! A queue in a folder of its own, and a worker that speaks by hand.

use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt;
use postroad_address::ReversePath;
use postroad_daemon::{ByteSize, CommonConfig, Interval};
use postroad_directory::DirectoryHandle;
use postroad_envelope::{
    Cause, Envelope, LeaseRef, Outcome, QueueId, Recipient, RecipientIndex, RouteClass,
    StatusReport, Timestamp,
};
use postroad_journal::JournalError;
use postroad_metrics::Metrics;
use postroad_queue_client::{
    Accepted, Change, Completion, Filter, FormerStream, HeldLease, Lease, Permit, Permitted,
    QueueAdmin, QueueError, QueueService, SettleResult, Settlement, SiteTry, WorkChannel, WorkDown,
    WorkHello, WorkUp,
};
use postroad_queued::{Config, LocalQueue, RunningQueue, ServeError, start};
use postroad_reply::{
    BAD_MAILBOX_5_1_1, DELIVERED_2_6_0, EnhancedStatusCode, NO_ANSWER_4_4_1, SUCCESS_2_0_0,
};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longer than any step takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const DIRECTORY: &str = r#"
[[domain]]
name = "local.test"
postmaster = "alice@local.test"

[[account]]
address = "alice@local.test"

[[account]]
address = "bob@local.test"

[[alias]]
address = "team@local.test"
to = ["bob@local.test", "carol@far.test"]
"#;

/// A running queue.
pub struct Stack {
    pub queue: LocalQueue,
    pub folder: Arc<TempDir>,
    pub config: Config,
    pub directory: DirectoryHandle,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.retry.first = Interval::millis(200);
    config.retry.max = Interval::millis(400);
    config.lease.stream_grace = Interval::millis(200);
    config.lease.resume_grace = Interval::millis(500);
    config.dsn.gather = Interval::millis(100);
    config.disk.reserve_percent = 0;
    config.disk.reserve = ByteSize::bytes(0);
    config.disk.segment = ByteSize::mib(4);
    config.disk.index_cache = ByteSize::mib(8);
    config
}

pub fn common(folder: &Path) -> CommonConfig {
    CommonConfig {
        hostname: "mail.local.test".parse().unwrap(),
        state_dir: folder.join("state"),
        run_dir: folder.join("run"),
        queue: format!("unix:{}", folder.join("run/queue.sock").display()).into(),
        directory: folder.join("directory.toml"),
        ..CommonConfig::default()
    }
}

pub fn prepare(folder: &Path) {
    std::fs::create_dir_all(folder.join("run")).unwrap();
    let directory = folder.join("directory.toml");
    if !directory.exists() {
        std::fs::write(&directory, DIRECTORY).unwrap();
    }
}

impl Stack {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: Config) -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().unwrap()), config).await
    }

    pub async fn in_folder(folder: Arc<TempDir>, config: Config) -> Self {
        Self::with_grace(folder, config, Duration::from_millis(100)).await
    }

    pub async fn with_grace(folder: Arc<TempDir>, config: Config, grace: Duration) -> Self {
        prepare(folder.path());
        let common = common(folder.path());
        let directory = DirectoryHandle::open(&common.directory).unwrap();
        let started = start_when_free(&config, &common, &directory).await;
        let (queue, running) = started.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(running.run(stop.clone(), grace));
        queue.caught_up().await;
        Self {
            queue,
            folder,
            config,
            directory,
            stop,
            running,
        }
    }

    pub async fn stop(self) -> Arc<TempDir> {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.folder
    }

    /// Ended by itself.
    pub async fn ended(self) -> Result<(), ServeError> {
        timeout(PATIENCE, self.running)
            .await
            .expect("ends in time")
            .unwrap()
    }

    pub async fn restart(self) -> Self {
        let config = self.config.clone();
        let folder = self.stop().await;
        Self::in_folder(folder, config).await
    }
}

/// A child that another test spawns has a copy of our lock from its fork to its exec, and nobody tells when that is over.
pub async fn start_when_free(
    config: &Config,
    common: &CommonConfig,
    directory: &DirectoryHandle,
) -> Result<(LocalQueue, RunningQueue), ServeError> {
    let begun = Instant::now();
    loop {
        match start(
            config.clone(),
            common,
            directory.clone(),
            &Metrics::new("queued"),
        )
        .await
        {
            Err(ServeError::Open {
                source: JournalError::Locked { .. },
                ..
            }) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(10)).await,
            other => return other,
        }
    }
}

/// A mail with a fresh id.
pub fn mail(sender: &str, recipients: &[&str]) -> Envelope {
    let now = Timestamp::from(std::time::SystemTime::now());
    let id = QueueId::mint(now, rand::random());
    let mut envelope = Envelope::new(id, ReversePath::parse(sender).unwrap(), now);
    envelope.recipients = (0..)
        .zip(recipients)
        .map(|(index, address)| Recipient::new(RecipientIndex(index), address.parse().unwrap()))
        .collect();
    envelope
}

pub async fn submit(
    queue: &dyn QueueService,
    envelope: &Envelope,
    content: &[u8],
) -> Result<Accepted, QueueError> {
    let mut submission = queue.submit(envelope.clone()).await?;
    for chunk in content.chunks(64 << 10) {
        submission.chunk(Bytes::copy_from_slice(chunk)).await?;
    }
    let size = content.len() as u64;
    submission
        .finish(Completion {
            size,
            ..Completion::default()
        })
        .await
}

/// Changes mails; tells how many.
pub async fn change(
    queue: &dyn QueueAdmin,
    change: Change,
    filter: Filter,
) -> Result<u64, QueueError> {
    let changed = queue.change(change, filter.into()).await?;
    Ok(changed.mails)
}

/// A worker by hand.
fn hello(
    agent: &str,
    classes: &[RouteClass],
    held: &[LeaseRef],
    former: Option<FormerStream>,
) -> WorkHello {
    WorkHello {
        stores: Vec::new(),
        agent: agent.to_owned(),
        version: "0".to_owned(),
        host: "localhost".to_owned(),
        classes: classes.to_vec(),
        held: held.iter().map(|&lease| HeldLease { lease }).collect(),
        former,
        joins: false,
    }
}

pub struct Worker {
    pub channel: WorkChannel,
    /// Of the queue's start.
    pub epoch: u64,
    /// Which of its streams this is.
    pub stream: u64,
    pub resumed: Vec<(LeaseRef, Option<LeaseRef>)>,
    /// Leases that came before an answer that was waited for.
    early: VecDeque<Lease>,
}

impl Worker {
    pub async fn connect(queue: &dyn QueueService, classes: &[RouteClass]) -> Self {
        Self::reconnect(queue, classes, &[]).await
    }

    /// By whom this stream is known after it broke.
    pub fn former(&self) -> FormerStream {
        FormerStream {
            epoch: self.epoch,
            stream: self.stream,
        }
    }

    pub async fn reconnect(
        queue: &dyn QueueService,
        classes: &[RouteClass],
        held: &[LeaseRef],
    ) -> Self {
        Self::come_back(queue, "test@localhost", classes, held, None).await
    }

    pub async fn come_back(
        queue: &dyn QueueService,
        agent: &str,
        classes: &[RouteClass],
        held: &[LeaseRef],
        former: Option<FormerStream>,
    ) -> Self {
        Self::enter(queue, hello(agent, classes, held, former)).await
    }

    /// One that carries out jobs of one mail together.
    pub async fn joining(
        queue: &dyn QueueService,
        classes: &[RouteClass],
        held: &[LeaseRef],
    ) -> Self {
        let hello = WorkHello {
            joins: true,
            ..hello("test@localhost", classes, held, None)
        };
        Self::enter(queue, hello).await
    }

    pub async fn enter(queue: &dyn QueueService, hello: WorkHello) -> Self {
        let mut channel = queue.work(hello).await.unwrap();
        let Some(Ok(WorkDown::Welcome {
            epoch,
            stream,
            resumed,
            ..
        })) = channel.down.next().await
        else {
            panic!("no welcome")
        };
        Self {
            channel,
            epoch,
            stream,
            resumed,
            early: VecDeque::new(),
        }
    }

    pub async fn say(&mut self, up: WorkUp) {
        self.channel.up.send(up).await.unwrap();
    }

    pub async fn hear(&mut self) -> WorkDown {
        let next = timeout(PATIENCE, self.channel.down.next()).await;
        next.expect("in time").expect("goes on").expect("no error")
    }

    pub async fn lease(&mut self) -> Lease {
        self.say(WorkUp::Credits(1)).await;
        self.next_lease().await
    }

    pub async fn next_lease(&mut self) -> Lease {
        if let Some(lease) = self.early.pop_front() {
            return lease;
        }
        loop {
            if let WorkDown::Lease(lease) = self.hear().await {
                return *lease;
            }
        }
    }

    /// Asks for one connection there. What the site lets through may come before the answer: the dispatcher has a thread of
    /// its own.
    pub async fn permitted(&mut self, lease: &Lease, site: &str) -> Permitted {
        let permit = Permit {
            request: 7,
            site: site.to_owned(),
            connections: 1,
            lease: lease.lease,
        };
        self.say(WorkUp::Permit(permit)).await;
        loop {
            match self.hear().await {
                WorkDown::Permitted(permitted) => return permitted,
                WorkDown::Lease(lease) => self.early.push_back(*lease),
                other => panic!("{other:?}"),
            }
        }
    }

    /// As a worker that looked its mail hosts up: it may connect there, and its destination has turns again.
    pub async fn found_site(&mut self, lease: &Lease, site: &str) {
        let permitted = Permitted {
            request: 7,
            connections: 1,
            retry_after: Duration::ZERO,
        };
        assert_eq!(self.permitted(lease, site).await, permitted);
    }

    /// The absence of an event has no event to wait for: waits a moment.
    pub async fn expect_nothing(&mut self, moment: Duration) {
        assert!(self.early.is_empty(), "unexpected: {:?}", self.early);
        if let Ok(heard) = timeout(moment, self.channel.down.next()).await {
            panic!("unexpected: {heard:?}");
        }
    }

    pub async fn settle(&mut self, lease: &Lease, outcome: &Outcome) -> SettleResult {
        let outcomes = lease.envelope.recipients.iter();
        let outcomes = outcomes.map(|to| (to.index, outcome.clone())).collect();
        self.settle_each(lease.lease, outcomes).await
    }

    pub async fn settle_each(
        &mut self,
        lease: LeaseRef,
        outcomes: Vec<(RecipientIndex, Outcome)>,
    ) -> SettleResult {
        self.settle_by(None, lease, outcomes, Vec::new()).await
    }

    /// As a worker that gave the mail to hosts that report these recipients' success.
    pub async fn settle_reporting(
        &mut self,
        lease: LeaseRef,
        outcomes: Vec<(RecipientIndex, Outcome)>,
        reporting: Vec<RecipientIndex>,
    ) -> SettleResult {
        self.settle_by(None, lease, outcomes, reporting).await
    }

    /// As a worker that found these mail hosts.
    pub async fn settle_at(
        &mut self,
        site: &str,
        lease: LeaseRef,
        outcomes: Vec<(RecipientIndex, Outcome)>,
    ) -> SettleResult {
        let site = Some(site.to_owned());
        self.settle_by(site, lease, outcomes, Vec::new()).await
    }

    async fn settle_by(
        &mut self,
        site: Option<String>,
        lease: LeaseRef,
        outcomes: Vec<(RecipientIndex, Outcome)>,
        reporting: Vec<RecipientIndex>,
    ) -> SettleResult {
        let started_at = Timestamp::from(std::time::SystemTime::now());
        let settlement = Settlement {
            elsewhere: Vec::new(),
            reporting,
            timed: Vec::new(),
            lease,
            outcomes,
            sites: site
                .into_iter()
                .map(|site| SiteTry { site, result: None })
                .collect(),
            started_at,
        };
        self.say(WorkUp::Settle(settlement)).await;
        loop {
            match self.hear().await {
                WorkDown::Settled {
                    lease: settled,
                    result,
                } if settled == lease => return result,
                WorkDown::Lease(lease) => self.early.push_back(*lease),
                _ => {}
            }
        }
    }
}

fn report(status: EnhancedStatusCode, text: &str) -> StatusReport {
    StatusReport::local(status, text)
}

pub fn delivered() -> Outcome {
    Outcome::Delivered(report(DELIVERED_2_6_0, "filed"))
}

pub fn relayed() -> Outcome {
    Outcome::Relayed(report(SUCCESS_2_0_0, "mx.far.test took it"))
}

pub fn delayed() -> Outcome {
    Outcome::Delayed(report(NO_ANSWER_4_4_1, "nobody answers"))
}

/// As the queue keeps an outcome, with the cause it finds.
pub fn because(cause: Cause, mut outcome: Outcome) -> Outcome {
    outcome.report_mut().cause = Some(cause);
    outcome
}

pub fn failed() -> Outcome {
    Outcome::Failed(report(BAD_MAILBOX_5_1_1, "no such user here"))
}
