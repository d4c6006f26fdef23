use postroad_address::{LocalPart, Mailbox};

use crate::{Directory, Problem, Resolution};

impl Directory {
    /// What leaves a working directory but should not stay: each with file, line and remedy. Empty if all is well.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.check_domains();
        for alias in self.aliases() {
            let name = &alias.address;
            match self.expand(name, true) {
                Resolution::AliasLoop => problems.push(self.problem(
                    alias.line,
                    format!("the alias {name} leads back to itself, or through too many others"),
                    "break the circle: its mail is refused until then",
                )),
                Resolution::TooManyTargets => problems.push(self.problem(
                    alias.line,
                    format!("the alias {name} leads to too many addresses"),
                    "use a mailing list program for lists of this size",
                )),
                _ => {}
            }
            for target in alias.to.iter().filter(|target| self.leads_nowhere(target)) {
                problems.push(self.problem(
                    alias.line,
                    format!("the alias {name} leads to {target}, which does not exist here"),
                    "add that account, or remove it from `to`",
                ));
            }
        }
        for account in self.accounts() {
            let weak = account
                .password
                .as_ref()
                .is_some_and(|password| password.is_weak());
            if weak {
                problems.push(self.problem(
                    account.line,
                    format!("the password hash of {} is weak", account.address),
                    "make a new one with `postroad account hash`",
                ));
            }
            if account.keys.recoverable_secret.is_some() {
                problems.push(self.problem(
                    account.line,
                    format!("the password of {} can be read here", account.address),
                    "take out recoverable_secret, unless a program of this account can do nothing but CRAM-MD5",
                ));
            }
        }
        if self.wants_decoy_key() {
            problems.push(Problem::new(
                &self.file,
                None,
                "there is no decoy_key, so names without an account can be told from accounts once passwords change",
                "write `decoy_key = \"…\"` at the top, with what `openssl rand -base64 32` prints; `postroad account password` writes it too",
            ));
        }
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    fn check_domains(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.domains.is_empty() {
            problems.push(Problem::new(
                &self.file,
                None,
                "there is no domain",
                "add [[domain]] with name and postmaster",
            ));
        }
        for domain in &self.domains {
            let name = &domain.name;
            for role in ["postmaster", "abuse"] {
                let reached = LocalPart::parse(role)
                    .map(|role| self.expand(&Mailbox::new(role, name.clone()), false));
                if !matches!(reached, Ok(Resolution::Local(_))) {
                    problems.push(self.problem(
                        domain.line,
                        format!("mail for {role}@{name} reaches no account"),
                        format!("set postmaster = \"someone@{name}\" to an account that exists"),
                    ));
                }
            }
            if let Some(target) = &domain.catch_all
                && (self.leads_nowhere(target)
                    || matches!(self.expand(target, true), Resolution::AliasLoop))
            {
                problems.push(self.problem(
                    domain.line,
                    format!("the catch_all of {name} does not exist here"),
                    "name an account that exists",
                ));
            }
        }
        problems
    }

    /// Whether an address in a domain of ours is nobody's.
    fn leads_nowhere(&self, target: &Mailbox) -> bool {
        self.is_local_domain(target.domain())
            && self.expand(target, true) == Resolution::UnknownRecipient
    }

    fn problem(
        &self,
        line: usize,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem::new(&self.file, line, problem, remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn check(text: &str) -> Vec<String> {
        let directory = Directory::parse(Path::new("d.toml"), text).unwrap();
        directory.check().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_directory_has_no_problems() {
        let good = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\ncatch_all = \"bob@a.example\"\n\
            [[account]]\naddress = \"bob@a.example\"\n[[alias]]\naddress = \"x@a.example\"\nto = [\"y@foreign.example\"]\n";
        assert_eq!(check(good), Vec::<String>::new());
    }

    #[test]
    fn roles_must_reach_someone() {
        let found = check("[[domain]]\nname = \"a.example\"\n");
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with(
            "d.toml:2: mail for postmaster@a.example reaches no account; set postmaster ="
        ));
        let explicit = "[[domain]]\nname = \"a.example\"\n[[account]]\naddress = \"postmaster@a.example\"\naliases = [\"abuse@a.example\"]\n";
        assert_eq!(check(explicit), Vec::<String>::new());
        assert_eq!(check("").len(), 1);
    }

    #[test]
    fn aliases_must_lead_somewhere() {
        let start = "[[domain]]\nname = \"a.example\"\npostmaster = \"bob@a.example\"\n[[account]]\naddress = \"bob@a.example\"\n\
            password_hash = \"$argon2id$v=19$m=1024,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\"\n";
        let found = check(&format!(
            "{start}[[alias]]\naddress = \"x@a.example\"\nto = [\"ghost@a.example\", \"bob@a.example\"]\n\
             [[alias]]\naddress = \"l@a.example\"\nto = [\"l@a.example\"]\n"
        ));
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[0].contains(":5: the password hash of bob@a.example is weak"));
        assert!(found[1].contains(":8: the alias x@a.example leads to ghost@a.example"));
        assert!(found[2].contains(":11: the alias l@a.example leads back to itself"));
    }
}
