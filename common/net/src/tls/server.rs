//! The server's side: certificates by host name, read again when their files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use postroad_metrics::labels::Certificate;
use postroad_metrics::{Metrics, list};
use rustls::ServerConfig;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::files::{CertFiles, Facts, Loaded, Stamp, read_roots};
use super::neighbour::{AnyClient, ClientJudge, TrustedClients};
use super::revoked::Revocations;
use super::signatures::Signatures;
use super::verify;
use super::{CERTIFICATE_WATCH, Reloads, VERSIONS, WarnBefore, config_error, first_end, provider};
use crate::Error;

/// TLS for a listener. Clones share the certificates, so a reload reaches all of them.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    certs: Vec<CertFiles>,
    callers: Callers,
    alpn: Vec<Vec<u8>>,
    current: ArcSwap<Current>,
    warn_before: WarnBefore,
    /// The files as they were when last read, well or badly.
    seen: Mutex<Stamp>,
}

/// Who may call.
#[derive(Debug)]
enum Callers {
    /// Anybody; nobody is asked for a certificate.
    World,
    /// Agents of this house, with certificates of this authority that are not revoked.
    Agents(PathBuf, Revocations),
    /// Anybody, but some are known by their certificates.
    Neighbours(TrustedClients),
}

/// One generation of the files.
#[derive(Debug)]
pub struct Current {
    config: Arc<ServerConfig>,
    judge: Option<Arc<ClientJudge>>,
    facts: Vec<Facts>,
}

impl Current {
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    pub fn judge(&self) -> Option<&ClientJudge> {
        self.judge.as_deref()
    }
}

impl ServerTls {
    /// Server certificates for the world; clients show none. The one whose names fit the SNI is used, and the
    /// first where none fits.
    pub fn load(certs: &[CertFiles]) -> Result<Self, Error> {
        Self::new(certs.to_vec(), Callers::World, &[])
    }

    /// The same for a listener that knows some of its clients by their certificates: each is asked for one, and
    /// [`TlsInfo`](crate::TlsInfo) says what it was worth. Sessions are not taken up again, so that each connection proves it.
    pub fn load_asking(certs: &[CertFiles], clients: &TrustedClients) -> Result<Self, Error> {
        Self::new(certs.to_vec(), Callers::Neighbours(clients.clone()), &[])
    }

    /// Mutual TLS: clients must show a certificate from `client_ca` that names a role and is not among `revoked`, which is
    /// its owner's to watch. Without a common ALPN protocol, if any are named, the handshake fails.
    pub fn load_mutual(
        cert: &CertFiles,
        client_ca: &Path,
        revoked: &Revocations,
        alpn: &[&[u8]],
    ) -> Result<Self, Error> {
        let callers = Callers::Agents(client_ca.to_owned(), revoked.clone());
        Self::new(vec![cert.clone()], callers, alpn)
    }

    fn new(certs: Vec<CertFiles>, callers: Callers, alpn: &[&[u8]]) -> Result<Self, Error> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let seen = Stamp::of(paths(&certs, &callers));
        let current = ArcSwap::from_pointee(build(&certs, &callers, &alpn)?);
        Ok(Self(Arc::new(Shared {
            certs,
            callers,
            alpn,
            current,
            warn_before: WarnBefore::default(),
            seen: Mutex::new(seen),
        })))
    }

    /// Tells of certificates so long before their end, in a watch.
    pub fn warning(self, before: Duration) -> Self {
        self.0.warn_before.set(before);
        self
    }

    /// Seconds until the first of our certificates runs out.
    pub fn seconds_left(&self) -> Option<i64> {
        first_end(&self.0.current.load().facts)
    }

    /// Reads the files again, now. On an error the old certificates stay in use. Blocks on files.
    pub fn reload(&self) -> Result<(), Error> {
        let shared = &*self.0;
        // Stamped before reading: a change in between is seen at the next look.
        *shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.stamp();
        let built = build(&shared.certs, &shared.callers, &shared.alpn)?;
        shared.current.store(Arc::new(built));
        Ok(())
    }

    /// [`reload`](Self::reload)s if a file changed since it was last read; says whether it did.
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        if *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) == self.stamp() {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Counts how long the certificate of a listener has left that runs out first. `current` says what listeners show now.
    pub fn count_first(current: impl Fn() -> Vec<Self> + Send + Sync + 'static, metrics: &Metrics) {
        let read = move || {
            let left = current().iter().filter_map(Self::seconds_left).min()?;
            Some(left as f64)
        };
        let shown = [Certificate::Listeners.text()];
        metrics.read(&list::CERTIFICATE_EXPIRES, &shown, read);
    }

    /// Looks at the files `every` so often and reloads them, until `shutdown`. A task of the caller.
    pub async fn watch(self, every: Duration, shutdown: CancellationToken) {
        super::watch(self, every, shutdown).await;
    }

    /// The same with certificates that are replaced by others, or by none, as the configuration changes.
    pub async fn watch_latest(
        mut latest: watch::Receiver<Option<Self>>,
        shutdown: CancellationToken,
    ) {
        loop {
            let current = latest.borrow_and_update().clone();
            let replaced = CancellationToken::new();
            let watching = async {
                match current {
                    Some(tls) => tls.watch(CERTIFICATE_WATCH, replaced.clone()).await,
                    None => replaced.cancelled().await,
                }
            };
            let until = async {
                let go_on = tokio::select! {
                    () = shutdown.cancelled() => false,
                    changed = latest.changed() => match changed {
                        Ok(()) => true,
                        // Nobody is left who could replace them.
                        Err(_) => {
                            shutdown.cancelled().await;
                            false
                        }
                    },
                };
                replaced.cancel();
                go_on
            };
            let ((), go_on) = tokio::join!(watching, until);
            if !go_on {
                return;
            }
        }
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.current.load_full()
    }

    fn stamp(&self) -> Stamp {
        Stamp::of(paths(&self.0.certs, &self.0.callers))
    }
}

