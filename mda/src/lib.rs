//! The mail delivery agent: leases local mail and files it into Maildirs, exactly once.
//!
//! ```text
//! lease ─► place (directory) ─► copies ─► filing: content ─► tmp, ledger ◆, new ─► settle ─► ledger forgets
//!             ├► redirect: the address stands for others; a new mail goes to them
//!             └► nowhere: failed or delayed
//! ```
//!
//! * [`serve`] opens the store, takes leases of class `local` and ends with the shutdown.
//! * An address is looked up when its mail is delivered, not when it was accepted.
//! * Content beyond what travels in a lease is streamed from the queue to the disk, once for several mailboxes.
//! * Filing runs on blocking threads, bounded by `mda.concurrency`; a delivery that began is never cut short.
//!
//! What can fail: a mailbox (an outcome, told to the queue), the queue (leases end, the worker connects again), the
//! store as a whole ([`MdaError`]). The ledger in `postroad-maildir` makes every repetition harmless.
#![forbid(unsafe_code)]

mod config;
mod error;
mod filing;
mod outcome;
mod place;
mod redirect;
mod timeline;
mod upkeep;
mod worker;

use std::sync::Arc;
use std::time::Duration;

pub use config::Config;
pub use error::MdaError;
use postroad_daemon::{CommonConfig, DaemonError, HealthState, Start};
use postroad_directory::DirectoryHandle;
use postroad_envelope::RouteClass;
use postroad_maildir::{MaildirError, Recovery, Store};
use postroad_queue_client::worker::WorkerOptions;
use postroad_queue_client::{QueueService, RemoteQueue};
use postroad_rpc::{Endpoint, RpcTls};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::worker::Worker;

const DIRECTORY_WATCH: Duration = Duration::from_secs(2);

/// What the agent leans on.
pub struct Dependencies {
    /// The queue, local or remote.
    pub queue: Arc<dyn QueueService>,
    /// Domains, accounts, aliases; kept current by its owner.
    pub directory: DirectoryHandle,
    /// Where the agent tells what works.
    pub health: HealthState,
}

/// The whole of a process of its own: connects to the queue, reads and watches the directory, serves.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    let common = &start.common;
    let endpoint: Endpoint = common.queue.parse().map_err(DaemonError::config)?;
    let tls = common.tls.clone().map(|files| RpcTls {
        ca_file: files.ca_file,
        cert_file: files.cert_file,
        key_file: files.key_file,
    });
    let queue = RemoteQueue::connect(&endpoint, tls.as_ref()).map_err(DaemonError::config)?;
    let directory = DirectoryHandle::open(&common.directory).map_err(DaemonError::config)?;
    let stop = start.shutdown.token().child_token();
    let watching = directory.clone().watch(DIRECTORY_WATCH, stop.clone());
    let dependencies = Dependencies {
        queue: Arc::new(queue),
        directory,
        health: start.health,
    };
    let serving = async {
        let served = serve(start.config, common, dependencies, stop.clone()).await;
        stop.cancel();
        served
    };
    let (served, ()) = tokio::join!(serving, watching);
    Ok(served?)
}

/// Works until `shutdown`, or until the store fails.
pub async fn serve(
    config: Config,
    common: &CommonConfig,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), MdaError> {
    let Dependencies {
        queue,
        directory,
        health,
    } = dependencies;
    let ready = health.check("maildir");
    let host = common.hostname.to_string();
    let store = open_store(&config, &host).await?;

    // The store's failure stops the rest as a shutdown does.
    let stop = shutdown.child_token();
    let (timeline, events) = mpsc::channel(timeline::BACKLOG);
    let concurrency = config.concurrency.max(1);
    let handler = Worker {
        store: store.clone(),
        queue: Arc::clone(&queue),
        directory,
        host: host.clone(),
        filers: Arc::new(Semaphore::new(concurrency as usize)),
        timeline,
        store_closed: CancellationToken::new(),
        decided: worker::Decided::default(),
    };
    let store_closed = handler.store_closed.clone();
    let options = WorkerOptions {
        agent: format!("mda@{host}"),
        host,
        classes: vec![RouteClass::Local],
        concurrency,
        grace: common.shutdown_grace.as_duration(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(timeline::record(Arc::clone(&queue), events));
    tasks.spawn(upkeep::run(store, Arc::clone(&queue), stop.clone()));
    tasks.spawn(postroad_queue_client::worker::run(
        queue,
        options,
        Arc::new(handler),
        stop.clone(),
    ));
    ready.ready();
    // No task ends by itself; one that does has failed.
    let first = tokio::select! {
        () = stop.cancelled() => None,
        () = store_closed.cancelled() => None,
        ended = tasks.join_next() => ended,
    };
    ready.not_ready("stopping");
    stop.cancel();
    first.transpose()?;
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    if store_closed.is_cancelled() {
        return Err(MdaError::StoreClosed);
    }
    Ok(())
}

async fn open_store(config: &Config, host: &str) -> Result<Store, MdaError> {
    let (root, host) = (config.mail_root.clone(), host.to_owned());
    let opened: Result<(Store, Recovery), MaildirError> =
        spawn_blocking(move || Store::open(&root, &host)).await?;
    let (store, recovery) = opened.map_err(MdaError::Store)?;
    if recovery.unsettled > 0 {
        tracing::info!(
            count = recovery.unsettled,
            "{} deliveries were decided and not settled; {} of them were finished now",
            recovery.unsettled,
            recovery.finished
        );
    }
    Ok(store)
}
