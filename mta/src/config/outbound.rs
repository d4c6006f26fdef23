//! `[mta.outbound]`: mail to the world.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use postroad_daemon::{ConfigError, ConfigFile, Interval, SecretFile};
use postroad_net::{ClientTls, Networks, Trust};
use serde::{Deserialize, Serialize};

use super::{
    AddressPreference, DelimitersText, DomainPattern, HostConfig, HostText, ReportsConfig,
    ReuseConfig, SenderText, Sources, StsConfig, Timeouts, TlsPolicy,
};

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
    pub(super) fn world_problem(&self, file: &ConfigFile) -> Option<ConfigError> {
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
