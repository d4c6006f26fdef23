//! Whose mail is taken: domains, accounts, aliases, and the networks that may send to anyone.
//!
//! Postfix has four classes of domains; ours are one class, with a route for those whose mailboxes are elsewhere. Every
//! recipient must be known: an account, an alias, or a catch-all.

mod aliases;
mod classes;
mod roles;

use super::{
    Work,
    routes::{Route, Way},
};
use crate::{
    lines::words,
    output::{AccountDraft, DomainDraft, list, quoted},
};

/// Users of the system below and above are not people.
const PEOPLE: std::ops::RangeInclusive<u32> = 1_000..=60_000;

impl Work<'_> {
    pub(super) fn people(&mut self) {
        self.networks();
        self.delimiter();
        self.local_class();
        self.mailbox_class();
        self.relay_class();
        let forwarded = self.alias_class();
        self.local_aliases();
        self.virtual_aliases(&forwarded);
        self.senders();
        self.loose_ends();
        self.hashes();
        self.needless("mynetworks_style", "mynetworks says it, or it is this host");
    }

    fn networks(&mut self) {
        let name = "mynetworks";
        let relay = self.values.value("smtpd_relay_restrictions");
        let permits = match words(&relay).is_empty() {
            true => permits_networks(&self.values.value("smtpd_recipient_restrictions")),
            false => permits_networks(&relay),
        };
        let written = match self.is_set(name) {
            true => self.listed(name),
            false => {
                let style = self.values.value("mynetworks_style");
                if style != "host" {
                    self.must(format!("relay_networks: mynetworks_style = {style} means networks of this host's interfaces; write them"));
                }
                vec!["127.0.0.0/8".to_owned(), "[::1]/128".to_owned()]
            }
        };
        let (mut networks, mut odd) = (Vec::new(), Vec::new());
        // What cannot be left out by itself is left out with all that is around it.
        let excluded: Vec<String> = written
            .iter()
            .filter_map(|word| network(word.strip_prefix('!')?)?)
            .collect();
        for word in written {
            match network(&word) {
                Some(Some(network)) => networks.push(network),
                // IPv4 in the clothes of IPv6.
                Some(None) => {}
                None => odd.push(word),
            }
        }
        networks.retain(|one: &String| !excluded.iter().any(|other| overlap(one, other)));
        if !permits {
            return self.needless(name, "no list of restrictions lets them send to anyone");
        }
        if networks.iter().any(|one| one.ends_with("/0")) {
            self.must("relay_networks: everybody may send to anyone, as in mynetworks; name the networks that should");
        }
        let from = self.from(name);
        let shown = list(networks.iter().map(|one| quoted(one)));
        for section in ["mta.inbound", "queued"] {
            self.config
                .set(section, "relay_networks", shown.clone(), &from);
        }
        self.became(
            name,
            format!("mta.inbound.relay_networks and queued.relay_networks = {shown}"),
        );
        for word in odd {
            self.lost(name, format!("{word} is no network; it was left out, with any network it is part of: name those that remain"));
        }
    }

    fn delimiter(&mut self) {
        let name = "recipient_delimiter";
        let value = self.values.value(name);
        let mut chars = value.chars();
        match (chars.next(), chars.next()) {
            (None, _) => {
                self.directory.delimiter = Some(String::new());
                self.needless(
                    name,
                    "subaddress_delimiter = \"\": addresses have no detail, as before",
                );
            }
            (Some('+'), None) => self.became(name, "subaddress_delimiter is \"+\", as built in"),
            (Some(first), more) if "+-_=#!%&~^*".contains(first) => {
                self.directory.delimiter = Some(first.to_string());
                self.became(name, format!("subaddress_delimiter = \"{first}\""));
                if more.is_some() {
                    self.lost(name, "a domain has one delimiter: the first is taken");
                }
            }
            (Some(first), _) => self.lost(name, format!("{first} cannot be subaddress_delimiter")),
        }
    }

    /// Adds a domain of ours, once.
    fn domain(&mut self, name: &str, from: &str) {
        if !self.directory.has_domain(name) {
            let draft = DomainDraft {
                from: from.to_owned(),
                ..DomainDraft::default()
            };
            self.directory.domains.push((name.to_owned(), draft));
        }
    }

    /// The class `local`: users of the system, and aliases(5).
    fn local_class(&mut self) {
        let name = "mydestination";
        let all = self.domains_of(name);
        let (hosts, mut domains): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|one| one.starts_with("localhost") || !one.contains('.'));
        let origin = self.values.value("myorigin").to_lowercase();
        // Users are known by the domain that their mail is sent from.
        if let Some(at) = domains.iter().position(|one| *one == origin) {
            domains.swap(0, at);
        }
        let from = self.from(name);
        for domain in &domains {
            self.domain(domain, &from);
        }
        if !domains.is_empty() {
            self.became(name, format!("[[domain]] {}", domains.join(", ")));
        }
        for host in hosts {
            self.needless(
                name,
                format!(
                    "{host}: only programs of this host write to it; have them use whole addresses"
                ),
            );
        }
        self.local_transport(&domains);
        let Some((first, others)) = domains.split_first() else {
            self.needless("alias_maps", "no mail is local");
            self.needless("local_recipient_maps", "no mail is local");
            return;
        };
        self.users(first, others);
    }

    fn local_transport(&mut self, domains: &[String]) {
        let names = ["mailbox_transport", "local_transport"];
        for name in names {
            let value = self.values.value(name);
            if value.is_empty() || value.starts_with("local:") || value == "local" {
                self.needless(name, "mail is filed by the mda");
            } else if domains.is_empty() {
                self.needless(name, "no mail is local");
            } else if let Some(way) = self.class_way(name) {
                self.route_class(domains, &way, name);
            }
        }
    }

    fn route_class(&mut self, domains: &[String], way: &Way, name: &str) {
        let from = self.from(name);
        for domain in domains {
            self.routes.push(Route {
                domain: domain.clone(),
                way: way.clone(),
                from: from.clone(),
            });
        }
    }

    fn users(&mut self, domain: &str, others: &[String]) {
        let users = match self.files.text("/etc/passwd") {
            Ok((file, text)) => people(&file, &text),
            Err(_) => {
                self.must(format!("accounts of {domain}: put the file passwd of the old host into the folder and run this again, or add them by `postroad account add`"));
                Vec::new()
            }
        };
        for (user, from) in users {
            let aliases = others
                .iter()
                .map(|other| format!("{user}@{other}"))
                .collect();
            let draft = AccountDraft {
                aliases,
                from,
                ..AccountDraft::default()
            };
            self.directory
                .accounts
                .insert(format!("{user}@{domain}"), draft);
        }
        self.became("local_recipient_maps", "accounts are the users in passwd, with ids from 1000 and a shell; aliases those of alias_maps");
        let luser = self.values.value("luser_relay");
        match luser.is_empty() {
            true => self.needless("luser_relay", "it is empty"),
            false => {
                let target = self.whole(&luser);
                let found = self
                    .directory
                    .domains
                    .iter_mut()
                    .find(|(name, _)| name == domain);
                if let Some((_, draft)) = found {
                    draft.catch_all = Some(target.clone());
                }
                self.became(
                    "luser_relay",
                    format!("catch_all = \"{target}\" of {domain}"),
                );
            }
        }
    }

    /// An address with its domain.
    fn whole(&self, address: &str) -> String {
        let address = address.trim();
        match address.rsplit_once('@') {
            // Only the host of an address knows whether case counts.
            Some((_, domain)) if !self.directory.has_domain(&domain.to_lowercase()) => {
                address.to_owned()
            }
            Some(_) => address.to_lowercase(),
            None => format!("{}@{}", address.to_lowercase(), self.home()),
        }
    }

    /// Where names without a domain belong: `myorigin`, if that is a domain of ours.
    fn home(&self) -> String {
        let origin = self.values.value("myorigin").to_lowercase();
        match (
            self.directory.has_domain(&origin),
            self.directory.domains.first(),
        ) {
            (false, Some((first, _))) if origin.is_empty() || self.is_local_name(&origin) => {
                first.clone()
            }
            _ => origin,
        }
    }

    /// Whether a name is one of this host that is no mail domain of ours.
    fn is_local_name(&self, name: &str) -> bool {
        let destinations = self.values.value("mydestination").to_lowercase();
        words(&destinations).contains(&name)
    }
}

