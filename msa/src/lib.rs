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
//! * Aliases of ours expand at RCPT; other recipients are taken as they are.
//! * Date and Message-ID are added when missing, Bcc is taken out; all are header edits, the content stays as it came.
//!
//! What can fail: only the start ([`MsaError`]). Afterwards a client gets a reply: 4yz while queue or directory cannot
//! serve, and then nothing was taken.
#![forbid(unsafe_code)]

mod complete;
mod config;
mod error;
mod policy;
mod slowdown;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use config::{AuthConfig, Config};
pub use error::MsaError;
use postroad_daemon::{CommonConfig, DaemonError, Start};
use postroad_directory::{AuthGate, DirectoryHandle};
use postroad_dns::{Resolver, ResolverOptions};
use postroad_metrics::Metrics;
use postroad_net::{Connection, Limits, ListenAddr, Listener, ServerTls};
use postroad_queue_client::{QueueService, RemoteQueue};
use postroad_sasl::Mechanism;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{Smtpd, SmtpdConfig};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::policy::Submission;
use crate::slowdown::Slowdown;

const DIRECTORY_WATCH: Duration = Duration::from_secs(2);
const CERTIFICATE_WATCH: Duration = Duration::from_secs(60);

/// What the agent leans on.
#[derive(Clone)]
pub struct Dependencies {
    /// Where mail goes.
    pub queue: Arc<dyn QueueService>,
    /// Domains, accounts, aliases; kept current by its owner.
    pub directory: DirectoryHandle,
    /// Names of clients.
    pub resolver: Arc<dyn Resolver>,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The agent, its ports taken.
pub struct Msa {
    ports: Vec<Port>,
    tls: ServerTls,
    resolver: Arc<dyn Resolver>,
    rdns_timeout: Duration,
    limits: Limits,
}

/// A bound listener and its server.
struct Port {
    listener: Listener,
    smtpd: Arc<Smtpd>,
    farewell: Vec<u8>,
}

/// The whole of a process of its own: connects to the queue, reads and watches the directory, serves.
pub async fn run(start: Start<Config>) -> Result<(), DaemonError> {
    if let Some(problem) = start.config.check(&start.file).into_iter().next() {
        return Err(problem.into());
    }
    let ready = start.health.check("listeners");
    let stop = start.shutdown.token().clone();
    let common = &start.common;
    let queue = RemoteQueue::configured(common).map_err(DaemonError::config)?;
    let asking = queue.keep_check(start.health.dependency("queue"), stop.clone());
    let directory = DirectoryHandle::open(&common.directory).map_err(DaemonError::config)?;
    let dependencies = Dependencies {
        queue: Arc::new(queue),
        directory: directory.clone(),
        resolver: ResolverOptions::from(&common.dns)
            .open()
            .map_err(DaemonError::config)?,
        metrics: start.metrics,
    };
    let msa = Msa::bind(start.config, common, dependencies)?;
    ready.ready();
    tokio::join!(
        msa.run(stop.clone()),
        directory.watch(DIRECTORY_WATCH, stop),
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
        let policy = Arc::new(Submission {
            directory: dependencies.directory,
            gate: gate(&config.auth),
            slowdown: Slowdown::new(config.auth.delay.into(), config.auth.max_delay.into()),
            host: common.hostname.clone(),
        });
        let mut ports = Vec::new();
        for (name, implicit_tls, addresses) in [
            ("submission", false, &config.submission),
            ("submissions", true, &config.submissions),
        ] {
            let smtpd = Arc::new(Smtpd::new(
                smtpd_config(name, implicit_tls, &config, common),
                policy.clone(),
                Arc::clone(&dependencies.queue),
                Some(tls.clone()),
                &dependencies.metrics,
            ));
            for &address in addresses {
                ports.push(Port {
                    listener: listen(name, address)?
                        .behind(&config.proxy_networks)
                        .counted(&dependencies.metrics, name),
                    smtpd: Arc::clone(&smtpd),
                    farewell: farewell(implicit_tls),
                });
            }
        }
        Ok(Self {
            ports,
            tls,
            resolver: dependencies.resolver,
            rdns_timeout: config.rdns_timeout.into(),
            limits: Limits {
                grace: common.shutdown_grace.as_duration(),
                ..config.limits
            },
        })
    }

    /// The bound addresses, those with STARTTLS first, each in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ports = self.ports.iter();
        ports.map(|port| port.listener.local_addr()).collect()
    }

    /// Works until `shutdown`; then running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.tls.watch(CERTIFICATE_WATCH, shutdown.clone()));
        for port in self.ports {
            let (resolver, rdns_timeout) = (Arc::clone(&self.resolver), self.rdns_timeout);
            let (limits, shutdown) = (self.limits.clone(), shutdown.clone());
            tasks.spawn(async move {
                let smtpd = Arc::clone(&port.smtpd);
                let handler = move |connection: Connection| {
                    let (smtpd, resolver) = (Arc::clone(&smtpd), Arc::clone(&resolver));
                    async move {
                        let client = connection.peer.ip();
                        let rdns = reverse(&*resolver, client, rdns_timeout).await;
                        smtpd.serve(connection, rdns).await;
                    }
                };
                port.listener
                    .serve(&limits, port.farewell, shutdown, handler)
                    .await;
                // What hangs longer is a commit nobody waits for any more.
                let _ = timeout(limits.grace, port.smtpd.drain()).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "fault", task = "listener", %error);
            }
        }
    }
}

fn listen(name: &'static str, address: ListenAddr) -> Result<Listener, MsaError> {
    let listener = Listener::bind(address).map_err(|source| MsaError::Listen {
        listener: name,
        source,
    })?;
    tracing::info!(event = "listening", listener = name, address = %listener.local_addr());
    Ok(listener)
}

fn smtpd_config(
    name: &str,
    implicit_tls: bool,
    config: &Config,
    common: &CommonConfig,
) -> SmtpdConfig {
    let mut session = ServerConfig::new(common.hostname.clone(), Flavour::Submission);
    session.offers.starttls = true;
    session.offers.auth = Mechanism::ALL.to_vec();
    session.limits.size = config.size_limit.as_u64();
    session.limits.recipients = config.max_recipients.max(100);
    session.limits.auth_failures = config.auth.max_failures.max(1);
    let mut smtpd = SmtpdConfig::new(name, session);
    smtpd.implicit_tls = implicit_tls;
    smtpd.max_hops = config.max_hops;
    smtpd.timeouts.queue = config.queue_timeout.into();
    smtpd
}

fn gate(config: &AuthConfig) -> AuthGate {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let permits = match config.concurrency {
        0 => 2 * processors,
        permits => permits,
    };
    AuthGate::new(permits, config.patience.into())
}

/// Said to those beyond the limits; a client that waits for TLS could not read it.
fn farewell(implicit_tls: bool) -> Vec<u8> {
    match implicit_tls {
        true => Vec::new(),
        false => b"421 4.7.0 too many connections, please try again later\r\n".to_vec(),
    }
}

/// The client's name for Received; a slow DNS must not keep people from sending.
async fn reverse(resolver: &dyn Resolver, client: IpAddr, within: Duration) -> Option<String> {
    let name = timeout(within, resolver.reverse(client)).await.ok()?;
    Some(name.ok()??.to_string())
}
