//! Mail from the world, on port 25: for our own domains only.
//!
//! [`Inbound::bind`] takes the ports and reads the certificates; [`Inbound::run`] serves until shutdown. What is taken
//! and refused is decided in [`policy`]; the conversation itself is `postroad-smtpd`'s.

mod policy;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use postroad_daemon::{Apply, CommonConfig};
use postroad_dns::Resolver;
use postroad_net::{CERTIFICATE_WATCH, Connection, Limits, Listener, LiveLimits, ServerTls};
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{ServerTimeouts, Smtpd, SmtpdConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::policy::InboundPolicy;
use crate::bounces::Bounces;
use crate::config::{InboundConfig, ListenerConfig, load_certificates};
use crate::{Dependencies, Error};

/// The listeners, bound and not yet accepting.
pub struct Inbound {
    doors: Vec<(Listener, Door)>,
    policy: InboundPolicy,
    tls: watch::Sender<Option<ServerTls>>,
    /// Those of listeners that ask clients for certificates, or show some of their own.
    asking: watch::Sender<Vec<ServerTls>>,
    resolver: Arc<dyn Resolver>,
    common: CommonConfig,
    farewell: Arc<[u8]>,
}

/// What a listener serves with; clones share it, so that a changed configuration reaches the listener.
#[derive(Clone)]
struct Door {
    name: String,
    bound: ListenerConfig,
    serving: Arc<ArcSwap<Serving>>,
    limits: LiveLimits,
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
        let certificates = Certificates::load(config, common).map_err(Error::Certificates)?;
        let bounces = Bounces::inbound(config).map_err(|source| Error::BounceKey {
            key: "mta.inbound.bounce_key_file",
            source,
        })?;
        let policy = InboundPolicy::new(config, dependencies.accounts.clone(), bounces);
        let mut doors = Vec::new();
        for (name, bound) in &config.listeners {
            let listener = Listener::bind(bound.listen).map_err(|source| Error::Listen {
                name: name.clone(),
                source,
            })?;
            let balancers = bound.proxy_networks.as_ref();
            let listener = listener.behind(balancers.unwrap_or(&config.proxy_networks));
            tracing::info!(event = "listening", listener = name, address = %listener.local_addr());
            let server = Smtpd::new(
                server_config(name, bound, config, common),
                Arc::new(policy.of(bound)),
                Arc::clone(&dependencies.queue),
                certificates.of(name),
                &dependencies.metrics,
            );
            let serving = Serving {
                server,
                rdns_timeout: config.rdns_timeout.into(),
            };
            let door = Door {
                name: name.clone(),
                bound: bound.clone(),
                limits: LiveLimits::new(limits(bound, config, common)),
                serving: Arc::new(ArcSwap::from_pointee(serving)),
            };
            doors.push((listener.counted(&dependencies.metrics, name), door));
        }
        let asking = watch::Sender::new(certificates.asking());
        let tls = watch::Sender::new(certificates.shared);
        let (shared, own) = (tls.subscribe(), asking.subscribe());
        let shown = move || {
            let shared = shared.borrow().clone();
            shared.into_iter().chain(own.borrow().clone()).collect()
        };
        ServerTls::count_first(shown, &dependencies.metrics);
        let host = common.hostname.a_label();
        let farewell = format!("421 4.7.0 {host} too many connections, please try again later\r\n");
        Ok(Self {
            doors,
            policy,
            tls,
            asking,
            resolver: Arc::clone(&dependencies.resolver),
            common: common.clone(),
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
        let asking = self.asking.clone();
        move |config| {
            // Whoever is elsewhere, or new, or gone needs a restart; until then all listeners are as they were.
            let (mut config, same) = (config.clone(), are_where_they_were(&doors, config));
            if !same {
                let kept = doors
                    .iter()
                    .map(|door| (door.name.clone(), door.bound.clone()));
                config.listeners = kept.collect();
            }
            let new = Certificates::load(&config, &common)?;
            let policy = policy.successor(&config);
            let (doors, tls) = (doors.clone(), tls.clone());
            let (common, asking) = (common.clone(), asking.clone());
            let apply = Apply::new(move || {
                for door in doors {
                    let bound = config.listeners.get(&door.name).unwrap_or(&door.bound);
                    door.limits.set(limits(bound, &config, &common));
                    let server = door.serving.load().server.successor(
                        server_config(&door.name, bound, &config, &common),
                        Arc::new(policy.of(bound)),
                        new.of(&door.name),
                    );
                    door.serving.store(Arc::new(Serving {
                        server,
                        rdns_timeout: config.rdns_timeout.into(),
                    }));
                }
                asking.send_replace(new.asking());
                tls.send_replace(new.shared);
            });
            Ok(match same {
                true => apply,
                false => apply.but(["mta.inbound.listeners"]),
            })
        }
    }

    /// Serves until `shutdown`; running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        // Certificates matter as long as somebody may still say STARTTLS.
        let served = CancellationToken::new();
        let watching = ServerTls::watch_latest(self.tls.subscribe(), served.clone());
        let asking = watch_all(self.asking.subscribe(), served.clone());
        for (listener, door) in self.doors {
            let resolver = Arc::clone(&self.resolver);
            // Nobody reads plain text where TLS comes first.
            let farewell = match door.bound.implicit_tls {
                true => Arc::from([]),
                false => Arc::clone(&self.farewell),
            };
            tasks.spawn(door.serve(listener, resolver, farewell, shutdown.clone()));
        }
        let serving = async {
            while tasks.join_next().await.is_some() {}
            served.cancel();
        };
        tokio::join!(serving, watching, asking);
    }
}

/// A listener without its port and without TLS, for `postroad explain`; none: there is no such listener. Reads files; blocks.
pub fn rehearsal(
    config: &InboundConfig,
    common: &CommonConfig,
    dependencies: &Dependencies,
    listener: &str,
) -> Option<Result<Smtpd, Error>> {
    let bound = config.listeners.get(listener)?;
    let bounces = Bounces::inbound(config).map_err(|source| Error::BounceKey {
        key: "mta.inbound.bounce_key_file",
        source,
    });
    Some(bounces.map(|bounces| {
        let policy = InboundPolicy::new(config, dependencies.accounts.clone(), bounces);
        let mut smtpd = server_config(listener, bound, config, common);
        smtpd.implicit_tls = false;
        smtpd.session.require_tls = false;
        smtpd.greeting_delay = Duration::ZERO;
        Smtpd::new(
            smtpd,
            Arc::new(policy.of(bound)),
            Arc::clone(&dependencies.queue),
            None,
            &dependencies.metrics,
        )
    }))
}

/// The certificates of the listeners.
struct Certificates {
    /// Of those that ask nobody who they are, and show no certificates of their own.
    shared: Option<ServerTls>,
    /// By the names of the others.
    own: BTreeMap<String, ServerTls>,
}

impl Certificates {
    /// Blocks on files.
    fn load(config: &InboundConfig, common: &CommonConfig) -> Result<Self, postroad_net::Error> {
        let before = common.certificate_warning;
        let warning = |tls: ServerTls| tls.warning(before.into());
        let shared = load_certificates(&config.certificates)?.map(warning);
        let mut own = BTreeMap::new();
        for (name, listener) in &config.listeners {
            if let Some(tls) = listener.own_tls(&config.certificates)? {
                own.insert(name.clone(), warning(tls));
            }
        }
        Ok(Self { shared, own })
    }

    fn of(&self, listener: &str) -> Option<ServerTls> {
        self.own.get(listener).or(self.shared.as_ref()).cloned()
    }

    fn asking(&self) -> Vec<ServerTls> {
        self.own.values().cloned().collect()
    }
}

/// Whether another configuration has the same listeners at the same addresses, with TLS at the same moment.
fn are_where_they_were(doors: &[Door], config: &InboundConfig) -> bool {
    let same = |door: &Door| {
        let new = config.listeners.get(&door.name);
        new.is_some_and(|new| door.bound.is_where(new))
    };
    doors.len() == config.listeners.len() && doors.iter().all(same)
}

/// Takes up changed files, whichever configuration is in force, until `shutdown`.
async fn watch_all(mut latest: watch::Receiver<Vec<ServerTls>>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        let replaced = shutdown.child_token();
        let current = latest.borrow_and_update().clone();
        let watching = current
            .into_iter()
            .map(|tls| tls.watch(CERTIFICATE_WATCH, replaced.clone()));
        let until = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                changed = latest.changed() => if changed.is_err() {
                    // Nobody is left who could replace them.
                    shutdown.cancelled().await;
                },
            }
            replaced.cancel();
        };
        tokio::join!(join_all(watching), until);
    }
}

