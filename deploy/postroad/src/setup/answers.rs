//! Host name, domain and first account, from the command line or the environment.

use postroad_address::{Domain, Mailbox};

use super::SetupArguments;
use crate::fault::Fault;

/// What must be known.
#[derive(Debug)]
pub struct Answers {
    /// The mail host, as a name in the DNS.
    pub hostname: String,
    /// The domain of the accounts.
    pub domain: String,
    /// The first account.
    pub account: Mailbox,
}

impl Answers {
    /// Flags first; a variable that is empty is none.
    pub fn of(
        arguments: &SetupArguments,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Fault> {
        let given = |flag: &Option<String>, name: &str, option: &str, example: &str| {
            let from_variable = || variable(name).map(|value| value.trim().to_owned());
            let value = flag.clone().or_else(from_variable);
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                Fault::Usage(format!(
                    "{name} is not set; write {name}={example}, or {option} {example}"
                ))
            })
        };
        let hostname = given(
            &arguments.hostname,
            "POSTROAD_HOSTNAME",
            "--hostname",
            "mail.example.org",
        )?;
        let domain = given(
            &arguments.domain,
            "POSTROAD_DOMAIN",
            "--domain",
            "example.org",
        )?;
        let account = given(&arguments.account, "POSTROAD_ACCOUNT", "--account", "alice")?;
        let hostname = name(&hostname, "POSTROAD_HOSTNAME", "mail.example.org")?;
        let domain = name(&domain, "POSTROAD_DOMAIN", "example.org")?;
        if account.contains('@') {
            return Err(Fault::Usage(format!(
                "POSTROAD_ACCOUNT: write what stands before the @, without a domain, not {account:?}"
            )));
        }
        let account = Mailbox::parse(&format!("{account}@{domain}")).map_err(|error| {
            Fault::Usage(format!(
                "POSTROAD_ACCOUNT: {account:?} is no local part: {error}"
            ))
        })?;
        Ok(Self {
            hostname,
            domain,
            account,
        })
    }
}

fn name(text: &str, variable: &str, example: &str) -> Result<String, Fault> {
    let bad = |problem: &str| {
        Err(Fault::Usage(format!(
            "{variable}: {text:?} {problem}; write for example {example}"
        )))
    };
    match Domain::parse(text) {
        Ok(domain) if !domain.a_label().contains('.') || text.starts_with('[') => {
            bad("is not a fully qualified name")
        }
        Ok(domain) => Ok(domain.a_label().to_owned()),
        Err(_) => bad("is not a domain name"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn answers(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Answers, Fault> {
        let all = ["postroad", "setup"].iter().chain(arguments);
        let Verb::Setup(arguments) = Cli::try_parse_from(all).unwrap().verb else {
            panic!("not setup")
        };
        Answers::of(&arguments, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flags_win_over_the_environment() {
        let variables = [
            ("POSTROAD_HOSTNAME", "mail.example.org"),
            ("POSTROAD_DOMAIN", " Example.org "),
            ("POSTROAD_ACCOUNT", "alice"),
        ];
        let found = answers(&["--account", "bob"], &variables).unwrap();
        assert_eq!(found.hostname, "mail.example.org");
        assert_eq!(found.account.to_string(), "bob@example.org");
    }

    #[test]
    fn what_is_missing_or_odd_is_named_with_an_example() {
        let good = [
            ("POSTROAD_HOSTNAME", "mail.example.org"),
            ("POSTROAD_DOMAIN", "example.org"),
            ("POSTROAD_ACCOUNT", "alice"),
        ];
        for (index, bad) in [
            (0, ""),
            (0, "mail"),
            (1, "a b"),
            (1, "[192.0.2.1]"),
            (2, "a@b"),
            (2, "a b"),
        ] {
            let mut variables = good;
            variables[index].1 = bad;
            let fault = answers(&[], &variables).unwrap_err();
            assert_eq!(fault.status(), 2);
            assert!(fault.to_string().starts_with(good[index].0), "{fault}");
        }
    }
}
