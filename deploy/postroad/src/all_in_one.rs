//! The four agents in one process: the same crates as in four, with the queue handed over instead of dialled.

mod queue;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postroad_accounts::Accounts;
use postroad_daemon::{
    AgentConfig, Check, CommonConfig, ConfigFile, Daemon, DaemonError, HealthState, HttpServer,
    LogControl, Observed, Reload, Shutdown, counted, health_socket, serve_health,
};
use postroad_directory::DirectoryHandle;
use postroad_dns::ResolverOptions;
use postroad_metrics::Metrics;
use postroad_queue_client::QueueService;
use tracing::{Instrument, info_span, warn};

use queue::QueueKeeper;
pub use queue::QueueSlot;

/// How often the directory file is looked at.
const DIRECTORY_WATCH: Duration = Duration::from_millis(500);

/// Everything a whole Postroad is configured by.
#[derive(Debug, Clone)]
pub struct Whole {
    /// `[common]`.
    pub common: CommonConfig,
    file: ConfigFile,
    queued: postroad_queued::Config,
    msa: postroad_msa::Config,
    mta: postroad_mta::Config,
    mda: postroad_mda::Config,
}

impl Whole {
    /// Reads every section, and refuses what cannot work.
    pub fn load(path: &Path) -> Result<Self, DaemonError> {
        let file = ConfigFile::load(path)?;
        let whole = Self {
            common: file.common()?,
            queued: file.section("queued")?,
            msa: file.section("msa")?,
            mta: file.section("mta")?,
            mda: file.section("mda")?,
            file,
        };
        let problems = [
            whole.msa.check(&whole.file),
            whole.mta.check(&whole.file),
            whole.mda.check(&whole.file),
        ];
        match problems.into_iter().flatten().next() {
            Some(problem) => Err(problem.into()),
            None => Ok(whole),
        }
    }

    /// Starts the agents as tasks of `daemon`. When this returns the queue is open and all ports are taken.
    pub async fn start(
        self,
        daemon: &mut Daemon,
        log: LogControl,
    ) -> Result<Arc<QueueSlot>, DaemonError> {
        self.mta.warn_of_sources(&self.file);
        let reload = Reload::new(self.file, log)?;
        let common = Arc::new(self.common);
        make_run_dir(&common.run_dir);
        let directory = DirectoryHandle::open(&common.directory).map_err(DaemonError::config)?;
        let resolver = ResolverOptions::from(&common.dns)
            .open()
            .map_err(DaemonError::config)?;
        let slot = Arc::new(QueueSlot::default());
        let queue: Arc<dyn QueueService> = slot.clone();
        let agents = Agents::new();
        let http = agents
            .bind([&self.queued, &self.msa, &self.mta, &self.mda])
            .await?;

        // Whoever leans on the queue is not ready by that alone.
        let (leaning, filing) = (agents.leaning(), agents.mda.health.check("maildir"));

        // The ports first: a busy one shall not cost the opening of a queue.
        let ready = agents.msa.health.check("listeners");
        let dependencies = postroad_msa::Dependencies {
            queue: Arc::clone(&queue),
            accounts: Accounts::of_file(directory.clone(), &agents.msa.metrics),
            resolver: Arc::clone(&resolver),
            metrics: agents.msa.metrics.clone(),
        };
        let msa = postroad_msa::Msa::bind(self.msa, &common, dependencies)?;
        ready.ready();
        let ready = agents.mta.health.check("mta");
        let dependencies = postroad_mta::Dependencies {
            queue: Arc::clone(&queue),
            accounts: Accounts::of_file(directory.clone(), &agents.mta.metrics),
            resolver: Arc::clone(&resolver),
            metrics: agents.mta.metrics.clone(),
        };
        let mta = postroad_mta::Mta::bind(self.mta, &common, dependencies)?;
        ready.ready();

        let keeper = QueueKeeper {
            config: Arc::new(ArcSwap::from_pointee(self.queued)),
            common: Arc::clone(&common),
            directory: directory.clone(),
            slot: Arc::clone(&slot),
            ready: agents.queued.health.check("queue"),
            leaning,
            metrics: agents.queued.metrics.clone(),
        };
        let first = keeper
            .open()
            .await
            .map_err(postroad_queued::ServeError::into_daemon_error)?;
        let mut reloads = vec![keeper.reload_part(), msa.reload_part(), mta.reload_part()];
        support(daemon, "queued", async move |stop| {
            keeper.keep(first, stop).await
        });
        let watched = directory.clone();
        support(
            daemon,
            "directory",
            async move |stop: postroad_daemon::Shutdown| {
                watched.watch(DIRECTORY_WATCH, stop.token().clone()).await;
                Ok(())
            },
        );
        agents.serve(daemon, &common, http);

        work(daemon, "msa", async move |stop| {
            msa.run(stop).await;
            Ok(())
        });
        work(daemon, "mta", async move |stop| {
            mta.run(stop).await;
            Ok(())
        });
        let dependencies = postroad_mda::Dependencies {
            queue,
            accounts: Accounts::of_file(directory, &agents.mda.metrics),
            metrics: agents.mda.metrics.clone(),
        };
        let mda = postroad_mda::Mda::bind(self.mda, &common, dependencies).await?;
        filing.ready();
        reloads.push(mda.reload_part());
        support(
            daemon,
            "reload",
            async move |stop: postroad_daemon::Shutdown| {
                reload.serve(reloads, stop.token().clone()).await;
                Ok(())
            },
        );
        work(daemon, "mda", async move |stop| Ok(mda.run(stop).await?));
        Ok(slot)
    }
}

