//! The classes of domains whose mailboxes are virtual, on other hosts, or none at all.

use super::{Work, is_domain, is_mailbox};
use crate::{output::AccountDraft, tables::Row, translate::routes::Way};

impl Work<'_> {
    /// The domains of a class; the words that are none are noted.
    pub(super) fn domains_of(&mut self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for word in self.listed(name) {
            if is_domain(&word) {
                if !found.contains(&word) {
                    found.push(word);
                }
            } else if self.is_set(name) && !word.is_empty() {
                let why = match word.starts_with('.') {
                    true => "is all subdomains: name each of them".to_owned(),
                    false => "is no domain that can be taken".to_owned(),
                };
                self.lost(name, format!("{word} {why}"));
            }
        }
        found
    }

    /// The class `virtual mailbox`.
    pub(super) fn mailbox_class(&mut self) {
        let rows = self.rows("virtual_mailbox_maps", false);
        let domains = self.domains_of("virtual_mailbox_domains");
        let way = match domains.is_empty()
            && rows.is_empty()
            && !self.is_set("virtual_mailbox_domains")
        {
            true => None,
            false => self.class_way("virtual_transport"),
        };
        self.needless("virtual_transport", "no domain is of its class");
        let from = self.from("virtual_mailbox_domains");
        for domain in &domains {
            self.domain(domain, &from);
        }
        if !domains.is_empty() {
            self.became(
                "virtual_mailbox_domains",
                format!("[[domain]] {}", domains.join(", ")),
            );
        }
        let mut count = 0;
        for row in rows {
            count += usize::from(self.mailbox(&row));
        }
        if count > 0 {
            self.became(
                "virtual_mailbox_maps",
                format!("[[account]]: {count} of them"),
            );
        } else if self.is_set("virtual_mailbox_maps")
            && !self.values.value("virtual_mailbox_maps").is_empty()
        {
            self.needless("virtual_mailbox_maps", "there is no address in it");
        }
        if let Some(way) = way {
            self.route_class(&domains, &way, "virtual_transport");
        }
    }

    fn mailbox(&mut self, row: &Row) -> bool {
        let Some((local, domain)) = row.key.rsplit_once('@') else {
            return false;
        };
        if !self.directory.has_domain(domain) {
            return false;
        }
        let address = match local {
            "" => {
                // All of a domain in one mailbox.
                let address = format!("catch-all@{domain}");
                let found = self
                    .directory
                    .domains
                    .iter_mut()
                    .find(|(name, _)| name == domain);
                if let Some((_, draft)) = found {
                    draft.catch_all = Some(address.clone());
                }
                address
            }
            _ => row.key.clone(),
        };
        if !is_mailbox(&address) {
            self.lost(
                "virtual_mailbox_maps",
                format!("{}: {} is no address", row.place, row.key),
            );
            return false;
        }
        let draft = AccountDraft {
            from: row.place.clone(),
            ..AccountDraft::default()
        };
        self.directory.accounts.entry(address).or_insert(draft);
        true
    }

    /// The class `relay`: domains whose mailboxes are on other hosts.
    pub(super) fn relay_class(&mut self) {
        let name = "relay_domains";
        let (local, domains): (Vec<_>, Vec<_>) = self
            .domains_of(name)
            .into_iter()
            .partition(|one| self.directory.has_domain(one) || self.is_local_name(one));
        if !local.is_empty() {
            self.needless(name, format!("{}: mail for it is local", local.join(", ")));
        }
        if domains.is_empty() {
            self.needless(name, "there is no domain in it");
            self.needless("relay_recipient_maps", "no domain is of its class");
            self.needless("relay_transport", "no domain is of its class");
            return;
        }
        let from = self.from(name);
        for domain in &domains {
            self.domain(domain, &from);
        }
        let known = self.rows("relay_recipient_maps", false);
        for domain in &domains {
            let ending = format!("@{domain}");
            let mut count = 0;
            for row in known.iter().filter(|row| row.key.ends_with(&ending)) {
                if row.key == ending || !is_mailbox(&row.key) {
                    self.lost(
                        "relay_recipient_maps",
                        format!("{}: every recipient of {domain} must be named", row.place),
                    );
                    continue;
                }
                count += 1;
                let draft = AccountDraft {
                    from: row.place.clone(),
                    ..AccountDraft::default()
                };
                self.directory
                    .accounts
                    .entry(row.key.clone())
                    .or_insert(draft);
            }
            match count {
                0 => self.lost(name, format!("{domain}: mail is taken for recipients that are known alone; list them in relay_recipient_maps and run this again, or in an accounts_file of the domain")),
                count => {
                    self.became(name, format!("[[domain]] {domain}, and a route"));
                    self.became("relay_recipient_maps", format!("[[account]] without a password: {count} in {domain}"));
                }
            }
        }
        let way = self.class_way("relay_transport").unwrap_or(Way {
            class: "relay",
            ..Way::default()
        });
        self.route_class(&domains, &way, name);
    }

    /// The class `virtual alias`: domains that have aliases alone. Tells which.
    pub(super) fn alias_class(&mut self) -> Vec<String> {
        let name = "virtual_alias_domains";
        let all = match self.is_set(name) {
            true => self.domains_of(name),
            false => {
                let rows = self.rows("virtual_alias_maps", false);
                let marks = rows.into_iter().filter(|row| {
                    !row.key.contains('@') && row.key.contains('.') && is_domain(&row.key)
                });
                marks.map(|row| row.key).collect()
            }
        };
        let from = self.from(name);
        for domain in &all {
            self.domain(domain, &from);
        }
        match all.is_empty() {
            true => self.needless(name, "there is no domain in it"),
            false => self.became(name, format!("[[domain]] {}", all.join(", "))),
        }
        all
    }
}
