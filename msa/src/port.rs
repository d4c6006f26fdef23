//! One listener and what its conversations are like, now.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postroad_daemon::CommonConfig;
use postroad_dns::Resolver;
use postroad_net::{Connection, ListenAddr, Listener, LiveLimits, ServerTls};
use postroad_sasl::Mechanism;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{Smtpd, SmtpdConfig};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::policy::Submission;
use crate::{Config, Dependencies, MsaError};

/// A bound listener and its server.
pub struct Port {
    listener: Listener,
    door: Door,
}

/// What a port serves with; clones share it, so that a changed configuration reaches the listener.
#[derive(Clone)]
pub struct Door {
    name: &'static str,
    implicit_tls: bool,
    serving: Arc<ArcSwap<Serving>>,
}

struct Serving {
    smtpd: Smtpd,
    rdns_timeout: Duration,
}

impl Port {
    /// Takes the port.
    pub fn bind(
        (name, implicit_tls, address): (&'static str, bool, ListenAddr),
        (config, common): (&Config, &CommonConfig),
        policy: &Arc<Submission>,
        dependencies: &Dependencies,
        tls: &ServerTls,
    ) -> Result<Self, MsaError> {
        let smtpd = Smtpd::new(
            smtpd_config(name, implicit_tls, config, common),
            Arc::clone(policy) as _,
            Arc::clone(&dependencies.queue),
            Some(tls.clone()),
            &dependencies.metrics,
        );
        let serving = Serving {
            smtpd,
            rdns_timeout: config.rdns_timeout.into(),
        };
        Ok(Self {
            listener: listen(name, address)?
                .behind(&config.proxy_networks)
                .counted(&dependencies.metrics, name),
            door: Door {
                name,
                implicit_tls,
                serving: Arc::new(ArcSwap::from_pointee(serving)),
            },
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// What it serves with.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Serves until `shutdown`.
    pub async fn serve(
        self,
        resolver: Arc<dyn Resolver>,
        limits: LiveLimits,
        shutdown: CancellationToken,
    ) {
        let Self { listener, door } = self;
        let serving = Arc::clone(&door.serving);
        let handler = move |connection: Connection| {
            let (serving, resolver) = (serving.load_full(), Arc::clone(&resolver));
            async move {
                let client = connection.peer.ip();
                let rdns = reverse(&*resolver, client, serving.rdns_timeout).await;
                serving.smtpd.serve(connection, rdns).await;
            }
        };
        let farewell = farewell(door.implicit_tls);
        listener.serve(&limits, farewell, shutdown, handler).await;
        // What hangs longer is a commit nobody waits for any more.
        let last = door.serving.load_full();
        let _ = timeout(limits.current().grace, last.smtpd.drain()).await;
    }
}

impl Door {
    /// Conversations that begin from now on are like this.
    pub fn renew(
        &self,
        config: &Config,
        common: &CommonConfig,
        policy: &Arc<Submission>,
        tls: &ServerTls,
    ) {
        let smtpd = self.serving.load().smtpd.successor(
            smtpd_config(self.name, self.implicit_tls, config, common),
            Arc::clone(policy) as _,
            Some(tls.clone()),
        );
        self.serving.store(Arc::new(Serving {
            smtpd,
            rdns_timeout: config.rdns_timeout.into(),
        }));
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
