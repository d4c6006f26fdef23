//! `msa.listeners`: an address, or a table with what is special about a listener; and all listeners there are.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use postroad_daemon::{ByteSize, ConfigError, ConfigFile, Interval};
use postroad_net::{CertFiles, Limits, ListenAddr, Networks, ServerTls};
use postroad_sasl::Mechanism;
use postroad_smtpd::listener_faults;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Config, LONGEST_UNDO, MechanismName};
use crate::identity::FromRule;
use crate::rules::HeaderRules;

/// One of `msa.listeners`: `"[::]:2525"`, or `{ listen = "[::]:2525", … }`. What is not given is as for all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct ListenerConfig {
    /// Where to listen.
    pub listen: ListenAddr,
    /// TLS from the first octet instead of STARTTLS.
    #[serde(default)]
    pub implicit_tls: bool,
    /// Certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<CertFiles>>,
    /// Mechanisms with passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanisms: Option<Vec<MechanismName>>,
    /// Octets of content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<ByteSize>,
    /// Recipients of one mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_recipients: Option<usize>,
    /// Of whom a mail may say that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<FromRule>,
    /// Whether others are told of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hide_client: Option<bool>,
    /// How long mails rest before they are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Interval>,
    /// How long the greeting is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting_delay: Option<Interval>,
    /// Balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_networks: Option<Networks>,
    /// Proxies that may say XCLIENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xclient_networks: Option<Networks>,
    /// Connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Connections at a time from one network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_ip: Option<usize>,
}

impl Serialize for ListenerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self == Self::at(self.listen, false) {
            true => self.listen.serialize(serializer),
            // What is derived, as a table.
            false => Self::serialize(self, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ListenerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// An address or a table.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = ListenerConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an address such as \"[::]:2525\", or a table such as { listen = \"[::]:2525\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ListenerConfig, E> {
        text.parse()
            .map(|listen| ListenerConfig::at(listen, false))
            .map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenerConfig, A::Error> {
        ListenerConfig::deserialize(MapAccessDeserializer::new(map))
    }
}

impl ListenerConfig {
    /// With nothing special about it.
    fn at(listen: ListenAddr, implicit_tls: bool) -> Self {
        Self {
            listen,
            implicit_tls,
            certificates: None,
            mechanisms: None,
            size_limit: None,
            max_recipients: None,
            from: None,
            hide_client: None,
            undo: None,
            greeting_delay: None,
            proxy_networks: None,
            xclient_networks: None,
            max_connections: None,
            max_connections_per_ip: None,
        }
    }
}

impl From<ListenAddr> for ListenerConfig {
    fn from(listen: ListenAddr) -> Self {
        Self::at(listen, false)
    }
}

/// A listener with all that holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerTerms {
    pub name: String,
    pub listen: ListenAddr,
    pub implicit_tls: bool,
    pub size_limit: u64,
    pub max_recipients: usize,
    pub rules: HeaderRules,
    pub greeting_delay: Duration,
    pub proxy_networks: Networks,
    pub xclient_networks: Networks,
    /// None: as in `[msa.auth]`.
    pub mechanisms: Option<Vec<Mechanism>>,
    /// None: those of all.
    pub certificates: Option<Vec<CertFiles>>,
    pub limits: Limits,
}

impl ListenerTerms {
    /// Whether it is the same socket, with TLS at the same moment; else it takes a restart.
    pub fn is_where(&self, other: &Self) -> bool {
        (
            &self.name,
            self.listen,
            self.implicit_tls,
            &self.proxy_networks,
        ) == (
            &other.name,
            other.listen,
            other.implicit_tls,
            &other.proxy_networks,
        )
    }
}

impl ListenerTerms {
    /// Whether it has the same name, and TLS at the same moment.
    pub fn is_called(&self, other: &Self) -> bool {
        (&self.name, self.implicit_tls) == (&other.name, other.implicit_tls)
    }
}

