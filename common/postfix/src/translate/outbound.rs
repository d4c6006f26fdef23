//! How mail leaves for others: addresses, encryption, log-in at a host that it is handed to.

mod encryption;
mod host;

use self::host::Host;
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
        let name = "smtp_dns_support_level";
        match self.values.value(name).as_str() {
            "dnssec" => self.dnssec(name),
            _ => self.needless(name, "common.dns.dnssec is false, as built in"),
        }
        self.needless(
            "lmtp_dns_support_level",
            "hosts of LMTP routes are named by us",
        );
    }

    /// What is known of single hosts: passwords, and how they are spoken to.
    fn hosts(&mut self) {
        let mut hosts: Vec<Host> = Vec::new();
        let level = self.values.value("smtp_tls_security_level");
        let verified = matches!(level.as_str(), "verify" | "secure");
        let relayhost = self.values.value("relayhost");
        if !relayhost.is_empty() && verified {
            let mut host = Host::new(&relayhost, &self.from("smtp_tls_security_level"));
            host.tls = Some("verify");
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
                host.tls = Some("verify");
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
            .filter(|host| host.tls == Some("verify"))
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
