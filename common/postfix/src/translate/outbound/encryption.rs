//! Levels of TLS, of all hosts and of some.

use super::{Host, Work};
use crate::output::quoted;

impl Work<'_> {
    /// DANE needs it, and Postfix has it from its resolver.
    pub(super) fn dnssec(&mut self, name: &str) {
        let from = self.from(name);
        let yes = "true".to_owned();
        self.config.set("common.dns", "dnssec", yes, &from);
        self.became(
            name,
            "common.dns.dnssec = true: we validate, whatever the resolver says",
        );
    }

    pub(super) fn encryption(&mut self) {
        let name = "smtp_tls_security_level";
        let level = self.values.value(name);
        let from = self.from(name);
        let named = matches!(level.as_str(), "verify" | "secure")
            && !self.values.value("relayhost").is_empty();
        match (level.as_str(), word(&level)) {
            ("", _) if self.values.says_yes("smtp_enforce_tls") => {
                let from = self.from("smtp_enforce_tls");
                self.config
                    .set("mta.outbound", "tls", quoted("encrypt"), &from);
            }
            ("", _) if !self.values.says_yes("smtp_use_tls") => {
                self.needless(
                    name,
                    "mta.outbound.tls is \"may\": encryption where it can be had",
                );
            }
            ("" | "may", _) => self.became(name, "mta.outbound.tls = \"may\", as built in"),
            ("dane", _) => {
                self.dnssec(name);
                self.became(name, "mta.outbound.tls = \"may\", as built in, and common.dns.dnssec = true: DANE where a domain has it");
            }
            _ if named => {
                self.became(
                    name,
                    "mta.outbound.hosts: tls = \"verify\" for the relayhost",
                );
            }
            (level, Some(word)) => {
                if word == "dane" {
                    self.dnssec(name);
                }
                self.config.set("mta.outbound", "tls", quoted(word), &from);
                let strict = match level {
                    "verify" => ": the names of mail hosts count below the domain alone",
                    _ => "",
                };
                self.became(name, format!("mta.outbound.tls = \"{word}\"{strict}"));
            }
            (other, None) => {
                self.config
                    .set("mta.outbound", "tls", quoted("encrypt"), &from);
                self.lost(name, format!("{other}: mta.outbound.tls = \"encrypt\" encrypts, and does not look at certificates"));
            }
        }
        self.needless("smtp_tls_wrappermode", "TLS begins by STARTTLS");
    }

    /// smtp_tls_policy_maps
    pub(super) fn policies(&mut self, hosts: &mut Vec<Host>) {
        let name = "smtp_tls_policy_maps";
        let relayhost = self.values.value("relayhost");
        let (mut of_hosts, mut of_domains) = (0, Vec::new());
        for row in self.rows(name, false) {
            let mut parts = row.value.split_whitespace();
            let level = parts.next().unwrap_or_default();
            let Some(tls) = word(level) else {
                self.lost(
                    name,
                    format!("{}: {}: {level} is not known here", row.place, row.key),
                );
                continue;
            };
            if level.starts_with("dane") {
                self.dnssec(name);
            }
            let names = parts.clone().find_map(|part| part.strip_prefix("match="));
            let names = names
                .unwrap_or_default()
                .split(':')
                .filter(|one| !matches!(*one, "" | "nexthop" | "hostname" | "dot-nexthop"));
            // What a transport names has brackets or a port; all else is the domain of a recipient.
            let is_host = row.key.contains(['[', ':']) || row.key == relayhost;
            if !is_host {
                if names.count() > 0 {
                    let told = format!(
                        "{}: {}: of a domain, its own name and those of hosts below it count",
                        row.place, row.key
                    );
                    self.lost(name, told);
                }
                of_domains.push((row.key, tls));
                continue;
            }
            let mut host = Host::new(&row.key, &row.place);
            host.names = names
                .filter(|one| !one.starts_with('.'))
                .map(str::to_owned)
                .collect();
            host.tls = Some(tls);
            of_hosts += 1;
            hosts.retain(|one| one.name != host.name);
            hosts.push(host);
        }
        if !of_domains.is_empty() {
            let from = self.from(name);
            let policies = of_domains.iter();
            let policies =
                policies.map(|(domain, tls)| format!("{} = {}", quoted(domain), quoted(tls)));
            let policies: Vec<String> = policies.collect();
            let shown = format!("{{ {} }}", policies.join(", "));
            self.config
                .set("mta.outbound", "tls_policies", shown, &from);
        }
        match (of_hosts, of_domains.len()) {
            (0, 0) => self.needless(name, "there is no host in it"),
            (hosts, 0) => self.became(name, format!("mta.outbound.hosts: {hosts} of them")),
            (0, domains) => self.became(
                name,
                format!("mta.outbound.tls_policies: {domains} of them"),
            ),
            (hosts, domains) => self.became(
                name,
                format!(
                    "mta.outbound.hosts: {hosts} of them, mta.outbound.tls_policies: {domains}"
                ),
            ),
        }
    }
}

/// The word of `mta.outbound.tls` for a level of Postfix's.
fn word(level: &str) -> Option<&'static str> {
    Some(match level {
        "none" => "none",
        // DANE where a domain has it, if DNSSEC is validated.
        "may" | "dane" => "may",
        "encrypt" => "encrypt",
        "verify" | "secure" => "verify",
        "dane-only" => "dane",
        _ => return None,
    })
}
