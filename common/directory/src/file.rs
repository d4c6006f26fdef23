use std::path::Path;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::Problem;

/// The file as it is written, each value with its place.
#[derive(Debug, Deserialize)]
pub struct FileEntries {
    pub subaddress_delimiter: Option<Spanned<String>>,
    pub decoy_key: Option<Spanned<String>>,
    #[serde(default)]
    pub domain: Vec<DomainEntry>,
    #[serde(default)]
    pub account: Vec<AccountEntry>,
    #[serde(default)]
    pub alias: Vec<AliasEntry>,
}

#[derive(Debug, Deserialize)]
pub struct DomainEntry {
    pub name: Spanned<String>,
    pub tenant: Option<Spanned<String>>,
    pub postmaster: Option<Spanned<String>>,
    pub catch_all: Option<Spanned<String>>,
    pub store: Option<Spanned<String>>,
    pub accounts_file: Option<Spanned<String>>,
    pub subaddress_delimiter: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
pub struct AccountEntry {
    pub address: Spanned<String>,
    pub password_hash: Option<Spanned<String>>,
    pub password_hash_file: Option<Spanned<String>>,
    pub scram_sha_256: Option<Spanned<String>>,
    pub scram_sha_1: Option<Spanned<String>>,
    pub recoverable_secret: Option<Spanned<String>>,
    #[serde(default)]
    pub aliases: Vec<Spanned<String>>,
    #[serde(default)]
    pub may_send_as: Vec<Spanned<String>>,
    pub store: Option<Spanned<String>>,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default)]
    pub app_passwords: Vec<AppPasswordEntry>,
}

#[derive(Debug, Deserialize)]
pub struct AppPasswordEntry {
    pub prefix: Spanned<String>,
    pub verifier: Spanned<String>,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub scopes: Vec<Spanned<String>>,
    #[serde(default)]
    pub networks: Vec<Spanned<String>>,
    pub expires: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
pub struct AliasEntry {
    pub address: Spanned<String>,
    pub to: Vec<Spanned<String>>,
}

const TOP: &[&str] = &[
    "subaddress_delimiter",
    "decoy_key",
    "domain",
    "account",
    "alias",
];
const DOMAIN: &[&str] = &[
    "name",
    "tenant",
    "postmaster",
    "catch_all",
    "store",
    "accounts_file",
    "subaddress_delimiter",
];
const ACCOUNT: &[&str] = &[
    "address",
    "password_hash",
    "password_hash_file",
    "scram_sha_256",
    "scram_sha_1",
    "recoverable_secret",
    "aliases",
    "may_send_as",
    "store",
    "disabled",
    "app_passwords",
];
const APP_PASSWORD: &[&str] = &[
    "prefix", "verifier", "name", "scopes", "networks", "expires",
];
const ALIAS: &[&str] = &["address", "to"];

impl FileEntries {
    /// Reads the text of a directory file; the error lists every unknown key, or the first fault of syntax.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let fault = |error: &toml::de::Error| {
            let line = error.span().map(|span| line_of(text, span.start));
            // Only the message: the full display of the error would quote the line, and with it a hash.
            let remedy = "see the sample directory.toml for the form of each entry";
            vec![Problem::new(file, line, error.message(), remedy)]
        };
        let table = DeTable::parse(text).map_err(|error| fault(&error))?;
        let unknown = unknown_keys(file, text, table.get_ref());
        if !unknown.is_empty() {
            return Err(unknown);
        }
        toml::from_str(text).map_err(|error| fault(&error))
    }
}

/// The line an offset is on, counted from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

fn unknown_keys(file: &Path, text: &str, table: &DeTable<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    report_unknown(file, text, table, TOP, &mut problems);
    for (section, known) in [("domain", DOMAIN), ("account", ACCOUNT), ("alias", ALIAS)] {
        let Some(DeValue::Array(entries)) = table.get(section).map(Spanned::get_ref) else {
            continue;
        };
        for entry in entries.iter() {
            let DeValue::Table(entry) = entry.get_ref() else {
                continue;
            };
            report_unknown(file, text, entry, known, &mut problems);
            let within = entry.get("app_passwords").map(Spanned::get_ref);
            let Some(DeValue::Array(within)) = within.filter(|_| section == "account") else {
                continue;
            };
            for entry in within.iter() {
                if let DeValue::Table(entry) = entry.get_ref() {
                    report_unknown(file, text, entry, APP_PASSWORD, &mut problems);
                }
            }
        }
    }
    problems
}

fn report_unknown(
    file: &Path,
    text: &str,
    table: &DeTable<'_>,
    known: &[&str],
    problems: &mut Vec<Problem>,
) {
    for key in table.keys() {
        let name: &str = key.get_ref();
        if known.contains(&name) {
            continue;
        }
        let nearest = known
            .iter()
            .map(|known| (strsim::jaro_winkler(known, name), known))
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .filter(|(likeness, _)| *likeness > 0.7);
        let remedy = match nearest {
            Some((_, nearest)) => format!("did you mean \"{nearest}\"?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let line = line_of(text, key.span().start);
        problems.push(Problem::new(
            file,
            line,
            format!("unknown key \"{}\"", name.escape_debug()),
            remedy,
        ));
    }
}
