//! The mail delivery agent: leases local mail and files it into Maildirs, exactly once.
//!
//! ```text
//! lease ─► place (directory) ─► copies ─► filing: content ─► tmp, ledger ◆, new ─► settle ─► ledger forgets
//!             ├► elsewhere: the account is of another store by now; the queue routes its mail anew
//!             ├► redirect: the address stands for others; a new mail goes to them
//!             └► nowhere: failed or delayed
//! ```
//!
//! [`Mda::bind`] opens the store and takes the ports, [`Mda::run`] works until shutdown, [`serve`] is both; [`run`] is
//! the whole of a process of its own. What it leans on are arguments ([`Dependencies`]).
//!
//! * An address is looked up when its mail is delivered, not when it was accepted.
//! * Of an account that is of another store nothing is filed, but what the ledger says was filed is settled so.
//! * Content beyond what travels in a lease is streamed from the queue to the disk, once for several mailboxes.
//! * Other mail systems hand mail over by LMTP (`mda.lmtp`); it goes through the queue like all other mail.
//! * Filing runs on blocking threads, bounded by `mda.concurrency`; a delivery that began is never cut short. Those that wait for
//!   the disk at the same time share its syncs (`mda.sync`).
//!
//! What can fail: a mailbox (an outcome, told to the queue), the queue (leases end, the worker connects again), the
//! store as a whole ([`MdaError`]). The ledger in `postroad-maildir` makes every repetition harmless.
#![forbid(unsafe_code)]

mod config;
mod error;
mod filers;
mod filing;
mod lmtp;
mod outcome;
mod place;
mod redirect;
mod syncs;
mod timeline;
mod upkeep;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Config, LmtpAddr, LmtpConfig, SyncConfig};
pub use error::MdaError;
use postroad_accounts::Accounts;
use postroad_daemon::{CommonConfig, DaemonError, ReloadPart, Start, machine_name};
use postroad_envelope::{RouteClass, StoreName};
use postroad_maildir::{MaildirError, Recovery, Store};
use postroad_metrics::Metrics;
use postroad_queue_client::worker::WorkerOptions;
use postroad_queue_client::{AttemptCounts, QueueNodes, QueueService};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::filers::Filers;
use crate::lmtp::Lmtp;
use crate::worker::Worker;

/// What the agent leans on.
#[derive(Clone)]
pub struct Dependencies {
    /// The queue, local or remote.
    pub queue: Arc<dyn QueueService>,
    /// Domains, accounts, aliases; kept current by their owner.
    pub accounts: Accounts,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The agent, its store open and its ports taken.
pub struct Mda {
    store: Store,
    name: StoreName,
    lmtp: Lmtp,
    dependencies: Dependencies,
    host: String,
    concurrency: u32,
    grace: Duration,
}

/// The whole of a process of its own: connects to the queue, knows the accounts, serves.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    if let Some(problem) = start.config.check(&start.file).into_iter().next() {
        return Err(problem.into());
    }
    let ready = start.health.check("maildir");
    let stop = start.shutdown.token().child_token();
    let common = &start.common;
    let queue = Arc::new(QueueNodes::configured(common).map_err(DaemonError::config)?);
    queue.count_certificate(&start.metrics);
    let asking = queue.keep_check(
        start.health.dependency("queue"),
        &start.metrics,
        stop.clone(),
    );
    let accounts = Accounts::configured(common, &start.metrics).map_err(DaemonError::config)?;
    let dependencies = Dependencies {
        queue: Arc::clone(&queue) as _,
        accounts: accounts.clone(),
        metrics: start.metrics,
    };
    let mda = Mda::bind(start.config, common, dependencies).await?;
    ready.ready();
    let reloads = vec![mda.reload_part()];
    let serving = async {
        let served = mda.run(stop.clone()).await;
        stop.cancel();
        served
    };
    let (served, (), (), (), ()) = tokio::join!(
        serving,
        start.reload.serve(reloads, stop.clone()),
        queue.watch_certificates(stop.clone()),
        accounts.keep(stop.clone()),
        asking
    );
    Ok(served?)
}

