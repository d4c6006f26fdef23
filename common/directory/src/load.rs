mod app_passwords;
mod listed;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use postroad_address::{Domain, Mailbox};
use postroad_envelope::StoreName;
use postroad_sasl::{ScramHash, ScramKeys};
use toml::Spanned;

use crate::{
    Account, Alias, DecoyKey, Directory, DirectoryError, Keys, LocalDomain, Password, Problem,
    decoy::Decoys,
    file::{AccountEntry, AliasEntry, DomainEntry, FileEntries},
    handle::Stamp,
};

impl Directory {
    /// Reads the file, and the files of hashes it names. Blocks.
    pub fn load(path: &Path) -> Result<Self, DirectoryError> {
        let (text, stamp, exposed) = read(path).map_err(|source| DirectoryError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut builder = Builder::new(path, &text);
        builder.sources.push((path.to_owned(), Some(stamp)));
        builder.exposed = exposed;
        builder.build()
    }

    /// Reads a text as if it stood in `file`; the mode of the file is not looked at.
    pub fn parse(file: &Path, text: &str) -> Result<Self, DirectoryError> {
        Builder::new(file, text).build()
    }
}

/// The text of a file, when it was changed last, and whether others may read it.
fn read(path: &Path) -> io::Result<(String, Stamp, bool)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, Stamp::of(&metadata), metadata.mode() & 0o006 != 0))
}

/// Turns entries into a snapshot and collects every problem on the way.
struct Builder<'a> {
    file: &'a Path,
    text: &'a str,
    /// Where its lines end: each entry is told by its line.
    breaks: Vec<usize>,
    /// Whether others may read the file.
    exposed: bool,
    problems: Vec<Problem>,
    sources: Vec<(PathBuf, Option<Stamp>)>,
    domain_lines: HashMap<String, usize>,
    /// The store of each domain, by its A-label.
    domain_stores: HashMap<String, StoreName>,
    /// Where each account or alias was named first, by folded address.
    lines: HashMap<String, usize>,
}

impl<'a> Builder<'a> {
    fn new(file: &'a Path, text: &'a str) -> Self {
        Self {
            file,
            text,
            breaks: text.match_indices('\n').map(|(at, _)| at).collect(),
            exposed: false,
            problems: Vec::new(),
            sources: Vec::new(),
            domain_lines: HashMap::new(),
            domain_stores: HashMap::new(),
            lines: HashMap::new(),
        }
    }

    fn build(mut self) -> Result<Directory, DirectoryError> {
        let entries = FileEntries::parse(self.file, self.text).map_err(DirectoryError::Invalid)?;
        let delimiter = match &entries.subaddress_delimiter {
            Some(text) => self.delimiter(text),
            None => Some('+'),
        };
        let domains: Vec<LocalDomain> = entries
            .domain
            .iter()
            .filter_map(|entry| self.domain(entry, delimiter))
            .collect();
        let mut aliases = HashMap::new();
        let mut accounts: HashMap<String, Account> = entries
            .account
            .iter()
            .filter_map(|entry| self.account(entry, &mut aliases))
            .map(|account| (account.name(), account))
            .collect();
        for entry in &entries.alias {
            if let Some(alias) = self.alias(entry) {
                aliases.insert(alias.address.folded(), alias);
            }
        }
        for domain in &entries.domain {
            self.listed(domain, &mut accounts);
        }
        let decoys = self.decoy_key(entries.decoy_key.as_ref());
        if !self.problems.is_empty() {
            self.problems.sort_by_key(|problem| problem.line);
            return Err(DirectoryError::Invalid(self.problems));
        }
        let domain_index = domains
            .iter()
            .enumerate()
            .map(|(at, domain)| (domain.name.a_label().to_owned(), at))
            .collect();
        let named = accounts.values().map(|account: &Account| &account.store);
        let mut named = named.chain(domains.iter().map(|domain| &domain.store));
        let has_stores = named.any(|store| !store.is_default());
        Ok(Directory {
            has_stores,
            file: self.file.to_owned(),
            domains,
            domain_index,
            decoys: Decoys::new(decoys, &accounts),
            accounts,
            aliases,
            sources: self.sources,
            generation: 0,
            forms: OnceLock::new(),
        })
    }

    fn decoy_key(&mut self, text: Option<&Spanned<String>>) -> Option<DecoyKey> {
        let text = text?;
        let line = self.line(text);
        self.secret_here(line);
        match text.get_ref().parse() {
            Ok(key) => Some(key),
            Err(problem) => {
                let remedy = "write what `openssl rand -base64 32` prints, or take it out and let `postroad account password` write it";
                self.refuse(line, problem, remedy)
            }
        }
    }

