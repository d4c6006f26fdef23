use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use postroad_address::{Domain, ForwardPath, Mailbox, ReversePath};
use postroad_envelope::StoreName;

use crate::{
    KeptAppPassword, Keys, Password, Resolution,
    decoy::{Decoys, Forms, folded},
    handle::Stamp,
};

/// All that is ours at one moment.
#[derive(Debug)]
pub struct Directory {
    pub(crate) file: PathBuf,
    /// In the order of the file; the first is the primary one.
    pub(crate) domains: Vec<LocalDomain>,
    pub(crate) domain_index: HashMap<String, usize>,
    /// By folded address.
    pub(crate) accounts: HashMap<String, Account>,
    /// By folded address.
    pub(crate) aliases: HashMap<String, Alias>,
    /// Which files it was read from, as they were then.
    pub(crate) sources: Vec<(PathBuf, Option<Stamp>)>,
    /// Whether anything is of another store than the default one.
    pub(crate) has_stores: bool,
    /// Which reading this is.
    pub(crate) generation: u64,
    /// What decoys are made with.
    pub(crate) decoys: Decoys,
    /// What decoys look like, once one was wanted.
    pub(crate) forms: OnceLock<Forms>,
}

/// A domain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDomain {
    /// Its name.
    pub name: Domain,
    /// Whose it is; `default` if the file does not say.
    pub tenant: String,
    /// Who gets the mail of `postmaster` and `abuse`.
    pub postmaster: Option<Mailbox>,
    /// Who gets the mail that nobody else gets.
    pub catch_all: Option<Mailbox>,
    /// The store of its accounts that name none.
    pub store: StoreName,
    /// What divides a local part from its detail; none: no details.
    pub subaddress_delimiter: Option<char>,
    pub(crate) line: usize,
}

/// One who has a mailbox, and logs in by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its address as the file has it.
    pub address: Mailbox,
    /// Verifier of its password; without one it cannot log in.
    pub password: Option<Password>,
    /// What it has for mechanisms that prove the password.
    pub keys: Keys,
    /// Passwords of its programs and devices.
    pub app_passwords: Vec<KeptAppPassword>,
    /// Other addresses it may use as sender.
    pub may_send_as: Vec<Mailbox>,
    /// Where its mailbox is: the store that a delivery agent serves.
    pub store: StoreName,
    /// Neither logs in nor receives.
    pub disabled: bool,
    /// Named by the `accounts_file` of its domain alone: another program has the mailbox.
    pub elsewhere: bool,
    pub(crate) line: usize,
}

impl Account {
    /// The name used in envelopes and logs: the folded address.
    pub fn name(&self) -> String {
        self.address.folded()
    }
}

/// An address that stands for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Its address as the file has it.
    pub address: Mailbox,
    /// Where its mail goes: accounts, other aliases, foreign addresses.
    pub to: Vec<Mailbox>,
    pub(crate) line: usize,
}

impl Directory {
    /// The file it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Which reading of the file this is: more with each one, after a restart too. 0 outside of a
    /// [`DirectoryHandle`](crate::DirectoryHandle).
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Our domains in the order of the file.
    pub fn domains(&self) -> impl ExactSizeIterator<Item = &LocalDomain> {
        self.domains.iter()
    }

    /// The first domain of the file: the bare `<postmaster>` is its.
    pub fn primary_domain(&self) -> Option<&LocalDomain> {
        self.domains.first()
    }

    /// The entry of a domain of ours.
    pub fn domain(&self, domain: &Domain) -> Option<&LocalDomain> {
        self.domains.get(*self.domain_index.get(domain.a_label())?)
    }

    /// Whether mail for this domain is ours.
    pub fn is_local_domain(&self, domain: &Domain) -> bool {
        self.domain_index.contains_key(domain.a_label())
    }

    /// Whose a domain is, if it is ours.
    pub fn tenant_of(&self, domain: &Domain) -> Option<&str> {
        self.domain(domain).map(|entry| entry.tenant.as_str())
    }

