//! What makes a directory whole: postmasters, accounts that aliases lead to, senders, hashes.

use super::Work;
use crate::output::{AccountDraft, AliasDraft};

impl Work<'_> {
    /// smtpd_sender_login_maps: which accounts may use a sender.
    pub(super) fn senders(&mut self) {
        let name = "smtpd_sender_login_maps";
        let rows = self.rows(name, false);
        let mut count = 0;
        for row in rows {
            for login in row.value.split([',', ' ']).filter(|one| !one.is_empty()) {
                let login = self.whole(login);
                if login == row.key {
                    count += 1;
                    continue;
                }
                let Some(account) = self.directory.accounts.get_mut(&login) else {
                    self.lost(name, format!("{}: {login} is no account", row.place));
                    continue;
                };
                count += 1;
                if row.key.starts_with('@') || !super::is_mailbox(&row.key) {
                    self.lost(
                        name,
                        format!("{}: {}: senders are named one by one", row.place, row.key),
                    );
                } else if !account.may_send_as.contains(&row.key) {
                    account.may_send_as.push(row.key.clone());
                }
            }
        }
        match count {
            0 => self.needless(name, "there is no sender in it"),
            count => self.became(
                name,
                format!("may_send_as of accounts: {count} senders, own addresses among them"),
            ),
        }
    }

    /// An account that must be there.
    pub(super) fn account_of(&mut self, address: &str, from: &str) {
        if !self.directory.has(address) {
            let draft = AccountDraft {
                from: from.to_owned(),
                ..AccountDraft::default()
            };
            self.directory.accounts.insert(address.to_owned(), draft);
        }
    }

    /// Every alias leads to somebody, and every domain has a postmaster.
    pub(super) fn loose_ends(&mut self) {
        self.targets_exist();
        for at in 0..self.directory.domains.len() {
            let (name, draft) = self.directory.domains[at].clone();
            let reaches = |role: &str| self.directory.has(&format!("{role}@{name}"));
            if (reaches("postmaster") && reaches("abuse")) || draft.postmaster.is_some() {
                continue;
            }
            let postmaster = self.postmaster(&name);
            self.directory.domains[at].1.postmaster = Some(postmaster);
        }
        self.break_circles();
        if self.directory.domains.is_empty() {
            self.nobody_at_all();
        }
    }

    fn targets_exist(&mut self) {
        let aliases = self
            .directory
            .aliases
            .values()
            .flat_map(|alias| alias.to.iter().map(|to| (to.clone(), alias.from.clone())));
        let catch_alls = self
            .directory
            .domains
            .iter()
            .filter_map(|(_, one)| Some((one.catch_all.clone()?, one.from.clone())));
        let all: Vec<(String, String)> = aliases.chain(catch_alls).collect();
        let mut made = Vec::new();
        for (target, from) in all {
            let domain = target.rsplit_once('@').map_or("", |(_, domain)| domain);
            if !self.directory.has_domain(domain)
                || self.directory.has(&target)
                || self.directory.has(&self.without_detail(&target))
            {
                continue;
            }
            self.account_of(&target, &format!("{from}, an alias leads to it"));
            made.push(target);
        }
        if !made.is_empty() {
            made.dedup();
            self.must(format!("accounts were made for addresses that aliases lead to: {}; see whether they should be", made.join(", ")));
        }
    }

    fn without_detail(&self, address: &str) -> String {
        let delimiter = self.directory.delimiter.as_deref().unwrap_or("+");
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        match local.split_once(delimiter) {
            Some((base, _)) if !delimiter.is_empty() && !base.is_empty() => {
                format!("{base}@{domain}")
            }
            _ => address.to_owned(),
        }
    }

    /// Who gets what is written to the roles of a domain: its postmaster, else the postmaster of all, else its first account, else
    /// one that is made.
    fn postmaster(&mut self, domain: &str) -> String {
        let own = format!("postmaster@{domain}");
        if self.directory.has(&own) {
            return own;
        }
        let of_all = self
            .directory
            .domains
            .first()
            .map(|(first, _)| format!("postmaster@{first}"));
        if let Some(of_all) = of_all.filter(|one| self.directory.has(one)) {
            return of_all;
        }
        let ending = format!("@{domain}");
        let mut accounts = self.directory.accounts.keys();
        if let Some(first) = accounts.find(|one| one.ends_with(&ending)).cloned() {
            self.must(format!("postmaster of {domain}: {first} was chosen, since nobody gets that mail so far; see who should"));
            return first;
        }
        self.account_of(&own, "nobody got the mail of the postmaster");
        self.must(format!(
            "postmaster of {domain}: the account {own} was made, since nobody gets that mail so far"
        ));
        own
    }

    /// Aliases that lead to each other keep their mail; ours would be refused for that.
    fn break_circles(&mut self) {
        let circular: Vec<String> = self
            .directory
            .aliases
            .keys()
            .filter(|one| self.leads_to(one, one, 0))
            .cloned()
            .collect();
        for address in circular {
            if !self.directory.aliases.contains_key(&address)
                || !self.leads_to(&address, &address, 0)
            {
                continue;
            }
            let alias: Option<AliasDraft> = self.directory.aliases.remove(&address);
            let from = alias.map(|alias| alias.from).unwrap_or_default();
            self.account_of(&address, &from);
            self.must(format!(
                "{from}: the alias {address} leads back to itself; it was made an account"
            ));
        }
    }

    fn leads_to(&self, from: &str, to: &str, depth: usize) -> bool {
        if depth > 16 {
            return true;
        }
        let Some(alias) = self.directory.aliases.get(from) else {
            return false;
        };
        alias
            .to
            .iter()
            .any(|target| target == to || self.leads_to(target, to, depth + 1))
    }

    /// A host that has no mail of its own still answers to its postmaster.
    fn nobody_at_all(&mut self) {
        let host = self.values.value("myhostname").to_lowercase();
        if host.is_empty() {
            return self.must("directory.toml: there is no domain of ours; add one");
        }
        self.domain(&host, "no domain is ours, and there must be one");
        let own = format!("postmaster@{host}");
        self.account_of(&own, "RFC 5321 §4.5.1: every host has a postmaster");
        if let Some((_, draft)) = self.directory.domains.first_mut() {
            draft.postmaster = Some(own.clone());
        }
        self.became("mydestination", format!("no mail is for this host; the directory needs a domain, so {host} and the account {own} were made"));
    }

    /// Passwords that can be taken along.
    pub(super) fn hashes(&mut self) {
        let (mut taken, mut others) = (0, Vec::new());
        for (name, hash) in std::mem::take(&mut self.passwords) {
            let address = self.whole(&name);
            let phc = hash.strip_prefix("{ARGON2ID}").unwrap_or(&hash);
            match self.directory.accounts.get_mut(&address) {
                Some(account) if phc.starts_with("$argon2id$") => {
                    account.password_hash = Some(phc.to_owned());
                    taken += 1;
                }
                Some(_) => others.push(address),
                None => self.must(format!(
                    "a password is known for {address}, which is no account"
                )),
            }
        }
        if taken > 0 {
            self.must(format!("passwords: {taken} argon2id hashes were taken along; `postroad check` tells if one is weak"));
        }
        if !others.is_empty() {
            self.must(format!(
                "passwords of another kind than argon2id cannot be taken along: {}",
                others.join(", ")
            ));
        }
        let without = self
            .directory
            .accounts
            .values()
            .filter(|one| one.password_hash.is_none())
            .count();
        if self.config.has("msa") && without > 0 {
            self.must(format!("{without} accounts have no password, so they get mail and cannot send: give each a password_hash (`postroad account hash`)"));
        }
    }
}
