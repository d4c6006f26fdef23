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
//! * Failed log-ins of a network make its answers slow and then get it banned; accounts have sending limits (mails, recipients, octets). Both are counted
//!   by way of the queue for all copies of the agent, and by each alone while the queue is away.
//! * Aliases of ours expand at RCPT; other recipients are taken as they are.
//! * From and Sender name the account, or whom it may send as; what cannot be read to its last character is refused.
//! * Date, Message-ID, From and MIME-Version are added when missing, Bcc and what only a border may say are taken out; all are header
//!   edits, the content stays as it came.
//!
//! What can fail: only the start ([`MsaError`]). Afterwards a client gets a reply: 4yz while queue or directory cannot
//! serve, and then nothing was taken.
#![forbid(unsafe_code)]

mod authors;
mod bans;
mod complete;
mod config;
mod error;
pub mod explain;
pub mod identity;
mod policy;
mod port;
mod questions;
pub mod rules;
mod sending;
mod tickets;
mod together;
mod vouched;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{AuthConfig, ClientCertificates, Config, ListenerConfig, MechanismName};
pub use error::MsaError;
use postroad_accounts::Accounts;
use postroad_daemon::{Apply, CommonConfig, DaemonError, ReloadPart, Start};
use postroad_dns::{Resolver, ResolverOptions};
use postroad_metrics::Metrics;
use postroad_net::ServerTls;
use postroad_oauth::Tokens;
use postroad_queue_client::{QueueNodes, QueueService};
pub use sending::{NamedLimit, SendingConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::ListenerTerms;
use crate::policy::Submission;
use crate::port::{Port, Shown};

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
    tokens: watch::Sender<Tokens>,
    resolver: Arc<dyn Resolver>,
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
        let tls = config.server_tls().map_err(MsaError::Tls)?;
        let tls = tls.warning(common.certificate_warning.into());
        let own_tls = own_tls(&config, common).map_err(MsaError::Tls)?;
        let policy = Arc::new(Submission::new(&config, common, &dependencies));
        let mut ports = Vec::new();
        for terms in config.all_listeners() {
            let shown = Shown {
                all: &tls,
                own: own_tls.get(&terms.name),
            };
            ports.push(Port::bind(
                terms,
                (&config, common),
                &policy,
                &dependencies,
                shown,
            )?);
        }
        let tls = watch::Sender::new(Some(tls));
        let mut all = vec![tls.subscribe()];
        all.extend(ports.iter().map(Port::own_tls));
        let shown = move || all.iter().filter_map(|tls| tls.borrow().clone()).collect();
        ServerTls::count_first(shown, &dependencies.metrics);
        let tokens = watch::Sender::new(policy.tokens().clone());
        Ok(Self {
            ports,
            policy,
            tls,
            tokens,
            resolver: dependencies.resolver,
            common: common.clone(),
        })
    }

    /// The bound addresses, those of `submission` first, then `submissions`, each in the order of the
    /// configuration, then the others by name.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(Port::address).collect()
    }

    /// How a changed configuration is put into force while the agent runs: for conversations that begin from then on.
    pub fn reload_part(&self) -> ReloadPart {
        let doors: Vec<_> = self.ports.iter().map(Port::door).collect();
        let (policy, tls) = (Arc::clone(&self.policy), self.tls.clone());
        let tokens = self.tokens.clone();
        let own = self.common.clone();
        ReloadPart::new("msa", config::LIVE, move |file, _, config: Config| {
            if let Some(problem) = config.check(file).into_iter().next() {
                return Err(problem);
            }
            let new = config.server_tls().map_err(|error| {
                file.error("msa.certificates", error.to_string(), "mend the files")
            })?;
            let new = new.warning(own.certificate_warning.into());
            let new_own = own_tls(&config, &own).map_err(|error| {
                file.error(
                    "msa.listeners",
                    error.to_string(),
                    "mend the files of `certificates`",
                )
            })?;
            let in_force = tokens.borrow().clone();
            let policy = Arc::new(policy.successor(&config, &in_force));
            let (doors, tls, own) = (doors.clone(), tls.clone(), own.clone());
            let tokens = tokens.clone();
            let listeners = config.all_listeners();
            // Whoever is elsewhere, or new, or gone needs a restart; what is special about the others holds at once.
            let same = listeners.len() == doors.len()
                && doors
                    .iter()
                    .zip(&listeners)
                    .all(|(door, new)| door.terms().is_where(new));
            let apply = Apply::new(move || {
                for door in doors {
                    let is_it = |new: &&ListenerTerms| door.terms().is_where(new);
                    // One that is to be elsewhere stays where it is until the restart, and what else is said of it holds now.
                    let is_named = |new: &&ListenerTerms| door.terms().is_called(new);
                    let mut all = listeners.iter();
                    let terms = all.clone().find(is_it).or_else(|| all.find(is_named));
                    let terms = terms.unwrap_or(door.terms());
                    let shown = Shown {
                        all: &new,
                        own: new_own.get(&terms.name),
                    };
                    door.renew(terms, (&config, &own), &policy, shown);
                }
                tls.send_replace(Some(new));
                tokens.send_replace(policy.tokens().clone());
            });
            Ok(match same {
                true => apply,
                false => apply.but(["msa.listeners"]),
            })
        })
    }

    /// Works until `shutdown`; then running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(ServerTls::watch_latest(
            self.tls.subscribe(),
            shutdown.clone(),
        ));
        tasks.spawn(Tokens::keep_latest(
            self.tokens.subscribe(),
            shutdown.clone(),
        ));
        for port in self.ports {
            let resolver = Arc::clone(&self.resolver);
            tasks.spawn(port.serve(resolver, shutdown.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "fault", task = "listener", %error);
            }
        }
    }
}

/// Certificates of single listeners, by their names. Reads files; blocks.
fn own_tls(
    config: &Config,
    common: &CommonConfig,
) -> Result<BTreeMap<String, ServerTls>, postroad_net::Error> {
    let before = common.certificate_warning;
    let own = config.own_tls()?.into_iter();
    Ok(own
        .map(|(name, tls)| (name, tls.warning(before.into())))
        .collect())
}
