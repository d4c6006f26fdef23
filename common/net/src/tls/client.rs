//! The client's side: opportunistic for relaying, verified where a name must be proven, mutual among our agents.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use super::dane::{Dane, DaneHost};
use super::files::{CertFiles, Facts, Loaded, Stamp, read_roots};
use super::neighbour::Host;
use super::revoked::Revocations;
use super::signatures::{Signatures, signatures_by};
use super::verify::Servers;
use super::{CERTIFICATE_WATCH, Reloads, VERSIONS, WarnBefore, config_error, first_end, provider};
use crate::{Error, PeerRole};

/// The authorities a client believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of the operating system.
    System,
    /// Those of these PEM files and no others.
    Files(Vec<PathBuf>),
}

/// TLS for outgoing connections. Clones share the configuration and its cache of sessions.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    policy: Policy,
    trust: Trust,
    own: Option<Own>,
    alpn: Vec<Vec<u8>>,
    current: ArcSwap<Current>,
    warn_before: WarnBefore,
    seen: Mutex<Stamp>,
}

/// What mutual TLS needs besides the authorities.
#[derive(Clone, Debug)]
struct Own {
    files: CertFiles,
    revoked: Revocations,
    /// The role a server's certificate must name.
    server: Option<PeerRole>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// RFC 7435: any certificate is better than none.
    AcceptAny,
    /// The certificate must be from a trusted CA and for the name.
    Verify,
    /// The same for one of several names, which each connection brings along.
    VerifyNames,
}

/// One generation of the files.
#[derive(Debug)]
pub struct Current {
    policy: Policy,
    config: Arc<ClientConfig>,
    /// `None` without any trusted authority; then nothing verifies.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    facts: Vec<Facts>,
}

/// One reading of the files of a [`ClientTls`]: connections of equal ones were verified by the same authorities, and showed the
/// same certificate.
#[derive(Clone, Debug)]
pub struct TlsGeneration(Arc<Current>);

impl PartialEq for TlsGeneration {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsGeneration {}

impl ClientTls {
    /// For relaying: any certificate is taken; [`TlsInfo::peer`](crate::TlsInfo::peer) says whether it would
    /// have stood up to `trust`.
    pub fn opportunistic(trust: Trust) -> Result<Self, Error> {
        Self::new(Policy::AcceptAny, trust, None, &[])
    }

    /// The peer must show a certificate for its name from `trust`.
    pub fn verified(trust: Trust) -> Result<Self, Error> {
        Self::new(Policy::Verify, trust, None, &[])
    }

    /// For mail to hosts that are named in the configuration: with `verify` a certificate from `trust` for one of the names
    /// a connection brings along ([`Stream::upgrade_to_host`](crate::Stream::upgrade_to_host)), else any. `own` is shown to
    /// hosts that ask who we are.
    pub fn to_hosts(verify: bool, trust: Trust, own: Option<&CertFiles>) -> Result<Self, Error> {
        let own = own.map(|files| Own {
            files: files.clone(),
            revoked: Revocations::none(),
            server: None,
        });
        let policy = match verify {
            true => Policy::VerifyNames,
            false => Policy::AcceptAny,
        };
        Self::new(policy, trust, own, &[])
    }

    /// Mutual TLS: both ends show certificates from `ca_file`'s authorities; the server's must not be among `revoked`, and
    /// names the role `server` if there is one here: whoever else has a certificate and a place in the network is no server.
    pub fn mutual(
        own: &CertFiles,
        ca_file: &Path,
        revoked: &Revocations,
        server: Option<PeerRole>,
        alpn: &[&[u8]],
    ) -> Result<Self, Error> {
        let own = Own {
            files: own.clone(),
            revoked: revoked.clone(),
            server,
        };
        let trust = Trust::Files(vec![ca_file.to_owned()]);
        Self::new(Policy::Verify, trust, Some(own), alpn)
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

    /// Reads the files again if one changed; on an error the old ones stay in use. Blocks on files.
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        let shared = &*self.0;
        let now = Stamp::of(paths(&shared.trust, shared.own.as_ref()));
        {
            let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return Ok(false);
            }
            *seen = now;
        }
        shared.current.store(Arc::new(build(
            shared.policy,
            &shared.trust,
            shared.own.as_ref(),
            &shared.alpn,
        )?));
        Ok(true)
    }

    /// Takes up changed files, and tells of it. Blocks on files.
    pub fn refresh(&self) {
        Reloads::refresh(self);
        if let Some(own) = &self.0.own {
            own.revoked.refresh();
        }
    }

    /// Looks at the files now and then and takes up changes, until `shutdown`. A task of the caller.
    pub async fn watch(self, shutdown: CancellationToken) {
        let revoked = match &self.0.own {
            Some(own) => own.revoked.clone(),
            None => Revocations::none(),
        };
        tokio::join!(
            revoked.watch(shutdown.clone()),
            super::watch(self, CERTIFICATE_WATCH, shutdown)
        );
    }

