//! `[mta]`: what can be set, with units and defaults.

pub mod families;
pub mod hosts;
pub mod listeners;
pub mod security;
pub mod sources;
pub mod verp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use postroad_address::Domain;
use postroad_daemon::{
    AgentConfig, ByteSize, ConfigError, ConfigFile, HttpConfig, Interval, SecretFile,
};
use postroad_net::{CertFiles, ClientTls, Limits, ListenAddr, Networks, ServerTls, Trust};
use postroad_smtp_session::ClientTimeouts;
use postroad_smtpd::{DeliverByKeys, PerConnection, Timeouts as ServerTimeouts};
use serde::{Deserialize, Serialize};

use crate::bounces::Bounces;
pub use families::AddressPreference;
pub use hosts::{HostConfig, HostPattern, PasswordNeeds};
pub use listeners::ListenerConfig;
pub use security::{DomainPattern, ReportsConfig, StsConfig, TlsPolicy};
pub use sources::{SourceAddress, SourceConfig, Sources};
pub use verp::{DelimitersText, SenderText, Senders};

/// Keys that can change while the agent runs; others need a restart.
pub const LIVE: &[&str] = &[
    "mta.inbound.listeners",
    "mta.inbound.certificates",
    "mta.inbound.size_limit",
    "mta.inbound.max_recipients",
    "mta.inbound.relay_networks",
    "mta.inbound.xforward_networks",
    "mta.inbound.xclient_networks",
    "mta.inbound.rdns_timeout",
    "mta.inbound.queue_timeout",
    "mta.inbound.max_hops",
    "mta.inbound.greeting_delay",
    "mta.inbound.min_rate",
    "mta.inbound.per_connection",
    "mta.inbound.deliver_by",
    "mta.inbound.timeouts",
    "mta.inbound.bounce_key_file",
    "mta.inbound.bounces_only_signed",
    "mta.inbound.verp_senders",
    "mta.inbound.verp_delimiters",
    "mta.inbound.limits",
    "mta.outbound.port",
    "mta.outbound.helo_name",
    "mta.outbound.bind_ipv4",
    "mta.outbound.bind_ipv6",
    "mta.outbound.sources",
    "mta.outbound.tls",
    "mta.outbound.tls_policies",
    "mta.outbound.ca_file",
    "mta.outbound.mta_sts",
    "mta.outbound.hosts",
    "mta.outbound.auth_pause",
    "mta.outbound.address_preference",
    "mta.outbound.fallback_delay",
    "mta.outbound.fallback_memory",
    "mta.outbound.allow_networks",
    "mta.outbound.own_addresses",
    "mta.outbound.per_destination",
    "mta.outbound.join_recipients",
    "mta.outbound.max_hops",
    "mta.outbound.chunking",
    "mta.outbound.reuse",
    "mta.outbound.timeouts",
    "mta.outbound.sign_senders",
    "mta.outbound.bounce_key_file",
    "mta.outbound.bounce_keep",
    "mta.outbound.verp_senders",
    "mta.outbound.verp_delimiters",
];

/// The section `[mta]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Mail from the world.
    pub inbound: InboundConfig,
    /// Mail to the world.
    pub outbound: OutboundConfig,
    /// `/healthz`, `/readyz` and `/metrics`.
    pub http: HttpConfig,
}

