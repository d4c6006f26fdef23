//! How mail leaves for others: addresses, encryption, log-in at a host that it is handed to.

use super::Work;
use crate::output::{list, quoted};

impl Work<'_> {
    pub(super) fn outbound(&mut self) {
        self.addresses_of_client();
        self.encryption();
        self.hosts();
    }

    fn addresses_of_client(&mut self) {
        let texts = [
            ("smtp_helo_name", "helo_name"),
            ("smtp_bind_address", "bind_ipv4"),
            ("smtp_bind_address6", "bind_ipv6"),
        ];
        let host = self.values.value("myhostname");
        for (name, key) in texts {
            let value = self.values.value(name);
            if value.is_empty() || (name == "smtp_helo_name" && value == host) {
                self.needless(name, "it stays as built in");
                continue;
            }
            let from = self.from(name);
            let shown = quoted(value.trim_matches(['[', ']']));
            self.config.set("mta.outbound", key, shown.clone(), &from);
            self.became(name, format!("mta.outbound.{key} = {shown}"));
        }
        let name = "smtp_address_preference";
        match self.values.value(name).as_str() {
            family @ ("ipv4" | "ipv6") => {
                let from = self.from(name);
                self.config
                    .set("common.dns", "prefer", quoted(family), &from);
                self.became(name, format!("common.dns.prefer = \"{family}\""));
            }
            _ => self.needless(name, "IPv6 comes first, then IPv4: common.dns.prefer"),
        }
        let own = self.listed("proxy_interfaces");
        let own: Vec<String> = own
            .into_iter()
            .filter(|one| one.parse::<std::net::IpAddr>().is_ok())
            .collect();
        if own.is_empty() {
            self.needless("proxy_interfaces", "there is no address in it");
        } else {
            let from = self.from("proxy_interfaces");
            self.config.set(
                "mta.outbound",
                "own_addresses",
                list(own.iter().map(|one| quoted(one))),
                &from,
            );
            self.became("proxy_interfaces", "mta.outbound.own_addresses");
        }
        self.needless("smtp_dns_support_level", "DNSSEC is not asked about");
        self.needless("lmtp_dns_support_level", "DNSSEC is not asked about");
    }

    fn encryption(&mut self) {
        let name = "smtp_tls_security_level";
        let level = self.values.value(name);
        let from = self.from(name);
        match level.as_str() {
            "" if self.values.says_yes("smtp_enforce_tls") => {
                self.config.set("mta.outbound", "tls", quoted("required"), &self.from("smtp_enforce_tls"));
            }
            "" if !self.values.says_yes("smtp_use_tls") => {
                self.needless(name, "mta.outbound.tls is \"opportunistic\": encryption where it can be had");
            }
            "" | "may" => self.became(name, "mta.outbound.tls = \"opportunistic\", as built in"),
            "none" => {
                self.config.set("mta.outbound", "tls", quoted("none"), &from);
                self.became(name, "mta.outbound.tls = \"none\"");
            }
            "encrypt" => {
                self.config.set("mta.outbound", "tls", quoted("required"), &from);
                self.became(name, "mta.outbound.tls = \"required\"");
            }
            "dane" => self.lost(name, "TLSA records are not looked up: mta.outbound.tls stays \"opportunistic\", as it was for domains without them"),
            "verify" | "secure" if !self.values.value("relayhost").is_empty() => {
                self.became(name, "mta.outbound.hosts: tls = \"verified\" for the relayhost");
            }
            other => {
                self.config.set("mta.outbound", "tls", quoted("required"), &from);
                self.lost(name, format!("{other}: mta.outbound.tls = \"required\" encrypts, and does not compare names"));
            }
        }
        self.needless("smtp_tls_wrappermode", "TLS begins by STARTTLS");
    }

    /// What is known of single hosts: passwords, and how they are spoken to.
    fn hosts(&mut self) {
        let mut hosts: Vec<Host> = Vec::new();
        let level = self.values.value("smtp_tls_security_level");
        let verified = matches!(level.as_str(), "verify" | "secure");
        let relayhost = self.values.value("relayhost");
        if !relayhost.is_empty() && verified {
            let mut host = Host::new(&relayhost, &self.from("smtp_tls_security_level"));
            host.tls = Some("verified");
            hosts.push(host);
        }
        self.policies(&mut hosts);
        self.log_ins(&mut hosts);
        if self.values.says_yes("smtp_tls_wrappermode") {
            self.notes
                .remove(&(None, "smtp_tls_wrappermode".to_owned()));
            hosts
                .iter_mut()
                .for_each(|host| host.implicit = !host.name.ends_with(":465"));
            match hosts.is_empty() {
                true => self.lost(
                    "smtp_tls_wrappermode",
                    "TLS from the beginning is for hosts that are named: mta.outbound.hosts",
                ),
                false => self.became(
                    "smtp_tls_wrappermode",
                    "mta.outbound.hosts: implicit_tls, which is so at port 465",
                ),
            }
        }
        self.authorities(&mut hosts);
        self.own_certificate(&mut hosts);
        if !hosts.is_empty() {
            let from: Vec<&str> = hosts.iter().map(|host| host.from.as_str()).collect();
            self.config.set(
                "mta.outbound",
                "hosts",
                list(hosts.iter().map(Host::shown)),
                &from.join(", "),
            );
        }
    }

    /// smtp_tls_policy_maps
    fn policies(&mut self, hosts: &mut Vec<Host>) {
        let name = "smtp_tls_policy_maps";
        let mut count = 0;
        for row in self.rows(name, false) {
            let mut parts = row.value.split_whitespace();
            let level = parts.next().unwrap_or_default();
            let tls = match level {
                "none" => "none",
                "may" => "opportunistic",
                "encrypt" => "required",
                "verify" | "secure" => "verified",
                other => {
                    self.lost(
                        name,
                        format!("{}: {}: {other} is not known here", row.place, row.key),
                    );
                    continue;
                }
            };
            if row.key.starts_with('.') {
                self.lost(
                    name,
                    format!(
                        "{}: {}: hosts and domains are named one by one",
                        row.place, row.key
                    ),
                );
                continue;
            }
            let names = parts.clone().find_map(|part| part.strip_prefix("match="));
            let names = names
                .unwrap_or_default()
                .split(':')
                .filter(|one| !matches!(*one, "" | "nexthop" | "hostname" | "dot-nexthop"));
            let mut host = Host::new(&row.key, &row.place);
            host.names = names
                .filter(|one| !one.starts_with('.'))
                .map(str::to_owned)
                .collect();
            host.tls = Some(tls);
            count += 1;
            hosts.retain(|one| one.name != host.name);
            hosts.push(host);
        }
        match count {
            0 => self.needless(name, "there is no host in it"),
            count => self.became(name, format!("mta.outbound.hosts: {count} of them")),
        }
    }

    /// smtp_sasl_password_maps
    fn log_ins(&mut self, hosts: &mut Vec<Host>) {
        let (name, switch) = ("smtp_sasl_password_maps", "smtp_sasl_auth_enable");
        if !self.values.says_yes(switch) {
            self.needless(switch, "no log-in at other hosts");
            return self.needless(name, "smtp_sasl_auth_enable is not set");
        }
        let mut count = 0;
        let value = self.values.value(name);
        let relayhost = self.values.value("relayhost");
        let fixed = value
            .strip_prefix("static:")
            .map(|secret| crate::tables::Row {
                key: relayhost.clone(),
                value: secret.to_owned(),
                place: self.from(name),
            });
        let rows = self.rows(name, false);
        for row in rows.into_iter().chain(fixed) {
            if row.key.contains('@') {
                self.lost(
                    name,
                    format!(
                        "{}: {}: one log-in for a host, whoever the sender is",
                        row.place, row.key
                    ),
                );
                continue;
            }
            let Some((user, password)) = row.value.split_once(':') else {
                self.lost(
                    name,
                    format!("{}: {}: no user and password", row.place, row.key),
                );
                continue;
            };
            let new = Host::new(&row.key, &row.place);
            let file: String = new
                .name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() || c == '.' {
                        c
                    } else {
                        '-'
                    }
                })
                .collect();
            let file = format!("{file}.password");
            self.secrets.push(super::SecretFile {
                name: file.clone(),
                secret: format!("{password}\n"),
            });
            let at = match hosts.iter().position(|host| host.name == new.name) {
                Some(at) => at,
                None => {
                    hosts.push(new);
                    hosts.len() - 1
                }
            };
            if let Some(host) = hosts.get_mut(at) {
                host.tls = Some("verified");
                host.log_in = Some((user.to_owned(), format!("{}/{file}", self.target)));
            }
            count += 1;
        }
        match count {
            0 => self.needless(name, "there is no host in it"),
            count => {
                let told = format!("mta.outbound.hosts: user and password_file for {count}");
                self.became(switch, told.clone());
                self.became(name, format!("{told}; the password is shown under TLS with a certificate that was verified, unless password_needs says otherwise"));
            }
        }
    }

    /// smtp_tls_cert_file: what we show hosts that are named.
    fn own_certificate(&mut self, hosts: &mut [Host]) {
        let [cert, key] = ["smtp_tls_cert_file", "smtp_tls_key_file"];
        let (file, key_file) = (self.values.value(cert), self.values.value(key));
        if file.is_empty() || hosts.is_empty() {
            return;
        }
        let key_file = if key_file.is_empty() {
            file.clone()
        } else {
            key_file
        };
        for host in hosts.iter_mut() {
            host.own = Some((file.clone(), key_file.clone()));
        }
        for name in [cert, key] {
            self.became(name, "cert_file and key_file of mta.outbound.hosts");
        }
    }

    /// smtp_tls_CAfile: the authorities of the system are taken anyway.
    fn authorities(&mut self, hosts: &mut [Host]) {
        let name = "smtp_tls_CAfile";
        let file = self.values.value(name);
        let of_system = [
            "ca-certificates.crt",
            "ca-bundle.crt",
            "ca-bundle.trust.crt",
            "cert.pem",
            "tls-ca-bundle.pem",
        ];
        let is_system = of_system.iter().any(|one| file.ends_with(one));
        let mut verified = hosts
            .iter_mut()
            .filter(|host| host.tls == Some("verified"))
            .peekable();
        if !file.is_empty() && !is_system && verified.peek().is_some() {
            verified.for_each(|host| host.authorities = Some(file.clone()));
            self.became(name, "ca_file of mta.outbound.hosts");
        }
        for name in [name, "smtp_tls_CApath"] {
            if self.notes.contains_key(&(None, name.to_owned())) {
                continue;
            }
            self.needless(
                name,
                "where certificates are verified, the authorities of the system count",
            );
        }
        for name in [
            "smtp_tls_trust_anchor_file",
            "smtp_tls_fingerprint_cert_match",
        ] {
            if !self.values.value(name).is_empty() {
                self.lost(name, "certificates are verified by authorities: name one as ca_file in mta.outbound.hosts");
            }
        }
    }
}

