//! `[queued]`: what can be set, with units and defaults.

mod accounts;
mod causes;
mod counters;
mod quota;
mod retry;
mod routes;
mod several;
mod sharing;
mod sites;
mod suppression;

use std::path::PathBuf;

use postroad_address::Mailbox;
use postroad_daemon::{AgentConfig, ByteSize, CommonConfig, HttpConfig, Interval};
use postroad_net::{KnownClient, Networks, UnixRole};
use postroad_rpc::Endpoint;
use serde::{Deserialize, Serialize};

pub use accounts::AccountsConfig;
pub use counters::CountersConfig;
pub use quota::{NamedQuota, QuotaConfig};
pub use retry::{RetryCase, RetryConfig};
pub use routes::{NextHopRule, RouteProblem, RouteRule};
pub use several::Several;
pub use sharing::{DestinationConfig, PriorityConfig};
pub use sites::{Meaning, ReplyPattern, SiteLimits, SitesConfig};
pub use suppression::{SuppressionConfig, SuppressionScope};

use crate::{ConfigError, routing::Router};

/// The section `[queued]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the queue. Default: `queue` in `common.state_dir`.
    pub folder: Option<PathBuf>,
    /// Largest content taken, whatever the edge allows.
    pub size_limit: ByteSize,
    /// Mails being received at one time; more are told to come again.
    pub max_submissions: usize,
    /// Octets of content held in memory for mails being received.
    pub max_submission_memory: ByteSize,
    /// How long the id of a finished mail is remembered, so that a repeated submission is known.
    pub remember_finished: Interval,
    /// Where mail goes for domains that are not ours and have no route.
    pub foreign: Foreign,
    /// Clients in these networks may send to anyone through an MTA; the same as `mta.inbound.relay_networks`, which alone
    /// is not believed. Default: none.
    pub relay_networks: Networks,
    /// Clients whose certificate was verified for one of these names may do so too; the same as `client_names` and
    /// `client_fingerprints` of `mta.inbound.listeners`. Default: none.
    pub relay_certificates: Vec<KnownClient>,
    /// Routes by recipient domain and what else is known of a mail; the first that fits is taken, before local domains are looked
    /// at.
    pub routes: Vec<RouteRule>,
    /// A file of rules that say why a mail did not get through; they are asked before our own.
    pub cause_rules: Option<PathBuf>,
    /// How agents are told of accounts.
    pub accounts: AccountsConfig,
    /// Where agents and operators connect.
    pub listen: ListenConfig,
    /// When a mail is tried again.
    pub retry: RetryConfig,
    /// How long a worker may keep a job.
    pub lease: LeaseConfig,
    /// Which jobs go first when there are more than workers can take.
    pub priority: PriorityConfig,
    /// What one destination may have.
    pub destination: DestinationConfig,
    /// What the mail hosts behind destinations take.
    pub sites: SitesConfig,
    /// How much tenants, accounts and recipient domains may have in the queue.
    pub quota: QuotaConfig,
    /// How much agents may count together: failed log-ins, mail sent, bans.
    pub counters: CountersConfig,
    /// Reports to senders.
    pub dsn: DsnConfig,
    /// Recipients that are not tried again.
    pub suppression: SuppressionConfig,
    /// What happened to each mail.
    pub timeline: TimelineConfig,
    /// Mails after their end.
    pub retired: RetiredConfig,
    /// Files and room.
    pub disk: DiskConfig,
    /// Backups of the running queue.
    pub backup: BackupConfig,
    /// `/healthz`, `/readyz` and `/metrics`.
    pub http: HttpConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: None,
            size_limit: ByteSize::mib(128),
            max_submissions: 1000,
            max_submission_memory: ByteSize::mib(128),
            remember_finished: Interval::hours(24),
            foreign: Foreign::default(),
            relay_networks: Networks::default(),
            relay_certificates: Vec::new(),
            routes: Vec::new(),
            cause_rules: None,
            accounts: AccountsConfig::default(),
            listen: ListenConfig::default(),
            retry: RetryConfig::default(),
            lease: LeaseConfig::default(),
            priority: PriorityConfig::default(),
            destination: DestinationConfig::default(),
            sites: SitesConfig::default(),
            quota: QuotaConfig::default(),
            counters: CountersConfig::default(),
            dsn: DsnConfig::default(),
            suppression: SuppressionConfig::default(),
            timeline: TimelineConfig::default(),
            retired: RetiredConfig::default(),
            disk: DiskConfig::default(),
            backup: BackupConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl AgentConfig for Config {
    fn http(&self) -> &HttpConfig {
        &self.http
    }
}

impl Config {
    /// The folder of the queue.
    pub fn folder(&self, common: &CommonConfig) -> PathBuf {
        self.folder
            .clone()
            .unwrap_or_else(|| common.state_dir.join("queue"))
    }

    /// Where agents of this host connect.
    pub fn agents_endpoint(&self, common: &CommonConfig) -> Endpoint {
        let named = common.queue.only().and_then(|only| only.parse().ok());
        let of_agents = || match named {
            Some(endpoint @ Endpoint::Unix(_)) => endpoint,
            _ => Endpoint::Unix(common.run_dir.join("queue.sock")),
        };
        self.listen.agents.clone().unwrap_or_else(of_agents)
    }

    /// Where operators of this host connect.
    pub fn admin_endpoint(&self, common: &CommonConfig) -> Endpoint {
        let default = || Endpoint::Unix(common.run_dir.join("queue-admin.sock"));
        self.listen.admin.clone().unwrap_or_else(default)
    }

