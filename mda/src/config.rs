use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use postroad_daemon::{AgentConfig, ByteSize, ConfigError, ConfigFile, HttpConfig, Interval};
use postroad_envelope::{InvalidStoreName, StoreName};
use postroad_maildir::{FileSystem, SyncOptions};
use postroad_net::{Limits, ListenAddr, Networks};
use postroad_smtpd::Timeouts;
use serde::{Deserialize, Serialize};

/// Keys that can change while the agent runs; others need a restart.
pub const LIVE: &[&str] = &[
    "mda.lmtp.allow_networks",
    "mda.lmtp.xforward_networks",
    "mda.lmtp.size_limit",
    "mda.lmtp.max_recipients",
    "mda.lmtp.max_hops",
    "mda.lmtp.queue_timeout",
    "mda.lmtp.timeouts",
    "mda.lmtp.limits",
];

/// The section `[mda]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the mailboxes are: `<mail_root>/<domain>/<local part>/Maildir`.
    pub mail_root: PathBuf,
    /// The store this is: it takes the mail of the accounts that the directory says are of it.
    pub store: String,
    /// Deliveries at one time. Each waits for the disk, and those of one moment share its syncs.
    pub concurrency: u32,
    /// How those of one moment share syncs.
    pub sync: SyncConfig,
    /// Mail from other mail systems, by LMTP.
    pub lmtp: LmtpConfig,
    /// `/healthz`, `/readyz` and `/metrics`.
    pub http: HttpConfig,
}

/// `[mda.sync]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncConfig {
    /// Kinds of file system that are synced as a whole for a group of deliveries.
    pub file_systems: Vec<String>,
    /// So many that wait for the disk at the same time are a group.
    pub together: u32,
    /// If that takes longer, others write much to the same disk,
    pub slow: Interval,
    /// and for so long each file is synced by itself.
    pub pause: Interval,
}

/// `[mda.lmtp]` (RFC 2033).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LmtpConfig {
    /// Where to listen, by the name that logs show: `"unix:/run/postroad/lmtp.sock"` or `"127.0.0.1:24"`. Default:
    /// nowhere.
    pub listeners: BTreeMap<String, LmtpAddr>,
    /// Who may hand us mail over TCP. Over a Unix socket it is who may open it.
    pub allow_networks: Networks,
    /// Balancers: from there, each connection must say whose it is by a header of the PROXY protocol.
    pub proxy_networks: Networks,
    /// Mail systems that are believed what they tell by XFORWARD of their own clients. Over a Unix socket all are.
    pub xforward_networks: Networks,
    /// Octets of content.
    pub size_limit: ByteSize,
    /// Recipients of one mail; never fewer than 100.
    pub max_recipients: usize,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// How long the queue is waited for before the client is told to come again.
    pub queue_timeout: Interval,
    /// How long a client is waited for.
    pub timeouts: Timeouts,
    /// Connections.
    pub limits: Limits,
}

/// A place to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LmtpAddr {
    /// A socket file that owner and group may open.
    Unix(PathBuf),
    /// An address and port.
    Tcp(ListenAddr),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mail_root: "/var/lib/postroad/mail".into(),
            store: StoreName::DEFAULT.to_owned(),
            concurrency: 64,
            sync: SyncConfig::default(),
            lmtp: LmtpConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            file_systems: ["ext4", "xfs", "btrfs"].map(str::to_owned).to_vec(),
            together: 4,
            slow: Interval::millis(100),
            pause: Interval::seconds(10),
        }
    }
}

impl SyncConfig {
    /// As the store takes it.
    pub fn options(&self) -> SyncOptions {
        SyncOptions {
            from: self.together as usize,
            on: FileSystem::ALL
                .into_iter()
                .filter(|known| self.file_systems.iter().any(|name| name == known.name()))
                .collect(),
            slow: self.slow.into(),
            pause: self.pause.into(),
        }
    }
}

impl Default for LmtpConfig {
    fn default() -> Self {
        Self {
            listeners: BTreeMap::new(),
            allow_networks: Networks::parse(["127.0.0.0/8", "::1"]).unwrap_or_default(),
            proxy_networks: Networks::default(),
            xforward_networks: Networks::default(),
            size_limit: ByteSize::mib(50),
            max_recipients: 1000,
            max_hops: 100,
            queue_timeout: Interval::seconds(30),
            timeouts: Timeouts::default(),
            limits: Limits {
                // One mail system on one host brings all of the mail.
                max_connections_per_ip: 1000,
                ..Limits::default()
            },
        }
    }
}

impl AgentConfig for Config {
    fn http(&self) -> &HttpConfig {
        &self.http
    }
}

impl Config {
    /// The name of the store, if it can be one.
    pub fn store_name(&self) -> Result<StoreName, InvalidStoreName> {
        self.store.parse()
    }