/// `[mta.inbound]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct InboundConfig {
    /// Whether this agent takes mail.
    pub enabled: bool,
    /// Where to listen, by the name that logs show.
    pub listeners: BTreeMap<String, ListenerConfig>,
    /// Certificates; with at least one STARTTLS is offered. The one that fits the name a client asks for is shown.
    pub certificates: Vec<CertFiles>,
    /// Octets of content.
    pub size_limit: ByteSize,
    /// Recipients of one mail; never fewer than 100.
    pub max_recipients: usize,
    /// Clients in these networks may send to anyone.
    pub relay_networks: Networks,
    /// Balancers: from there, each connection must say whose it is by a header of the PROXY protocol.
    pub proxy_networks: Networks,
    /// Mail systems in front of us: believed what they tell by XFORWARD of their own clients.
    pub xforward_networks: Networks,
    /// Proxies that are believed what they tell by XCLIENT of the client for whom they speak.
    pub xclient_networks: Networks,
    /// How long the name of a client is looked up.
    pub rdns_timeout: Interval,
    /// How long the queue is waited for before the client is told to come again.
    pub queue_timeout: Interval,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// How long the greeting is held back, to send away who speaks before it.
    pub greeting_delay: Interval,
    /// Octets of content that a client must bring in a second, on the average of three minutes.
    pub min_rate: ByteSize,
    /// How much one connection may bring; as much as there is where a neighbour is at its other end (`xforward_networks`).
    pub per_connection: PerConnection,
    /// Whether mail may say by when it is to be delivered (RFC 2852).
    pub deliver_by: DeliverByKeys,
    /// How long a client is waited for.
    pub timeouts: ServerTimeouts,
    /// The keys of bounce addresses that were signed when mail left, one on a line; all of them are believed.
    pub bounce_key_file: Option<SecretFile>,
    /// Domains of ours that take mail without a sender at signed addresses alone.
    pub bounces_only_signed: Vec<HostText>,
    /// Senders whose mail left from an address for each recipient: what comes to one goes to the sender, and tells of the recipient.
    pub verp_senders: Vec<SenderText>,
    /// How those addresses are divided.
    pub verp_delimiters: DelimitersText,
    /// Connections.
    pub limits: Limits,
}

impl AgentConfig for Config {
    fn http(&self) -> &HttpConfig {
        &self.http
    }
}

impl Config {
    /// Everything in the section that reads well and cannot work. Reads the certificates; blocks.
    pub fn check(&self, file: &ConfigFile) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, problem: String, remedy: &str| {
            problems.push(file.error(key, problem, remedy));
        };
        let InboundConfig {
            listeners,
            certificates,
            ..
        } = &self.inbound;
        if self.inbound.enabled && listeners.is_empty() {
            problem(
                "mta.inbound.listeners",
                "there is no listener".to_owned(),
                "write `listeners.smtp = \"[::]:25\"`, or `enabled = false`",
            );
        }
        if let Err(error) = load_certificates(certificates) {
            problem(
                "mta.inbound.certificates",
                error.to_string(),
                "name a PEM certificate with its chain, and its key, readable for this user",
            );
        }
        let inbound = &self.inbound;
        let networks = [
            ("proxy_networks", Some(&inbound.proxy_networks)),
            ("xforward_networks", Some(&inbound.xforward_networks)),
            ("xclient_networks", Some(&inbound.xclient_networks)),
        ];
        let (delay, most) = (Some(inbound.greeting_delay), Some(inbound.max_recipients));
        for (key, what, remedy) in postroad_smtpd::listener_faults(delay, most, &networks) {
            problem(&format!("mta.inbound.{key}"), what, remedy);
        }
        if self.outbound.concurrency == 0 || self.outbound.per_destination == 0 {
            problem(
                "mta.outbound.concurrency",
                "no mail can leave without a place for a job".to_owned(),
                "write 1 or more for it and for `per_destination`, or `enabled = false`",
            );
        }
        if self.outbound.mta_sts.keep_most == 0 {
            problem(
                "mta.outbound.mta_sts.keep_most",
                "a policy that is not kept would be fetched for each mail".to_owned(),
                "write 1 or more, or `enabled = false`",
            );
        }
        if self.outbound.join_recipients == 0 {
            problem(
                "mta.outbound.join_recipients",
                "jobs without recipients cannot go together".to_owned(),
                "write 100 or more, or `join_domains = false`",
            );
        }
        if self.outbound.reuse.mails == 0 {
            problem(
                "mta.outbound.reuse.mails",
                "a connection that carries no mail is of no use".to_owned(),
                "write 1 for a new connection for each mail, or more",
            );
        }
        problems.extend(
            inbound
                .per_connection
                .check("mta.inbound.per_connection", file),
        );
        problems.extend(inbound.deliver_by.check("mta.inbound.deliver_by", file));
        problems.extend(inbound.timeouts.check("mta.inbound.timeouts", file));
        problems.extend(listeners::check(listeners, certificates, file));
        problems.extend(hosts::check(&self.outbound.hosts, file));
        problems.extend(sources::check(&self.outbound.sources, file));
        problems.extend(families::check(&self.outbound, file));
        problems.extend(self.bounce_problems(file));
        if let Some(problem) = self.outbound.world_problem(file) {
            problems.push(problem);
        }
        problems
    }
}