/// Runs the agent until `shutdown`, or until its store fails.
pub async fn serve(
    config: Config,
    common: &CommonConfig,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), MdaError> {
    Mda::bind(config, common, dependencies)
        .await?
        .run(shutdown)
        .await
}

impl Mda {
    /// Opens the store, which finishes what a crash interrupted, and takes the ports.
    pub async fn bind(
        config: Config,
        common: &CommonConfig,
        dependencies: Dependencies,
    ) -> Result<Self, MdaError> {
        let host = common.hostname.to_string();
        let name = config.store_name().map_err(MdaError::StoreName)?;
        let store = open_store(&config, &host).await?;
        syncs::count(&store, &dependencies.metrics);
        let lmtp = Lmtp::bind(
            &config.lmtp,
            common,
            &dependencies.queue,
            &dependencies.accounts,
            &dependencies.metrics,
        )?;
        Ok(Self {
            store,
            name,
            lmtp,
            dependencies,
            host,
            concurrency: config.concurrency.max(1),
            grace: common.shutdown_grace.into(),
        })
    }

    /// The bound TCP addresses for LMTP, in the order of the listeners' names.
    pub fn lmtp_addresses(&self) -> Vec<SocketAddr> {
        self.lmtp.addresses()
    }

    /// How a changed configuration is put into force while the agent runs: for conversations that begin from then on.
    pub fn reload_part(&self) -> ReloadPart {
        let renewal = self.lmtp.renewal();
        ReloadPart::new(
            "mda",
            config::LIVE,
            move |file, _, config: Config| match config.check(file).into_iter().next() {
                Some(problem) => Err(problem),
                None => Ok(renewal(config.lmtp)),
            },
        )
    }

    /// Works until `shutdown`, or until the store fails.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), MdaError> {
        let (queue, store) = (self.dependencies.queue, self.store);
        // The store's failure stops the rest as a shutdown does.
        let stop = shutdown.child_token();
        let store_closed = CancellationToken::new();
        let handler = Worker {
            store: store.clone(),
            name: self.name.clone(),
            queue: Arc::clone(&queue),
            accounts: self.dependencies.accounts,
            host: self.host.clone(),
            filers: Arc::new(Semaphore::new(self.concurrency as usize)),
            groups: Filers::new(store.clone()),
            store_closed: store_closed.clone(),
            decided: worker::Decided::default(),
            under_way: worker::UnderWay::default(),
            counts: AttemptCounts::new(&self.dependencies.metrics, &[RouteClass::Local]),
        };
        let options = WorkerOptions {
            agent: format!("mda@{}", self.host),
            host: machine_name(),
            classes: vec![RouteClass::Local],
            stores: vec![self.name],
            concurrency: self.concurrency,
            grace: self.grace,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(upkeep::run(store, Arc::clone(&queue), stop.clone()));
        tasks.spawn(self.lmtp.run(stop.clone()));
        tasks.spawn(postroad_queue_client::worker::run(
            queue,
            options,
            Arc::new(handler),
            stop.clone(),
        ));
        tokio::select! {
            () = stop.cancelled() => {}
            () = store_closed.cancelled() => {}
            panicked = first_panic(&mut tasks) => Err(panicked)?,
        }
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        match store_closed.is_cancelled() {
            true => Err(MdaError::StoreClosed),
            false => Ok(()),
        }
    }
}

/// Tasks end when they are told to, or by a fault of ours; some have nothing to do and end at once.
async fn first_panic(tasks: &mut JoinSet<()>) -> JoinError {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return error,
            None => std::future::pending().await,
        }
    }
}

async fn open_store(config: &Config, host: &str) -> Result<Store, MdaError> {
    let (root, host) = (config.mail_root.clone(), host.to_owned());
    let syncs = config.sync.options();
    let opened: Result<(Store, Recovery), MaildirError> =
        spawn_blocking(move || Store::open_with(&root, &host, syncs)).await?;
    let (store, recovery) = opened.map_err(MdaError::Store)?;
    if recovery.unsettled > 0 {
        tracing::info!(
            count = recovery.unsettled,
            "{} deliveries were decided and not yet forgotten; {} of them were finished now, the queue is asked which of them it still knows",
            recovery.unsettled,
            recovery.finished
        );
    }
    Ok(store)
}
