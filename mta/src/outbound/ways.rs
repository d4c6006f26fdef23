//! How the host of a job is spoken to: by its entry in `mta.outbound.hosts`, else as the rest of the world.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use postroad_envelope::{NextHop, Route, StatusReport};
use postroad_net::{ClientTls, Trust};
use postroad_sasl::Mechanism;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::login::Login;
use super::next_hop::{Candidate, Door};
use super::security::{Match, Rule};
use crate::Error;
use crate::config::hosts::{self, HostConfig, PasswordNeeds};
use crate::config::{DomainPattern, OutboundConfig, TlsPolicy};

/// Every way there is.
pub struct Ways {
    entries: Vec<HostConfig>,
    /// One for each entry.
    listed: Vec<Arc<Way>>,
    world: Arc<Way>,
    port: u16,
    /// The configured policies of recipient domains.
    policies: Vec<(DomainPattern, TlsPolicy)>,
    /// For hosts of the world that must prove who they are; without any authority, why there is none.
    verifying: Result<ClientTls, String>,
    /// For hosts whose certificate is looked at and does not matter (RFC 8461 §5, testing).
    looking: Option<ClientTls>,
    /// For policies that domains publish by HTTPS.
    pub https: Option<ClientTls>,
}

/// How hosts are spoken to that fit one entry, or none.
pub struct Way {
    /// How hard to try for encryption.
    pub policy: TlsPolicy,
    /// For that.
    pub tls: ClientTls,
    /// As whom.
    pub login: Login,
    /// Whether the password may go without TLS.
    pub auth_without_tls: bool,
    /// By what mechanisms to show it or prove it.
    pub mechanisms: Vec<Mechanism>,
    entry: Option<HostConfig>,
    /// How long the hosts are left alone after they refused our log-in.
    pause: Duration,
    /// By what the jobs are aimed at; only next hops that the configuration names have any.
    grief: Mutex<HashMap<String, Grief>>,
}

/// What went wrong with a next hop.
#[derive(Default)]
struct Grief {
    /// The log-in was refused: until when nobody tries again, and what to say until then.
    refused: Option<(Instant, StatusReport)>,
    /// When a person was told last.
    told: Option<Instant>,
}

impl Ways {
    /// Reads the files of the entries; blocks.
    pub fn new(config: &OutboundConfig) -> Result<Self, Error> {
        let pause = config.auth_pause.as_duration();
        let listed = config.hosts.iter().map(|entry| {
            let tls = entry.client_tls();
            let tls = tls.map_err(|source| Error::Host {
                host: entry.host.to_string(),
                source,
            })?;
            Ok(Arc::new(Way {
                policy: entry.tls,
                tls,
                login: Login::of(entry)?,
                auth_without_tls: entry.password_needs == PasswordNeeds::Nothing,
                mechanisms: entry.mechanisms(),
                entry: Some(entry.clone()),
                pause,
                grief: Mutex::default(),
            }))
        });
        // Any certificate is taken, so no authority needs to be known.
        let nobody = Trust::Files(Vec::new());
        let world = Way {
            policy: config.tls,
            tls: ClientTls::to_hosts(false, nobody, None).map_err(Error::Tls)?,
            login: Login::Nobody,
            auth_without_tls: false,
            mechanisms: Vec::new(),
            entry: None,
            pause,
            grief: Mutex::default(),
        };
        Ok(Self {
            entries: config.hosts.clone(),
            listed: listed.collect::<Result<_, Error>>()?,
            world: Arc::new(world),
            port: config.port,
            policies: config
                .tls_policies
                .iter()
                .map(|(pattern, policy)| (pattern.clone(), *policy))
                .collect(),
            verifying: ClientTls::to_hosts(true, config.trust(), None)
                .map_err(|error| error.to_string()),
            looking: ClientTls::opportunistic(config.trust()).ok(),
            https: ClientTls::verified(config.trust()).ok(),
        })
    }

    /// The way of a job.
    pub fn of(&self, route: &Route) -> &Arc<Way> {
        let position = hosts::position(&self.entries, route, self.port);
        let listed = position.and_then(|position| self.listed.get(position));
        listed.unwrap_or(&self.world)
    }

    /// How a connection of a job must be protected by our own configuration: by the entry of its host, else by the domain
    /// of its recipients, else as all the world's. `names` are those that its certificate may have.
    pub fn rule(&self, route: &Route, names: Vec<String>) -> Rule {
        let (policy, from, _) = self.written(route);
        Rule {
            policy,
            from,
            names,
        }
    }

    /// The key of the configuration that [`Ways::rule`] follows.
    pub fn key(&self, route: &Route) -> String {
        let (.., key) = self.written(route);
        key
    }

    /// The word, what it is called, and its key.
    fn written(&self, route: &Route) -> (TlsPolicy, String, String) {
        if let Some(number) = hosts::position(&self.entries, route, self.port)
            && let Some(entry) = self.entries.get(number)
        {
            let from = format!("mta.outbound.hosts {}", entry.host);
            return (entry.tls, from, format!("mta.outbound.hosts[{number}]"));
        }
        let domain = route.destination.to_ascii_lowercase();
        let best = self
            .policies
            .iter()
            // A host that a route names is not the domain's.
            .filter(|_| route.next_hop.is_none())
            .filter_map(|(pattern, policy)| Some((pattern.fits(&domain)?, pattern, policy)))
            .max_by_key(|(fit, ..)| *fit);
        match best {
            Some((_, pattern, policy)) => (
                *policy,
                format!("mta.outbound.tls_policies {pattern}"),
                format!("mta.outbound.tls_policies.{pattern}"),
            ),
            None => {
                let key = "mta.outbound.tls".to_owned();
                (self.of(route).policy, key.clone(), key)
            }
        }
    }

