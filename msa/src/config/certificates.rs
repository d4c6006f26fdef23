//! `[msa.client_certificates]`: people who are known by their certificates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use postroad_address::Mailbox;
use postroad_daemon::{ConfigError, ConfigFile};
use postroad_net::{CertFiles, Error, Fingerprint, ServerTls, TrustedClients};
use serde::{Deserialize, Serialize};

use super::Config;

/// Whose certificates let in (EXTERNAL). Without any nobody is asked for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientCertificates {
    /// Authorities, in PEM: the mail address in a certificate of theirs names the account.
    pub ca_file: Option<PathBuf>,
    /// What they took back: lists in PEM.
    pub crl_file: Option<PathBuf>,
    /// Certificates that count by themselves, and for whom.
    pub accounts: BTreeMap<Fingerprint, String>,
}

impl ClientCertificates {
    /// Whether clients are asked for one.
    pub fn are_asked_for(&self) -> bool {
        self.ca_file.is_some() || !self.accounts.is_empty()
    }

    /// The account of a certificate, by what it was verified as: a fingerprint, or an address.
    pub(crate) fn account_of(&self, verified: &str) -> Option<Mailbox> {
        let named = match verified.parse::<Fingerprint>() {
            Ok(fingerprint) => self.accounts.get(&fingerprint)?.as_str(),
            Err(_) => verified,
        };
        Mailbox::parse(named).ok()
    }

    fn trusted(&self) -> TrustedClients {
        TrustedClients {
            ca_file: self.ca_file.clone(),
            fingerprints: self.accounts.keys().cloned().collect(),
            people: true,
            crl_file: self.crl_file.clone(),
            ..TrustedClients::default()
        }
    }
}

impl Config {
    /// TLS of all listeners without certificates of their own. Reads files; blocks.
    pub(crate) fn server_tls(&self) -> Result<ServerTls, Error> {
        self.tls_of(&self.certificates)
    }

    /// TLS of the listeners that show certificates of their own, by their names. Reads files; blocks.
    pub(crate) fn own_tls(&self) -> Result<BTreeMap<String, ServerTls>, Error> {
        let own = self.listeners.iter().filter_map(|(name, listener)| {
            let certificates = listener.certificates.as_ref()?;
            Some(self.tls_of(certificates).map(|tls| (name.clone(), tls)))
        });
        own.collect()
    }

    fn tls_of(&self, certificates: &[CertFiles]) -> Result<ServerTls, Error> {
        match self.client_certificates.are_asked_for() {
            true => ServerTls::load_asking(certificates, &self.client_certificates.trusted()),
            false => ServerTls::load(certificates),
        }
    }

    pub(super) fn check_client_certificates(&self, file: &ConfigFile) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, problem: String, remedy: &str| {
            let key = format!("msa.client_certificates{key}");
            problems.push(file.error(&key, problem, remedy));
        };
        let clients = &self.client_certificates;
        if clients.crl_file.is_some() && clients.ca_file.is_none() {
            problem(
                ".crl_file",
                "there is no authority whose list it could be".to_owned(),
                "name the authority in `ca_file`; a certificate known by its fingerprint is taken out of `accounts`",
            );
        }
        for account in clients.accounts.values() {
            if Mailbox::parse(account).is_err() {
                problem(
                    ".accounts",
                    format!("\"{account}\" is no address of an account"),
                    "write `accounts = { \"sha256:…\" = \"alice@example.org\" }`",
                );
            }
        }
        // Of our own certificates that are wrong it is told elsewhere.
        let sound = ServerTls::load(&self.certificates).is_ok();
        if sound && let Err(error) = self.server_tls() {
            // Where only one file is named, it is that one.
            let only = clients.ca_file.is_some() && clients.crl_file.is_none();
            problem(
                if only { ".ca_file" } else { "" },
                error.to_string(),
                "name PEM files: authorities in `ca_file`, their lists of certificates taken back in `crl_file`",
            );
        }
        problems
    }
}
