//! `mta.outbound.sources`: pools of addresses to send from, by the names that routes call them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use postroad_daemon::{ConfigError, ConfigFile};
use postroad_envelope::SourceName;
use serde::{Deserialize, Serialize};

use super::{HostText, OutboundConfig};

/// Most addresses of one pool.
const MOST: usize = 256;

/// One of `mta.outbound.sources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConfig {
    /// The addresses. To hosts that have addresses of the other family only nothing is sent from here.
    pub addresses: Vec<SourceAddress>,
    /// What to say in EHLO. Default: `mta.outbound.helo_name`.
    #[serde(default)]
    pub helo_name: Option<HostText>,
}

/// An address of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAddress {
    /// An address of this host.
    pub ip: IpAddr,
    /// Its share of the mail among those of its family.
    #[serde(default = "one")]
    pub weight: u16,
    /// What to say in EHLO from here. Default: `helo_name` of the pool.
    #[serde(default)]
    pub helo_name: Option<HostText>,
}

const fn one() -> u16 {
    1
}

/// All pools.
pub type Sources = BTreeMap<String, SourceConfig>;

/// All that is wrong with them.
pub fn check(sources: &Sources, file: &ConfigFile) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for (name, pool) in sources {
        let key = format!("mta.outbound.sources.{name}");
        let mut problem = |problem: String, remedy: &str| {
            problems.push(file.error(&key, problem, remedy));
        };
        if let Err(error) = name.parse::<SourceName>() {
            problem(format!("{name:?}: {error}"), "give it another name");
        }
        if pool.addresses.iter().all(|address| address.weight == 0) || pool.addresses.len() > MOST {
            problem(
                format!("has {} addresses", pool.addresses.len()),
                "write 1 to 256, at least one of them with a weight above 0",
            );
        }
        for (at, address) in pool.addresses.iter().enumerate() {
            let others = pool.addresses.iter().take(at);
            if others.into_iter().any(|other| other.ip == address.ip) {
                problem(format!("names {} twice", address.ip), "give it one weight");
            }
            if address.ip.is_unspecified() || address.ip.is_multicast() {
                problem(
                    format!("{} is no address of a host", address.ip),
                    "name addresses of this host",
                );
            }
        }
    }
    problems
}

/// Routes that send from a pool which is not there, where the queue has its section in the same file. Elsewhere they are another host's.
pub fn unknown(outbound: &OutboundConfig, file: &ConfigFile) -> Vec<ConfigError> {
    let Ok(queue) = file.section::<serde_json::Value>("queued") else {
        // Whoever the section is for tells that.
        return Vec::new();
    };
    let routes = queue.get("routes").and_then(serde_json::Value::as_array);
    let routes = routes.filter(|_| outbound.enabled);
    let mut problems = Vec::new();
    for (number, route) in routes.into_iter().flatten().enumerate() {
        let named = route.get("source").and_then(serde_json::Value::as_str);
        let Some(name) = named.filter(|name| !outbound.sources.contains_key(*name)) else {
            continue;
        };
        problems.push(file.error(
            &format!("queued.routes[{number}].source"),
            format!("mta.outbound.sources has no pool {name:?}, so its mail waits"),
            match known(&outbound.sources) {
                Some(known) => format!(
                    "name one that is there ({known}), or write [mta.outbound.sources.{name}]"
                ),
                None => {
                    format!("write [mta.outbound.sources.{name}] with the addresses to send from")
                }
            },
        ));
    }
    problems
}

/// The pools there are, for a person; none: there are none.
pub fn known(sources: &Sources) -> Option<String> {
    let names: Vec<&str> = sources.keys().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
