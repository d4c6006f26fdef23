//! Accounts of another program, from a file that it or its administrator writes: `accounts_file` of a domain.
//!
//! A line begins with an address, or with a local part in that domain; what follows behind white space or a colon is not read, so that what
//! `doveadm user '*'` prints, Dovecot's passwd-file and a table of Postfix will do. Addresses in other domains are passed over.

use std::{collections::HashMap, path::Path};

use postroad_address::Mailbox;

use super::{Builder, read};
use crate::{Account, Keys, Problem, file::DomainEntry};

/// More say the same.
const MOST_PROBLEMS: usize = 10;

impl Builder<'_> {
    /// Adds them to `accounts`. What the directory says of an address itself counts more.
    pub(super) fn listed(&mut self, domain: &DomainEntry, accounts: &mut HashMap<String, Account>) {
        let Some(name) = &domain.accounts_file else {
            return;
        };
        let line = self.line(name);
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let path = folder.join(name.get_ref());
        let text = match read(&path) {
            Ok((text, stamp, _)) => {
                self.sources.push((path.clone(), Some(stamp)));
                text
            }
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                let remedy = "name a readable file with one address a line";
                return self.push(line, problem, remedy);
            }
        };
        let mut count = 0;
        let mut problems = Vec::new();
        for (number, text) in text.lines().enumerate() {
            match address(text, domain.name.get_ref()) {
                None => {}
                Some(Ok(address)) => {
                    count += usize::from(self.list(address, domain, line, accounts))
                }
                Some(Err(problem)) => {
                    let remedy = "write one address a line, or take the line out";
                    problems.push(Problem::new(&path, number + 1, problem, remedy));
                }
            }
        }
        self.problems
            .extend(problems.into_iter().take(MOST_PROBLEMS));
        // Half a file, or one that could not be written, must not make everybody unknown.
        if count == 0 {
            let name = domain.name.get_ref();
            let problem = format!("{} has no address in {name}", path.display());
            let remedy = "have it written again, or leave `accounts_file` out";
            self.push(line, problem, remedy);
        }
    }

    /// Whether the address is in this domain.
    fn list(
        &self,
        address: Mailbox,
        domain: &DomainEntry,
        line: usize,
        accounts: &mut HashMap<String, Account>,
    ) -> bool {
        let a_label = address.domain().a_label();
        let is_here = postroad_address::Domain::parse(domain.name.get_ref())
            .is_ok_and(|name| name.a_label() == a_label);
        let folded = address.folded();
        if is_here && !self.lines.contains_key(&folded) {
            let store = self.domain_stores.get(a_label).cloned();
            accounts.entry(folded).or_insert(Account {
                store: store.unwrap_or_default(),
                password: None,
                keys: Keys::default(),
                app_passwords: Vec::new(),
                may_send_as: Vec::new(),
                disabled: false,
                elsewhere: true,
                address,
                line,
            });
        }
        is_here
    }
}

/// The address a line begins with; none on an empty line and a comment.
fn address(line: &str, domain: &str) -> Option<Result<Mailbox, String>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == ':' || c.is_whitespace());
    let name = &line[..end.unwrap_or(line.len())];
    let whole = match name.contains('@') {
        true => name.to_owned(),
        false => format!("{name}@{domain}"),
    };
    // What stands behind the address may be a hash, so the line is not shown.
    Some(
        whole
            .parse()
            .map_err(|error| format!("the line does not begin with an address: {error}")),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use postroad_address::ForwardPath;

    use crate::{
        Directory, DirectoryError, DirectoryHandle, Reload, Resolution, add_account, hash_password,
    };

    const DIRECTORY: &str = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\naccounts_file = \"users\"\n\n\
                             [[account]]\naddress = \"bob@a.example\"\n\n\
                             [[alias]]\naddress = \"sales@a.example\"\nto = [\"carol@a.example\"]\n";

    fn resolved(directory: &Directory, address: &str) -> Vec<String> {
        match directory.resolve(&ForwardPath::Mailbox(address.parse().unwrap())) {
            Resolution::Local(all) => all.iter().map(|to| to.address.to_string()).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn accounts_of_another_program_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let (file, users) = (folder.path().join("d.toml"), folder.path().join("users"));
        fs::write(&file, DIRECTORY).unwrap();
        fs::write(
            &users,
            "# Dovecot's, Postfix's\n\nCarol@A.example:{ARGON2ID}$x:1:2\ndave  a.example/dave/\n\
             sales@a.example\nbob@a.example\neve@b.example\n",
        )
        .unwrap();
        let handle = DirectoryHandle::open(&file).unwrap();
        let directory = handle.current();
        assert_eq!(
            resolved(&directory, "carol+x@a.example"),
            ["Carol@A.example"]
        );
        assert_eq!(resolved(&directory, "dave@a.example"), ["dave@a.example"]);
        assert_eq!(resolved(&directory, "sales@a.example"), ["Carol@A.example"]);
        assert_eq!(
            resolved(&directory, "ghost@a.example"),
            ["UnknownRecipient"]
        );
        let elsewhere = directory.accounts().iter().filter(|a| a.elsewhere).count();
        assert_eq!((directory.accounts().len(), elsewhere), (3, 2));
        // With a password here she submits, too.
        let hash = hash_password(b"pw", [3; 16]).unwrap();
        add_account(
            &file,
            &"carol@a.example".parse().unwrap(),
            &hash.into(),
            None,
        )
        .unwrap();
        assert_eq!(handle.reload().unwrap(), Reload::Replaced);
        assert!(handle.current().verify("carol@a.example", b"pw").is_some());
        fs::write(&file, DIRECTORY).unwrap();

        fs::write(&users, "carol\n").unwrap();
        assert_eq!(handle.reload().unwrap(), Reload::Replaced);
        assert_eq!(
            resolved(&handle.current(), "dave@a.example"),
            ["UnknownRecipient"]
        );
        // What is no list of accounts leaves those that were known.
        for (text, why) in [
            ("", "has no address in a.example"),
            ("eve@b.example\n", "has no address in a.example"),
            (
                "carol\n@a.example secret\n",
                "users:2: the line does not begin with an address",
            ),
        ] {
            fs::write(&users, text).unwrap();
            let Err(DirectoryError::Invalid(problems)) = handle.reload() else {
                panic!("{text:?} was taken");
            };
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(
                told[0].contains(why) && !told[0].contains("secret"),
                "{told:?}"
            );
            assert_eq!(
                resolved(&handle.current(), "carol@a.example"),
                ["carol@a.example"]
            );
        }
    }
}
