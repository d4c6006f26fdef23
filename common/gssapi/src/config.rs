//! `[msa.auth.gssapi]`: whose tickets let in, and as whom.

use std::collections::BTreeMap;

use postroad_address::{Domain, Mailbox};
use postroad_daemon::{ConfigError, ConfigFile};
use serde::{Deserialize, Serialize};

use crate::{BUILT, Service};

/// Who gets in by a ticket of Kerberos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GssapiConfig {
    /// What the service is called in tickets, before the slash; mail programs expect `smtp`.
    pub service: String,
    /// The host behind the slash, as mail programs are told to connect to it; none: `common.hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Realms, and the domain in which the people of each have their accounts.
    pub realms: BTreeMap<String, String>,
    /// Principals by themselves, and their accounts; of programs and hosts too.
    pub accounts: BTreeMap<String, String>,
}

impl Default for GssapiConfig {
    fn default() -> Self {
        Self {
            service: "smtp".to_owned(),
            hostname: None,
            realms: BTreeMap::new(),
            accounts: BTreeMap::new(),
        }
    }
}

/// Why a principal is no account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// Of a realm that is trusted by ours, perhaps, but not here.
    #[error("its realm is not in msa.auth.gssapi.realms")]
    Realm,
    /// `smtp/host@REALM`, `alice/admin@REALM`, or with characters that Kerberos has to escape.
    #[error("it is not of one plain word, and not in msa.auth.gssapi.accounts")]
    NoPerson,
    /// The word makes no address.
    #[error("it makes no address")]
    NoAddress,
}

impl GssapiConfig {
    /// The address of the account of a principal, as Kerberos writes that (RFC 1964 §2.1.1).
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn account_of(&self, principal: &str) -> Result<Mailbox, Unmapped> {
        if let Some(account) = self.accounts.get(principal) {
            return Mailbox::parse(account).map_err(|_| Unmapped::NoAddress);
        }
        let (person, realm) = parts(principal).ok_or(Unmapped::NoPerson)?;
        let domain = self.realms.get(realm).ok_or(Unmapped::Realm)?;
        Mailbox::parse(&format!("{person}@{domain}")).map_err(|_| Unmapped::NoAddress)
    }

    /// What is wrong with it, which stands at `key`; `listed`: the mechanism is to be offered. Looks for the key of the service; blocks.
    pub fn check(&self, key: &str, listed: bool, file: &ConfigFile) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut problem = |inner: &str, problem: String, remedy: &str| {
            problems.push(file.error(&format!("{key}{inner}"), problem, remedy));
        };
        if listed && self.realms.is_empty() && self.accounts.is_empty() {
            problem(
                "",
                "no ticket would let anybody in".to_owned(),
                "write `realms = { \"EXAMPLE.ORG\" = \"example.org\" }`: the realm, and the domain of its people's addresses; or take \"GSSAPI\" out of `mechanisms`",
            );
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.service.is_empty() || !self.service.chars().all(word) {
            problem(
                ".service",
                format!("\"{}\" is no name of a service", self.service),
                "leave it out, or write \"smtp\"",
            );
        }
        if self
            .hostname
            .as_deref()
            .is_some_and(|host| Domain::parse(host).is_err())
        {
            problem(
                ".hostname",
                "it is no name of a host".to_owned(),
                "write the name that mail programs connect to, such as \"mail.example.org\"",
            );
        }
        for (realm, domain) in &self.realms {
            if realm.is_empty()
                || realm.contains(['@', '/', '\\'])
                || Domain::parse(domain).is_err()
            {
                problem(
                    ".realms",
                    format!("\"{realm}\" = \"{domain}\" is no realm and domain"),
                    "write `realms = { \"EXAMPLE.ORG\" = \"example.org\" }`",
                );
            }
        }
        for (principal, account) in &self.accounts {
            if !principal.contains('@') || Mailbox::parse(account).is_err() {
                problem(
                    ".accounts",
                    format!("\"{principal}\" = \"{account}\" is no principal and account"),
                    "write `accounts = { \"backup/host.example.org@EXAMPLE.ORG\" = \"backup@example.org\" }`",
                );
            }
        }
        if listed && problems.is_empty() && BUILT {
            problems.extend(self.check_key(key, file));
        }
        problems
    }

    fn check_key(&self, key: &str, file: &ConfigFile) -> Option<ConfigError> {
        // Of a host without a name it is told elsewhere.
        let service = Service::new(self, &file.common().ok()?.hostname);
        let fault = service.begin().err()?;
        let keytab = std::env::var("KRB5_KTNAME");
        let keytab =
            keytab.unwrap_or_else(|_| "the system's keytab, as KRB5_KTNAME is not set".to_owned());
        Some(file.error(
            key,
            format!("there is no key of {} in {keytab}: {fault}", service.name()),
            "put it into a keytab that this user may read (kadmin: `ktadd -k FILE smtp/HOST`), and name that in the environment, KRB5_KTNAME=FILE (systemd: Environment=, deploy/guide/log-in.md)",
        ))
    }
}