    /// Everything in the section that reads well and cannot work.
    pub fn check(&self, file: &ConfigFile) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        if !self.mail_root.is_absolute() {
            problems.push(file.error(
                "mda.mail_root",
                format!("{} is not an absolute path", self.mail_root.display()),
                "write it from the root, such as \"/var/lib/postroad/mail\"",
            ));
        }
        if let Err(error) = self.store_name() {
            problems.push(file.error(
                "mda.store",
                error.to_string(),
                "write the name that accounts of it have in the directory, such as \"default\"",
            ));
        }
        if self.concurrency == 0 {
            problems.push(file.error(
                "mda.concurrency",
                "nothing would ever be delivered",
                "write 1 or more",
            ));
        }
        let known = FileSystem::ALL.map(FileSystem::name);
        if let Some(other) = (self.sync.file_systems.iter()).find(|name| !known.contains(&&***name))
        {
            problems.push(file.error(
                "mda.sync.file_systems",
                format!("nobody knows whether {other:?} syncs as a whole what it says"),
                format!("write some of {}, or []", known.join(", ")),
            ));
        }
        if self.sync.slow == Interval::millis(0) {
            problems.push(file.error(
                "mda.sync.slow",
                "every sync takes longer than no time at all",
                "write a time such as \"100ms\", or file_systems = [] to sync each file by itself",
            ));
        }
        if self.lmtp.proxy_networks.names_everyone() {
            problems.push(file.error(
                "mda.lmtp.proxy_networks",
                "anybody could claim to be any client",
                "name the addresses of your balancers alone, such as \"192.0.2.7\"",
            ));
        }
        if self.lmtp.xforward_networks.names_everyone() {
            problems.push(file.error(
                "mda.lmtp.xforward_networks",
                "anybody could claim to pass on the mail of any client",
                "name the addresses of the mail systems in front alone, such as \"192.0.2.8\"",
            ));
        }
        if self.lmtp.max_recipients < 100 {
            problems.push(file.error(
                "mda.lmtp.max_recipients",
                "fewer than RFC 5321 §4.5.3.1.8 demands",
                "write 100 or more",
            ));
        }
        problems.extend(self.lmtp.timeouts.check("mda.lmtp.timeouts", file));
        problems
    }
}

impl FromStr for LmtpAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(format!("{text:?}: the path of a socket begins with /")),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "{text:?} is neither a socket such as \"unix:/run/postroad/lmtp.sock\" nor an address such as \"127.0.0.1:24\""
                )
            }),
        }
    }
}

impl fmt::Display for LmtpAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

impl TryFrom<String> for LmtpAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LmtpAddr> for String {
    fn from(addr: LmtpAddr) -> Self {
        addr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen_on() {
        for good in ["unix:/run/x.sock", "127.0.0.1:24", "[::1]:24"] {
            assert_eq!(good.parse::<LmtpAddr>().unwrap().to_string(), good);
        }
        for bad in ["unix:run/x", "/run/x", "localhost:24", "24"] {
            assert!(bad.parse::<LmtpAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_believes_everybody() {
        let text = "[mda.lmtp]\nxforward_networks = [\"::/0\"]\n";
        let file = ConfigFile::assemble([("p.toml".into(), text.to_owned())], []).unwrap();
        let config: Config = file.section("mda").unwrap();
        let told: Vec<_> = config
            .check(&file)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("p.toml:2: mda.lmtp.xforward_networks: anybody could claim"));
    }

    #[test]
    fn without_a_word_syncs_are_as_the_store_has_them() {
        assert_eq!(SyncConfig::default().options(), SyncOptions::default());
    }

    #[test]
    fn problems_name_their_key() {
        let text = "[mda]\nmail_root = \"mail\"\nconcurrency = 0\nstore = \"A\"\nsync.slow = \"0s\"\nsync.file_systems = [\"zfs\"]\n";
        let file = ConfigFile::assemble([("p.toml".into(), text.to_owned())], []).unwrap();
        let config: Config = file.section("mda").unwrap();
        let problems = config.check(&file);
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 5);
        assert!(
            told[3].starts_with("p.toml:6: mda.sync.file_systems: nobody knows whether \"zfs\""),
            "{told:?}"
        );
        assert!(told[4].starts_with("p.toml:5: mda.sync.slow: "), "{told:?}");
        assert!(told[0].starts_with("p.toml:2: mda.mail_root: "), "{told:?}");
        assert!(
            told[1].starts_with("p.toml:4: mda.store: the name of a store is "),
            "{told:?}"
        );
        assert!(
            told[2].starts_with("p.toml:3: mda.concurrency: "),
            "{told:?}"
        );
    }
}
