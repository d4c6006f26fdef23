//! How the host of a job is spoken to: by its entry in `mta.outbound.hosts`, else as the rest of the world.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use postroad_envelope::{NextHop, Route, StatusReport};
use postroad_net::{ClientTls, Trust};
use postroad_sasl::Password;
use postroad_smtp_session::TlsUse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::next_hop::{Candidate, Door};
use crate::Error;
use crate::config::hosts::{self, HostConfig, PasswordNeeds};
use crate::config::{OutboundConfig, TlsPolicy};

/// Every way there is.
pub struct Ways {
    entries: Vec<HostConfig>,
    /// One for each entry.
    listed: Vec<Arc<Way>>,
    world: Arc<Way>,
    port: u16,
}

/// How hosts are spoken to that fit one entry, or none.
pub struct Way {
    /// How hard to try for encryption.
    pub policy: TlsPolicy,
    /// For that.
    pub tls: ClientTls,
    /// Name and password.
    pub auth: Option<(String, Password)>,
    /// Whether the password may go without TLS.
    pub auth_without_tls: bool,
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
                auth: entry.credentials(),
                auth_without_tls: entry.password_needs == PasswordNeeds::Nothing,
                entry: Some(entry.clone()),
                pause,
                grief: Mutex::default(),
            }))
        });
        let verify = config.tls == TlsPolicy::Verified;
        let trust = match verify {
            true => Trust::System,
            // Any certificate is taken, so no authority needs to be known.
            false => Trust::Files(Vec::new()),
        };
        let world = Way {
            policy: config.tls,
            tls: ClientTls::to_hosts(verify, trust, None).map_err(Error::Tls)?,
            auth: None,
            auth_without_tls: false,
            entry: None,
            pause,
            grief: Mutex::default(),
        };
        Ok(Self {
            entries: config.hosts.clone(),
            listed: listed.collect::<Result<_, Error>>()?,
            world: Arc::new(world),
            port: config.port,
        })
    }

    /// The way of a job.
    pub fn of(&self, route: &Route) -> &Arc<Way> {
        let position = hosts::position(&self.entries, route, self.port);
        let listed = position.and_then(|position| self.listed.get(position));
        listed.unwrap_or(&self.world)
    }

    /// What is to be read again when its files change.
    pub fn files(&self) -> Vec<ClientTls> {
        self.listed.iter().map(|way| way.tls.clone()).collect()
    }
}

impl Way {
    /// Whether it has an entry of its own.
    pub fn is_listed(&self) -> bool {
        self.entry.is_some()
    }

    /// For the session.
    pub fn tls_use(&self) -> TlsUse {
        match self.policy {
            TlsPolicy::Opportunistic => TlsUse::IfOffered,
            TlsPolicy::None => TlsUse::Never,
            TlsPolicy::Required | TlsPolicy::Verified => TlsUse::Required,
        }
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