/// One of `mta.outbound.hosts`.
struct Host {
    name: String,
    tls: Option<&'static str>,
    names: Vec<String>,
    authorities: Option<String>,
    log_in: Option<(String, String)>,
    /// Certificate and key.
    own: Option<(String, String)>,
    implicit: bool,
    from: String,
}

impl Host {
    /// `[host]:port`, `[host]`, `host:port`, `domain`.
    fn new(key: &str, from: &str) -> Self {
        let (host, port) = match key.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match key.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (key, None),
            },
        };
        let port = port.and_then(super::listeners::port_number);
        let name = match (host.contains(':'), port) {
            (true, Some(port)) => format!("[{host}]:{port}"),
            (false, Some(port)) => format!("{host}:{port}"),
            (_, None) => host.to_owned(),
        };
        Self {
            name,
            tls: None,
            names: Vec::new(),
            authorities: None,
            log_in: None,
            own: None,
            implicit: false,
            from: from.to_owned(),
        }
    }

    fn shown(&self) -> String {
        let mut shown = format!("{{ host = {}", quoted(&self.name));
        if let Some(tls) = self.tls {
            shown += &format!(", tls = {}", quoted(tls));
        }
        if self.implicit {
            shown += ", implicit_tls = true";
        }
        if !self.names.is_empty() {
            shown += &format!(
                ", tls_names = {}",
                list(self.names.iter().map(|one| quoted(one)))
            );
        }
        if let Some(file) = &self.authorities {
            shown += &format!(", ca_file = {}", quoted(file));
        }
        if let Some((cert, key)) = &self.own {
            let (cert, key) = (quoted(cert), quoted(key));
            shown += &format!(", cert_file = {cert}, key_file = {key}");
        }
        if let Some((user, file)) = &self.log_in {
            shown += &format!(
                ", user = {}, password_file = {}",
                quoted(user),
                quoted(file)
            );
        }
        shown + " }"
    }
}
