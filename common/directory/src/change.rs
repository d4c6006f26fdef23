//! What of a directory is another than before, for those who remember its answers.

use crate::{Account, Alias, Directory, LocalDomain};

/// More accounts than this are told as everything.
const MANY: usize = 1000;

/// What answers may have changed from one directory to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// None.
    Nothing,
    /// Those about the secret and the senders of these accounts, by folded address.
    Accounts(Vec<String>),
    /// Any: where mail goes hangs together by aliases, details and catch-alls.
    Everything,
}

impl Directory {
    /// What may be another answer than the old directory's.
    pub fn changed_since(&self, old: &Self) -> Changes {
        let same_domains = self.domains.len() == old.domains.len()
            && self.domains.iter().zip(&old.domains).all(is_same_domain);
        let same_aliases = self.aliases.len() == old.aliases.len()
            && self.aliases.iter().all(|(name, alias)| {
                old.aliases
                    .get(name)
                    .is_some_and(|old| is_same_alias(alias, old))
            });
        if !same_domains || !same_aliases || self.accounts.len() != old.accounts.len() {
            return Changes::Everything;
        }
        let mut changed = Vec::new();
        for (name, account) in &self.accounts {
            match old.accounts.get(name) {
                Some(old) if receives_the_same(account, old) => {
                    if secrets_and_senders(account) != secrets_and_senders(old) {
                        changed.push(name.clone());
                    }
                }
                _ => return Changes::Everything,
            }
        }
        changed.sort_unstable();
        match changed.len() {
            0 => Changes::Nothing,
            1..=MANY => Changes::Accounts(changed),
            _ => Changes::Everything,
        }
    }
}

fn secrets_and_senders(account: &Account) -> impl PartialEq {
    (
        &account.password,
        &account.keys,
        &account.app_passwords,
        &account.may_send_as,
    )
}

/// Lines move when something is written above them.
fn is_same_domain((new, old): (&LocalDomain, &LocalDomain)) -> bool {
    let old = LocalDomain {
        line: new.line,
        ..old.clone()
    };
    *new == old
}

fn is_same_alias(new: &Alias, old: &Alias) -> bool {
    (&new.address, &new.to) == (&old.address, &old.to)
}

fn receives_the_same(new: &Account, old: &Account) -> bool {
    (&new.address, &new.store, new.disabled) == (&old.address, &old.store, old.disabled)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OLD: &str = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n\
        [[account]]\naddress = \"bob@a.example\"\nmay_send_as = [\"x@a.example\"]\n\
        [[account]]\naddress = \"carol@a.example\"\naliases = [\"c@a.example\"]\n";

    fn parse(text: &str) -> Directory {
        Directory::parse(Path::new("d.toml"), text).unwrap()
    }

    fn after(from: &str, to: &str) -> Changes {
        let new = OLD.replace(from, to);
        assert_ne!(new, OLD, "{from}");
        parse(&new).changed_since(&parse(OLD))
    }

    #[test]
    fn comments_change_nothing() {
        assert_eq!(after("[[domain]]", "# new\n[[domain]]"), Changes::Nothing);
    }

    #[test]
    fn secrets_and_senders_are_those_of_their_accounts() {
        let bob = Changes::Accounts(vec!["bob@a.example".to_owned()]);
        assert_eq!(after("\"x@a.example\"", "\"y@a.example\""), bob);
        let hash = "password_hash = \"$argon2id$v=19$m=1024,t=1,p=1$BwcHBwcHBwc$BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\"";
        let both = after("may_send_as", &format!("{hash}\nmay_send_as"));
        assert_eq!(both, bob);
    }

    #[test]
    fn whatever_leads_mail_elsewhere_is_everything() {
        for (from, to) in [
            ("carol@", "dave@"),
            ("\"c@", "\"d@"),
            ("aliases", "disabled = true\naliases"),
            ("postmaster = \"bob", "postmaster = \"carol"),
            ("[[domain]]", "subaddress_delimiter = \"-\"\n[[domain]]"),
            ("carol@a", "Carol@a"),
            ("aliases", "store = \"b\"\naliases"),
        ] {
            assert_eq!(after(from, to), Changes::Everything, "{from} -> {to}");
        }
    }
}
