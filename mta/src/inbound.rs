//! Mail from the world, on port 25: for our own domains only.
//!
//! [`Inbound::bind`] takes the ports and reads the certificates; [`Inbound::run`] serves until shutdown. What is taken
//! and refused is decided in [`policy`]; the conversation itself is `postroad-smtpd`'s.

mod policy;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postroad_daemon::CommonConfig;
use postroad_dns::Resolver;
use postroad_net::{Connection, Limits, Listener, ServerTls};
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{ServerTimeouts, Smtpd, SmtpdConfig};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::policy::InboundPolicy;
use crate::config::{InboundConfig, load_certificates};
use crate::{Dependencies, Error};

/// How often certificate files are looked at.
const CERTIFICATE_WATCH: Duration = Duration::from_secs(60);

/// The listeners, bound and not yet accepting.
pub struct Inbound {
    doors: Vec<Door>,
    tls: Option<ServerTls>,
    limits: Limits,
    farewell: Arc<[u8]>,
}

/// One listener with its server.
struct Door {
    listener: Listener,
    server: Arc<Smtpd>,
    resolver: Arc<dyn Resolver>,
    rdns_timeout: Duration,
}

impl Inbound {
    /// Takes the ports; to be called inside a tokio runtime. Reads the certificates; blocks on files.
    pub fn bind(
        config: &InboundConfig,
        common: &CommonConfig,
        dependencies: &Dependencies,
    ) -> Result<Self, Error> {
        let tls = load_certificates(&config.certificates).map_err(Error::Certificates)?;
        let policy = Arc::new(InboundPolicy::new(config, dependencies.directory.clone()));
        let mut doors = Vec::new();
        for (name, address) in &config.listeners {
            let listener = Listener::bind(*address).map_err(|source| Error::Listen {
                name: name.clone(),
                source,
            })?;
            let listener = listener.behind(&config.proxy_networks);
            tracing::info!(event = "listening", listener = name, address = %listener.local_addr());
            let server = Smtpd::new(
                server_config(name, config, common),
                Arc::clone(&policy) as _,
                Arc::clone(&dependencies.queue),
                tls.clone(),
                &dependencies.metrics,
            );
            doors.push(Door {
                listener: listener.counted(&dependencies.metrics, name),
                server: Arc::new(server),
                resolver: Arc::clone(&dependencies.resolver),
                rdns_timeout: config.rdns_timeout.into(),
            });
        }
        let grace = common.shutdown_grace.as_duration().min(config.limits.grace);
        let host = common.hostname.a_label();
        let farewell = format!("421 4.7.0 {host} too many connections, please try again later\r\n");
        Ok(Self {
            doors,
            tls,
            limits: Limits {
                grace,
                ..config.limits.clone()
            },
            farewell: farewell.into_bytes().into(),
        })
    }

    /// Where the listeners are, in the order of their names.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let doors = self.doors.iter();
        doors.map(|door| door.listener.local_addr()).collect()
    }

    /// Serves until `shutdown`; running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        // Certificates matter as long as somebody may still say STARTTLS.
        let served = CancellationToken::new();
        let watching = self
            .tls
            .map(|tls| tls.watch(CERTIFICATE_WATCH, served.clone()));
        for door in self.doors {
            let (limits, farewell) = (self.limits.clone(), Arc::clone(&self.farewell));
            tasks.spawn(door.serve(limits, farewell, shutdown.clone()));
        }
        let serving = async {
            while tasks.join_next().await.is_some() {}
            served.cancel();
        };
        match watching {
            Some(watching) => drop(tokio::join!(serving, watching)),
            None => serving.await,
        }
    }
}

impl Door {
    async fn serve(self, limits: Limits, farewell: Arc<[u8]>, shutdown: CancellationToken) {
        let Self {
            listener,
            server,
            resolver,
            rdns_timeout,
        } = self;
        let handle = |connection: Connection| {
            let (server, resolver) = (Arc::clone(&server), Arc::clone(&resolver));
            async move {
                let rdns = name_of(&*resolver, connection.peer.ip(), rdns_timeout).await;
                server.serve(connection, rdns).await;
            }
        };
        let grace = limits.grace;
        listener.serve(&limits, farewell, shutdown, handle).await;
        // A mail whose client is gone is still committed, or it comes again.
        let _ = timeout(grace, server.drain()).await;
    }
}

/// The client's name, if it can be had soon.
async fn name_of(resolver: &dyn Resolver, client: IpAddr, within: Duration) -> Option<String> {
    let name = timeout(within, resolver.reverse(client)).await;
    Some(name.ok()?.ok()??.to_string())
}

fn server_config(name: &str, config: &InboundConfig, common: &CommonConfig) -> SmtpdConfig {
    let mut session = ServerConfig::new(common.hostname.clone(), Flavour::Smtp);
    session.offers.starttls = true;
    session.limits.size = config.size_limit.as_u64();
    session.limits.recipients = config.max_recipients;
    let timeouts = ServerTimeouts {
        queue: config.queue_timeout.into(),
        // Half of the grace is for the transaction, the rest for saying good-bye.
        leaving: common.shutdown_grace.as_duration() / 2,
        ..ServerTimeouts::default()
    };
    SmtpdConfig {
        timeouts,
        max_hops: config.max_hops,
        ..SmtpdConfig::new(name, session)
    }
}
