//! The four agents in one process: the same crates as in four, with the queue handed over instead of dialled.

mod queue;

use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroad_daemon::{
    CommonConfig, ConfigFile, Daemon, DaemonError, HealthState, health_socket, serve_health,
};
use postroad_directory::DirectoryHandle;
use postroad_dns::ResolverOptions;
use postroad_queue_client::QueueService;
use tracing::{Instrument, info_span, warn};

use queue::QueueKeeper;
pub use queue::QueueSlot;

/// How often the directory file is looked at.
const DIRECTORY_WATCH: Duration = Duration::from_secs(2);

/// Everything a whole Postroad is configured by.
#[derive(Debug, Clone)]
pub struct Whole {
    /// `[common]`.
    pub common: CommonConfig,
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
        };
        let problems = [
            whole.msa.check(&file),
            whole.mta.check(&file),
            whole.mda.check(&file),
        ];
        match problems.into_iter().flatten().next() {
            Some(problem) => Err(problem.into()),
            None => Ok(whole),
        }
    }

    /// Starts the agents as tasks of `daemon`. When this returns the queue is open and all ports are taken.
    pub async fn start(self, daemon: &mut Daemon) -> Result<Arc<QueueSlot>, DaemonError> {
        let common = Arc::new(self.common);
        make_run_dir(&common.run_dir);
        let directory = DirectoryHandle::open(&common.directory).map_err(DaemonError::config)?;
        let resolver = ResolverOptions::from(&common.dns)
            .open()
            .map_err(DaemonError::config)?;
        let slot = Arc::new(QueueSlot::default());
        let queue: Arc<dyn QueueService> = slot.clone();
        let health = Agents::default();

        // The ports first: a busy one shall not cost the opening of a queue.
        let ready = health.msa.check("listeners");
        let dependencies = postroad_msa::Dependencies {
            queue: Arc::clone(&queue),
            directory: directory.clone(),
            resolver: Arc::clone(&resolver),
        };
        let msa = postroad_msa::Msa::bind(self.msa, &common, dependencies)?;
        ready.ready();
        let ready = health.mta.check("mta");
        let dependencies = postroad_mta::Dependencies {
            queue: Arc::clone(&queue),
            directory: directory.clone(),
            resolver: Arc::clone(&resolver),
        };
        let mta = postroad_mta::Mta::bind(self.mta, &common, dependencies)?;
        ready.ready();

        let keeper = QueueKeeper {
            config: self.queued,
            common: Arc::clone(&common),
            directory: directory.clone(),
            slot: Arc::clone(&slot),
            ready: health.queued.check("queue"),
        };
        let first = keeper
            .open()
            .await
            .map_err(postroad_queued::ServeError::into_daemon_error)?;
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
        health.serve(daemon, &common);

        work(daemon, "msa", async move |stop| {
            msa.run(stop).await;
            Ok(())
        });
        work(daemon, "mta", async move |stop| {
            mta.run(stop).await;
            Ok(())
        });
        let ready = health.mda.check("maildir");
        let dependencies = postroad_mda::Dependencies { queue, directory };
        let mda = postroad_mda::Mda::bind(self.mda, &common, dependencies).await?;
        ready.ready();
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

/// How each agent stands, behind the socket it would have in a process of its own.
#[derive(Default)]
struct Agents {
    queued: HealthState,
    msa: HealthState,
    mta: HealthState,
    mda: HealthState,
}

impl Agents {
    fn serve(&self, daemon: &mut Daemon, common: &CommonConfig) {
        let states = [
            ("queued", &self.queued),
            ("msa", &self.msa),
            ("mta", &self.mta),
            ("mda", &self.mda),
        ];
        for (agent, state) in states {
            let (socket, state) = (health_socket(&common.run_dir, agent), state.clone());
            support(
                daemon,
                agent,
                async move |stop: postroad_daemon::Shutdown| {
                    if let Err(error) = serve_health(&socket, agent, state, stop.clone()).await {
                        // Without it nobody can ask, but the mail goes on.
                        warn!(path = %socket.display(), %error, "cannot serve the health socket");
                        stop.requested().await;
                    }
                    Ok(())
                },
            );
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
