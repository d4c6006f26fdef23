//! `mta.inbound.listeners`: an address, or a table with what is special about a listener.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use postroad_daemon::{ByteSize, ConfigError, ConfigFile, Interval};
use postroad_net::{
    CertFiles, Fingerprint, Limits, ListenAddr, Networks, ServerTls, TrustedClients,
};
use postroad_smtpd::listener_faults;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One of `mta.inbound.listeners`: `"[::]:25"`, or `{ listen = "[::]:10025", … }`. What is not given is as in `[mta.inbound]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct ListenerConfig {
    /// Where to listen.
    pub listen: ListenAddr,
    /// TLS from the first octet instead of STARTTLS.
    #[serde(default)]
    pub implicit_tls: bool,
    /// The authority whose certificates prove who a client is, together with `client_names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// One of these names a client's certificate must have.
    #[serde(default)]
    pub client_names: Vec<String>,
    /// Certificates that count by themselves.
    #[serde(default)]
    pub client_fingerprints: Vec<Fingerprint>,
    /// Certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<CertFiles>>,
    /// Octets of content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<ByteSize>,
    /// Recipients of one mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_recipients: Option<usize>,
    /// How long the greeting is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting_delay: Option<Interval>,
    /// Balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_networks: Option<Networks>,
    /// Mail systems that may say XFORWARD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xforward_networks: Option<Networks>,
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

impl ListenerConfig {
    /// Whether it is for clients alone that prove by a certificate who they are. They may then send to anyone.
    pub fn is_for_known_clients(&self) -> bool {
        self.client_ca_file.is_some()
            || !self.client_names.is_empty()
            || !self.client_fingerprints.is_empty()
    }

    /// The names under which its clients are known to the queue.
    pub fn known_clients(&self) -> impl Iterator<Item = String> + '_ {
        let names = self
            .client_names
            .iter()
            .map(|name| name.to_ascii_lowercase());
        names.chain(self.client_fingerprints.iter().map(Fingerprint::to_string))
    }

    /// Its own TLS, if it asks clients for certificates or shows some of its own. Reads files; blocks.
    pub fn own_tls(
        &self,
        certificates: &[CertFiles],
    ) -> Result<Option<ServerTls>, postroad_net::Error> {
        let certificates = self.certificates.as_deref().unwrap_or(certificates);
        if !self.is_for_known_clients() {
            return match self.certificates {
                Some(_) => super::load_certificates(certificates),
                None => Ok(None),
            };
        }
        let clients = TrustedClients {
            ca_file: self.client_ca_file.clone(),
            names: self.client_names.clone(),
            fingerprints: self.client_fingerprints.clone(),
            ..TrustedClients::default()
        };
        ServerTls::load_asking(certificates, &clients).map(Some)
    }

    fn faults(&self, certificates: &[CertFiles]) -> Vec<(&'static str, String, &'static str)> {
        let mut faults = Vec::new();
        let networks = [
            ("proxy_networks", self.proxy_networks.as_ref()),
            ("xforward_networks", self.xforward_networks.as_ref()),
            ("xclient_networks", self.xclient_networks.as_ref()),
        ];
        faults.extend(listener_faults(
            self.greeting_delay,
            self.max_recipients,
            &networks,
        ));
        let mut fault = |key, problem: &str, remedy| faults.push((key, problem.to_owned(), remedy));
        for (key, most) in [
            ("max_connections", self.max_connections),
            ("max_connections_per_ip", self.max_connections_per_ip),
        ] {
            if most == Some(0) {
                fault(
                    key,
                    "nobody could connect",
                    "write 1 or more, or leave it out",
                );
            }
        }
        if self.certificates.as_ref().is_some_and(Vec::is_empty) {
            fault(
                "certificates",
                "the list is empty",
                "name a certificate and its key, or leave it out to show those of all listeners",
            );
        }
        let certificates = self.certificates.as_deref().unwrap_or(certificates);
        if certificates.is_empty() && (self.implicit_tls || self.is_for_known_clients()) {
            fault(
                "listen",
                "it needs TLS, and there is no certificate",
                "name one in `certificates`, of it or of [mta.inbound]",
            );
        }
        match (&self.client_ca_file, self.client_names.as_slice()) {
            (Some(_), []) => fault(
                "client_ca_file",
                "it is not said for whom its certificates are",
                "write `client_names = [\"submission.example.net\"]`, the names of those who may send to anyone",
            ),
            (None, [_, ..]) => fault(
                "client_names",
                "anybody could have a certificate for these names",
                "name the authority that makes them in `client_ca_file`, or the certificates in `client_fingerprints`",
            ),
            _ => {}
        }
        faults
    }
}

/// All that is wrong with the listeners. Reads the files they name; blocks.
pub fn check(
    listeners: &BTreeMap<String, ListenerConfig>,
    certificates: &[CertFiles],
    file: &ConfigFile,
) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for (name, listener) in listeners {
        let entry = format!("mta.inbound.listeners.{name}");
        let faults = listener.faults(certificates);
        // Of certificates that are wrong themselves it is told elsewhere.
        let mut sound = faults.is_empty() && super::load_certificates(certificates).is_ok();
        for (key, problem, remedy) in faults {
            problems.push(file.error(&format!("{entry}.{key}"), problem, remedy));
        }
        if let Some(own) = &listener.certificates
            && let Err(error) = super::load_certificates(own)
        {
            sound = false;
            let remedy =
                "name a PEM certificate with its chain, and its key, readable for this user";
            problems.push(file.error(&format!("{entry}.certificates"), error.to_string(), remedy));
        }
        if sound && let Err(error) = listener.own_tls(certificates) {
            let remedy = "name a PEM file with the authority's certificate, and host names without wildcards";
            problems.push(file.error(&entry, error.to_string(), remedy));
        }
    }
    problems
}