impl Config {
    /// All listeners: those of 587, those of 465, the others by name.
    pub(crate) fn all_listeners(&self) -> Vec<ListenerTerms> {
        let short = [
            ("submission", false, &self.submission),
            ("submissions", true, &self.submissions),
        ];
        let short = short.into_iter().flat_map(|(name, implicit_tls, all)| {
            let all = all.iter();
            all.map(move |&listen| (name, ListenerConfig::at(listen, implicit_tls)))
        });
        let named = self.listeners.iter();
        let named = named.map(|(name, listener)| (name.as_str(), listener.clone()));
        let all = short.chain(named);
        all.map(|(name, listener)| self.terms(name, &listener))
            .collect()
    }

    fn terms(&self, name: &str, listener: &ListenerConfig) -> ListenerTerms {
        let own = listener;
        let (proxy_networks, all) = (own.proxy_networks.as_ref(), &self.limits);
        let xclient_networks = own.xclient_networks.as_ref();
        ListenerTerms {
            name: name.to_owned(),
            listen: own.listen,
            implicit_tls: own.implicit_tls,
            size_limit: own.size_limit.unwrap_or(self.size_limit).as_u64(),
            max_recipients: own.max_recipients.unwrap_or(self.max_recipients).max(100),
            rules: HeaderRules {
                from: own.from.unwrap_or(self.from),
                hide_client: own.hide_client.unwrap_or(self.hide_client),
                undo: own.undo.unwrap_or(self.undo).into(),
            },
            greeting_delay: own.greeting_delay.unwrap_or(self.greeting_delay).into(),
            proxy_networks: proxy_networks.unwrap_or(&self.proxy_networks).clone(),
            xclient_networks: xclient_networks.unwrap_or(&self.xclient_networks).clone(),
            mechanisms: own
                .mechanisms
                .as_ref()
                .map(|names| names.iter().map(|name| name.0).collect()),
            certificates: own.certificates.clone(),
            limits: Limits {
                max_connections: own.max_connections.unwrap_or(all.max_connections),
                max_connections_per_ip: own
                    .max_connections_per_ip
                    .unwrap_or(all.max_connections_per_ip),
                ..all.clone()
            },
        }
    }

