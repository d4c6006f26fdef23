//! The files that come of it: `postroad.toml` and `directory.toml`, every line with the place it comes from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The order of sections in the file.
const SECTIONS: [&str; 14] = [
    "common",
    "common.dns",
    "queued",
    "queued.retry",
    "queued.destination",
    "msa",
    "msa.limits",
    "mta.inbound",
    "mta.inbound.limits",
    "mta.outbound",
    "mta.outbound.timeouts",
    "mda",
    "mda.lmtp",
    "mda.limits",
];

/// A text as TOML has it.
pub fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// A list of values that are TOML already.
pub fn list<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    let values: Vec<String> = values
        .into_iter()
        .map(|one| one.as_ref().to_owned())
        .collect();
    match values.iter().map(String::len).sum::<usize>() > 100 {
        true => format!("[\n    {},\n]", values.join(",\n    ")),
        false => format!("[{}]", values.join(", ")),
    }
}

/// `postroad.toml`, as far as it differs from what is built in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    keys: BTreeMap<(String, String), (String, String)>,
}

impl Config {
    /// Sets `section.key` to what is TOML already.
    pub fn set(&mut self, section: &str, key: &str, value: String, from: &str) {
        let key = (section.to_owned(), key.to_owned());
        self.keys.insert(key, (value, from.to_owned()));
    }

    /// What a key is set to.
    pub fn value(&self, section: &str, key: &str) -> Option<&str> {
        let key = (section.to_owned(), key.to_owned());
        self.keys.get(&key).map(|(value, _)| value.as_str())
    }

    /// Whether anything of a section is set.
    pub fn has(&self, section: &str) -> bool {
        self.keys.keys().any(|(one, _)| one == section)
    }

    /// The file.
    pub fn text(&self, head: &str) -> String {
        let mut out = head.to_owned();
        for section in SECTIONS {
            if !self.has(section) {
                continue;
            }
            let _ = write!(out, "\n[{section}]\n");
            for ((_, key), (value, from)) in self.keys.iter().filter(|((one, _), _)| one == section)
            {
                let _ = write!(out, "# {from}\n{key} = {value}\n");
            }
        }
        out
    }
}

/// A domain of the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainDraft {
    /// Who gets its mail for postmaster and abuse.
    pub postmaster: Option<String>,
    /// Who gets what nobody else does.
    pub catch_all: Option<String>,
    /// From where.
    pub from: String,
}

/// Somebody with a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountDraft {
    /// An argon2id hash.
    pub password_hash: Option<String>,
    /// Further addresses.
    pub aliases: Vec<String>,
    /// Senders that it may use besides.
    pub may_send_as: Vec<String>,
    /// From where.
    pub from: String,
}

/// An address that stands for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AliasDraft {
    /// Whom it leads to.
    pub to: Vec<String>,
    /// From where.
    pub from: String,
}

/// `directory.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// What divides a local part from its detail; none: what is built in.
    pub delimiter: Option<String>,
    /// In their order: the first is the primary one.
    pub domains: Vec<(String, DomainDraft)>,
    /// By address.
    pub accounts: BTreeMap<String, AccountDraft>,
    /// By address.
    pub aliases: BTreeMap<String, AliasDraft>,
}

impl Directory {
    /// Whether a domain is ours.
    pub fn has_domain(&self, name: &str) -> bool {
        self.domains.iter().any(|(one, _)| one == name)
    }

    /// Whether an address is one of ours by itself.
    pub fn has(&self, address: &str) -> bool {
        let of_account =
            |account: &AccountDraft| account.aliases.iter().any(|alias| alias == address);
        self.accounts.contains_key(address)
            || self.aliases.contains_key(address)
            || self.accounts.values().any(of_account)
    }

    /// The file.
    pub fn text(&self, head: &str) -> String {
        let mut out = head.to_owned();
        if let Some(delimiter) = &self.delimiter {
            let _ = write!(out, "\nsubaddress_delimiter = {}\n", quoted(delimiter));
        }
        for (name, domain) in &self.domains {
            let _ = write!(
                out,
                "\n# {}\n[[domain]]\nname = {}\n",
                domain.from,
                quoted(name)
            );
            optional(&mut out, "postmaster", domain.postmaster.as_deref());
            optional(&mut out, "catch_all", domain.catch_all.as_deref());
        }
        for (address, account) in &self.accounts {
            let _ = write!(
                out,
                "\n# {}\n[[account]]\naddress = {}\n",
                account.from,
                quoted(address)
            );
            optional(&mut out, "password_hash", account.password_hash.as_deref());
            addresses(&mut out, "aliases", &account.aliases);
            addresses(&mut out, "may_send_as", &account.may_send_as);
        }
        for (address, alias) in &self.aliases {
            let _ = write!(
                out,
                "\n# {}\n[[alias]]\naddress = {}\n",
                alias.from,
                quoted(address)
            );
            addresses(&mut out, "to", &alias.to);
        }
        out
    }
}

fn optional(out: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = writeln!(out, "{key} = {}", quoted(value));
    }
}

fn addresses(out: &mut String, key: &str, values: &[String]) {
    if !values.is_empty() {
        let _ = writeln!(
            out,
            "{key} = {}",
            list(values.iter().map(|one| quoted(one)))
        );
    }
}