    /// The first thing in the section that reads well and cannot be followed.
    pub fn check(&self, common: &CommonConfig) -> Result<(), ConfigError> {
        Router::new(&self.routes, self.foreign)?;
        self.check_sharing()?;
        self.shaping()?;
        self.check_accounts()?;
        self.check_counters()?;
        self.quotas()?;
        self.causes()?;
        self.retry.check()?;
        match (&self.listen.tcp, &common.tls) {
            (Some(_), None) => Err(ConfigError::NoCertificates),
            _ => Ok(()),
        }
    }
}

/// What is done with mail for other domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Foreign {
    /// It is sent to their mail hosts.
    #[default]
    Relay,
    /// It is kept until someone releases it.
    Hold,
}

/// `[queued.listen]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Where agents connect. Default: `common.queue` if that is one Unix socket, else `queue.sock` in `common.run_dir`.
    pub agents: Option<Endpoint>,
    /// Where operators connect. Default: `queue-admin.sock` in `common.run_dir`.
    pub admin: Option<Endpoint>,
    /// Where agents of other hosts connect, e.g. `tcp:[::]:7700`; needs `common.tls`.
    pub tcp: Option<Endpoint>,
    /// Who on this host may do what: `{ uid = 1001, roles = ["msa"] }`. Root and our own user may do everything.
    pub unix_roles: Vec<UnixRole>,
}

/// `[queued.lease]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// How long a worker may keep a job without a sign of life.
    pub duration: Interval,
    /// How long the jobs of a worker whose stream broke wait for it.
    pub stream_grace: Interval,
    /// How long jobs that were leased before a restart of the queue wait for their worker.
    pub resume_grace: Interval,
    /// Jobs of one mail that are given to an MTA together, which sends them in one transaction where it can; 1: each by itself.
    pub together: u32,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            duration: Interval::minutes(5),
            stream_grace: Interval::seconds(30),
            resume_grace: Interval::seconds(30),
            together: 50,
        }
    }
}

/// `[queued.dsn]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DsnConfig {
    /// How long failures of one mail are gathered into one report.
    pub gather: Interval,
    /// How long after a mail came its sender is told, once, that it still waits, unless NOTIFY has no DELAY; `"0s"`: never.
    pub delay_after: Interval,
    /// Who gets what can be told to nobody: mails without a sender, such as reports, that failed. Default: they are dropped, and
    /// the log says so.
    #[serde(with = "optional_text")]
    pub double_bounce_to: Option<Mailbox>,
}

impl Default for DsnConfig {
    fn default() -> Self {
        Self {
            gather: Interval::seconds(1),
            delay_after: Interval::hours(4),
            double_bounce_to: None,
        }
    }
}

/// `[queued.timeline]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimelineConfig {
    /// How long events are kept; `"0s"` keeps none, and removes those there are.
    pub keep: Interval,
    /// Room for them; the oldest go first. `"0B"` keeps none.
    pub max_size: ByteSize,
}

impl Default for TimelineConfig {
    fn default() -> Self {
        Self {
            keep: Interval::days(7),
            max_size: ByteSize::gib(1),
        }
    }
}

/// `[queued.retired]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetiredConfig {
    /// How long a mail can be listed and shown after its end; `"0s"` keeps none, and removes those there are.
    pub keep: Interval,
    /// Room for them; the oldest go first. `"0B"` keeps none.
    pub max_size: ByteSize,
    /// Whose content is kept too, so that it can be sent again: `failed` (and dropped ones), `all`, `none`.
    pub content: KeptContent,
    /// How long contents are kept; never longer than `keep`.
    pub content_keep: Interval,
    /// Room for contents; the oldest go first.
    pub content_max_size: ByteSize,
}

impl Default for RetiredConfig {
    fn default() -> Self {
        Self {
            keep: Interval::days(7),
            max_size: ByteSize::gib(1),
            content: KeptContent::default(),
            content_keep: Interval::days(3),
            content_max_size: ByteSize::gib(1),
        }
    }
}

/// Which mails' content is kept after their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptContent {
    /// Mails that not all recipients got: failed and dropped ones.
    #[default]
    Failed,
    /// Delivered ones too.
    All,
    /// No content.
    None,
}

/// `[queued.disk]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// New mail is refused when less than this part of the disk is free.
    pub reserve_percent: u32,
    /// New mail is refused when less than this is free; `"0B"` together with 0 percent never refuses.
    pub reserve: ByteSize,
    /// Length of a journal segment.
    pub segment: ByteSize,
    /// Old segments are given up once all of them take more room than this.
    pub journal_target: ByteSize,
    /// Memory for the index.
    pub index_cache: ByteSize,
    /// An index that has grown larger than this, and much larger than what it holds, is made anew while mail goes on.
    pub index_spare: ByteSize,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            reserve_percent: 5,
            reserve: ByteSize::mib(256),
            segment: ByteSize::mib(16),
            journal_target: ByteSize::mib(64),
            index_cache: ByteSize::mib(8),
            index_spare: ByteSize::mib(48),
        }
    }
}

/// `[queued.backup]`: what a backup needs stays on the disk while it is made, so it must come to an end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// A backup of which nothing was taken for so long is given up.
    pub patience: Interval,
    /// A backup that takes longer is given up.
    pub longest: Interval,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            patience: Interval::minutes(1),
            longest: Interval::hours(6),
        }
    }
}

mod optional_text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
