//! The mail transfer agent: port 25 in, the world out.
//!
//! ```text
//! the world ─► inbound (smtpd, policy: our domains only, aliases expand) ─► queue
//! queue ─► outbound (leases of class relay and lmtp: MX, STARTTLS, an outcome for each recipient) ─► the world
//! ```
//!
//! [`Mta::bind`] takes the ports, [`Mta::run`] works until shutdown; [`serve`] is both, and [`run`] is the whole of a
//! process of its own. Either half can be switched off. All it leans on is an argument ([`Dependencies`]).
//!
//! What can fail: only the start ([`Error`]). Afterwards a client gets a reply and a mail an outcome; while the queue
//! is away, that is a 4xx, and nothing is lost.
#![forbid(unsafe_code)]

mod bounces;
mod config;
mod error;
pub mod explain;
mod inbound;
mod outbound;
mod process;

use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{
    AddressPreference, Config, DelimitersText, DomainPattern, HostConfig, HostPattern, HostText,
    InboundConfig, ListenerConfig, OutboundConfig, PasswordNeeds, ReportsConfig, ReuseConfig,
    SenderText, Senders, SourceAddress, SourceConfig, StsConfig, Timeouts, TlsPolicy,
};
pub use error::Error;
use postroad_accounts::Accounts;
use postroad_daemon::{Apply, CommonConfig, ReloadPart};
use postroad_dns::Resolver;
use postroad_metrics::Metrics;
use postroad_queue_client::QueueService;
pub use process::run;
use tokio_util::sync::CancellationToken;

use crate::inbound::Inbound;
use crate::outbound::Outbound;

/// What the agent leans on.
#[derive(Clone)]
pub struct Dependencies {
    /// Where mail goes to and comes from, local or remote.
    pub queue: Arc<dyn QueueService>,
    /// Which recipients are ours; kept current by their owner.
    pub accounts: Accounts,
    /// Names.
    pub resolver: Arc<dyn Resolver>,
    /// Where it counts.
    pub metrics: Metrics,
}

/// The agent with its ports taken, not yet at work.
pub struct Mta {
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
}

impl Mta {
    /// Takes the ports and sets up all that can fail; to be called inside a tokio runtime. Blocks on files.
    pub fn bind(
        config: Config,
        common: &CommonConfig,
        dependencies: Dependencies,
    ) -> Result<Self, Error> {
        let inbound = match config.inbound.enabled {
            true => Some(Inbound::bind(&config.inbound, common, &dependencies)?),
            false => None,
        };
        let listening = inbound.as_ref().map(Inbound::addresses).unwrap_or_default();
        let Dependencies {
            queue,
            resolver,
            metrics,
            ..
        } = dependencies;
        let outbound = match config.outbound.enabled {
            true => Some(Outbound::new(
                config.outbound,
                common,
                &listening,
                queue,
                resolver,
                &metrics,
            )?),
            false => None,
        };
        Ok(Self { inbound, outbound })
    }

    /// Where mail is taken, in the order of the listeners' names.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let inbound = self.inbound.as_ref();
        inbound.map(Inbound::addresses).unwrap_or_default()
    }

    /// How a changed configuration is put into force while the agent runs: for what begins from then on.
    pub fn reload_part(&self) -> ReloadPart {
        let receive = self.inbound.as_ref().map(Inbound::renewal);
        let send = self.outbound.clone();
        ReloadPart::new("mta", config::LIVE, move |file, _, config: Config| {
            if let Some(problem) = config.check(file).into_iter().next() {
                return Err(problem);
            }
            config.warn_of_sources(file);
            let wrong = |key, error: &dyn std::error::Error| {
                file.error(key, error.to_string(), "mend it, or leave the key out")
            };
            let receive = receive.as_ref().map(|renewal| {
                let renewed = renewal(&config.inbound);
                renewed.map_err(|error| wrong("mta.inbound.certificates", &error))
            });
            let send = send.as_ref().map(|outbound| {
                let renewed = outbound.renewal(&config.outbound);
                renewed.map_err(|error| match error {
                    Error::HeloName(_) => wrong("mta.outbound.helo_name", &error),
                    error => wrong("mta.outbound.hosts", &error),
                })
            });
            let (receive, send) = (receive.transpose()?, send.transpose()?);
            Ok(Apply::new(move || {
                let both = [receive, send].into_iter().flatten();
                both.for_each(Apply::run);
            }))
        })
    }

    /// Works until `shutdown`, then ends what it holds within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { inbound, outbound } = self;
        let receive = async {
            if let Some(inbound) = inbound {
                inbound.run(shutdown.clone()).await;
            }
        };
        let send = async {
            if let Some(outbound) = outbound {
                outbound.run(shutdown.clone()).await;
            }
        };
        let idle = shutdown.cancelled();
        tokio::join!(receive, send, idle);
    }
}

/// Runs the agent until `shutdown`.
pub async fn serve(
    config: Config,
    common: &CommonConfig,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Mta::bind(config, common, dependencies)?.run(shutdown).await;
    Ok(())
}
