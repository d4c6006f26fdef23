//! `[mta]`: what can be set, with units and defaults.

pub mod hosts;
pub mod listeners;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use postroad_address::Domain;
use postroad_daemon::{AgentConfig, ByteSize, ConfigError, ConfigFile, HttpConfig, Interval};
use postroad_net::{CertFiles, ClientTls, Limits, ListenAddr, Networks, ServerTls, Trust};
use postroad_smtp_session::ClientTimeouts;
use serde::{Deserialize, Serialize};

pub use hosts::{HostConfig, HostPattern, PasswordNeeds};
pub use listeners::ListenerConfig;

/// Keys that can change while the agent runs; others need a restart.
pub const LIVE: &[&str] = &[
    "mta.inbound.listeners",
    "mta.inbound.certificates",
    "mta.inbound.size_limit",
    "mta.inbound.max_recipients",
    "mta.inbound.relay_networks",
    "mta.inbound.xforward_networks",
    "mta.inbound.rdns_timeout",
    "mta.inbound.queue_timeout",
    "mta.inbound.max_hops",
    "mta.inbound.limits",
    "mta.outbound.port",
    "mta.outbound.helo_name",
    "mta.outbound.bind_ipv4",
    "mta.outbound.bind_ipv6",
    "mta.outbound.tls",
    "mta.outbound.hosts",
    "mta.outbound.auth_pause",
    "mta.outbound.allow_networks",
    "mta.outbound.own_addresses",
    "mta.outbound.per_destination",
    "mta.outbound.max_hops",
    "mta.outbound.timeouts",
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
    /// How long the name of a client is looked up.
    pub rdns_timeout: Interval,
    /// How long the queue is waited for before the client is told to come again.
    pub queue_timeout: Interval,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
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
            max_recipients,
            proxy_networks,
            xforward_networks,
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
        if *max_recipients < 100 {
            problem(
                "mta.inbound.max_recipients",
                format!("{max_recipients} is fewer than RFC 5321 §4.5.3.1.8 demands"),
                "write 100 or more",
            );
        }
        if proxy_networks.names_everyone() {
            problem(
                "mta.inbound.proxy_networks",
                "anybody could claim to be any client".to_owned(),
                "name the addresses of your balancers alone, such as \"192.0.2.7\"",
            );
        }
        if xforward_networks.names_everyone() {
            problem(
                "mta.inbound.xforward_networks",
                "anybody could claim to pass on the mail of any client".to_owned(),
                "name the addresses of the mail systems in front alone, such as \"192.0.2.8\"",
            );
        }
        if self.outbound.concurrency == 0 || self.outbound.per_destination == 0 {
            problem(
                "mta.outbound.concurrency",
                "no mail can leave without a place for a job".to_owned(),
                "write 1 or more for it and for `per_destination`, or `enabled = false`",
            );
        }
        problems.extend(listeners::check(listeners, certificates, file));
        problems.extend(hosts::check(&self.outbound.hosts, file));
        if let Some(problem) = self.outbound.world_problem(file) {
            problems.push(problem);
        }
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
            rdns_timeout: Interval::seconds(2),
            queue_timeout: Interval::seconds(30),
            max_hops: 100,
            limits: Limits::default(),
        }
    }
}

/// `[mta.outbound]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// How hard to try for encryption.
    pub tls: TlsPolicy,
    /// What is known of single next hops.
    pub hosts: Vec<HostConfig>,
    /// How long a host is left alone that refused our log-in.
    pub auth_pause: Interval,
    /// Networks that may be sent to although they are not of the public internet.
    pub allow_networks: Networks,
    /// Public addresses that lead to this host, if it is behind NAT: mail hosts with one of them are ourselves.
    pub own_addresses: Vec<IpAddr>,
    /// Jobs at once.
    pub concurrency: u32,
    /// Jobs at once for one destination, by this agent.
    pub per_destination: u32,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// How long a host may take for each step.
    pub timeouts: Timeouts,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 25,
            helo_name: None,
            bind_ipv4: None,
            bind_ipv6: None,
            tls: TlsPolicy::default(),
            hosts: Vec::new(),
            auth_pause: Interval::minutes(5),
            allow_networks: Networks::default(),
            own_addresses: Vec::new(),
            concurrency: 100,
            per_destination: 20,
            max_hops: 100,
            timeouts: Timeouts::default(),
        }
    }
}

impl OutboundConfig {
    /// Whether the world can be verified at all. Reads the system's authorities; blocks.
    fn world_problem(&self, file: &ConfigFile) -> Option<ConfigError> {
        if self.tls != TlsPolicy::Verified {
            return None;
        }
        let error = ClientTls::to_hosts(true, Trust::System, None).err()?;
        let remedy = "install the system's authorities (the package ca-certificates), or write another value";
        Some(file.error("mta.outbound.tls", error.to_string(), remedy))
    }

    /// The local address to send from to an address of this family.
    pub fn source(&self, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(_) => self.bind_ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.bind_ipv6.map(IpAddr::V6),
        }
    }
}

/// A host name or address literal as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostText(#[serde(with = "postroad_daemon::text")] pub Domain);

/// How hard outgoing connections try for encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsPolicy {
    /// STARTTLS where it is offered, any certificate, plain text where it is not or fails (RFC 7435).
    #[default]
    Opportunistic,
    /// Never.
    None,
    /// Mail waits where it cannot be had. The certificate is not verified.
    Required,
    /// The same, and the certificate must be of a known authority and for the name of the next hop.
    Verified,
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
    /// For all of one conversation, so that a host that drips its replies does not keep us for days.
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