impl Reloads for ServerTls {
    fn reload_if_changed(&self) -> Result<bool, Error> {
        Self::reload_if_changed(self)
    }

    fn facts(&self) -> Vec<Facts> {
        self.0.current.load().facts.clone()
    }

    fn warn_before(&self) -> Duration {
        self.0.warn_before.current()
    }
}

fn paths<'a>(certs: &'a [CertFiles], callers: &'a Callers) -> impl Iterator<Item = &'a PathBuf> {
    let (authority, lists) = match callers {
        Callers::World => (None, None),
        Callers::Agents(path, _) => (Some(path), None),
        Callers::Neighbours(clients) => (clients.ca_file.as_ref(), clients.crl_file.as_ref()),
    };
    certs
        .iter()
        .flat_map(|files| [&files.cert_file, &files.key_file])
        .chain(authority)
        .chain(lists)
}

fn build(certs: &[CertFiles], callers: &Callers, alpn: &[Vec<u8>]) -> Result<Current, Error> {
    let (resolver, facts) = ByHostName::load(certs)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(config_error)?;
    let mut judge = None;
    let builder = match callers {
        Callers::Agents(path, revoked) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(read_roots(path)?),
                provider(),
            )
            .build()
            .map_err(|error| Error::file(path, error))?;
            builder.with_client_cert_verifier(Arc::new(verify::Callers {
                inner: verifier,
                revoked: revoked.clone(),
            }))
        }
        Callers::Neighbours(clients) => {
            let new = Arc::new(ClientJudge::new(clients)?);
            judge = Some(Arc::clone(&new));
            builder.with_client_cert_verifier(Arc::new(AnyClient {
                judge: new,
                signatures: Signatures(provider()),
            }))
        }
        Callers::World => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.to_vec();
    if !matches!(callers, Callers::World) {
        // A session that is taken up again shows no certificate: one that was revoked or has run out would go on counting.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Current {
        config: Arc::new(config),
        judge,
        facts,
    })
}

/// RFC 6066 §3: the certificate follows the name the client asked for.
#[derive(Debug)]
struct ByHostName {
    fallback: Arc<CertifiedKey>,
    by_name: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl ByHostName {
    fn load(certs: &[CertFiles]) -> Result<(Self, Vec<Facts>), Error> {
        let mut by_name = Vec::with_capacity(certs.len());
        let mut told = Vec::with_capacity(certs.len());
        for files in certs {
            let Loaded { key, names, facts } = files.load()?;
            by_name.push((names, Arc::new(key)));
            told.push(facts);
        }
        let (_, fallback) = by_name
            .first()
            .ok_or_else(|| config_error("no certificate is configured"))?;
        let resolver = Self {
            fallback: Arc::clone(fallback),
            by_name,
        };
        Ok((resolver, told))
    }

    fn choose(&self, name: &str) -> &Arc<CertifiedKey> {
        let by = |fits: fn(&str, &str) -> bool| {
            self.by_name
                .iter()
                .find(|(names, _)| names.iter().any(|pattern| fits(pattern, name)))
                .map(|(_, key)| key)
        };
        by(str::eq_ignore_ascii_case)
            .or_else(|| by(fits_wildcard))
            .unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for ByHostName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = hello
            .server_name()
            .map_or(&self.fallback, |name| self.choose(name));
        Some(Arc::clone(chosen))
    }
}

/// RFC 9525 §6.3: `*` stands for exactly the leftmost label.
fn fits_wildcard(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(parent), Some((_, rest))) => parent.eq_ignore_ascii_case(rest),
        _ => false,
    }
}