    /// TLS for a connection that must be so, or why there is none.
    pub fn tls(&self, way: &Way, certificate: &Match, look: bool) -> Result<ClientTls, String> {
        let verifies = way.entry.is_some() && way.policy == TlsPolicy::Verify;
        match certificate {
            Match::Anything if look => Ok(self.looking.clone().unwrap_or_else(|| way.tls.clone())),
            Match::Anything | Match::Dane(_) => Ok(way.tls.clone()),
            Match::Names(_) if verifies => Ok(way.tls.clone()),
            Match::Names(_) | Match::Host(_) => self.verifying.clone(),
        }
    }

    /// What is to be read again when its files change.
    pub fn files(&self) -> Vec<ClientTls> {
        let listed = self.listed.iter().map(|way| &way.tls);
        let world = self
            .verifying
            .iter()
            .chain(&self.looking)
            .chain(&self.https);
        listed.chain(world).cloned().collect()
    }
}

impl Way {
    /// Whether it has an entry of its own.
    pub fn is_listed(&self) -> bool {
        self.entry.is_some()
    }

    /// Whether TLS comes before the first word. Only what our routes name may be at such a port.
    pub fn is_implicit(&self, route: &Route) -> bool {
        let Some(hop) = &route.next_hop else {
            return self
                .entry
                .as_ref()
                .is_some_and(|entry| entry.implicit_tls == Some(true));
        };
        let NextHop::Host(hop) = hop else {
            return false;
        };
        let by_port = self.policy != TlsPolicy::None && hosts::is_submissions(hop.port);
        self.entry.as_ref().map_or(by_port, |entry| {
            self.policy != TlsPolicy::None && entry.is_implicit(hop.port)
        })
    }

    /// What to call the host in the handshake, and the names of which its certificate must have one.
    ///
    /// RFC 9525 §6.1: names that the configuration or the sender gave. The name of a mail host came from the DNS, which
    /// anybody on the way can forge, and counts only below the domain itself, whose owner vouches for it.
    pub fn names(&self, candidate: &Candidate, route: &Route) -> (String, Vec<String>) {
        let host = match candidate.door {
            Door::Tcp(address) if candidate.host.starts_with('[') => address.ip().to_string(),
            _ => candidate.host.clone(),
        };
        let given = self.entry.as_ref().map(|entry| entry.tls_names.as_slice());
        if let Some([first, ..]) = given {
            let given = given.unwrap_or_default();
            let known = given.iter().any(|name| name.eq_ignore_ascii_case(&host));
            let asked_for = if known { host } else { first.clone() };
            return (asked_for, given.to_vec());
        }
        if route.next_hop.is_some() || candidate.host.starts_with('[') {
            return (host.clone(), vec![host]);
        }
        let domain = route.destination.to_ascii_lowercase();
        let below = host.to_ascii_lowercase().ends_with(&format!(".{domain}"));
        let names = if below {
            vec![domain, host.clone()]
        } else {
            vec![domain]
        };
        (host, names)
    }

    /// Why a next hop is left alone now, if it is.
    pub fn paused(&self, route: &Route, now: Instant) -> Option<StatusReport> {
        let griefs = self.griefs();
        let (until, report) = griefs.get(&aim(route))?.refused.as_ref()?;
        (now < *until).then(|| report.clone())
    }

    /// A next hop refused our log-in in these words: asking again and again would have the account locked.
    pub fn login_refused(&self, route: &Route, report: &StatusReport, now: Instant) {
        self.login.refused();
        if self.pause.is_zero() {
            return;
        }
        let text = format!("{}; not tried again for a while since then", report.text);
        let report = StatusReport {
            text,
            ..report.clone()
        };
        let mut griefs = self.griefs();
        griefs.entry(aim(route)).or_default().refused = Some((now + self.pause, report));
    }

    /// Whether a person is to be told now: not with each mail.
    pub fn is_news(&self, route: &Route, now: Instant) -> bool {
        let mut griefs = self.griefs();
        let grief = griefs.entry(aim(route)).or_default();
        let recent = |at: Instant| now.duration_since(at) < self.pause;
        let news = !grief.told.is_some_and(recent);
        if news {
            grief.told = Some(now);
        }
        news
    }

    /// All is well with a next hop: the next trouble is news.
    pub fn works(&self, route: &Route) {
        self.griefs().remove(&aim(route));
    }

    fn griefs(&self) -> MutexGuard<'_, HashMap<String, Grief>> {
        self.grief.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn aim(route: &Route) -> String {
    match &route.next_hop {
        Some(hop) => hop.to_string(),
        None => route.destination.clone(),
    }
}

/// Takes up changed files of certificates, whichever configuration is in force, until `shutdown`.
pub async fn watch_files(mut latest: watch::Receiver<Vec<ClientTls>>, shutdown: CancellationToken) {
    loop {
        let replaced = shutdown.child_token();
        let current = latest.borrow_and_update().clone();
        let watching = join_all(current.into_iter().map(|tls| tls.watch(replaced.clone())));
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
        tokio::join!(watching, until);
        if shutdown.is_cancelled() {
            return;
        }
    }
}
