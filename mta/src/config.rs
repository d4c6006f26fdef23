//! `[mta]`: what can be set, with units and defaults.

mod connections;
pub mod families;
pub mod hosts;
mod inbound;
pub mod listeners;
mod outbound;
pub mod security;
pub mod sources;
pub mod verp;

use postroad_address::Domain;
use postroad_daemon::{AgentConfig, ConfigError, ConfigFile, HttpConfig};
use serde::{Deserialize, Serialize};

use crate::bounces::Bounces;
pub use connections::{ReuseConfig, Timeouts};
pub use families::AddressPreference;
pub use hosts::{HostConfig, HostPattern, PasswordNeeds};
pub use inbound::{InboundConfig, load_certificates};
pub use listeners::ListenerConfig;
pub use outbound::OutboundConfig;
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

/// A host name or address literal as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostText(#[serde(with = "postroad_daemon::text")] pub Domain);