impl Config {
    /// Routes of a queue in the same file that send from a pool of addresses which is not there. Their mail waits, and all other goes, so it
    /// is told and stops no agent.
    pub fn unknown_sources(&self, file: &ConfigFile) -> Vec<ConfigError> {
        sources::unknown(&self.outbound, file)
    }

    /// The same, told to the log: at a start and at each reload.
    pub fn warn_of_sources(&self, file: &ConfigFile) {
        for problem in self.unknown_sources(file) {
            tracing::warn!(event = "fault", "{problem}");
        }
    }

    /// Signed bounce addresses: a list without keys, or keys that are none.
    fn bounce_problems(&self, file: &ConfigFile) -> Vec<ConfigError> {
        let lists = [
            (
                "mta.outbound.sign_senders",
                self.outbound.sign_senders.is_empty(),
                &self.outbound.bounce_key_file,
            ),
            (
                "mta.inbound.bounces_only_signed",
                self.inbound.bounces_only_signed.is_empty(),
                &self.inbound.bounce_key_file,
            ),
        ];
        let without = lists
            .into_iter()
            .filter(|(_, empty, key)| !empty && key.is_none());
        let mut problems: Vec<ConfigError> = without
            .map(|(key, ..)| {
                file.error(
                    key,
                    "there is no key for it".to_owned(),
                    "write `bounce_key_file` beside it",
                )
            })
            .collect();
        let keys = [
            (
                "mta.outbound.bounce_key_file",
                Bounces::outbound(&self.outbound).err(),
            ),
            (
                "mta.inbound.bounce_key_file",
                Bounces::inbound(&self.inbound).err(),
            ),
        ];
        let remedy = "`openssl rand -hex 32` makes a key";
        let wrong = keys
            .into_iter()
            .filter_map(|(key, error)| Some((key, error?)));
        problems.extend(wrong.map(|(key, error)| file.error(key, error.to_string(), remedy)));
        problems
    }
}

/// The certificates for STARTTLS, if there are any.
pub fn load_certificates(files: &[CertFiles]) -> Result<Option<ServerTls>, postroad_net::Error> {
    match files {
        [] => Ok(None),
        files => ServerTls::load(files).map(Some),
    }
}

impl Default for InboundConfig {
    fn default() -> Self {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25));
        Self {
            enabled: true,
            listeners: BTreeMap::from([("smtp".to_owned(), ListenAddr(everywhere).into())]),
            certificates: Vec::new(),
            size_limit: ByteSize::mib(50),
            max_recipients: 1000,
            relay_networks: Networks::default(),
            proxy_networks: Networks::default(),
            xforward_networks: Networks::default(),
            xclient_networks: Networks::default(),
            rdns_timeout: Interval::seconds(2),
            queue_timeout: Interval::seconds(30),
            max_hops: 100,
            greeting_delay: Interval::seconds(0),
            min_rate: ByteSize::bytes(100),
            per_connection: PerConnection::default(),
            deliver_by: DeliverByKeys::default(),
            timeouts: ServerTimeouts::default(),
            bounce_key_file: None,
            bounces_only_signed: Vec::new(),
            verp_senders: Vec::new(),
            verp_delimiters: DelimitersText::default(),
            limits: Limits::default(),
        }
    }
}

