//! The LMTP listener (RFC 2033): another mail system hands mail over, a reply for each recipient.
//!
//! Mail goes through the queue like any other, so the 250 means durable and the delivery is retried by us.

mod policy;
mod unix;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use postroad_accounts::Accounts;
use postroad_daemon::{Apply, CommonConfig};
use postroad_metrics::Metrics;
use postroad_net::{Limits, Listener, LiveLimits};
use postroad_queue_client::QueueService;
use postroad_smtp_session::{Flavour, ServerConfig};
use postroad_smtpd::{Smtpd, SmtpdConfig};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::policy::Local;
use self::unix::UnixSocket;
use crate::{LmtpAddr, LmtpConfig, MdaError};

const FAREWELL: &[u8] = b"421 4.7.0 too many connections, please try again later\r\n";

/// The bound listeners.
pub struct Lmtp {
    ports: Vec<Port>,
    common: CommonConfig,
    limits: LiveLimits,
}

enum Port {
    Tcp(Listener, Door),
    Unix(UnixSocket, Door),
}

/// What a listener serves with; clones share it, so that a changed configuration reaches the listener.
#[derive(Clone)]
pub struct Door {
    name: String,
    accounts: Accounts,
    /// Whether anyone may connect who can open the socket.
    by_file: bool,
    smtpd: Arc<ArcSwap<Smtpd>>,
}

impl Lmtp {
    /// Takes the ports; none are fine.
    pub fn bind(
        config: &LmtpConfig,
        common: &CommonConfig,
        queue: &Arc<dyn QueueService>,
        accounts: &Accounts,
        metrics: &Metrics,
    ) -> Result<Self, MdaError> {
        let mut ports = Vec::new();
        for (name, address) in &config.listeners {
            let failed = |source| MdaError::Listen {
                name: name.clone(),
                source,
            };
            let by_file = matches!(address, LmtpAddr::Unix(_));
            let smtpd = Smtpd::new(
                smtpd_config(name, config, common),
                policy(config, accounts, by_file),
                Arc::clone(queue),
                None,
                metrics,
            );
            let door = Door {
                name: name.clone(),
                accounts: accounts.clone(),
                by_file,
                smtpd: Arc::new(ArcSwap::from_pointee(smtpd)),
            };
            ports.push(match address {
                LmtpAddr::Tcp(tcp) => {
                    let listener = Listener::bind(*tcp).map_err(failed)?;
                    let listener = listener.behind(&config.proxy_networks);
                    tracing::info!(event = "listening", listener = name, address = %listener.local_addr());
                    let listener = listener.counted(metrics, name);
                    Port::Tcp(listener, door)
                }
                LmtpAddr::Unix(path) => {
                    let socket = UnixSocket::bind(path).map_err(|error| failed(error.into()))?;
                    tracing::info!(event = "listening", listener = name, %address);
                    Port::Unix(socket, door)
                }
            });
        }
        let limits = LiveLimits::new(limits(config, common));
        Ok(Self {
            ports,
            common: common.clone(),
            limits,
        })
    }

    /// The bound TCP addresses, in the order of the listeners' names.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let tcp = self.ports.iter().filter_map(|port| match port {
            Port::Tcp(listener, _) => Some(listener.local_addr()),
            Port::Unix(..) => None,
        });
        tcp.collect()
    }

    /// How another configuration is put into force, for conversations that begin from then on.
    pub fn renewal(&self) -> impl Fn(LmtpConfig) -> Apply + use<> {
        let doors = self.ports.iter().map(|port| match port {
            Port::Tcp(_, door) | Port::Unix(_, door) => door.clone(),
        });
        let (doors, common) = (doors.collect::<Vec<_>>(), self.common.clone());
        let bounds = self.limits.clone();
        move |config| {
            let (doors, common, bounds) = (doors.clone(), common.clone(), bounds.clone());
            Apply::new(move || {
                bounds.set(limits(&config, &common));
                for door in doors {
                    let smtpd = door.smtpd.load().successor(
                        smtpd_config(&door.name, &config, &common),
                        policy(&config, &door.accounts, door.by_file),
                        None,
                    );
                    door.smtpd.store(Arc::new(smtpd));
                }
            })
        }
    }

    /// Works until `shutdown`; then running transactions may end within the grace period.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for port in self.ports {
            let (limits, shutdown) = (self.limits.clone(), shutdown.clone());
            tasks.spawn(async move {
                let door = match port {
                    Port::Tcp(listener, door) => {
                        let serving = door.clone();
                        listener
                            .serve(&limits, FAREWELL, shutdown, move |connection| {
                                let smtpd = serving.smtpd();
                                async move { smtpd.serve(connection, None).await }
                            })
                            .await;
                        door
                    }
                    Port::Unix(socket, door) => {
                        socket.serve(&limits, &door, shutdown).await;
                        door
                    }
                };
                let _ = timeout(limits.current().grace, door.smtpd().drain()).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "fault", task = "lmtp", %error);
            }
        }
    }
}

impl Door {
    /// The server for a conversation that begins now.
    pub fn smtpd(&self) -> Arc<Smtpd> {
        self.smtpd.load_full()
    }
}

/// The grace period is that of the whole process.
fn limits(config: &LmtpConfig, common: &CommonConfig) -> Limits {
    Limits {
        grace: common.shutdown_grace.as_duration(),
        ..config.limits.clone()
    }
}

fn policy(config: &LmtpConfig, accounts: &Accounts, by_file: bool) -> Arc<Local> {
    Arc::new(Local {
        accounts: accounts.clone(),
        allow: (!by_file).then(|| config.allow_networks.clone()),
    })
}

fn smtpd_config(name: &str, config: &LmtpConfig, common: &CommonConfig) -> SmtpdConfig {
    let mut session = ServerConfig::new(common.hostname.clone(), Flavour::Lmtp);
    session.limits.size = config.size_limit.as_u64();
    session.limits.recipients = config.max_recipients.max(100);
    // A mail system brings mail for hours on one connection.
    session.limits.refused_recipients = u32::MAX;
    session.limits.idle_commands = u32::MAX;
    session.limits.mails = u32::MAX;
    session.limits.commands = u32::MAX;
    let mut smtpd = SmtpdConfig::new(name, session);
    smtpd.max_hops = config.max_hops;
    smtpd.xforward_networks = config.xforward_networks.clone();
    config.timeouts.apply(&mut smtpd);
    smtpd.timeouts.queue = config.queue_timeout.into();
    smtpd
}