/// Whether a list lets mynetworks pass before it refuses.
fn permits_networks(restrictions: &str) -> bool {
    let all = words(restrictions);
    let refuses = |word: &&&str| {
        matches!(
            **word,
            "reject" | "defer" | "reject_unauth_destination" | "defer_unauth_destination"
        )
    };
    let before = all.iter().take_while(|word| !refuses(word));
    before
        .into_iter()
        .any(|word| *word == "permit_mynetworks" || *word == "permit")
}

/// None: no network. Some(None): one that another stands for.
pub(super) fn network(word: &str) -> Option<Option<String>> {
    let plain = word.replace(['[', ']'], "");
    if plain.starts_with("::ffff:") {
        return Some(None);
    }
    let parsed = plain.parse::<ipnet::IpNet>().ok();
    let address = plain.parse::<std::net::IpAddr>().ok();
    parsed
        .map(|net| Some(net.trunc().to_string()))
        .or_else(|| Some(Some(ipnet::IpNet::from(address?).to_string())))
}

fn overlap(one: &str, other: &str) -> bool {
    let parsed = |text: &str| text.parse::<ipnet::IpNet>().ok();
    match (parsed(one), parsed(other)) {
        (Some(one), Some(other)) => one.contains(&other) || other.contains(&one),
        _ => false,
    }
}

