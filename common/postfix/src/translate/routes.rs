//! Which way mail goes: transports become routes by recipient domain.

use super::{Work, listeners::port_number};
use crate::{
    lines::words,
    output::{list, quoted},
    report::Verdict,
};

fn is_private(ip: &std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        std::net::IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
    }
}

/// A row of `queued.routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub domain: String,
    pub way: Way,
    pub from: String,
}

/// How mail leaves the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub class: &'static str,
    pub next_hop: Option<String>,
    pub max_leases: Option<String>,
    /// What is not quite the same.
    pub remark: Option<&'static str>,
}

const BY_MX: &str = "the host itself is meant, not its MX";

impl Work<'_> {
    pub(super) fn routes(&mut self) {
        let mut routes: Vec<Route> = Vec::new();
        let rows = self.rows("transport_maps", false);
        let (mut made, mut refused) = (0, Vec::new());
        for row in rows {
            match self.route(&row.key, &row.value) {
                Ok(Some(way)) => {
                    made += 1;
                    self.mark_used(&row.value);
                    let (domain, from) = (row.key, row.place);
                    routes.push(Route { domain, way, from });
                }
                Ok(None) => made += 1,
                Err(why) => {
                    refused.push(format!("{}: {} {}: {why}", row.place, row.key, row.value))
                }
            }
        }
        if made > 0 {
            self.became("transport_maps", format!("queued.routes: {made} of them"));
        }
        for why in refused {
            self.lost("transport_maps", why);
        }
        if self.is_set("transport_maps") && made == 0 {
            self.needless("transport_maps", "there is nothing in it");
        }
        // What the map says of a domain goes before what its class says.
        let classes = std::mem::take(&mut self.routes);
        for route in classes {
            if !routes.iter().any(|one| one.domain == route.domain) {
                routes.push(route);
            }
        }
        self.others(&mut routes);
        let shown = list(routes.iter().map(Route::shown));
        if !routes.is_empty() {
            let from: Vec<&str> = routes.iter().map(|route| route.from.as_str()).collect();
            let mut from = from;
            from.dedup();
            self.config.set("queued", "routes", shown, &from.join(", "));
        }
        self.private_hops(&routes);
        self.routes = routes;
    }

    /// Mail is sent into private networks only where that is allowed.
    fn private_hops(&mut self, routes: &[Route]) {
        let hops = routes
            .iter()
            .filter_map(|route| route.way.next_hop.as_deref());
        let addresses = hops.filter_map(|hop| hop.parse::<std::net::SocketAddr>().ok());
        let mut private: Vec<String> = addresses
            .map(|hop| hop.ip())
            .filter(is_private)
            .map(|ip| quoted(&ip.to_string()))
            .collect();
        private.sort_unstable();
        private.dedup();
        if !private.is_empty() {
            self.config.set(
                "mta.outbound",
                "allow_networks",
                list(private),
                "next hops of queued.routes that are not of the public internet",
            );
        }
    }

    /// `relayhost`, and the transport of all others.
    fn others(&mut self, routes: &mut Vec<Route>) {
        let relayhost = self.values.value("relayhost");
        let transport = self.values.value("default_transport");
        let set = ["relayhost", "default_transport"]
            .iter()
            .rev()
            .find(|name| self.is_set(name));
        let set = (*set.unwrap_or(&"relayhost")).to_owned();
        let text = match transport.split_once(':') {
            Some((_, hop)) if !hop.is_empty() => transport.clone(),
            _ if relayhost.is_empty() => transport.clone(),
            _ => format!("{}:{relayhost}", transport.trim_end_matches(':')),
        };
        let is_plain = matches!(text.trim_end_matches(':'), "smtp" | "relay" | "");
        if is_plain {
            self.needless("relayhost", "mail for others goes to their mail hosts");
            self.needless(
                "default_transport",
                "mail for others goes to their mail hosts by SMTP",
            );
            return;
        }
        match self.way(&text) {
            Ok(way) => {
                self.mark_used(&text);
                let told = format!("queued.routes: domain \"*\", {}", way.told());
                let from = self.from(&set);
                if !routes.iter().any(|route| route.domain == "*") {
                    let domain = "*".to_owned();
                    routes.push(Route { domain, way, from });
                }
                let told = format!(
                    "{told}; if its address is private, mta.outbound.allow_networks must have that"
                );
                for name in ["relayhost", "default_transport"] {
                    self.became(name, told.clone());
                }
            }
            Err(why) if relayhost.is_empty() => {
                let value = why + ": put `foreign = \"hold\"` into [queued] if nothing may leave";
                self.lost("default_transport", value);
            }
            Err(why) => {
                self.lost("relayhost", why);
            }
        }
    }

    /// A row of transport(5). None: it says what is so anyway.
    fn route(&mut self, key: &str, value: &str) -> Result<Option<Way>, String> {
        if key.contains('@') {
            return Err("routes go by domain, not by address".to_owned());
        }
        if key.starts_with('.') {
            return Err("routes name one domain: write one for each of its subdomains".to_owned());
        }
        if value == ":" {
            return Ok(None);
        }
        self.way(value).map(Some)
    }

    /// `transport:nexthop`
    pub(super) fn way(&self, text: &str) -> Result<Way, String> {
        let (transport, hop) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let transport = if transport.is_empty() {
            "smtp"
        } else {
            transport
        };
        let service = self
            .services
            .iter()
            .find(|one| one.name == transport && one.kind == "unix");
        let command = service.map_or(transport, |one| one.command.as_str());
        let most = self
            .values
            .raw(&format!("{transport}_destination_concurrency_limit"));
        let max_leases = most
            .map(|most| self.values.expand(most))
            .filter(|most| most.parse::<u32>().is_ok());
        let class = match command {
            "smtp" | "relay" if service.is_some_and(|one| one.command == "lmtp") => "lmtp",
            "smtp" | "relay" => "relay",
            "lmtp" => "lmtp",
            "local" | "virtual" => "local",
            "discard" => "discard",
            "error" | "retry" => {
                return Err(
                    "mail is refused by it: have no such addresses, or a route of the class hold"
                        .to_owned(),
                );
            }
            "pipe" => {
                return Err(format!(
                    "{transport} hands mail to a program: let that take it by LMTP, and name it in queued.routes"
                ));
            }
            other => return Err(format!("{other} is no way that is known here")),
        };
        let (next_hop, remark) = match class {
            "relay" => self.next_hop(hop, "25"),
            "lmtp" => self.next_hop(hop, "24"),
            _ => (None, None),
        };
        if class == "lmtp" && next_hop.is_none() {
            return Err("LMTP needs to be told where to: name the host with its port".to_owned());
        }
        Ok(Way {
            class,
            next_hop,
            max_leases,
            remark,
        })
    }

    /// `[host]:port`, `host`, `inet:host:port`, `unix:path`
    fn next_hop(&self, text: &str, port: &str) -> (Option<String>, Option<&'static str>) {
        let text = words(text).first().copied().unwrap_or_default();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = match path.starts_with('/') {
                true => path.to_owned(),
                // Postfix runs in its queue directory.
                false => format!("{}/{path}", self.values.value("queue_directory")),
            };
            return (Some(format!("unix:{path}")), None);
        }
        let text = text.strip_prefix("inet:").unwrap_or(text);
        if text.is_empty() {
            return (None, None);
        }
        let (host, given, bracketed) =
            match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((host, rest)) => (host, rest.strip_prefix(':'), true),
                None => match text.rsplit_once(':') {
                    Some((host, given)) if !host.contains(':') => (host, Some(given), false),
                    _ => (text, None, false),
                },
            };
        let host = host
            .strip_prefix("ipv6:")
            .or_else(|| host.strip_prefix("IPv6:"))
            .unwrap_or(host);
        let host = if host == "localhost" {
            "127.0.0.1"
        } else {
            host
        };
        let number = port_number(given.unwrap_or(port)).unwrap_or(25);
        let shown = match host.contains(':') {
            true => format!("[{host}]:{number}"),
            false => format!("{host}:{number}"),
        };
        let is_host = bracketed
            || port == "24"
            || host.parse::<std::net::IpAddr>().is_ok()
            || host == "localhost";
        (Some(shown), (!is_host).then_some(BY_MX))
    }

    /// The way of a class of domains. None: mail stays here.
    pub(super) fn class_way(&mut self, name: &str) -> Option<Way> {
        let value = self.values.value(name);
        match self.way(&value) {
            Ok(way) if way.class == "local" => {
                self.needless(name, "mail is filed by the mda");
                None
            }
            Ok(way) => {
                self.became(name, format!("queued.routes: {}", way.told()));
                self.mark_used(&value);
                Some(way)
            }
            Err(why) => {
                self.lost(name, why);
                None
            }
        }
    }

    fn mark_used(&mut self, value: &str) {
        let transport = value.split(':').next().unwrap_or_default().to_owned();
        self.used.insert(transport.clone());
        for at in 0..self.services.len() {
            let service = &self.services[at];
            let is_it = service.name == transport && service.name != service.command;
            if is_it {
                self.serve(at, Verdict::Translated, "queued.routes");
            }
        }
    }

    /// Whether some value names a transport.
    pub(super) fn is_used(&self, transport: &str) -> bool {
        let begin = format!("{transport}:");
        let names = |value: &str| {
            words(value)
                .iter()
                .any(|word| *word == transport || word.starts_with(&begin))
        };
        self.used.contains(transport)
            || self
                .settings
                .iter()
                .any(|one| one.name.ends_with("_transport") && names(&one.value))
    }
}

impl Way {
    /// For people.
    pub fn told(&self) -> String {
        let mut told = format!("class {}", self.class);
        if let Some(hop) = &self.next_hop {
            told += &format!(", next_hop {hop}");
        }
        if let Some(remark) = self.remark {
            told += &format!(" ({remark})");
        }
        told
    }
}

impl Route {
    fn shown(&self) -> String {
        let mut shown = format!(
            "{{ domain = {}, class = {}",
            quoted(&self.domain),
            quoted(self.way.class)
        );
        if let Some(hop) = &self.way.next_hop {
            shown += &format!(", next_hop = {}", quoted(hop));
        }
        if let Some(most) = &self.way.max_leases {
            shown += &format!(", max_leases = {most}");
        }
        shown + " }"
    }
}
