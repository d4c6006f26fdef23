//! The mail transfer agent: port 25 in, the world out.
//!
//! ```text
//! the world ─► inbound (smtpd, policy: our domains only, aliases expand) ─► queue
//! queue ─► outbound (leases of class relay and lmtp: MX, STARTTLS, per-recipient outcomes) ─► the world
//! ```
//!
//! [`Mta::bind`] takes the ports, [`Mta::run`] works until shutdown; [`serve`] is both. Either half can be switched
//! off. All it leans on is an argument: the queue, the directory, the resolver ([`Deps`]).
//!
//! What can fail: only the start ([`Error`]). Afterwards a client gets a reply, and a mail an outcome; while the queue
//! or the directory is away, that is a 4xx.
#![forbid(unsafe_code)]

mod config;
mod error;
pub mod outbound;

use std::net::SocketAddr;
use std::sync::Arc;

pub use config::{Config, HostText, InboundConfig, OutboundConfig, Timeouts, TlsPolicy};
pub use error::Error;
use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_dns::Resolver;
use postroad_queue_client::QueueService;
use tokio_util::sync::CancellationToken;

use crate::outbound::Outbound;

/// What the agent leans on.
#[derive(Clone)]
pub struct Deps {
    /// Where mail goes to and comes from.
    pub queue: Arc<dyn QueueService>,
    /// Which recipients are ours.
    pub directory: DirectoryHandle,
    /// Names.
    pub resolver: Arc<dyn Resolver>,
}

/// The agent, its ports taken.
pub struct Mta {
    outbound: Option<Outbound>,
}

impl Mta {
    /// Takes the ports and sets up what can fail.
    pub fn bind(config: Config, common: &CommonConfig, deps: Deps) -> Result<Self, Error> {
        let listening: Vec<SocketAddr> = Vec::new();
        let outbound = match config.outbound.enabled {
            true => Some(Outbound::new(
                config.outbound,
                common,
                &listening,
                deps.queue,
                deps.resolver,
            )?),
            false => None,
        };
        Ok(Self { outbound })
    }

    /// Works until `shutdown`, then ends what it holds within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        if let Some(outbound) = self.outbound {
            outbound.run(shutdown).await;
        }
    }
}

/// Runs the agent until `shutdown`.
pub async fn serve(
    config: Config,
    common: &CommonConfig,
    deps: Deps,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Mta::bind(config, common, deps)?.run(shutdown).await;
    Ok(())
}