    fn new(policy: Policy, trust: Trust, own: Option<Own>, alpn: &[&[u8]]) -> Result<Self, Error> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let seen = Mutex::new(Stamp::of(paths(&trust, own.as_ref())));
        let current = ArcSwap::from_pointee(build(policy, &trust, own.as_ref(), &alpn)?);
        Ok(Self(Arc::new(Shared {
            policy,
            trust,
            own,
            alpn,
            current,
            warn_before: WarnBefore::default(),
            seen,
        })))
    }

    /// The files as they were read last.
    pub fn generation(&self) -> TlsGeneration {
        TlsGeneration(self.current())
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.current.load_full()
    }

    /// RFC 6066 §3: without the trailing dot.
    pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        ServerName::try_from(bare.to_owned()).map_err(|_| Error::ServerName(name.to_owned()))
    }
}

impl Reloads for ClientTls {
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

impl Current {
    /// For a connection to a host with one of these names.
    pub fn config(&self, names: &[ServerName<'static>]) -> Arc<ClientConfig> {
        let (Policy::VerifyNames, Some(authorities)) = (self.policy, &self.verifier) else {
            return Arc::clone(&self.config);
        };
        let mut config = ClientConfig::clone(&self.config);
        config.dangerous().set_certificate_verifier(Arc::new(Host {
            authorities: Arc::clone(authorities),
            names: names.to_vec(),
        }));
        Arc::new(config)
    }

    /// For a connection to a host whose certificate the DNS vouches for; no authority that we believe means anything then.
    pub fn dane_config(&self, dane: &Dane) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(DaneHost {
                dane: dane.clone(),
                signatures: Signatures(provider()),
            }));
        // A session that is taken up again shows no certificate.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// For which of `names` the chain is trusted, or why for none.
    pub fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        names: &[ServerName<'_>],
        now: UnixTime,
    ) -> Result<String, String> {
        let verifier = self
            .verifier
            .as_ref()
            .ok_or("no certificate authority is configured")?;
        let mut reason = "no name was asked for".to_owned();
        for name in names {
            match verifier.verify_server_cert(leaf, intermediates, name, &[], now) {
                Ok(_) => return Ok(name.to_str().into_owned()),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

fn paths<'a>(trust: &'a Trust, own: Option<&'a Own>) -> impl Iterator<Item = &'a PathBuf> {
    let ca: &[PathBuf] = match trust {
        Trust::System => &[],
        Trust::Files(files) => files,
    };
    ca.iter().chain(
        own.into_iter()
            .flat_map(|own| [&own.files.cert_file, &own.files.key_file]),
    )
}

fn build(
    policy: Policy,
    trust: &Trust,
    own: Option<&Own>,
    alpn: &[Vec<u8>],
) -> Result<Current, Error> {
    let roots = trust.load()?;
    let verifier = match (roots.is_empty(), policy) {
        (true, Policy::Verify | Policy::VerifyNames) => {
            return Err(config_error(
                "no certificate authority is known; name one in `ca_file`",
            ));
        }
        (true, Policy::AcceptAny) => None,
        (false, _) => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(config_error)?,
        ),
    };
    let chosen: Arc<dyn ServerCertVerifier> = match (&verifier, policy, own) {
        // Each connection has its own, see `Current::config`.
        (Some(verifier), Policy::VerifyNames, _) => Arc::clone(verifier) as _,
        (Some(verifier), Policy::Verify, Some(own)) => Arc::new(Servers {
            inner: Arc::clone(verifier),
            revoked: own.revoked.clone(),
            role: own.server,
        }),
        (Some(verifier), Policy::Verify, None) => Arc::clone(verifier) as _,
        _ => Arc::new(AcceptAny(Signatures(provider()))),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(config_error)?
        .dangerous()
        .with_custom_certificate_verifier(chosen);
    let mut told = Vec::new();
    let mut config = match own {
        Some(own) => {
            let Loaded { key, facts, .. } = own.files.load()?;
            told.push(facts);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.to_vec();
    if own.is_some() || policy == Policy::VerifyNames {
        // As at the other end: a session that is taken up again shows no certificate, and would not be verified for these names.
        config.resumption = Resumption::disabled();
    }
    Ok(Current {
        policy,
        config: Arc::new(config),
        verifier,
        facts: told,
    })
}

impl Trust {
    fn load(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match self {
            // A store with some odd certificates still serves; the odd ones are left out.
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Self::Files(files) => {
                for path in files {
                    roots.extend(read_roots(path)?.roots);
                }
            }
        }
        Ok(roots)
    }
}

/// Takes any certificate, but the peer must hold its key, or the handshake would prove nothing at all.
#[derive(Debug)]
struct AcceptAny(Signatures);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by!(0);
}
