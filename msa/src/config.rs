mod certificates;
mod listeners;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use postroad_daemon::{AgentConfig, ByteSize, ConfigError, ConfigFile, HttpConfig, Interval};
use postroad_gssapi::GssapiConfig;
use postroad_net::{CertFiles, Limits, ListenAddr, Networks, ServerTls};
use postroad_oauth::OAuthConfig;
use postroad_sasl::Mechanism;
use postroad_smtpd::{DeliverByKeys, PerConnection, Timeouts};
use serde::{Deserialize, Serialize};

pub use certificates::ClientCertificates;
pub use listeners::ListenerConfig;
pub(crate) use listeners::ListenerTerms;

use crate::SendingConfig;
use crate::identity::FromRule;

/// Keys that can change while the agent runs; others need a restart.
pub const LIVE: &[&str] = &[
    "msa.listeners",
    "msa.certificates",
    "msa.client_certificates",
    "msa.from",
    "msa.hide_client",
    "msa.undo",
    "msa.size_limit",
    "msa.max_recipients",
    "msa.max_hops",
    "msa.future_release",
    "msa.max_priority",
    "msa.deliver_by",
    "msa.vrfy",
    "msa.expn",
    "msa.greeting_delay",
    "msa.min_rate",
    "msa.xclient_networks",
    "msa.xclient_login",
    "msa.per_connection",
    "msa.timeouts",
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
/// Longest rest of all mail.
const LONGEST_UNDO: Duration = Duration::from_secs(3600);
/// Longest that a mail may be held.
const LONGEST_ENDING: Duration = Duration::from_secs(366 * 86_400);
/// Longest that a password is right without being hashed.
const LONGEST_MEMORY: Duration = Duration::from_secs(300);
const LONGEST_BAN: Duration = Duration::from_secs(366 * 86_400);

/// The section `[msa]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where clients begin in plain text and must say STARTTLS (RFC 6409).
    pub submission: Vec<ListenAddr>,
    /// Where clients begin with TLS (RFC 8314 §3.3).
    pub submissions: Vec<ListenAddr>,
    /// More listeners, by name, each with what is special about it.
    pub listeners: BTreeMap<String, ListenerConfig>,
    /// Balancers: from there, each connection must say whose it is by a header of the PROXY protocol, before TLS.
    pub proxy_networks: Networks,
    /// Proxies that are believed what they tell by XCLIENT of the client for whom they speak.
    pub xclient_networks: Networks,
    /// Whether they are believed which account it proved to be (LOGIN).
    pub xclient_login: bool,
    /// Certificates; the one that fits the name a client asks for is shown. At least one is needed.
    pub certificates: Vec<CertFiles>,
    /// Clients that are known by their certificates (EXTERNAL).
    pub client_certificates: ClientCertificates,
    /// Of whom a mail may say that it is from.
    pub from: FromRule,
    /// Received names the listener in place of the client's address and name.
    pub hide_client: bool,
    /// How long every mail rests before it is tried, so that it can be taken back.
    pub undo: Interval,
    /// Octets of content. An attachment grows by a third on its way.
    pub size_limit: ByteSize,
    /// Recipients of one mail; never fewer than 100 (RFC 5321 §4.5.3.1.8).
    pub max_recipients: usize,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// How long a mail may be held until it is sent (RFC 4865); zero: FUTURERELEASE is not offered.
    pub future_release: Interval,
    /// The highest priority that is granted (RFC 6710), -9 to 9; 0 is ordinary.
    pub max_priority: i8,
    /// Whether mail may say by when it is to be delivered (RFC 2852).
    pub deliver_by: DeliverByKeys,
    /// VRFY tells clients that logged in whether an address is ours.
    pub vrfy: bool,
    /// EXPN tells them where an alias leads.
    pub expn: bool,
    /// How long the greeting is held back, to send away who speaks before it; not with TLS from the first octet.
    pub greeting_delay: Interval,
    /// Octets of content that a client must bring in a second, on the average of three minutes.
    pub min_rate: ByteSize,
    /// How much one connection may bring.
    pub per_connection: PerConnection,
    /// How long a client is waited for.
    pub timeouts: Timeouts,
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
    /// Mechanisms that are offered, in this order. Which of them an account can use hangs on what it has in the directory.
    pub mechanisms: Vec<MechanismName>,
    /// Passwords checked at one time; 0: two for each processor. Each check takes some 20 MiB and 30 ms.
    pub concurrency: usize,
    /// How long a client waits for its turn before it is told to come again (454 4.7.0).
    pub patience: Interval,
    /// How long a password that was right is taken for right without hashing it again, in this process alone; zero: never. At most
    /// five minutes.
    pub remember: Interval,
    /// Passwords that are remembered so at a time; beyond that they are hashed.
    pub remember_most: usize,
    /// Failed log-ins before the connection is closed.
    pub max_failures: u32,
    /// How long the answer to a failed log-in is held back; doubled with each failure of the same network.
    pub delay: Interval,
    /// The longest such delay.
    pub max_delay: Interval,
    /// So many failed log-ins of one network within `ban_window` get it banned; 0: never. A network is an IPv4 address, or
    /// `limits.ipv6_prefix` bits of an IPv6 address; all copies count together.
    pub ban_after: u32,
    /// So many failed log-ins by one name within `ban_window`, from wherever, get that name refused (454) for `ban_for`, but from
    /// networks where its account logged in within the last 31 days; 0: never.
    pub name_ban_after: u32,
    /// How far back failed log-ins count, for the delay too.
    pub ban_window: Interval,
    /// How long a ban lasts.
    pub ban_for: Interval,
    /// Networks that are never banned: monitoring, webmail, whatever many people come by. `proxy_networks` never are.
    pub ban_except: Networks,
    /// Issuers whose access tokens let in (OAUTHBEARER, XOAUTH2).
    pub oauth: Vec<OAuthConfig>,
    /// Whose tickets of Kerberos let in (GSSAPI).
    pub gssapi: GssapiConfig,
}