    /// What is wrong with the named listeners.
    pub(super) fn check_listeners(&self, file: &ConfigFile) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut addresses: HashSet<_> = self.submission.iter().chain(&self.submissions).collect();
        for (name, listener) in &self.listeners {
            let entry = format!("msa.listeners.{name}");
            let mut problem = |key: &str, what: &str, remedy: &str| {
                let key = format!("{entry}{key}");
                problems.push(file.error(&key, what.to_owned(), remedy));
            };
            let is_word =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
            if !name.chars().all(is_word) || name.is_empty() || name.len() > 32 {
                problem(
                    "",
                    "its name goes into logs, metrics and Received",
                    "name it with up to 32 small letters, digits and -",
                );
            }
            if ["submission", "submissions"].contains(&name.as_str()) {
                problem(
                    "",
                    "this is the name of the listeners of a key of its own",
                    "choose another name, or write its address into msa.submission or msa.submissions",
                );
            }
            if !addresses.insert(&listener.listen) && listener.listen.0.port() != 0 {
                problem(
                    ".listen",
                    "another listener has this address",
                    "give each an address or a port of its own",
                );
            }
            if listener
                .undo
                .is_some_and(|undo| undo.as_duration() > LONGEST_UNDO)
            {
                problem(
                    ".undo",
                    "long for all mail to wait",
                    "write a time up to \"1h\"; a single mail waits longer with HOLDFOR (RFC 4865)",
                );
            }
            let networks = [
                ("proxy_networks", listener.proxy_networks.as_ref()),
                ("xclient_networks", listener.xclient_networks.as_ref()),
            ];
            let (delay, most) = (listener.greeting_delay, listener.max_recipients);
            for (key, what, remedy) in listener_faults(delay, most, &networks) {
                problem(&format!(".{key}"), &what, remedy);
            }
            if listener.certificates.as_ref().is_some_and(Vec::is_empty) {
                problem(
                    ".certificates",
                    "passwords are taken under TLS only, and this list is empty",
                    "name a certificate and its key, or leave it out to show those of all listeners",
                );
            } else if let Some(certificates) = &listener.certificates
                && let Err(error) = ServerTls::load(certificates)
            {
                problem(
                    ".certificates",
                    &error.to_string(),
                    "name a PEM certificate with its chain, and its key, readable for this user",
                );
            }
            let others = !self.auth.oauth.is_empty() || self.client_certificates.are_asked_for();
            if listener.mechanisms.as_ref().is_some_and(Vec::is_empty) && !others {
                problem(
                    ".mechanisms",
                    "nobody could log in",
                    "write `mechanisms = [\"PLAIN\", \"LOGIN\"]`, or leave it out",
                );
            }
            if listener.max_connections == Some(0) || listener.max_connections_per_ip == Some(0) {
                problem(
                    match listener.max_connections {
                        Some(0) => ".max_connections",
                        _ => ".max_connections_per_ip",
                    },
                    "nobody could connect",
                    "write 1 or more, or leave it out",
                );
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn read(listeners: &str) -> (ConfigFile, Result<Config, ConfigError>) {
        let text = format!("[msa]\nfrom = \"any\"\n{listeners}\n");
        let file = ConfigFile::assemble([(PathBuf::from("t.toml"), text)], []).unwrap();
        let section = file.section("msa");
        (file, section)
    }

    #[test]
    fn a_listener_has_what_is_special_about_it_and_the_rest_of_all() {
        let (file, section) = read(
            "listeners.plain = \"[::]:2526\"\nlisteners.bulk = { listen = \"[::]:2525\", from = \"account\", size_limit = \"1MiB\", undo = \"10s\", hide_client = true }",
        );
        let section = section.unwrap();
        let all = section.all_listeners();
        let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["submission", "submissions", "bulk", "plain"]);
        assert!(all[1].implicit_tls && !all[2].implicit_tls);
        assert_eq!(all[2].rules.from, FromRule::Account);
        assert_eq!((all[2].size_limit, all[3].size_limit), (1 << 20, 50 << 20));
        assert!(all[2].rules.hide_client && !all[3].rules.hide_client);
        assert_eq!(all[3].rules.from, FromRule::Any);
        let shown: Vec<_> = file
            .effective("msa", &section)
            .into_iter()
            .map(|value| format!("{} = {}", value.key, value.value))
            .collect();
        for wanted in [
            "msa.listeners.plain = \"[::]:2526\"",
            "msa.listeners.bulk.listen = \"[::]:2525\"",
        ] {
            assert!(shown.contains(&wanted.to_owned()), "{shown:?}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_place_and_a_remedy() {
        for (listeners, words) in [
            (
                "listeners.a = 25",
                "found integer `25`, expected an address such as",
            ),
            ("listeners.a = { from = \"any\" }", "listen"),
            (
                "listeners.a = { listen = \"[::]:1\", colour = 1 }",
                "colour",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", from = \"nobody\" }",
                "from",
            ),
            ("listeners.submission = \"[::]:1\"", "choose another name"),
            ("listeners.A = \"[::]:1\"", "small letters"),
            ("listeners.a = \"[::]:587\"", "another listener"),
            (
                "listeners.a = { listen = \"[::]:1\", max_recipients = 5 }",
                "100 or more",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", proxy_networks = [\"0.0.0.0/0\"] }",
                "balancers alone",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", xclient_networks = [\"::/0\"] }",
                "proxies in front alone",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", greeting_delay = \"2m\" }",
                "up to \"1m\"",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", mechanisms = [] }",
                "nobody could log in",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", mechanisms = [\"NTLM\"] }",
                "NTLM is no mechanism",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", certificates = [] }",
                "leave it out",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", max_connections = 0 }",
                "nobody could connect",
            ),
        ] {
            let (file, section) = read(listeners);
            let told = match section {
                Err(error) => error.to_string(),
                Ok(section) => {
                    let found = section.check_listeners(&file);
                    found.iter().map(ToString::to_string).collect()
                }
            };
            assert!(told.contains(words), "{listeners}: {told}");
            assert!(told.contains("t.toml:3"), "{told}");
        }
    }
}