impl ListenerConfig {
    /// How many connections it takes, by what holds for all.
    pub fn limits(&self, all: &Limits) -> Limits {
        Limits {
            max_connections: self.max_connections.unwrap_or(all.max_connections),
            max_connections_per_ip: self
                .max_connections_per_ip
                .unwrap_or(all.max_connections_per_ip),
            ..all.clone()
        }
    }

    /// Whether it takes connections at the same place, with TLS at the same moment and behind the same balancers.
    pub fn is_where(&self, other: &Self) -> bool {
        (self.listen, self.implicit_tls, &self.proxy_networks)
            == (other.listen, other.implicit_tls, &other.proxy_networks)
    }
}

impl From<ListenAddr> for ListenerConfig {
    fn from(listen: ListenAddr) -> Self {
        Self {
            listen,
            implicit_tls: false,
            client_ca_file: None,
            client_names: Vec::new(),
            client_fingerprints: Vec::new(),
            certificates: None,
            size_limit: None,
            max_recipients: None,
            greeting_delay: None,
            proxy_networks: None,
            xforward_networks: None,
            xclient_networks: None,
            max_connections: None,
            max_connections_per_ip: None,
        }
    }
}

impl Serialize for ListenerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self == Self::from(self.listen) {
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
            "an address such as \"[::]:25\", or a table such as { listen = \"[::]:10025\" }",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ListenerConfig, E> {
        let listen: ListenAddr = text.parse().map_err(E::custom)?;
        Ok(listen.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListenerConfig, A::Error> {
        ListenerConfig::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn read(listeners: &str) -> (ConfigFile, Result<Config, ConfigError>) {
        let text = format!("[mta.inbound]\n{listeners}\n");
        let file = ConfigFile::assemble([(PathBuf::from("t.toml"), text)], []).unwrap();
        let section = file.section("mta");
        (file, section)
    }

    fn told(listeners: &str) -> String {
        let (file, section) = read(listeners);
        match section {
            Err(error) => error.to_string(),
            Ok(section) => {
                let inbound = &section.inbound;
                let found = check(&inbound.listeners, &inbound.certificates, &file);
                found.iter().map(ToString::to_string).collect()
            }
        }
    }

    #[test]
    fn a_listener_is_an_address_or_a_table() {
        let digits = "ab".repeat(32);
        let (file, section) = read(&format!(
            "listeners.smtp = \"[::]:25\"\nlisteners.inner = {{ listen = \"[::]:10025\", client_fingerprints = [\"{digits}\"] }}"
        ));
        let section = section.unwrap();
        let listeners = &section.inbound.listeners;
        assert!(!listeners["smtp"].is_for_known_clients());
        assert!(listeners["inner"].is_for_known_clients());
        let known: Vec<String> = listeners["inner"].known_clients().collect();
        assert_eq!(known, [format!("sha256:{digits}")]);
        let shown: Vec<_> = file
            .effective("mta", &section)
            .into_iter()
            .filter(|value| value.key.starts_with("mta.inbound.listeners"))
            .map(|value| format!("{} = {}", value.key, value.value))
            .collect();
        assert!(
            shown.contains(&"mta.inbound.listeners.smtp = \"[::]:25\"".to_owned()),
            "{shown:?}"
        );
        assert!(
            shown.contains(&"mta.inbound.listeners.inner.listen = \"[::]:10025\"".to_owned()),
            "{shown:?}"
        );
    }

    #[test]
    fn what_is_wrong_has_its_place_and_a_remedy() {
        for (listeners, words) in [
            (
                "listeners.a = 25",
                "found integer `25`, expected an address such as",
            ),
            ("listeners.a = \"25\"", "mta.inbound.listeners.a"),
            ("listeners.a = { client_names = [] }", "listen"),
            (
                "listeners.a = { listen = \"[::]:1\", colour = 1 }",
                "colour",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", client_fingerprints = [\"ab\"] }",
                "openssl x509",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", implicit_tls = true }",
                "no certificate",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", client_names = [\"a.example\"] }",
                "anybody could have",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", client_ca_file = \"ca.pem\" }",
                "client_names",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", xforward_networks = [\"0.0.0.0/0\"] }",
                "mail systems in front alone",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", xclient_networks = [\"::/0\"] }",
                "proxies in front alone",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", proxy_networks = [\"::/0\"] }",
                "balancers alone",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", max_recipients = 5 }",
                "100 or more",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", greeting_delay = \"2m\" }",
                "up to \"1m\"",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", certificates = [] }",
                "leave it out",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", max_connections_per_ip = 0 }",
                "nobody could connect",
            ),
            (
                "listeners.a = { listen = \"[::]:1\", certificates = [{ cert_file = \"/none\", key_file = \"/none\" }] }",
                "/none",
            ),
        ] {
            let told = told(listeners);
            assert!(
                told.contains("t.toml:2") && told.contains(words),
                "{listeners}: {told}"
            );
        }
    }
}