    /// Whether anything is of another store than the default one.
    pub fn has_stores(&self) -> bool {
        self.has_stores
    }

    /// The store whose delivery agent gets the mail for an address: that of the first account it leads to. What leads to no
    /// account of ours may be refused or handed on by any; it goes to the store of the domain.
    pub fn store_of(&self, address: &Mailbox) -> StoreName {
        if !self.has_stores {
            return StoreName::default();
        }
        let account = match self.resolve(&ForwardPath::Mailbox(address.clone())) {
            Resolution::Local(targets) => targets.into_iter().find(|target| target.local),
            _ => None,
        };
        match (account, self.domain(address.domain())) {
            (Some(account), _) => account.store,
            (None, Some(domain)) => domain.store.clone(),
            (None, None) => StoreName::default(),
        }
    }

    /// Every account, by address.
    pub fn accounts(&self) -> Vec<&Account> {
        sorted(self.accounts.values(), |account| &account.address)
    }

    /// Every alias, by address; those in the entries of accounts included.
    pub fn aliases(&self) -> Vec<&Alias> {
        sorted(self.aliases.values(), |alias| &alias.address)
    }

    /// The account with this address, in any case.
    pub fn account(&self, address: &Mailbox) -> Option<&Account> {
        self.accounts.get(&address.folded())
    }

    /// The account with this name; its name is its address.
    pub fn account_by_name(&self, name: &str) -> Option<&Account> {
        self.account(&Mailbox::parse(name).ok()?)
    }

    /// The account, if name and password are right and it is not disabled. Blocks some 30 ms, whoever is asked for.
    pub fn verify(&self, name: &str, password: &[u8]) -> Option<&Account> {
        let verifier = self.verifier(name, &self.own_decoy_key());
        let fits = Password::parse(&verifier).is_ok_and(|verifier| verifier.verify(password));
        fits.then(|| self.who_logs_in(&folded(name))).flatten()
    }

    /// The account of a folded name, if it is not disabled.
    pub(crate) fn who_logs_in(&self, folded: &str) -> Option<&Account> {
        let account = self.accounts.get(folded);
        account.filter(|account| !account.disabled)
    }

    /// Whether the account may use this sender: its own address with any detail (unless that is an address of
    /// its own, perhaps of somebody else), an alias that leads to it alone, an
    /// address listed in `may_send_as`, or the null path (RFC 5321 §4.5.5: notifications are sent by clients too).
    pub fn may_send_as(&self, account: &Account, sender: &ReversePath) -> bool {
        let Some(mailbox) = sender.mailbox() else {
            return true;
        };
        let listed = |address: &Mailbox| {
            let address = address.folded();
            account.name() == address
                || account
                    .may_send_as
                    .iter()
                    .any(|allowed| allowed.folded() == address)
        };
        let detailed = || {
            let base = self.without_detail(mailbox);
            base.is_some_and(|(base, _)| listed(&base)) && !self.is_named(mailbox)
        };
        listed(mailbox) || detailed() || self.leads_only_to(mailbox, account)
    }

    /// The address without its detail, and the detail, as the delimiter of its domain divides them.
    pub(crate) fn without_detail(&self, mailbox: &Mailbox) -> Option<(Mailbox, String)> {
        let domain = self.domain(mailbox.domain())?;
        let (base, detail) = mailbox
            .local_part()
            .split_subaddress(domain.subaddress_delimiter?)?;
        Some((
            Mailbox::new(base, mailbox.domain().clone()),
            detail.to_owned(),
        ))
    }
}

fn sorted<'a, T>(all: impl Iterator<Item = &'a T>, key: impl Fn(&T) -> &Mailbox) -> Vec<&'a T> {
    let mut all: Vec<&T> = all.collect();
    all.sort_by_cached_key(|entry| {
        let address = key(entry);
        (address.domain().clone(), address.local_part().folded())
    });
    all
}