/// Starts an agent whose log lines carry its name.
fn work<F>(
    daemon: &mut Daemon,
    agent: &'static str,
    serve: impl FnOnce(tokio_util::sync::CancellationToken) -> F,
) where
    F: Future<Output = Result<(), DaemonError>> + Send + 'static,
{
    daemon.spawn(agent, |stop| {
        serve(stop.token().clone()).instrument(info_span!("agent", agent))
    });
}

/// Starts what the agents lean on.
fn support<F>(
    daemon: &mut Daemon,
    name: &'static str,
    serve: impl FnOnce(postroad_daemon::Shutdown) -> F,
) where
    F: Future<Output = Result<(), DaemonError>> + Send + 'static,
{
    daemon.spawn_support(name, |stop| {
        serve(stop).instrument(info_span!("agent", agent = name))
    });
}

/// How each agent stands and what it counts, behind the addresses it would have in a process of its own.
struct Agents {
    queued: Observed,
    msa: Observed,
    mta: Observed,
    mda: Observed,
}

/// Addresses that are taken, with the agents that are told about there.
type Http = Vec<(HttpServer, Vec<Observed>)>;

impl Agents {
    fn new() -> Self {
        let agent = |name| Observed {
            health: HealthState::new(),
            metrics: Metrics::new(name),
        };
        Self {
            queued: agent("queued"),
            msa: agent("msa"),
            mta: agent("mta"),
            mda: agent("mda"),
        }
    }

    fn all(&self) -> [&Observed; 4] {
        [&self.queued, &self.msa, &self.mta, &self.mda]
    }

    /// Checks of those that lean on the queue.
    fn leaning(&self) -> Vec<Check> {
        let agents = [&self.msa, &self.mta, &self.mda];
        let check = |agent: &Observed| agent.health.dependency("queue");
        agents.map(check).into()
    }

    /// Agents may share an address.
    async fn bind(&self, sections: [&dyn AgentConfig; 4]) -> Result<Http, DaemonError> {
        let mut by_address: BTreeMap<SocketAddr, Vec<Observed>> = BTreeMap::new();
        for (agent, section) in self.all().into_iter().zip(sections) {
            if let Some(address) = section.http().listen.0 {
                by_address.entry(address).or_default().push(agent.clone());
            }
        }
        let mut http = Vec::new();
        for (address, agents) in by_address {
            http.push((HttpServer::bind(address).await?, agents));
        }
        Ok(http)
    }

    fn serve(&self, daemon: &mut Daemon, common: &CommonConfig, http: Http) {
        for agent in self.all() {
            let (name, agent) = (agent.metrics.agent(), agent.clone());
            let socket = health_socket(&common.run_dir, name);
            support(daemon, name, async move |stop: Shutdown| {
                if let Err(error) = serve_health(&socket, agent, stop.clone()).await {
                    // Without it nobody can ask, but the mail goes on.
                    warn!(path = %socket.display(), %error, "cannot serve the health socket");
                    stop.requested().await;
                }
                Ok(())
            });
        }
        let process = counted("postroad", env!("CARGO_PKG_VERSION"));
        for (server, agents) in http {
            let process = Some(process.clone());
            support(daemon, "http", async move |stop: Shutdown| {
                server.serve(agents, process, stop).await;
                Ok(())
            });
        }
    }
}

fn make_run_dir(path: &Path) {
    if let Err(error) = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
    {
        warn!(path = %path.display(), %error, "cannot create the folder of sockets");
    }
}