    fn domain(&mut self, entry: &DomainEntry, default: Option<char>) -> Option<LocalDomain> {
        let line = self.line(&entry.name);
        let name = match Domain::parse(entry.name.get_ref()) {
            Ok(name) if !name.is_literal() => name,
            Ok(_) => {
                let remedy = "write a domain name; mail for address literals is not taken";
                return self.refuse(line, "an address literal is no mail domain", remedy);
            }
            Err(error) => {
                return self.refuse(line, error.to_string(), "write it like \"example.org\"");
            }
        };
        if let Some(first) = self.domain_lines.insert(name.a_label().to_owned(), line) {
            let problem = format!("the domain {name} stands on line {first} already");
            return self.refuse(line, problem, "keep one of the two entries");
        }
        let tenant = match &entry.tenant {
            Some(tenant) => self.tenant(tenant)?,
            None => "default".to_owned(),
        };
        let store = match &entry.store {
            Some(store) => self.store(store)?,
            None => StoreName::default(),
        };
        self.domain_stores
            .insert(name.a_label().to_owned(), store.clone());
        Some(LocalDomain {
            tenant,
            store,
            postmaster: self.optional_address(entry.postmaster.as_ref()),
            catch_all: self.optional_address(entry.catch_all.as_ref()),
            subaddress_delimiter: match &entry.subaddress_delimiter {
                Some(text) => self.delimiter(text),
                None => default,
            },
            name,
            line,
        })
    }

    fn account(
        &mut self,
        entry: &AccountEntry,
        aliases: &mut HashMap<String, Alias>,
    ) -> Option<Account> {
        let line = self.line(&entry.address);
        let address = self.own_address(&entry.address)?;
        for text in &entry.aliases {
            if let Some(alias) = self.own_address(text) {
                let alias = Alias {
                    address: alias,
                    to: vec![address.clone()],
                    line: self.line(text),
                };
                aliases.insert(alias.address.folded(), alias);
            }
        }
        let of_domain = self.domain_stores.get(address.domain().a_label());
        let store = match &entry.store {
            Some(store) => self.store(store)?,
            None => of_domain.cloned().unwrap_or_default(),
        };
        Some(Account {
            store,
            password: self.password(entry),
            keys: self.keys(entry),
            app_passwords: self.app_passwords(&entry.app_passwords),
            may_send_as: self.addresses(&entry.may_send_as),
            disabled: entry.disabled,
            elsewhere: false,
            address,
            line,
        })
    }

    fn alias(&mut self, entry: &AliasEntry) -> Option<Alias> {
        let line = self.line(&entry.address);
        let address = self.own_address(&entry.address)?;
        if entry.to.is_empty() {
            let problem = format!("the alias {address} leads nowhere");
            return self.refuse(
                line,
                problem,
                "name an address in `to`, or remove the alias",
            );
        }
        Some(Alias {
            to: self.addresses(&entry.to),
            address,
            line,
        })
    }

    fn password(&mut self, entry: &AccountEntry) -> Option<Password> {
        let (line, phc) = match (&entry.password_hash, &entry.password_hash_file) {
            (None, None) => return None,
            (Some(hash), None) => {
                let line = self.line(hash);
                self.secret_here(line);
                (line, hash.get_ref().clone())
            }
            (None, Some(file)) => (self.line(file), self.hash_file(file)?),
            (Some(_), Some(file)) => {
                let line = self.line(file);
                let problem = "both password_hash and password_hash_file are given";
                return self.refuse(line, problem, "keep one of them");
            }
        };
        match Password::parse(phc.trim()) {
            Ok(password) => Some(password),
            Err(problem) => {
                let remedy = "make one with `postroad account hash`";
                self.refuse(line, problem, remedy)
            }
        }
    }

    /// A file with secrets is not for everybody. Once is enough; every further account would say the same.
    fn secret_here(&mut self, line: usize) {
        if std::mem::take(&mut self.exposed) {
            let problem = "everybody may read this file, and it holds password hashes";
            self.push(line, problem, self.chmod(self.file));
        }
    }

    fn keys(&mut self, entry: &AccountEntry) -> Keys {
        const REMEDY: &str = "make them with `postroad account password`, or leave them out";
        Keys {
            scram_sha_256: self.scram(entry.scram_sha_256.as_ref(), ScramHash::Sha256, REMEDY),
            scram_sha_1: self.scram(entry.scram_sha_1.as_ref(), ScramHash::Sha1, REMEDY),
            recoverable_secret: self.key(entry.recoverable_secret.as_ref(), REMEDY),
        }
    }

