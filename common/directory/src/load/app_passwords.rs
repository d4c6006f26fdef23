//! App passwords in the entry of an account.

use std::collections::HashSet;
use std::str::FromStr;

use ipnet::IpNet;
use postroad_envelope::Timestamp;
use toml::Spanned;

use super::Builder;
use crate::{AppPassword, AppVerifier, KeptAppPassword, Scope, file::AppPasswordEntry};

/// Of one account.
const MOST: usize = 100;
/// Characters of a name.
const LONGEST_NAME: usize = 100;
const MADE_BY: &str = "make it with `postroad account app-password add`";

impl Builder<'_> {
    pub(super) fn app_passwords(&mut self, entries: &[AppPasswordEntry]) -> Vec<KeptAppPassword> {
        if let Some(entry) = entries.get(MOST) {
            let problem = format!("an account may have {MOST} app passwords");
            self.push(self.line(&entry.prefix), problem, "remove some");
        }
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for entry in entries {
            let line = self.line(&entry.prefix);
            if !seen.insert(entry.prefix.get_ref()) {
                let problem = "the account has another app password with this prefix";
                self.push(line, problem, "keep one of the two");
            }
            kept.extend(self.app_password(entry));
        }
        kept
    }

    fn app_password(&mut self, entry: &AppPasswordEntry) -> Option<KeptAppPassword> {
        let line = self.line(&entry.prefix);
        if !crate::app_password::is_prefix(entry.prefix.get_ref()) {
            return self.refuse(line, "an app password never begins like this", MADE_BY);
        }
        if entry.name.chars().count() > LONGEST_NAME || entry.name.contains(char::is_control) {
            let problem = "the name of an app password is too long, or not for people";
            return self.refuse(line, problem, "write a short one");
        }
        self.secret_here(line);
        let verifier: AppVerifier = self.read(&entry.verifier, MADE_BY)?;
        let network = "write it like \"192.0.2.0/24\"";
        let networks = entry.networks.iter();
        let networks = networks.filter_map(|text| self.read::<IpNet>(text, network));
        let networks = networks.map(|network| network.trunc()).collect();
        let scope = "take some of submission, imap and pop3, or leave `scopes` out";
        let scopes = entry.scopes.iter();
        let scopes = scopes.filter_map(|text| self.read::<Scope>(text, scope));
        let scopes = scopes.collect();
        let expires = match &entry.expires {
            None => None,
            Some(text) => {
                Some(self.read::<Timestamp>(text, "write it like \"2027-01-01T00:00:00Z\"")?)
            }
        };
        Some(KeptAppPassword {
            prefix: entry.prefix.get_ref().clone(),
            verifier,
            terms: AppPassword {
                name: entry.name.clone(),
                scopes,
                networks,
                expires,
            },
        })
    }

    fn read<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        text: &Spanned<String>,
        remedy: &str,
    ) -> Option<T> {
        match text.get_ref().trim().parse() {
            Ok(value) => Some(value),
            Err(error) => self.refuse(self.line(text), error.to_string(), remedy),
        }
    }
}
