//! Where mail comes in: the `inet` services of master.cf.

use super::{Scope, Work};
use crate::{
    lines::words,
    main_cf::Values,
    output::quoted,
    report::{Told, Verdict},
};

/// What an smtpd is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Mail from the world, or from hosts that may relay.
    Inbound,
    /// Log-in, STARTTLS.
    Submission,
    /// Log-in, TLS from the beginning.
    Submissions,
    /// Mail that comes back from a content filter.
    Reinjection,
    /// Behind postscreen.
    Passed,
}

impl Work<'_> {
    pub(super) fn listeners(&mut self) {
        let (mut inbound, mut submission, mut submissions) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..self.services.len() {
            let service = self.services[at].clone();
            let is_server = service.command == "smtpd" || service.command == "postscreen";
            if !is_server {
                continue;
            }
            if service.kind != "inet" {
                self.roles.insert(at, Role::Passed);
                self.serve(
                    at,
                    Verdict::NotNeeded,
                    "it takes connections from postscreen; see there",
                );
                continue;
            }
            let role = self.role(at);
            self.roles.insert(at, role);
            if role == Role::Reinjection {
                self.serve(
                    at,
                    Verdict::NotNeeded,
                    "mail comes back to it from the content filter, which is not called",
                );
                continue;
            }
            let addresses = match self.addresses(at) {
                Ok(addresses) => addresses,
                Err(why) => {
                    self.serve(at, Verdict::NotTranslated, why);
                    continue;
                }
            };
            let (into, key) = match role {
                Role::Submission => (&mut submission, "msa.submission"),
                Role::Submissions => (&mut submissions, "msa.submissions"),
                _ => (&mut inbound, "mta.inbound.listeners"),
            };
            into.extend(
                addresses
                    .iter()
                    .cloned()
                    .map(|address| (address, service.line)),
            );
            self.serve(
                at,
                Verdict::Translated,
                format!("{key}: {}", addresses.join(", ")),
            );
        }
        self.inbound(&inbound);
        self.neighbours();
        self.msa(&submission, &submissions);
        self.became(
            "inet_interfaces",
            "the addresses of mta.inbound.listeners, msa.submission and msa.submissions",
        );
        match self.values.value("inet_protocols").as_str() {
            "ipv4" => {
                let from = self.from("inet_protocols");
                self.config
                    .set("common.dns", "prefer", quoted("ipv4"), &from);
                self.became("inet_protocols", "listeners have IPv4 addresses; common.dns.prefer = \"ipv4\" for mail that leaves");
            }
            "ipv6" => self.became(
                "inet_protocols",
                "listeners have IPv6 addresses; [::] takes IPv4 too",
            ),
            _ => self.needless("inet_protocols", "both families are used"),
        }
    }

    pub(super) fn serve(&mut self, at: usize, verdict: Verdict, text: impl Into<String>) {
        let text = text.into();
        self.service_notes.insert(at, Told { verdict, text });
    }

    /// The values in force for a service.
    pub(super) fn values_of(&self, scope: Scope) -> Values {
        match scope.and_then(|at| self.services.get(at)) {
            Some(service) => self.values.with(&service.options),
            None => self.values.clone(),
        }
    }

    fn role(&self, at: usize) -> Role {
        let service = &self.services[at];
        let values = self.values_of(Some(at));
        let (host, port) = service.listens();
        if values.says_yes("smtpd_tls_wrappermode") {
            return Role::Submissions;
        }
        let is_loopback =
            host.is_some_and(|host| host == "127.0.0.1" || host == "localhost" || host == "::1");
        let unfiltered = ["content_filter", "smtpd_proxy_filter", "smtpd_milters"].iter();
        let unfiltered = unfiltered
            .into_iter()
            .any(|name| service.option(name) == Some(""));
        if is_loopback && (unfiltered || service.option("receive_override_options").is_some()) {
            return Role::Reinjection;
        }
        let demands = |name: &str| {
            let value = values.value(name);
            let words = words(&value);
            words.contains(&"permit_sasl_authenticated") && words.last() == Some(&"reject")
        };
        let demanded = ["client", "relay", "recipient", "sender"].iter();
        let demanded = demanded
            .into_iter()
            .any(|one| demands(&format!("smtpd_{one}_restrictions")));
        let is_submission =
            matches!(port, "submission" | "587") || (demanded && !matches!(port, "smtp" | "25"));
        match values.says_yes("smtpd_sasl_auth_enable") && is_submission
            || matches!(port, "submission" | "587")
        {
            true => Role::Submission,
            false => Role::Inbound,
        }
    }

    /// Where a service listens.
    fn addresses(&self, at: usize) -> Result<Vec<String>, String> {
        let (host, port) = self.services[at].listens();
        let port = port_number(port).ok_or_else(|| {
            format!("{port} is no port that is known here: write the listener yourself")
        })?;
        let values = self.values_of(Some(at));
        let interfaces = match host {
            Some(host) => host.to_owned(),
            None => values.value("inet_interfaces"),
        };
        let protocols = values.value("inet_protocols");
        let (v4, v6) = (
            !protocols.eq_ignore_ascii_case("ipv6"),
            !protocols.eq_ignore_ascii_case("ipv4"),
        );
        let everywhere = if v6 { "[::]" } else { "0.0.0.0" };
        let mut found: Vec<String> = Vec::new();
        let mut add = |address: String| {
            let address = format!("{address}:{port}");
            if !found.contains(&address) {
                found.push(address);
            }
        };
        for word in words(&interfaces) {
            let plain = word.trim_matches(['[', ']']);
            match (plain, plain.parse::<std::net::IpAddr>()) {
                ("all", _) => add(everywhere.to_owned()),
                ("loopback-only" | "localhost", _) => {
                    if v4 {
                        add("127.0.0.1".to_owned());
                    }
                    if v6 {
                        add("[::1]".to_owned());
                    }
                }
                (_, Ok(std::net::IpAddr::V4(address))) => add(address.to_string()),
                (_, Ok(std::net::IpAddr::V6(address))) => add(format!("[{address}]")),
                // A name means whatever addresses it has; only the host itself knows them.
                _ => return Ok(vec![format!("{everywhere}:{port}")]),
            }
        }
        Ok(found)
    }

    fn inbound(&mut self, addresses: &[(String, usize)]) {
        if addresses.is_empty() {
            self.config.set(
                "mta.inbound",
                "enabled",
                "false".to_owned(),
                "master.cf has no smtpd for mail from others",
            );
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        let mut named = Vec::new();
        for (address, _) in addresses {
            if !seen.contains(&address.as_str()) {
                seen.push(address);
                let name = match seen.len() {
                    1 => "smtp".to_owned(),
                    more => format!("smtp{more}"),
                };
                named.push(format!("{name} = {}", quoted(address)));
            }
        }
        let from = format!(
            "master.cf:{}",
            addresses.first().map_or(0, |(_, line)| *line)
        );
        self.config.set(
            "mta.inbound",
            "listeners",
            format!("{{ {} }}", named.join(", ")),
            &from,
        );
    }
}

/// The number of a port.
pub(super) fn port_number(port: &str) -> Option<u16> {
    match port {
        "smtp" => Some(25),
        "smtps" | "submissions" | "ssmtp" | "urd" => Some(465),
        "submission" => Some(587),
        "lmtp" => Some(24),
        other => other.parse().ok().filter(|port| *port != 0),
    }
}
