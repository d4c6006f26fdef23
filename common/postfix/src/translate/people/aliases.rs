//! aliases(5) and virtual(5): addresses that stand for others.

use super::{Work, is_mailbox};
use crate::{lines::words, output::AliasDraft, tables::Row};

/// Whom an alias leads to, and what of it cannot be followed.
#[derive(Default)]
struct Targets {
    to: Vec<String>,
    odd: Vec<String>,
}

impl Work<'_> {
    pub(super) fn local_aliases(&mut self) {
        let name = "alias_maps";
        let Some(home) = self.local_home() else {
            return;
        };
        let rows = self.rows(name, true);
        let others = self.other_local_domains(&home);
        let mut count = 0;
        for row in rows {
            let address = format!("{}@{home}", row.key);
            let targets = self.targets(&row);
            for odd in targets.odd {
                self.lost(name, format!("{}: {}: {odd}", row.place, row.key));
            }
            if self.alias(name, &address, targets.to, &row) {
                count += 1;
                for other in &others {
                    let to = vec![address.clone()];
                    let from = row.place.clone();
                    self.directory
                        .aliases
                        .entry(format!("{}@{other}", row.key))
                        .or_insert(AliasDraft { to, from });
                }
            }
        }
        match count {
            0 => self.needless(name, "there is no alias in it that leads to an address"),
            count => self.became(name, format!("[[alias]]: {count} of them")),
        }
    }

    fn local_home(&self) -> Option<String> {
        let destinations = self.values.value("mydestination").to_lowercase();
        let home = self.home();
        let first = words(&destinations)
            .into_iter()
            .find(|one| self.directory.has_domain(one))?;
        match words(&destinations).contains(&home.as_str()) && self.directory.has_domain(&home) {
            true => Some(home),
            false => Some(first.to_owned()),
        }
    }

    fn other_local_domains(&self, home: &str) -> Vec<String> {
        let destinations = self.values.value("mydestination").to_lowercase();
        let all = words(&destinations).into_iter();
        all.filter(|one| *one != home && self.directory.has_domain(one))
            .map(str::to_owned)
            .collect()
    }

    fn targets(&self, row: &Row) -> Targets {
        let mut targets = Targets::default();
        for word in split_addresses(&row.value) {
            if let Some(file) = word.strip_prefix(":include:") {
                match self.files.text(file) {
                    Ok((_, text)) => {
                        let lines = crate::lines::logical_lines(&text);
                        let all = lines.iter().flat_map(|line| split_addresses(&line.text));
                        for word in all {
                            self.target(word, &mut targets);
                        }
                    }
                    Err(error) => targets.odd.push(error.to_string()),
                }
            } else {
                self.target(word, &mut targets);
            }
        }
        targets
    }

    fn target(&self, word: String, targets: &mut Targets) {
        let plain = word.trim_matches('"');
        if plain == "/dev/null" {
            targets.odd.push("/dev/null: mail that is to vanish needs a domain of its own with a route of the class discard".to_owned());
        } else if plain.starts_with('|') {
            targets.odd.push(format!(
                "{plain}: programs get no mail; let it take mail by LMTP, or read a Maildir"
            ));
        } else if plain.starts_with('/') {
            targets.odd.push(format!(
                "{plain}: mail is filed in the Maildirs of accounts alone"
            ));
        } else {
            let address = self.whole(&word);
            match is_mailbox(&address) {
                true => targets.to.push(address),
                false => targets.odd.push(format!("{word} is no address")),
            }
        }
    }

    /// Adds an alias. An account of that name gives way, unless it is to get a copy.
    fn alias(&mut self, name: &str, address: &str, mut to: Vec<String>, row: &Row) -> bool {
        if to.is_empty() {
            return false;
        }
        if !is_mailbox(address) {
            self.lost(name, format!("{}: {address} is no address", row.place));
            return false;
        }
        if to.iter().any(|target| target == address) {
            to.retain(|target| target != address);
            if !to.is_empty() {
                let others = to.join(", ");
                self.lost(name, format!("{}: {address} keeps a copy and sends one to {others}: an address is an account or an alias; it stays an account", row.place));
            }
            self.account_of(address, &row.place);
            return false;
        }
        if let Some(account) = self.directory.accounts.remove(address) {
            // Its further addresses lead the same way.
            for other in account.aliases {
                let (to, from) = (vec![address.to_owned()], row.place.clone());
                self.directory
                    .aliases
                    .insert(other, AliasDraft { to, from });
            }
        }
        let from = row.place.clone();
        self.directory
            .aliases
            .insert(address.to_owned(), AliasDraft { to, from });
        true
    }

    pub(super) fn virtual_aliases(&mut self, marks: &[String]) {
        let name = "virtual_alias_maps";
        let rows = self.rows(name, false);
        let mut whole_domains = Vec::new();
        let mut count = 0;
        for row in &rows {
            let is_mark = !row.key.contains('@')
                && (marks.contains(&row.key) || self.directory.has_domain(&row.key));
            if is_mark || row.value.is_empty() {
                continue;
            }
            match row.key.rsplit_once('@') {
                Some(("", domain)) => whole_domains.push((domain.to_owned(), row)),
                Some((_, domain)) if !self.directory.has_domain(domain) => {
                    let why = "it changes the way of mail for a domain that is not ours";
                    self.lost(name, format!("{}: {}: {why}", row.place, row.key));
                }
                Some(_) => {
                    let to = self.followed(name, row);
                    count += usize::from(self.alias(name, &row.key, to, row));
                }
                None => {
                    let to = self.followed(name, row);
                    let domains: Vec<String> = match self.local_home() {
                        Some(home) => std::iter::once(home.clone())
                            .chain(self.other_local_domains(&home))
                            .collect(),
                        None => Vec::new(),
                    };
                    if domains.is_empty() {
                        self.lost(
                            name,
                            format!("{}: {} is of no domain of ours", row.place, row.key),
                        );
                    }
                    for domain in domains {
                        let address = format!("{}@{domain}", row.key);
                        count += usize::from(self.alias(name, &address, to.clone(), row));
                    }
                }
            }
        }
        for (domain, row) in whole_domains {
            count += usize::from(self.whole_domain(name, &domain, row));
        }
        match count {
            0 => self.needless(name, "there is no alias in it"),
            count => self.became(name, format!("[[alias]] and catch_all: {count} of them")),
        }
    }

    fn followed(&mut self, name: &str, row: &Row) -> Vec<String> {
        let targets = self.targets(row);
        for odd in targets.odd {
            self.lost(name, format!("{}: {}: {odd}", row.place, row.key));
        }
        targets.to
    }

    /// `@domain`: what nobody else gets, or another name of a domain.
    fn whole_domain(&mut self, name: &str, domain: &str, row: &Row) -> bool {
        if !self.directory.has_domain(domain) {
            self.lost(name, format!("{}: {domain} is not ours", row.place));
            return false;
        }
        if let Some(other) = row.value.strip_prefix('@') {
            return self.other_name(name, domain, &other.to_lowercase(), row);
        }
        let to = self.followed(name, row);
        let target = match to.as_slice() {
            [] => return false,
            [one] => one.clone(),
            _ => {
                let address = format!("catch-all@{domain}");
                let from = row.place.clone();
                self.directory
                    .aliases
                    .insert(address.clone(), AliasDraft { to, from });
                address
            }
        };
        let found = self
            .directory
            .domains
            .iter_mut()
            .find(|(one, _)| one == domain);
        if let Some((_, draft)) = found {
            draft.catch_all = Some(target);
        }
        true
    }

    /// Every address of the other domain has one in this domain that leads to it.
    fn other_name(&mut self, name: &str, domain: &str, other: &str, row: &Row) -> bool {
        let ending = format!("@{other}");
        let all = self
            .directory
            .accounts
            .keys()
            .chain(self.directory.aliases.keys());
        let all: Vec<String> = all.filter(|one| one.ends_with(&ending)).cloned().collect();
        if all.is_empty() {
            self.lost(
                name,
                format!(
                    "{}: nothing is known of {other}, whose other name {domain} is",
                    row.place
                ),
            );
            return false;
        }
        for target in all {
            let local = target.strip_suffix(&ending).unwrap_or(&target);
            let address = format!("{local}@{domain}");
            if !self.directory.has(&address) {
                let (to, from) = (vec![target.clone()], row.place.clone());
                self.directory
                    .aliases
                    .insert(address, AliasDraft { to, from });
            }
        }
        true
    }
}

/// Divided by commas and blanks, but not within quotes.
fn split_addresses(text: &str) -> Vec<String> {
    let (mut found, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        quoted ^= c == '"';
        if !quoted && (c == ',' || c.is_whitespace()) {
            found.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
        } else {
            word.push(c);
        }
    }
    found.extend(Some(word).filter(|word| !word.is_empty()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_may_have_blanks() {
        assert_eq!(
            split_addresses("a@b, \"|/bin/x y\" c"),
            ["a@b", "\"|/bin/x y\"", "c"]
        );
    }
}
