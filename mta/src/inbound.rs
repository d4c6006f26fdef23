//! Mail from the world, on port 25: for our own domains only.
//!
//! [`Inbound::bind`] takes the ports and reads the certificates; [`Inbound::run`] serves until shutdown. What is taken
//! and refused is decided in [`policy`]; the conversation itself is `postroad-smtpd`'s.

mod policy;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postroad_daemon::{Apply, CommonConfig};
use postroad_dns::Resolver;
use postroad_net::{Connection, Limits, Listener, LiveLimits, ServerTls};
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{ServerTimeouts, Smtpd, SmtpdConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::policy::InboundPolicy;
use crate::config::{InboundConfig, load_certificates};
use crate::{Dependencies, Error};

/// The listeners, bound and not yet accepting.
pub struct Inbound {
    doors: Vec<(Listener, Door)>,
    policy: InboundPolicy,
    tls: watch::Sender<Option<ServerTls>>,
    resolver: Arc<dyn Resolver>,
    common: CommonConfig,
    limits: LiveLimits,
    farewell: Arc<[u8]>,
}

/// What a listener serves with; clones share it, so that a changed configuration reaches the listener.
#[derive(Clone)]
struct Door {
    name: String,
    serving: Arc<ArcSwap<Serving>>,
}

struct Serving {
    server: Smtpd,
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
        let tls = tls.map(|tls| tls.warning(common.certificate_warning.into()));
        let policy = InboundPolicy::new(config, dependencies.accounts.clone());
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
                Arc::new(policy.clone()),
                Arc::clone(&dependencies.queue),
                tls.clone(),
                &dependencies.metrics,
            );
            let serving = Serving {
                server,
                rdns_timeout: config.rdns_timeout.into(),
            };
            let door = Door {
                name: name.clone(),
                serving: Arc::new(ArcSwap::from_pointee(serving)),
            };
            doors.push((listener.counted(&dependencies.metrics, name), door));
        }
        let tls = watch::Sender::new(tls);
        ServerTls::count_latest(tls.subscribe(), &dependencies.metrics);
        let host = common.hostname.a_label();
        let farewell = format!("421 4.7.0 {host} too many connections, please try again later\r\n");
        Ok(Self {
            doors,
            policy,
            tls,
            resolver: Arc::clone(&dependencies.resolver),
            common: common.clone(),
            limits: LiveLimits::new(limits(config, common)),
            farewell: farewell.into_bytes().into(),
        })
    }

    /// Where the listeners are, in the order of their names.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let doors = self.doors.iter();
        doors.map(|(listener, _)| listener.local_addr()).collect()
    }

    /// How another configuration is put into force, for conversations that begin from then on. Reads certificates.
    pub fn renewal(&self) -> impl Fn(&InboundConfig) -> Result<Apply, postroad_net::Error> + use<> {
        let doors: Vec<Door> = self.doors.iter().map(|(_, door)| door.clone()).collect();
        let (policy, tls, common) = (self.policy.clone(), self.tls.clone(), self.common.clone());
        let bounds = self.limits.clone();
        move |config| {
            let new = load_certificates(&config.certificates)?;
            let new = new.map(|tls| tls.warning(common.certificate_warning.into()));
            let policy = Arc::new(policy.successor(config));
            let (doors, tls, bounds) = (doors.clone(), tls.clone(), bounds.clone());
            let (config, common) = (config.clone(), common.clone());
            Ok(Apply::new(move || {
                bounds.set(limits(&config, &common));
                for door in doors {
                    let server = door.serving.load().server.successor(
                        server_config(&door.name, &config, &common),
                        Arc::clone(&policy) as _,
                        new.clone(),
                    );
                    door.serving.store(Arc::new(Serving {
                        server,
                        rdns_timeout: config.rdns_timeout.into(),
                    }));
                }
                tls.send_replace(new);
            }))
        }
    }

    /// Serves until `shutdown`; running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        // Certificates matter as long as somebody may still say STARTTLS.
        let served = CancellationToken::new();
        let watching = ServerTls::watch_latest(self.tls.subscribe(), served.clone());
        for (listener, door) in self.doors {
            let resolver = Arc::clone(&self.resolver);
            let (limits, farewell) = (self.limits.clone(), Arc::clone(&self.farewell));
            tasks.spawn(door.serve(listener, resolver, limits, farewell, shutdown.clone()));
        }
        let serving = async {
            while tasks.join_next().await.is_some() {}
            served.cancel();
        };
        tokio::join!(serving, watching);
    }
}

impl Door {
    async fn serve(
        self,
        listener: Listener,
        resolver: Arc<dyn Resolver>,
        limits: LiveLimits,
        farewell: Arc<[u8]>,
        shutdown: CancellationToken,
    ) {
        let handle = |connection: Connection| {
            let (serving, resolver) = (self.serving.load_full(), Arc::clone(&resolver));
            async move {
                let client = connection.peer.ip();
                let rdns = name_of(&*resolver, client, serving.rdns_timeout).await;
                serving.server.serve(connection, rdns).await;
            }
        };
        listener.serve(&limits, farewell, shutdown, handle).await;
        // A mail whose client is gone is still committed, or it comes again.
        let last = self.serving.load_full();
        let _ = timeout(limits.current().grace, last.server.drain()).await;
    }
}

/// The grace period is never longer than that of the whole process.
fn limits(config: &InboundConfig, common: &CommonConfig) -> Limits {
    Limits {
        grace: common.shutdown_grace.as_duration().min(config.limits.grace),
        ..config.limits.clone()
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
        xforward_networks: config.xforward_networks.clone(),
        ..SmtpdConfig::new(name, session)
    }
}