fn is_domain(word: &str) -> bool {
    let domain = postroad_address::Domain::parse(word);
    domain.is_ok_and(|domain| !domain.is_literal()) && !word.starts_with('.')
}

fn is_mailbox(word: &str) -> bool {
    postroad_address::Mailbox::parse(word).is_ok()
}

/// Names and places of passwd(5) that are people.
fn people(file: &str, text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, _, _, _, shell] = fields.as_slice() else {
            continue;
        };
        let is_person = uid.parse().is_ok_and(|uid| PEOPLE.contains(&uid))
            && !shell.ends_with("nologin")
            && !shell.ends_with("false");
        if is_person {
            found.push((name.to_lowercase(), format!("{file}:{}", at + 1)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_in_postfix_form() {
        assert_eq!(network("[::1]/128"), Some(Some("::1/128".to_owned())));
        assert_eq!(network("192.0.2.7"), Some(Some("192.0.2.7/32".to_owned())));
        assert_eq!(
            network("[2001:db8::]/32"),
            Some(Some("2001:db8::/32".to_owned()))
        );
        assert_eq!(network("[::ffff:127.0.0.0]/104"), Some(None));
        assert_eq!(network("!192.0.2.0/24"), None);
        assert!(overlap("0.0.0.0/0", "192.0.2.0/24") && !overlap("10.0.0.0/8", "::/0"));
    }

    #[test]
    fn nobody_relays_who_did_not_before() {
        assert!(permits_networks(
            "permit_mynetworks, reject_unauth_destination"
        ));
        assert!(permits_networks(
            "reject_unknown_sender_domain permit_mynetworks reject"
        ));
        assert!(!permits_networks(
            "permit_sasl_authenticated, reject, permit_mynetworks"
        ));
        assert!(!permits_networks(
            "reject_unauth_destination, permit_mynetworks"
        ));
        assert!(!permits_networks(""));
    }

    #[test]
    fn people_have_a_shell() {
        let text = "root:x:0:0:root:/root:/bin/sh\nBob:x:1000:1000::/home/bob:/bin/bash\nd:x:1001:1::/:/usr/sbin/nologin\n";
        assert_eq!(
            people("passwd", text),
            [("bob".to_owned(), "passwd:2".to_owned())]
        );
    }
}
