use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use postroad_daemon::{AgentConfig, ByteSize, ConfigError, ConfigFile, HttpConfig, Interval};
use postroad_net::{CertFiles, Limits, ListenAddr, Networks, ServerTls};
use serde::{Deserialize, Serialize};

use crate::SendingConfig;

/// Keys that can change while the agent runs; others need a restart.
pub const LIVE: &[&str] = &[
    "msa.certificates",
    "msa.size_limit",
    "msa.max_recipients",
    "msa.max_hops",
    "msa.rdns_timeout",
    "msa.queue_timeout",
    "msa.counters_timeout",
    "msa.auth",
    "msa.sending",
    "msa.limits",
];

/// Times that the queue counts over, and longest ban.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
const LONGEST_BAN: Duration = Duration::from_secs(366 * 86_400);

/// The section `[msa]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where clients begin in plain text and must say STARTTLS (RFC 6409).
    pub submission: Vec<ListenAddr>,
    /// Where clients begin with TLS (RFC 8314 §3.3).
    pub submissions: Vec<ListenAddr>,
    /// Balancers: from there, each connection must say whose it is by a header of the PROXY protocol, before TLS.
    pub proxy_networks: Networks,
    /// Certificates; the one that fits the name a client asks for is shown. At least one is needed.
    pub certificates: Vec<CertFiles>,
    /// Octets of content. An attachment grows by a third on its way.
    pub size_limit: ByteSize,
    /// Recipients of one mail; never fewer than 100 (RFC 5321 §4.5.3.1.8).
    pub max_recipients: usize,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// How long the name of a client is looked up.
    pub rdns_timeout: Interval,
    /// How long the queue is waited for before the client is told to come again.
    pub queue_timeout: Interval,
    /// How long the queue is waited for to count a failed log-in or a mail before this copy counts alone.
    pub counters_timeout: Interval,
    /// Logging in.
    pub auth: AuthConfig,
    /// How much accounts may send.
    pub sending: SendingConfig,
    /// Connections.
    pub limits: Limits,
    /// `/healthz`, `/readyz` and `/metrics`.
    pub http: HttpConfig,
}

/// `[msa.auth]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// Passwords checked at one time; 0: two for each processor. Each check takes some 20 MiB and 30 ms.
    pub concurrency: usize,
    /// How long a client waits for its turn before it is told to come again (454 4.7.0).
    pub patience: Interval,
    /// Failed log-ins before the connection is closed.
    pub max_failures: u32,
    /// How long the answer to a failed log-in is held back; doubled with each failure of the same network.
    pub delay: Interval,
    /// The longest such delay.
    pub max_delay: Interval,
    /// So many failed log-ins of one network within `ban_window` get it banned; 0: never. A network is an IPv4 address, or
    /// `limits.ipv6_prefix` bits of an IPv6 address; all copies count together.
    pub ban_after: u32,
    /// How far back failed log-ins count, for the delay too.
    pub ban_window: Interval,
    /// How long a ban lasts.
    pub ban_for: Interval,
    /// Networks that are never banned: monitoring, webmail, whatever many people come by. `proxy_networks` never are.
    pub ban_except: Networks,
}

impl Default for Config {
    fn default() -> Self {
        let everywhere = |port| ListenAddr(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        Self {
            submission: vec![everywhere(587)],
            submissions: vec![everywhere(465)],
            proxy_networks: Networks::default(),
            certificates: Vec::new(),
            size_limit: ByteSize::mib(50),
            max_recipients: 1000,
            max_hops: 100,
            rdns_timeout: Interval::seconds(2),
            queue_timeout: Interval::seconds(30),
            counters_timeout: Interval::millis(500),
            auth: AuthConfig::default(),
            sending: SendingConfig::default(),
            limits: Limits::default(),
            http: HttpConfig::default(),
        }
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            concurrency: 0,
            patience: Interval::seconds(3),
            max_failures: 3,
            delay: Interval::seconds(1),
            max_delay: Interval::seconds(8),
            ban_after: 10,
            ban_window: Interval::minutes(10),
            ban_for: Interval::minutes(10),
            ban_except: Networks::loopback(),
        }
    }
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
        if self.submission.is_empty() && self.submissions.is_empty() {
            problem(
                "msa.submission",
                "there is no listener".to_owned(),
                "write `submission = [\"[::]:587\"]` or `submissions = [\"[::]:465\"]`",
            );
        }
        if self.proxy_networks.names_everyone() {
            problem(
                "msa.proxy_networks",
                "anybody could claim to be any client".to_owned(),
                "name the addresses of your balancers alone, such as \"192.0.2.7\"",
            );
        }
        if self.certificates.is_empty() {
            problem(
                "msa.certificates",
                "there is no certificate, and passwords are taken under TLS only".to_owned(),
                "write `certificates = [{ cert_file = \"/etc/postroad/tls/cert.pem\", key_file = \"/etc/postroad/tls/key.pem\" }]` in section [msa]",
            );
        } else if let Err(error) = ServerTls::load(&self.certificates) {
            problem(
                "msa.certificates",
                error.to_string(),
                "name a PEM certificate with its chain, and its key, readable for this user",
            );
        }
        if self.max_recipients < 100 {
            problem(
                "msa.max_recipients",
                format!(
                    "{} is fewer than RFC 5321 §4.5.3.1.8 demands",
                    self.max_recipients
                ),
                "write 100 or more",
            );
        }
        self.check_counted(&mut problem);
        problems
    }

    /// What is counted must be what the queue can count.
    fn check_counted(&self, problem: &mut impl FnMut(&str, String, &str)) {
        let auth = &self.auth;
        let (window, ban) = (auth.ban_window.as_duration(), auth.ban_for.as_duration());
        if !(SHORTEST..=LONGEST).contains(&window) {
            problem(
                "msa.auth.ban_window",
                format!("{} cannot be counted", auth.ban_window),
                "write a time from \"1s\" to \"31d\"",
            );
        }
        if !(SHORTEST..=LONGEST_BAN).contains(&ban) {
            problem(
                "msa.auth.ban_for",
                format!("{} is no time for a ban", auth.ban_for),
                "write a time from \"1s\" to \"366d\"; who is to ban nobody writes `ban_after = 0`",
            );
        }
        if let Err(why) = self.sending.named() {
            problem(
                "msa.sending.accounts",
                why,
                "write `{ name = \"newsletter@example.org\", recipients_per_day = 50000 }`, once for each account",
            );
        }
    }
}