/// `[mta.outbound]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboundConfig {
    /// Whether this agent sends mail.
    pub enabled: bool,
    /// The port of mail hosts. Another than 25 is for rehearsals; routes name their own.
    pub port: u16,
    /// What to say in EHLO. Default: `common.hostname`.
    pub helo_name: Option<HostText>,
    /// The local IPv4 address to send from.
    pub bind_ipv4: Option<Ipv4Addr>,
    /// The local IPv6 address to send from.
    pub bind_ipv6: Option<Ipv6Addr>,
    /// Pools of addresses to send from, by the name that routes call them (`source` in `queued.routes`).
    pub sources: Sources,
    /// How connections to the world are protected.
    pub tls: TlsPolicy,
    /// The same by recipient domain; `.example.org` stands for all below it, and the longest that fits counts.
    pub tls_policies: BTreeMap<DomainPattern, TlsPolicy>,
    /// The authorities whose certificates count for the world. Default: those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Policies of domains that are fetched by HTTPS (RFC 8461).
    pub mta_sts: StsConfig,
    /// Reports to domains that want to hear how TLS went with their mail hosts (RFC 8460).
    pub tls_reports: ReportsConfig,
    /// What is known of single next hops.
    pub hosts: Vec<HostConfig>,
    /// How long a host is left alone that refused our log-in.
    pub auth_pause: Interval,
    /// Which addresses of a host come first. Default: as `common.dns.prefer` says.
    pub address_preference: Option<AddressPreference>,
    /// How long an address of a host is waited for before one of the other family is tried beside it; 0: as long as it takes.
    pub fallback_delay: Interval,
    /// How long a family of addresses comes last after it was seen to lead nowhere; 0: never.
    pub fallback_memory: Interval,
    /// Networks that may be sent to although they are not of the public internet.
    pub allow_networks: Networks,
    /// Public addresses that lead to this host, if it is behind NAT: mail hosts with one of them are ourselves.
    pub own_addresses: Vec<IpAddr>,
    /// Jobs at once.
    pub concurrency: u32,
    /// Jobs at once for one destination, by this agent.
    pub per_destination: u32,
    /// Whether jobs of one mail go in one transaction if the mail hosts of their domains are the same, and all else that counts for them.
    pub join_domains: bool,
    /// Recipients of all the jobs that go together; a transaction has as many of them as its host takes.
    pub join_recipients: usize,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// Whether content goes by BDAT where CHUNKING and PIPELINING are offered (RFC 3030).
    pub chunking: bool,
    /// How often one connection is used.
    pub reuse: ReuseConfig,
    /// How long a host may take for each step.
    pub timeouts: Timeouts,
    /// Sender domains whose addresses are signed as mail leaves, so that a bounce is known to be about mail of ours.
    pub sign_senders: Vec<HostText>,
    /// The keys for that, one on a line; the first one signs.
    pub bounce_key_file: Option<SecretFile>,
    /// How long a signed address takes bounces.
    pub bounce_keep: Interval,
    /// Senders whose mail leaves from an address of its own for each recipient, in a transaction of its own.
    pub verp_senders: Vec<SenderText>,
    /// How those addresses are divided.
    pub verp_delimiters: DelimitersText,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 25,
            helo_name: None,
            bind_ipv4: None,
            bind_ipv6: None,
            sources: Sources::default(),
            tls: TlsPolicy::default(),
            tls_policies: BTreeMap::new(),
            ca_file: None,
            mta_sts: StsConfig::default(),
            tls_reports: ReportsConfig::default(),
            hosts: Vec::new(),
            auth_pause: Interval::minutes(5),
            address_preference: None,
            fallback_delay: Interval::millis(250),
            fallback_memory: Interval::minutes(1),
            allow_networks: Networks::default(),
            own_addresses: Vec::new(),
            concurrency: 100,
            per_destination: 20,
            join_domains: true,
            join_recipients: 1000,
            max_hops: 100,
            chunking: true,
            reuse: ReuseConfig::default(),
            timeouts: Timeouts::default(),
            sign_senders: Vec::new(),
            bounce_key_file: None,
            bounce_keep: Interval::days(7),
            verp_senders: Vec::new(),
            verp_delimiters: DelimitersText::default(),
        }
    }
}