/// A mechanism as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MechanismName(pub Mechanism);

/// Those that can be offered.
const KNOWN: [Mechanism; 7] = [
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha1,
    Mechanism::CramMd5,
    Mechanism::Gssapi,
    Mechanism::Plain,
    Mechanism::Login,
];

impl TryFrom<String> for MechanismName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = text.parse().ok().filter(|known| KNOWN.contains(known));
        known.map(Self).ok_or_else(|| {
            let known: Vec<_> = KNOWN.iter().map(|known| known.as_str()).collect();
            format!("{text} is no mechanism; there are {}", known.join(", "))
        })
    }
}

impl From<MechanismName> for String {
    fn from(name: MechanismName) -> Self {
        name.0.as_str().to_owned()
    }
}

impl Default for Config {
    fn default() -> Self {
        let everywhere = |port| ListenAddr(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        Self {
            submission: vec![everywhere(587)],
            submissions: vec![everywhere(465)],
            listeners: BTreeMap::new(),
            proxy_networks: Networks::default(),
            xclient_networks: Networks::default(),
            xclient_login: false,
            from: FromRule::default(),
            hide_client: false,
            undo: Interval::seconds(0),
            future_release: Interval::days(30),
            max_priority: 0,
            deliver_by: DeliverByKeys::default(),
            vrfy: false,
            expn: false,
            greeting_delay: Interval::seconds(0),
            min_rate: ByteSize::bytes(100),
            per_connection: PerConnection::default(),
            timeouts: Timeouts::default(),
            certificates: Vec::new(),
            client_certificates: ClientCertificates::default(),
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
            mechanisms: Mechanism::PASSWORDS.map(MechanismName).to_vec(),
            concurrency: 0,
            patience: Interval::seconds(3),
            remember: Interval::seconds(60),
            remember_most: 10_000,
            max_failures: 3,
            delay: Interval::seconds(1),
            max_delay: Interval::seconds(8),
            ban_after: 10,
            name_ban_after: 100,
            ban_window: Interval::minutes(10),
            ban_for: Interval::minutes(10),
            ban_except: Networks::loopback(),
            oauth: Vec::new(),
            gssapi: GssapiConfig::default(),
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
        if self.all_listeners().is_empty() {
            problem(
                "msa.submission",
                "there is no listener".to_owned(),
                "write `submission = [\"[::]:587\"]` or `submissions = [\"[::]:465\"]`",
            );
        }
        let networks = [
            ("proxy_networks", Some(&self.proxy_networks)),
            ("xclient_networks", Some(&self.xclient_networks)),
        ];
        let (delay, most) = (Some(self.greeting_delay), Some(self.max_recipients));
        for (key, what, remedy) in postroad_smtpd::listener_faults(delay, most, &networks) {
            problem(&format!("msa.{key}"), what, remedy);
        }
        if self.xclient_login && !self.takes_xclient() {
            problem(
                "msa.xclient_login",
                "nobody may say XCLIENT, so there is nobody to believe".to_owned(),
                "name the proxies in `xclient_networks`, or leave it out",
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
        if !(-9..=9).contains(&self.max_priority) {
            problem(
                "msa.max_priority",
                format!("{} is no priority", self.max_priority),
                "write a number from -9 to 9 (RFC 6710)",
            );
        }
        if self.future_release.as_duration() > LONGEST_ENDING {
            problem(
                "msa.future_release",
                format!("{} is longer than anybody waits", self.future_release),
                "write a time up to \"366d\"",
            );
        }
        let mechanisms = &self.auth.mechanisms;
        let others = !self.auth.oauth.is_empty() || self.client_certificates.are_asked_for();
        if mechanisms.is_empty() && !others {
            problem(
                "msa.auth.mechanisms",
                "nobody could log in".to_owned(),
                "write `mechanisms = [\"PLAIN\", \"LOGIN\"]`, or leave it out",
            );
        }
        if self.undo.as_duration() > LONGEST_UNDO {
            problem(
                "msa.undo",
                format!("{} is long for all mail to wait", self.undo),
                "write a time up to \"1h\"; a single mail waits longer with HOLDFOR (RFC 4865)",
            );
        }
        self.check_counted(&mut problem);
        problems.extend(self.per_connection.check("msa.per_connection", file));
        problems.extend(self.deliver_by.check("msa.deliver_by", file));
        problems.extend(self.timeouts.check("msa.timeouts", file));
        problems.extend(self.check_listeners(file));
        problems.extend(self.check_client_certificates(file));
        let issuers = &self.auth.oauth;
        problems.extend(postroad_oauth::check_all(issuers, "msa.auth.oauth", file));
        problems.extend(self.check_gssapi(file));
        problems
    }

    /// Looks for the key of the service; blocks.
    fn check_gssapi(&self, file: &ConfigFile) -> Vec<ConfigError> {
        let own = self.listeners.values();
        let own = own.filter_map(|listener| listener.mechanisms.as_ref());
        let mut names = self.auth.mechanisms.iter().chain(own.flatten());
        let listed = names.any(|name| name.0 == Mechanism::Gssapi);
        if !listed || postroad_gssapi::BUILT {
            return self.auth.gssapi.check("msa.auth.gssapi", listed, file);
        }
        vec![file.error(
            "msa.auth.mechanisms",
            "this build has no GSSAPI",
            "build with `--features gssapi` (deploy/guide/log-in.md), or take \"GSSAPI\" out",
        )]
    }

    /// Whether any listener believes a proxy.
    fn takes_xclient(&self) -> bool {
        let own = self.listeners.values();
        let mut own = own.filter_map(|listener| listener.xclient_networks.as_ref());
        let none = Networks::default();
        self.xclient_networks != none || own.any(|networks| *networks != none)
    }

    /// What is counted must be what the queue can count, and no password is right for long.
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
        if auth.remember.as_duration() > LONGEST_MEMORY {
            problem(
                "msa.auth.remember",
                format!("{} is too long", auth.remember),
                "write a time up to \"5m\", or \"0s\" to hash each password each time",
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