impl Door {
    async fn serve(
        self,
        listener: Listener,
        resolver: Arc<dyn Resolver>,
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
        let limits = self.limits.clone();
        listener.serve(&limits, farewell, shutdown, handle).await;
        // A mail whose client is gone is still committed, or it comes again.
        let last = self.serving.load_full();
        let _ = timeout(limits.current().grace, last.server.drain()).await;
    }
}

/// The grace period is never longer than that of the whole process.
fn limits(listener: &ListenerConfig, config: &InboundConfig, common: &CommonConfig) -> Limits {
    Limits {
        grace: common.shutdown_grace.as_duration().min(config.limits.grace),
        ..listener.limits(&config.limits)
    }
}

/// The client's name, if it can be had soon.
async fn name_of(resolver: &dyn Resolver, client: IpAddr, within: Duration) -> Option<String> {
    let name = timeout(within, resolver.reverse(client)).await;
    Some(name.ok()?.ok()??.to_string())
}

fn server_config(
    name: &str,
    listener: &ListenerConfig,
    config: &InboundConfig,
    common: &CommonConfig,
) -> SmtpdConfig {
    let mut session = ServerConfig::new(common.hostname.clone(), Flavour::Smtp);
    session.offers.starttls = true;
    session.offers.requiretls = true;
    session.require_tls = listener.is_for_known_clients();
    session.limits.size = listener.size_limit.unwrap_or(config.size_limit).as_u64();
    session.limits.recipients = listener.max_recipients.unwrap_or(config.max_recipients);
    let timeouts = ServerTimeouts {
        queue: config.queue_timeout.into(),
        // Half of the grace is for the transaction, the rest for saying good-bye.
        leaving: common.shutdown_grace.as_duration() / 2,
        ..ServerTimeouts::default()
    };
    let neighbours = listener.xforward_networks.as_ref();
    let proxies = listener.xclient_networks.as_ref();
    let mut smtpd = SmtpdConfig {
        timeouts,
        implicit_tls: listener.implicit_tls,
        max_hops: config.max_hops,
        greeting_delay: listener
            .greeting_delay
            .unwrap_or(config.greeting_delay)
            .into(),
        min_rate: config.min_rate.as_u64(),
        xforward_networks: neighbours.unwrap_or(&config.xforward_networks).clone(),
        xclient_networks: proxies.unwrap_or(&config.xclient_networks).clone(),
        ..SmtpdConfig::new(name, session)
    };
    config.per_connection.apply(&mut smtpd);
    config.deliver_by.apply(&mut smtpd, Duration::ZERO);
    config.timeouts.apply(&mut smtpd);
    smtpd
}
