//! `[common]`: what all agents share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use postroad_address::Domain;
use serde::{Deserialize, Serialize};

use crate::config::text;
pub use crate::queue_addresses::QueueAddresses;
use crate::runtime::Threads;
use crate::units::Interval;

/// The section `[common]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct CommonConfig {
    /// The fully qualified name of this host, as it greets and as it is looked up. Default: what the
    /// system calls itself.
    #[serde(with = "text")]
    pub hostname: Domain,
    /// The domain unqualified addresses are completed with, and the sender of reports. Default: the
    /// host name.
    #[serde(with = "optional_text")]
    pub domain: Option<Domain>,
    /// Where agents keep what must survive a restart.
    pub state_dir: PathBuf,
    /// Where sockets are.
    pub run_dir: PathBuf,
    /// The file with domains, accounts and aliases.
    pub directory: PathBuf,
    /// Where agents have accounts from.
    pub accounts: AccountsConfig,
    /// Where the queue is: `unix:PATH`, or `tcp:HOST:PORT`, which is always mutual TLS; or a list of several nodes.
    pub queue: QueueAddresses,
    /// Of these nodes those that get no new mail, until they are empty and can go.
    pub retiring: Vec<String>,
    /// How long work in progress may take to finish when the process is told to stop.
    pub shutdown_grace: Interval,
    /// Threads that carry out tasks. Default: half of the processors for each agent, all of them for all in one process.
    pub threads: Option<Threads>,
    /// Run although the user is root. Agents need no privilege: give them the port instead.
    pub allow_root: bool,
    /// Logs.
    pub log: LogConfig,
    /// How names are resolved.
    pub dns: DnsConfig,
    /// How long before the end of a certificate it is told of, daily.
    pub certificate_warning: Interval,
    /// The certificate this process shows to other agents over TCP. Not used on Unix sockets.
    pub tls: Option<TlsFiles>,
}

impl Default for CommonConfig {
    fn default() -> Self {
        Self {
            hostname: system_hostname().unwrap_or_else(|_| localhost()),
            domain: None,
            state_dir: "/var/lib/postroad".into(),
            run_dir: "/run/postroad".into(),
            directory: "/etc/postroad/directory.toml".into(),
            accounts: AccountsConfig::default(),
            queue: "unix:/run/postroad/queue.sock".into(),
            retiring: Vec::new(),
            shutdown_grace: Interval::seconds(30),
            threads: None,
            allow_root: false,
            log: LogConfig::default(),
            dns: DnsConfig::default(),
            certificate_warning: Interval::days(14),
            tls: None,
        }
    }
}

impl CommonConfig {
    /// The configured domain, else the host name.
    pub fn domain(&self) -> &Domain {
        self.domain.as_ref().unwrap_or(&self.hostname)
    }
}

/// `[common.accounts]`: for msa, mta and mda; the queue itself always reads the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountsConfig {
    /// The directory file, or the queue.
    pub from: AccountsFrom,
    /// Answers of the queue that are remembered, of each kind.
    pub cache_size: usize,
    /// How old an answer may be that is used while the queue does not answer.
    pub max_stale: Interval,
    /// How long an answer is waited for.
    pub timeout: Interval,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self {
            from: AccountsFrom::default(),
            cache_size: 10_000,
            max_stale: Interval::hours(24),
            timeout: Interval::seconds(2),
        }
    }
}

/// Where accounts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountsFrom {
    /// `common.directory`.
    #[default]
    File,
    /// `common.queue`.
    Queue,
}

/// `[common.log]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// One line of text or one JSON object per event, on standard error.
    pub format: LogFormat,
    /// The least level that is written. `POSTROAD_LOG` overrides it, also by target
    /// (`info,postroad_mta=debug`).
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `time LEVEL agent event field=value …`.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// Something is off, the work goes on.
    Warn,
    /// One line per fact.
    #[default]
    Info,
    /// What led to the facts.
    Debug,
    /// Every step.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// `[common.dns]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// A zone file that answers instead of the DNS, for rehearsals.
    pub zone: Option<PathBuf>,
    /// Names the zone does not know are asked of the name servers instead of not existing.
    pub zone_falls_through: bool,
    /// Name servers: `"192.0.2.53"`, `"192.0.2.53:53"`, `"[2001:db8::53]:53"`. Empty: those of
    /// `/etc/resolv.conf`.
    pub servers: Vec<NameServer>,
    /// How long one attempt may take.
    pub timeout: Interval,
    /// How often a question is asked.
    pub attempts: usize,
    /// Answers remembered.
    pub cache_size: u64,
    /// An answer is remembered for its TTL, and no longer than this.
    pub cache_max_ttl: Interval,
    /// The same of an answer that there is no such name or record.
    pub cache_max_negative_ttl: Interval,
    /// Offer larger UDP answers (RFC 6891).
    pub edns: bool,
    /// Validate what name servers say from the keys of the root zone down (DNSSEC, RFC 4035), which DANE needs; they must
    /// pass signatures on. Without it only a server of this host is believed that it validated an answer.
    pub dnssec: bool,
    /// A file of DNSKEY records that are believed instead of the keys of the root zone.
    pub trust_anchors: Option<PathBuf>,
    /// The address family tried first.
    pub prefer: AddressFamily,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            zone: None,
            zone_falls_through: false,
            servers: Vec::new(),
            timeout: Interval::seconds(5),
            attempts: 2,
            cache_size: 8192,
            cache_max_ttl: Interval::days(1),
            cache_max_negative_ttl: Interval::minutes(15),
            edns: true,
            dnssec: false,
            trust_anchors: None,
            prefer: AddressFamily::default(),
        }
    }
}

/// A version of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// AAAA before A.
    #[default]
    Ipv6,
    /// A before AAAA.
    Ipv4,
}

/// A name server, by default at port 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl FromStr for NameServer {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let bare = written
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(written);
        match (written.parse(), bare.parse::<IpAddr>()) {
            (Ok(server), _) => Ok(Self(server)),
            (_, Ok(ip)) => Ok(Self(SocketAddr::new(ip, 53))),
            _ => Err(format!(
                "{written:?} is no name server; write \"192.0.2.53\" or \"192.0.2.53:53\""
            )),
        }
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for NameServer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for NameServer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

/// Files of a certificate for mutual TLS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsFiles {
    /// Certificates of the authorities a peer's certificate must come from (PEM).
    pub ca_file: PathBuf,
    /// Our certificate and its chain (PEM).
    pub cert_file: PathBuf,
    /// The key of the certificate (PEM).
    pub key_file: PathBuf,
    /// Serial numbers of certificates that count no more: one in a line, in hexadecimal digits, `#` before words for people.
    /// `postroad pki revoke` adds to it.
    #[serde(default)]
    pub revoked: Option<PathBuf>,
    /// `common.certificate_warning`.
    #[serde(skip)]
    pub warning: Option<Interval>,
}

/// What the system calls this machine: copies of an agent that share a host name have each its own, in a container its
/// id.
pub fn machine_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

/// What the system calls this host, if that is a fully qualified name; else the name it has.
pub(crate) fn system_hostname() -> Result<Domain, String> {
    let name = machine_name();
    match Domain::parse(&name) {
        Ok(domain) if name.contains('.') => Ok(domain),
        _ => Err(name),
    }
}

fn localhost() -> Domain {
    Domain::from_ip(IpAddr::from([127, 0, 0, 1]))
}

mod optional_text {
    use super::*;

    pub fn serialize<S: serde::Serializer>(
        value: &Option<Domain>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Domain>, D::Error> {
        text::deserialize(deserializer).map(Some)
    }
}