/// Whether an identity that a client wants to act as (RFC 4422 §2) is nothing but its own principal, or the word before its realm.
pub fn names_itself(principal: &str, wanted: &str) -> bool {
    wanted == principal || parts(principal).is_some_and(|(person, _)| person == wanted)
}

/// A principal of one plain word, and its realm.
fn parts(principal: &str) -> Option<(&str, &str)> {
    let (person, realm) = principal.split_once('@')?;
    let plain = |text: &str| !text.is_empty() && !text.contains(['@', '/', '\\']);
    (plain(person) && plain(realm)).then_some((person, realm))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config() -> GssapiConfig {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        GssapiConfig {
            realms: [pair("EXAMPLE.ORG", "mail.example.org")].into(),
            accounts: [
                pair("backup/host@EXAMPLE.ORG", "backup@example.org"),
                pair("carol@EXAMPLE.ORG", "cc@example.org"),
                pair("dave@ELSEWHERE.NET", "dave@example.org"),
            ]
            .into(),
            ..GssapiConfig::default()
        }
    }

    #[test]
    fn people_of_a_realm_and_single_principals_have_accounts() {
        for (principal, account) in [
            ("alice@EXAMPLE.ORG", "alice@mail.example.org"),
            ("Alice@EXAMPLE.ORG", "alice@mail.example.org"),
            ("carol@EXAMPLE.ORG", "cc@example.org"),
            ("dave@ELSEWHERE.NET", "dave@example.org"),
            ("backup/host@EXAMPLE.ORG", "backup@example.org"),
        ] {
            let found = config()
                .account_of(principal)
                .map(|account| account.folded());
            assert_eq!(found, Ok(account.to_owned()), "{principal}");
        }
    }

    #[test]
    fn nobody_else_has() {
        for (principal, why) in [
            ("alice@ELSEWHERE.NET", Unmapped::Realm),
            // Realms are written as they are (RFC 4120 §6.1).
            ("alice@example.org", Unmapped::Realm),
            ("alice@EXAMPLE.ORG.", Unmapped::Realm),
            ("alice/admin@EXAMPLE.ORG", Unmapped::NoPerson),
            ("smtp/mail.example.org@EXAMPLE.ORG", Unmapped::NoPerson),
            (
                "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS",
                Unmapped::NoPerson,
            ),
            ("alice\\@EXAMPLE.ORG@ELSEWHERE.NET", Unmapped::NoPerson),
            ("alice@EXAMPLE.ORG@ELSEWHERE.NET", Unmapped::NoPerson),
            ("@EXAMPLE.ORG", Unmapped::NoPerson),
            ("alice", Unmapped::NoPerson),
            ("", Unmapped::NoPerson),
            ("al ice@EXAMPLE.ORG", Unmapped::NoAddress),
        ] {
            assert_eq!(config().account_of(principal), Err(why), "{principal}");
        }
    }

    #[test]
    fn a_client_may_say_its_own_name_twice() {
        assert!(names_itself("alice@EXAMPLE.ORG", "alice"));
        assert!(names_itself("alice@EXAMPLE.ORG", "alice@EXAMPLE.ORG"));
        assert!(names_itself(
            "backup/host@EXAMPLE.ORG",
            "backup/host@EXAMPLE.ORG"
        ));
        for other in ["", "bob", "Alice", "alice@ELSEWHERE.NET", "EXAMPLE.ORG"] {
            assert!(!names_itself("alice@EXAMPLE.ORG", other), "{other}");
        }
        assert!(!names_itself("alice/admin@EXAMPLE.ORG", "alice"));
    }

    #[test]
    fn what_cannot_work_is_told() {
        let check = |config: GssapiConfig, listed| {
            let text = "[common]\nhostname = \"mail.example.org\"\n".to_owned();
            let file = ConfigFile::assemble([(PathBuf::from("t.toml"), text)], []).unwrap();
            let problems = config.check("msa.auth.gssapi", listed, &file);
            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
            told.join("\n")
        };
        assert_eq!(check(GssapiConfig::default(), false), "");
        let none = check(GssapiConfig::default(), true);
        assert!(none.contains("no ticket would let anybody in"), "{none}");
        assert_eq!(check(config(), false), "", "nobody asks for a key");
        let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        for (wrong, words) in [
            (
                GssapiConfig {
                    service: "a/b".to_owned(),
                    ..config()
                },
                "is no name of a service",
            ),
            (
                GssapiConfig {
                    hostname: Some("a b".to_owned()),
                    ..config()
                },
                "is no name of a host",
            ),
            (
                GssapiConfig {
                    realms: pair("A@B", "a.example"),
                    ..config()
                },
                "is no realm and domain",
            ),
            (
                GssapiConfig {
                    realms: pair("A", "a b"),
                    ..config()
                },
                "is no realm and domain",
            ),
            (
                GssapiConfig {
                    accounts: pair("a", "a@b.example"),
                    ..config()
                },
                "is no principal",
            ),
            (
                GssapiConfig {
                    accounts: pair("a@B", "a"),
                    ..config()
                },
                "is no principal",
            ),
        ] {
            let told = check(wrong, false);
            assert!(told.contains(words), "{told}");
        }
    }
}