    fn scram(
        &mut self,
        text: Option<&Spanned<String>>,
        hash: ScramHash,
        remedy: &str,
    ) -> Option<ScramKeys> {
        let keys: ScramKeys = self.key(text, remedy)?;
        if keys.hash() == hash {
            return Some(keys);
        }
        let line = text.map_or(0, |text| self.line(text));
        let problem = format!("these are the keys of {}, not of {hash}", keys.hash());
        self.refuse(line, problem, remedy)
    }

    fn key<T: std::str::FromStr<Err = &'static str>>(
        &mut self,
        text: Option<&Spanned<String>>,
        remedy: &str,
    ) -> Option<T> {
        let text = text?;
        let line = self.line(text);
        self.secret_here(line);
        match text.get_ref().trim().parse() {
            Ok(key) => Some(key),
            Err(problem) => self.refuse(line, problem, remedy),
        }
    }

    fn hash_file(&mut self, name: &Spanned<String>) -> Option<String> {
        let line = self.line(name);
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let path = folder.join(name.get_ref());
        match read(&path) {
            Ok((text, stamp, exposed)) => {
                if exposed {
                    let problem = format!("everybody may read {}", path.display());
                    self.push(line, problem, self.chmod(&path));
                }
                self.sources.push((path, Some(stamp)));
                Some(text)
            }
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                self.refuse(line, problem, "name a readable file that holds one hash")
            }
        }
    }

    /// An address that must lie in one of our domains and be named once.
    fn own_address(&mut self, text: &Spanned<String>) -> Option<Mailbox> {
        let line = self.line(text);
        let address = self.address(text)?;
        if !self.domain_lines.contains_key(address.domain().a_label()) {
            let domain = address.domain();
            let problem = format!("{address} is in a domain that is not ours");
            let remedy = format!("add [[domain]] with name = \"{domain}\", or correct the address");
            return self.refuse(line, problem, remedy);
        }
        if let Some(&first) = self.lines.get(&address.folded()) {
            let problem = format!("{address} stands on line {first} already");
            return self.refuse(line, problem, "keep one of the two");
        }
        self.lines.insert(address.folded(), line);
        Some(address)
    }

    fn addresses(&mut self, all: &[Spanned<String>]) -> Vec<Mailbox> {
        let mut seen = HashSet::new();
        let parsed = all.iter().filter_map(|text| self.address(text));
        parsed.filter(|one| seen.insert(one.folded())).collect()
    }

    fn optional_address(&mut self, text: Option<&Spanned<String>>) -> Option<Mailbox> {
        text.and_then(|text| self.address(text))
    }

    fn address(&mut self, text: &Spanned<String>) -> Option<Mailbox> {
        match Mailbox::parse(text.get_ref()) {
            Ok(address) => Some(address),
            Err(error) => {
                let problem = format!("\"{}\": {error}", text.get_ref().escape_debug());
                self.refuse(
                    self.line(text),
                    problem,
                    "write it like \"bob@example.org\"",
                )
            }
        }
    }

    fn delimiter(&mut self, text: &Spanned<String>) -> Option<char> {
        let mut chars = text.get_ref().chars();
        match (chars.next(), chars.next()) {
            (None, _) => None,
            (Some(one), None) if "+-_=#!%&~^*".contains(one) => Some(one),
            _ => {
                let problem = "the subaddress delimiter is not usable";
                let remedy = "write one of + - _ = # ! % & ~ ^ *, or \"\" for none";
                self.refuse(self.line(text), problem, remedy)
            }
        }
    }

    fn tenant(&mut self, text: &Spanned<String>) -> Option<String> {
        let name = text.get_ref();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
            return Some(name.clone());
        }
        let remedy = "use 1 to 64 letters, digits, dots, hyphens and underscores";
        self.refuse(self.line(text), "the tenant's name is not usable", remedy)
    }

    fn store(&mut self, text: &Spanned<String>) -> Option<StoreName> {
        match text.get_ref().parse() {
            Ok(store) => Some(store),
            Err(error) => {
                let remedy = "write it as `mda.store` has it on the host of that store";
                self.refuse(self.line(text), error.to_string(), remedy)
            }
        }
    }

    fn chmod(&self, path: &Path) -> String {
        format!("run: chmod 640 {}", path.display())
    }

    fn line<T>(&self, value: &Spanned<T>) -> usize {
        let offset = value.span().start;
        1 + self.breaks.partition_point(|&end| end < offset)
    }

    fn push(&mut self, line: usize, problem: impl Into<String>, remedy: impl Into<String>) {
        self.problems
            .push(Problem::new(self.file, line, problem, remedy));
    }

    fn refuse<T>(
        &mut self,
        line: usize,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Option<T> {
        self.push(line, problem, remedy);
        None
    }
}

#[cfg(test)]
mod tests;
