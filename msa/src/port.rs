//! One listener and what its conversations are like, now.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postroad_daemon::CommonConfig;
use postroad_dns::Resolver;
use postroad_net::{Connection, Limits, Listener, LiveLimits, ServerTls};
use postroad_oauth::Refusal;
use postroad_sasl::Mechanism;
use postroad_smtp_session::{Flavour, ServerConfig, TokenRefused};
use postroad_smtpd::{Smtpd, SmtpdConfig};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::ListenerTerms;
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
    terms: ListenerTerms,
    serving: Arc<ArcSwap<Serving>>,
    limits: LiveLimits,
    /// Where its certificates are not those of all.
    own_tls: watch::Sender<Option<ServerTls>>,
}

struct Serving {
    smtpd: Smtpd,
    rdns_timeout: Duration,
}

impl Port {
    /// Takes the port.
    pub fn bind(
        terms: ListenerTerms,
        (config, common): (&Config, &CommonConfig),
        policy: &Arc<Submission>,
        dependencies: &Dependencies,
        tls: Shown<'_>,
    ) -> Result<Self, MsaError> {
        let smtpd = Smtpd::new(
            smtpd_config(&terms, config, common),
            Arc::clone(policy) as _,
            Arc::clone(&dependencies.queue),
            Some(tls.tls().clone()),
            &dependencies.metrics,
        );
        let serving = Serving {
            smtpd,
            rdns_timeout: config.rdns_timeout.into(),
        };
        Ok(Self {
            listener: listen(&terms)?
                .behind(&terms.proxy_networks)
                .counted(&dependencies.metrics, &terms.name),
            door: Door {
                limits: LiveLimits::new(limits(&terms, common)),
                own_tls: watch::Sender::new(tls.own()),
                terms,
                serving: Arc::new(ArcSwap::from_pointee(serving)),
            },
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Its certificates where they are not those of all.
    pub fn own_tls(&self) -> watch::Receiver<Option<ServerTls>> {
        self.door.own_tls.subscribe()
    }

    /// What it serves with.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Serves until `shutdown`.
    pub async fn serve(self, resolver: Arc<dyn Resolver>, shutdown: CancellationToken) {
        let Self { listener, door } = self;
        let (serving, limits) = (Arc::clone(&door.serving), door.limits.clone());
        let served = CancellationToken::new();
        let watching = ServerTls::watch_latest(door.own_tls.subscribe(), served.clone());
        let handler = move |connection: Connection| {
            let (serving, resolver) = (serving.load_full(), Arc::clone(&resolver));
            async move {
                let client = connection.peer.ip();
                let rdns = reverse(&*resolver, client, serving.rdns_timeout).await;
                serving.smtpd.serve(connection, rdns).await;
            }
        };
        let farewell = farewell(door.terms.implicit_tls);
        let serve = async {
            listener.serve(&limits, farewell, shutdown, handler).await;
            served.cancel();
        };
        tokio::join!(serve, watching);
        // What hangs longer is a commit nobody waits for any more.
        let last = door.serving.load_full();
        let _ = timeout(limits.current().grace, last.smtpd.drain()).await;
    }
}

impl Door {
    /// As it was bound.
    pub fn terms(&self) -> &ListenerTerms {
        &self.terms
    }

    /// Conversations that begin from now on are like this.
    pub fn renew(
        &self,
        terms: &ListenerTerms,
        (config, common): (&Config, &CommonConfig),
        policy: &Arc<Submission>,
        tls: Shown<'_>,
    ) {
        self.limits.set(limits(terms, common));
        self.own_tls.send_replace(tls.own());
        let smtpd = self.serving.load().smtpd.successor(
            smtpd_config(terms, config, common),
            Arc::clone(policy) as _,
            Some(tls.tls().clone()),
        );
        self.serving.store(Arc::new(Serving {
            smtpd,
            rdns_timeout: config.rdns_timeout.into(),
        }));
    }
}

/// The certificates that a listener shows.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Those of all.
    pub all: &'a ServerTls,
    /// By the names of those that have some of their own.
    pub own: Option<&'a ServerTls>,
}

impl Shown<'_> {
    fn tls(&self) -> &ServerTls {
        self.own.unwrap_or(self.all)
    }

    fn own(&self) -> Option<ServerTls> {
        self.own.cloned()
    }
}

/// The grace period is that of the whole process.
fn limits(terms: &ListenerTerms, common: &CommonConfig) -> Limits {
    Limits {
        grace: common.shutdown_grace.as_duration(),
        ..terms.limits.clone()
    }
}

fn listen(terms: &ListenerTerms) -> Result<Listener, MsaError> {
    let name = &terms.name;
    let listener = Listener::bind(terms.listen).map_err(|source| MsaError::Listen {
        listener: name.clone(),
        source,
    })?;
    tracing::info!(event = "listening", listener = name, address = %listener.local_addr());
    Ok(listener)
}

/// What the conversations of a listener are like.
pub fn smtpd_config(terms: &ListenerTerms, config: &Config, common: &CommonConfig) -> SmtpdConfig {
    let mut session = ServerConfig::new(common.hostname.clone(), Flavour::Submission);
    session.offers.starttls = true;
    session.offers.auth = mechanisms(terms, config);
    let Refusal {
        oauthbearer,
        xoauth2,
    } = Refusal::of(&config.auth.oauth);
    session.offers.token_refused = TokenRefused {
        oauthbearer,
        xoauth2,
    };
    let longest = config.future_release.as_duration();
    session.offers.future_release = (!longest.is_zero()).then_some(longest);
    session.offers.mt_priority = Some(config.max_priority);
    session.offers.requiretls = true;
    session.limits.size = terms.size_limit;
    session.limits.recipients = terms.max_recipients;
    session.limits.auth_failures = config.auth.max_failures.max(1);
    let mut smtpd = SmtpdConfig::new(&terms.name, session);
    smtpd.implicit_tls = terms.implicit_tls;
    smtpd.hide_client = terms.rules.hide_client;
    smtpd.max_hops = config.max_hops;
    smtpd.greeting_delay = terms.greeting_delay;
    smtpd.xclient_networks = terms.xclient_networks.clone();
    smtpd.xclient_login = config.xclient_login;
    smtpd.min_rate = config.min_rate.as_u64();
    config.per_connection.apply(&mut smtpd);
    config
        .deliver_by
        .apply(&mut smtpd, config.undo.as_duration());
    config.timeouts.apply(&mut smtpd);
    smtpd.timeouts.queue = config.queue_timeout.into();
    smtpd
}

/// Those that somebody else vouches by, where somebody is configured who does, and then those with a password.
fn mechanisms(terms: &ListenerTerms, config: &Config) -> Vec<Mechanism> {
    let vouched = |mechanism: &Mechanism| match mechanism {
        Mechanism::External => config.client_certificates.are_asked_for(),
        mechanism => mechanism.shows_token() && !config.auth.oauth.is_empty(),
    };
    let vouched = Mechanism::ALL.into_iter().filter(vouched);
    let all = || config.auth.mechanisms.iter().map(|name| name.0).collect();
    let passwords = terms.mechanisms.clone().unwrap_or_else(all);
    vouched.chain(passwords).collect()
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
