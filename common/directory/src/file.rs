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
    #[serde(default)]
    pub aliases: Vec<Spanned<String>>,
    #[serde(default)]
    pub may_send_as: Vec<Spanned<String>>,
    pub store: Option<Spanned<String>>,
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Debug, Deserialize)]
pub struct AliasEntry {
    pub address: Spanned<String>,
    pub to: Vec<Spanned<String>>,
}

const TOP: &[&str] = &["subaddress_delimiter", "domain", "account", "alias"];
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
    "aliases",
    "may_send_as",
    "store",
    "disabled",
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
            if let DeValue::Table(entry) = entry.get_ref() {
                report_unknown(file, text, entry, known, &mut problems);
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
