//! MTA-STS at work: which policy of a domain counts now, fetched if need be, and kept on disk.
//!
//! What is decided is decided by [`postroad_mta_sts`]; here are the DNS, HTTPS, the clock and the files. Nothing that goes wrong
//! here makes mail wait: a domain whose policy cannot be had is as one without (RFC 8461 §5.1), and the log says so.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postroad_dns::{DnsError, HostName, Resolver};
use postroad_fetch::{Fault, Request};
use postroad_mta_sts::{Kept, MAX_POLICY, Next, Policy, Record, next};
use postroad_net::ClientTls;
use tokio::task::spawn_blocking;

use super::next_hop::Surroundings;
use crate::config::StsConfig;

/// A file that is larger was not written by us.
const MAX_FILE: u64 = 2 * MAX_POLICY as u64;

/// The policies of all domains. Clones share them.
#[derive(Clone)]
pub struct Policies(Arc<Shared>);

struct Shared {
    /// Where they are kept.
    folder: PathBuf,
    /// Whether files are written and removed there.
    writes: bool,
    known: Mutex<HashMap<String, Known>>,
}

/// What is known of a domain.
#[derive(Clone, Default)]
struct Known {
    kept: Option<Kept>,
    failed_at: Option<u64>,
    /// Held by whoever fetches.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

/// What is needed to ask.
pub struct Asking<'a> {
    pub config: &'a StsConfig,
    pub resolver: &'a dyn Resolver,
    pub around: &'a Surroundings,
    /// Without any authority nothing can be fetched.
    pub tls: Option<&'a ClientTls>,
    /// Whether one that is not here is fetched.
    pub fetch: bool,
}

/// The policy that counts for a domain, and what went wrong on the way to a newer one.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub policy: Option<Policy>,
    pub fault: Option<StsFault>,
}

/// Why no policy could be fetched although the domain says that it has one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StsFault {
    /// It cannot be had.
    #[error("the MTA-STS policy of {0} cannot be fetched: {1}")]
    Fetch(HostName, String),
    /// The certificate of its host does not count.
    #[error("the MTA-STS policy of {0} cannot be fetched: {1}")]
    Certificate(HostName, String),
    /// What was fetched is none.
    #[error("the MTA-STS policy of {0} is none: {1}")]
    Invalid(HostName, String),
    /// Nobody wanted it fetched: whoever only explains.
    #[error(
        "{0} has an MTA-STS policy that was not fetched: an attempt fetches it, and `postroad explain --fetch` does"
    )]
    NotAsked(HostName),
}

impl Policies {
    /// Reads what is kept in a folder, which is made when there is something to keep; blocks.
    pub fn open(folder: &Path, config: &StsConfig) -> Self {
        Self::of_folder(folder, config, true)
    }

    /// The same for whoever only looks: in the folder everything stays as it is.
    pub fn look_into(folder: &Path, config: &StsConfig) -> Self {
        Self::of_folder(folder, config, false)
    }

    fn of_folder(folder: &Path, config: &StsConfig, writes: bool) -> Self {
        let folder = folder.join("mta-sts");
        let now = seconds(SystemTime::now());
        let known = read_all(&folder, now, config.keep_most, writes);
        Self(Arc::new(Shared {
            folder,
            writes,
            known: Mutex::new(known),
        }))
    }

    /// What is kept of a domain, and counts.
    pub fn kept(&self, domain: &HostName) -> Option<Kept> {
        self.known().get(domain.as_str())?.kept.clone()
    }

    /// The policy that counts for a domain now.
    pub async fn of(&self, domain: &HostName, asking: &Asking<'_>) -> Found {
        if !asking.config.enabled {
            return Found::default();
        }
        let record = record(domain, asking.resolver).await;
        if record.is_none() && !self.known().contains_key(domain.as_str()) {
            return Found::default();
        }
        let known = self.entry(domain, asking.config.keep_most);
        match judge(&known, record.as_ref()) {
            Next::None => return Found::default(),
            Next::Use => return Found::of(known.kept),
            Next::Fetch if !asking.fetch => {
                return known.without(StsFault::NotAsked(domain.clone()));
            }
            Next::Fetch => {}
        }
        let _turn = known.fetching.lock().await;
        // Somebody else may have fetched it meanwhile.
        let known = self.entry(domain, asking.config.keep_most);
        match (judge(&known, record.as_ref()), record) {
            (Next::Fetch, Some(record)) => self.renewed(domain, record, known, asking).await,
            (Next::Use, _) => Found::of(known.kept),
            _ => Found::default(),
        }
    }

    async fn renewed(
        &self,
        domain: &HostName,
        record: Record,
        known: Known,
        asking: &Asking<'_>,
    ) -> Found {
        let now = seconds(SystemTime::now());
        match fetch(domain, asking).await {
            Ok(policy) => {
                let kept = Kept {
                    policy,
                    id: record.id,
                    fetched_at: now,
                };
                tracing::info!(
                    event = "sts_policy",
                    destination = %domain,
                    mode = %kept.policy.mode,
                    "the MTA-STS policy was fetched"
                );
                self.enter(domain, kept.clone()).await;
                Found::of(Some(kept))
            }
            Err(fault) => {
                tracing::info!(event = "sts_failed", destination = %domain, "{fault}");
                if let Some(entry) = self.known().get_mut(domain.as_str()) {
                    entry.failed_at = Some(now);
                }
                known.without(fault)
            }
        }
    }

