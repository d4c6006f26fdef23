//! The mail submission agent (RFC 6409): takes mail from the people whose accounts are ours.
//!
//! ```text
//! 587 (STARTTLS) ┐
//! 465 (TLS)      ┴► smtpd ─► policy: AUTH (directory, bounded), sender, recipients, completion ─► queue ◆ ─► 250
//! ```
//!
//! [`Msa::bind`] takes the ports, [`Msa::run`] works until shutdown, [`serve`] is both; [`run`] is the whole of a
//! process of its own. What it leans on are arguments ([`Dependencies`]).
//!
//! * Nothing but EHLO, STARTTLS and QUIT without TLS, no MAIL without AUTH, no sender an account may not use.
//! * Failed log-ins of a network make its answers slow and then get it banned; accounts have sending limits. Both are counted
//!   by way of the queue for all copies of the agent, and by each alone while the queue is away.
//! * Aliases of ours expand at RCPT; other recipients are taken as they are.
//! * Date and Message-ID are added when missing, Bcc is taken out; all are header edits, the content stays as it came.
//!
//! What can fail: only the start ([`MsaError`]). Afterwards a client gets a reply: 4yz while queue or directory cannot
//! serve, and then nothing was taken.
#![forbid(unsafe_code)]

mod bans;
mod complete;
mod config;
mod error;
mod policy;
mod port;
pub mod rules;
mod sending;
mod together;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{AuthConfig, Config};
pub use error::MsaError;
use postroad_accounts::Accounts;
use postroad_daemon::{Apply, CommonConfig, DaemonError, ReloadPart, Start};
use postroad_dns::{Resolver, ResolverOptions};
use postroad_metrics::Metrics;
use postroad_net::{Limits, LiveLimits, ServerTls};
use postroad_queue_client::{QueueNodes, QueueService};
pub use sending::{NamedLimit, SendingConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::policy::Submission;
use crate::port::Port;

/// What the agent leans on.
#[derive(Clone)]
pub struct Dependencies {
    /// Where mail goes.
    pub queue: Arc<dyn QueueService>,
    /// Domains, accounts, aliases; kept current by their owner.
    pub accounts: Accounts,
    /// Names of clients.
    pub resolver: Arc<dyn Resolver>,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The agent, its ports taken.
pub struct Msa {
    ports: Vec<Port>,
    policy: Arc<Submission>,
    tls: watch::Sender<Option<ServerTls>>,
    resolver: Arc<dyn Resolver>,
    limits: LiveLimits,
    common: CommonConfig,
}

/// The whole of a process of its own: connects to the queue, knows the accounts, serves.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    if let Some(problem) = start.config.check(&start.file).into_iter().next() {
        return Err(problem.into());
    }
    let ready = start.health.check("listeners");
    let stop = start.shutdown.token().clone();
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
        resolver: ResolverOptions::from(&common.dns)
            .open()
            .map_err(DaemonError::config)?,
        metrics: start.metrics,
    };
    let msa = Msa::bind(start.config, common, dependencies)?;
    ready.ready();
    let reloads = vec![msa.reload_part()];
    tokio::join!(
        msa.run(stop.clone()),
        start.reload.serve(reloads, stop.clone()),
        queue.watch_certificates(stop.clone()),
        accounts.keep(stop),
        asking
    );
    Ok(())
}

/// Runs the agent until `shutdown`.
pub async fn serve(
    config: Config,
    common: &CommonConfig,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), MsaError> {
    Msa::bind(config, common, dependencies)?.run(shutdown).await;
    Ok(())
}

impl Msa {
    /// Reads the certificates and takes the ports.
    pub fn bind(
        config: Config,
        common: &CommonConfig,
        dependencies: Dependencies,
    ) -> Result<Self, MsaError> {
        if config.certificates.is_empty() {
            return Err(MsaError::NoCertificate);
        }
        let tls = ServerTls::load(&config.certificates).map_err(MsaError::Tls)?;
        let tls = tls.warning(common.certificate_warning.into());
        let policy = Arc::new(Submission::new(&config, common, &dependencies));
        let mut ports = Vec::new();
        for (name, implicit_tls, addresses) in [
            ("submission", false, &config.submission),
            ("submissions", true, &config.submissions),
        ] {
            for &address in addresses {
                ports.push(Port::bind(
                    (name, implicit_tls, address),
                    (&config, common),
                    &policy,
                    &dependencies,
                    &tls,
                )?);
            }
        }
        let tls = watch::Sender::new(Some(tls));
        ServerTls::count_latest(tls.subscribe(), &dependencies.metrics);
        Ok(Self {
            ports,
            policy,
            tls,
            resolver: dependencies.resolver,
            limits: LiveLimits::new(limits(&config, common)),
            common: common.clone(),
        })
    }

    /// The bound addresses, those with STARTTLS first, each in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(Port::address).collect()
    }

    /// How a changed configuration is put into force while the agent runs: for conversations that begin from then on.
    pub fn reload_part(&self) -> ReloadPart {
        let doors: Vec<_> = self.ports.iter().map(Port::door).collect();
        let (policy, tls) = (Arc::clone(&self.policy), self.tls.clone());
        let (bounds, own) = (self.limits.clone(), self.common.clone());
        ReloadPart::new("msa", config::LIVE, move |file, _, config: Config| {
            if let Some(problem) = config.check(file).into_iter().next() {
                return Err(problem);
            }
            let new = ServerTls::load(&config.certificates).map_err(|error| {
                file.error("msa.certificates", error.to_string(), "mend the files")
            })?;
            let new = new.warning(own.certificate_warning.into());
            let policy = Arc::new(policy.successor(&config));
            let (doors, tls, own) = (doors.clone(), tls.clone(), own.clone());
            let bounds = bounds.clone();
            Ok(Apply::new(move || {
                bounds.set(limits(&config, &own));
                for door in doors {
                    door.renew(&config, &own, &policy, &new);
                }
                tls.send_replace(Some(new));
            }))
        })
    }

    /// Works until `shutdown`; then running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(ServerTls::watch_latest(
            self.tls.subscribe(),
            shutdown.clone(),
        ));
        for port in self.ports {
            let resolver = Arc::clone(&self.resolver);
            tasks.spawn(port.serve(resolver, self.limits.clone(), shutdown.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "fault", task = "listener", %error);
            }
        }
    }
}

/// The grace period is that of the whole process.
fn limits(config: &Config, common: &CommonConfig) -> Limits {
    Limits {
        grace: common.shutdown_grace.as_duration(),
        ..config.limits.clone()
    }
}