impl OutboundConfig {
    /// Whether the world can be verified at all. Reads the system's authorities; blocks.
    fn world_problem(&self, file: &ConfigFile) -> Option<ConfigError> {
        let verifies = |policy: &TlsPolicy| *policy == TlsPolicy::Verify;
        let key = match &self.ca_file {
            Some(_) => "mta.outbound.ca_file",
            None if verifies(&self.tls) => "mta.outbound.tls",
            None if self.tls_policies.values().any(verifies) => "mta.outbound.tls_policies",
            None => return None,
        };
        let error = ClientTls::to_hosts(true, self.trust(), None).err()?;
        let remedy = "install the system's authorities (the package ca-certificates), or name a PEM file that this user can read in ca_file";
        Some(file.error(key, error.to_string(), remedy))
    }

    /// The authorities that count for the world.
    pub fn trust(&self) -> Trust {
        match &self.ca_file {
            Some(file) => Trust::Files(vec![file.clone()]),
            None => Trust::System,
        }
    }
}

/// A host name or address literal as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostText(#[serde(with = "postroad_daemon::text")] pub Domain);

/// `[mta.outbound.reuse]`: connections that stay open for the next mail to their host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReuseConfig {
    /// How long a connection waits for the next mail; `"0s"`: not at all. Hosts count idle connections as well, and a busy one
    /// hangs up after 10 seconds.
    pub idle: Interval,
    /// Transactions of one connection, fewer if the host says so (`MAILMAX`, RFC 9422); 1: a new one for each.
    pub mails: usize,
    /// How old a connection may be when a mail is begun, so that what changed in the DNS counts in time.
    pub lifetime: Interval,
    /// Connections that wait at once, to all hosts.
    pub most_idle: usize,
}

impl Default for ReuseConfig {
    fn default() -> Self {
        Self {
            idle: Interval::seconds(5),
            mails: 100,
            lifetime: Interval::minutes(5),
            most_idle: 100,
        }
    }
}

/// `[mta.outbound.timeouts]`: RFC 5321 §4.5.3.2 where it has a word on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// For the connection to be made.
    pub connect: Interval,
    /// For the TLS handshake.
    pub tls: Interval,
    /// For the greeting (§4.5.3.2.1).
    pub greeting: Interval,
    /// For the reply to EHLO, STARTTLS, MAIL and RCPT (§4.5.3.2.2 and .3).
    pub command: Interval,
    /// For the reply to DATA (§4.5.3.2.4).
    pub data: Interval,
    /// For the host to take each block of content (§4.5.3.2.5).
    pub block: Interval,
    /// For the reply to the final dot (§4.5.3.2.6).
    pub end: Interval,
    /// For the reply to QUIT, which nothing depends on.
    pub quit: Interval,
    /// For all that is said for one mail, so that a host that drips its replies does not keep us for days.
    pub conversation: Interval,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Interval::seconds(30),
            tls: Interval::minutes(1),
            greeting: Interval::minutes(5),
            command: Interval::minutes(5),
            data: Interval::minutes(2),
            block: Interval::minutes(3),
            end: Interval::minutes(10),
            quit: Interval::seconds(10),
            conversation: Interval::hours(3),
        }
    }
}

impl From<&Timeouts> for ClientTimeouts {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            greeting: timeouts.greeting.into(),
            command: timeouts.command.into(),
            data: timeouts.data.into(),
            block: timeouts.block.into(),
            end: timeouts.end.into(),
            quit: timeouts.quit.into(),
        }
    }
}