    fn entry(&self, domain: &HostName, most: usize) -> Known {
        let mut known = self.known();
        if known.len() >= most && !known.contains_key(domain.as_str()) {
            forget_one(&mut known);
        }
        known.entry(domain.to_string()).or_default().clone()
    }

    async fn enter(&self, domain: &HostName, kept: Kept) {
        let text = kept.to_text();
        if let Some(entry) = self.known().get_mut(domain.as_str()) {
            entry.kept = Some(kept);
            entry.failed_at = None;
        }
        if !self.0.writes {
            return;
        }
        let (folder, name) = (self.0.folder.clone(), domain.to_string());
        let written = spawn_blocking(move || write(&folder, &name, &text)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(
                event = "fault",
                destination = %domain,
                "an MTA-STS policy cannot be kept in {}: {error}; it is fetched anew after the next start unless this user may write there",
                self.0.folder.display()
            );
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What counts where there is nothing newer.
    fn without(self, fault: StsFault) -> Found {
        let now = seconds(SystemTime::now());
        let alive = self.kept.filter(|kept| kept.is_alive(now));
        Found {
            fault: Some(fault),
            ..Found::of(alive)
        }
    }
}

impl Found {
    fn of(kept: Option<Kept>) -> Self {
        Self {
            policy: kept.map(|kept| kept.policy),
            fault: None,
        }
    }
}

fn judge(known: &Known, record: Option<&Record>) -> Next {
    let now = seconds(SystemTime::now());
    next(known.kept.as_ref(), record, known.failed_at, now)
}

/// What cannot be told is as what is not there.
async fn record(domain: &HostName, resolver: &dyn Resolver) -> Option<Record> {
    let name = domain.below("_mta-sts").ok()?;
    let texts = resolver.txt(&name).await.ok()?;
    Record::of(&texts.records)
}

async fn fetch(domain: &HostName, asking: &Asking<'_>) -> Result<Policy, StsFault> {
    let failed = |problem: String| StsFault::Fetch(domain.clone(), problem);
    let told = |error: DnsError| failed(error.to_string());
    let host = domain.below("mta-sts").map_err(told)?;
    let Some(tls) = asking.tls else {
        let missing = "no authority is known; install the system's (the package ca-certificates), or name one in mta.outbound.ca_file";
        return Err(failed(missing.to_owned()));
    };
    let port = asking.config.port;
    let mut addresses = asking
        .resolver
        .addresses(&host)
        .await
        .map_err(told)?
        .records;
    let forbidden = |ip| asking.around.forbids(ip, port).map(|reason| (ip, reason));
    let refused = addresses.iter().find_map(|ip| forbidden(*ip));
    addresses.retain(|ip| asking.around.forbids(*ip, port).is_none());
    if let (true, Some((ip, reason))) = (addresses.is_empty(), refused) {
        return Err(failed(format!(
            "{host} has the address {ip}: {reason}, not listed in mta.outbound.allow_networks"
        )));
    }
    let request = Request {
        host: host.as_str(),
        port,
        authority: host.as_str(),
        path: "/.well-known/mta-sts.txt",
        accept: "text/plain",
        tls: Some(tls),
        body: None,
        most: MAX_POLICY,
        within: asking.config.timeout.as_duration(),
    };
    match postroad_fetch::fetch(&request, &addresses).await {
        Ok(octets) => Policy::parse(&octets)
            .map_err(|error| StsFault::Invalid(domain.clone(), error.to_string())),
        Err(Fault::Tls(error)) => Err(StsFault::Certificate(domain.clone(), error.to_string())),
        Err(fault) => Err(failed(fault.to_string())),
    }
}

/// Of what was kept longest, the first to go; whoever is being fetched stays.
fn forget_one(known: &mut HashMap<String, Known>) {
    let age = |known: &Known| known.kept.as_ref().map_or(0, |kept| kept.fetched_at);
    let oldest = known
        .iter()
        .filter(|(_, known)| known.fetching.try_lock().is_ok())
        .min_by_key(|(_, known)| age(known))
        .map(|(domain, _)| domain.clone());
    if let Some(domain) = oldest {
        known.remove(&domain);
    }
}

fn read_all(folder: &Path, now: u64, most: usize, tidies: bool) -> HashMap<String, Known> {
    let mut known = HashMap::new();
    let Ok(files) = fs::read_dir(folder) else {
        return known;
    };
    for file in files.flatten() {
        let name = file.file_name();
        let domain = name.to_str().and_then(|name| HostName::parse(name).ok());
        let small = file.metadata().is_ok_and(|facts| facts.len() <= MAX_FILE);
        let text = small
            .then(|| fs::read_to_string(file.path()).ok())
            .flatten();
        let kept = text.as_deref().and_then(Kept::from_text);
        match (domain, kept.filter(|kept| kept.is_alive(now))) {
            (Some(domain), Some(kept)) if known.len() < most => {
                let entry = Known {
                    kept: Some(kept),
                    ..Known::default()
                };
                known.insert(domain.to_string(), entry);
            }
            // Dead, damaged or one too many.
            _ if tidies => _ = fs::remove_file(file.path()),
            _ => {}
        }
    }
    known
}

/// All of it or nothing: a reader never sees a half.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join(format!("{name}.new~"));
    fs::write(&new, text)?;
    fs::rename(&new, folder.join(name))
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}
