//! From Postfix's words to ours.
//!
//! First each part of the new configuration is built from the values in force, and notes for the parameters it used are left;
//! then every parameter that is written somewhere gets its entry: what was noted, or what is known of it.

mod host;
mod limits;
mod listeners;
mod outbound;
mod people;
mod restrictions;
mod routes;
mod services;
mod times;

use std::collections::BTreeMap;
use std::io;

use crate::{
    knowledge,
    main_cf::{self, Setting, Values},
    master_cf::{self, Service},
    output::{Config, Directory},
    report::{Entry, Report, Told, Verdict},
    tables::{Files, NoTable, TableName},
};

const MAIN: &str = "main.cf";
const MASTER: &str = "master.cf";

/// Why nothing can be said of a folder.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Operator: there is no main.cf.
    #[error(
        "{0}: {1}; name a folder with the main.cf of a Postfix, such as a copy of /etc/postfix"
    )]
    NoConfiguration(String, io::Error),
}

/// A file with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Its name, beside postroad.toml.
    pub name: String,
    /// What it holds.
    pub secret: String,
}

/// What came of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// `postroad.toml`.
    pub config: String,
    /// `directory.toml`.
    pub directory: String,
    /// Passwords for hosts that mail is handed to.
    pub secrets: Vec<SecretFile>,
    /// What became of each parameter.
    pub report: Report,
}

/// Reads the configuration of a Postfix, and says it in our words. `target` is the folder where the files are to lie.
pub fn migrate(
    files: &Files<'_>,
    passwords: &[(String, String)],
    target: &str,
) -> Result<Migration, MigrateError> {
    let mut work = Work::read(files)?;
    work.passwords = passwords.to_vec();
    work.target = target.to_owned();
    work.host();
    work.listeners();
    work.outbound();
    work.people();
    work.routes();
    work.limits();
    work.times();
    work.restrictions();
    Ok(work.finish())
}

/// Which parameter: of main.cf, or an option of a service.
type Scope = Option<usize>;

struct Work<'a> {
    files: &'a Files<'a>,
    settings: Vec<Setting>,
    services: Vec<Service>,
    odd_lines: Vec<(&'static str, usize)>,
    values: Values,
    config: Config,
    directory: Directory,
    secrets: Vec<SecretFile>,
    passwords: Vec<(String, String)>,
    target: String,
    notes: BTreeMap<(Scope, String), Vec<Told>>,
    service_notes: BTreeMap<usize, Told>,
    /// What each smtpd is for.
    roles: BTreeMap<usize, listeners::Role>,
    routes: Vec<routes::Route>,
    /// Transports that mail goes to.
    used: std::collections::BTreeSet<String>,
    /// Names that are the classes of restrictions.
    classes: Vec<String>,
    to_do: Vec<String>,
}

impl<'a> Work<'a> {
    fn read(files: &'a Files<'a>) -> Result<Self, MigrateError> {
        let read = |name: &str| (files.read)(&files.layout.folder.join(name));
        let text = read(MAIN).map_err(|error| {
            let path = files.layout.folder.join(MAIN);
            MigrateError::NoConfiguration(path.display().to_string(), error)
        })?;
        let (settings, odd) = main_cf::parse(&text);
        let (services, odd_services) = master_cf::parse(&read(MASTER).unwrap_or_default());
        let odd = odd.into_iter().map(|line| (MAIN, line));
        let values = Values::new(&settings);
        Ok(Self {
            files,
            odd_lines: odd
                .chain(odd_services.into_iter().map(|line| (MASTER, line)))
                .collect(),
            services,
            values,
            settings,
            config: Config::default(),
            directory: Directory::default(),
            secrets: Vec::new(),
            passwords: Vec::new(),
            target: String::new(),
            notes: BTreeMap::new(),
            service_notes: BTreeMap::new(),
            roles: BTreeMap::new(),
            routes: Vec::new(),
            used: std::collections::BTreeSet::new(),
            classes: Vec::new(),
            to_do: Vec::new(),
        })
    }

    fn note(&mut self, scope: Scope, name: &str, verdict: Verdict, text: impl Into<String>) {
        let told = Told {
            verdict,
            text: text.into(),
        };
        let notes = self.notes.entry((scope, name.to_owned())).or_default();
        if !notes.contains(&told) {
            notes.push(told);
        }
    }

    fn became(&mut self, name: &str, text: impl Into<String>) {
        self.note(None, name, Verdict::Translated, text);
    }

    fn needless(&mut self, name: &str, text: impl Into<String>) {
        self.note(None, name, Verdict::NotNeeded, text);
    }

    fn lost(&mut self, name: &str, text: impl Into<String>) {
        self.note(None, name, Verdict::NotTranslated, text);
    }

    /// Where a parameter is set, for comments in the files.
    fn from(&self, name: &str) -> String {
        let mut all = self.settings.iter().rev();
        match all.find(|setting| setting.name == name) {
            Some(setting) => format!("{MAIN}:{} {name}", setting.line),
            None => format!("Postfix's default of {name}"),
        }
    }

    fn is_set(&self, name: &str) -> bool {
        self.values.raw(name).is_some()
    }

    /// What a person has to do, said once.
    fn must(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.to_do.contains(&text) {
            self.to_do.push(text);
        }
    }

    /// The rows of all maps of a parameter; what cannot be read is noted.
    fn rows(&mut self, name: &str, is_aliases: bool) -> Vec<crate::tables::Row> {
        let value = self.values.value(name);
        let mut rows = Vec::new();
        for word in crate::lines::words(&value) {
            let Some(table) = TableName::parse(word) else {
                self.lost(name, format!("{word} names no map"));
                continue;
            };
            if matches!(table.kind.as_str(), "unix" | "static") {
                continue;
            }
            let read = match is_aliases {
                true => self.files.aliases(&table),
                false => self.files.table(&table),
            };
            match read {
                Ok(table) => {
                    rows.extend(table.rows);
                    for odd in table.odd {
                        self.lost(name, odd);
                    }
                }
                Err(error) => self.missing(name, &error),
            }
        }
        rows
    }

    /// A list of domains or networks with its files and maps; what cannot be read is noted.
    fn listed(&mut self, name: &str) -> Vec<String> {
        let value = self.values.value(name);
        let (rows, missing) = self.files.list(&value);
        for error in missing {
            self.missing(name, &error);
        }
        rows.into_iter().map(|row| row.key).collect()
    }

    /// A map that is set and not there is lost; one that is Postfix's default may be absent.
    fn missing(&mut self, name: &str, error: &NoTable) {
        if self.is_set(name) {
            self.lost(name, error.to_string());
        }
    }

    fn finish(mut self) -> Migration {
        let mut report = Report::default();
        for (at, setting) in self.settings.clone().iter().enumerate() {
            let again = self
                .settings
                .iter()
                .skip(at + 1)
                .find(|later| later.name == setting.name);
            let told = match again.map(|later| later.line) {
                Some(line) => vec![not_needed(format!("line {line} sets it anew"))],
                None => self.told(None, setting),
            };
            report.parameters.push(entry(MAIN, None, setting, told));
        }
        for (at, service) in self.services.clone().iter().enumerate() {
            for option in &service.options {
                let told = self.told(Some(at), option);
                let name = Some(service.name.clone());
                report.parameters.push(entry(MASTER, name, option, told));
            }
            let told = self.service_notes.remove(&at);
            let told = told.unwrap_or_else(|| self.plain_service(at));
            report.services.push(Entry {
                file: MASTER,
                line: service.line,
                service: Some(service.name.clone()),
                name: service.command.clone(),
                value: service.kind.clone(),
                verdict: told.verdict,
                told: vec![told],
            });
        }
        for (file, line) in std::mem::take(&mut self.odd_lines) {
            self.must(format!(
                "{file}:{line} is neither a setting nor a service: see what it was meant to be"
            ));
        }
        report.to_do = std::mem::take(&mut self.to_do);
        Migration {
            config: self.config.text(HEAD),
            directory: self.directory.text(DIRECTORY_HEAD),
            secrets: self.secrets,
            report,
        }
    }

    fn told(&self, scope: Scope, setting: &Setting) -> Vec<Told> {
        let name = setting.name.as_str();
        if let Some(notes) = self.notes.get(&(scope, name.to_owned())) {
            return notes.clone();
        }
        let value = self.values.expand(&setting.value);
        if let Some(told) = scope.and_then(|at| self.option(at, name, &value)) {
            return vec![told];
        }
        if let Some(told) = knowledge::known(name, value.trim()) {
            return vec![told];
        }
        if value.trim().is_empty() {
            return vec![not_needed("it is empty")];
        }
        // A name of one's own, for use in other values.
        let uses = |text: &str| {
            ["$", "${", "$("]
                .iter()
                .any(|begin| text.contains(&format!("{begin}{name}")))
        };
        let options = self
            .services
            .iter()
            .flat_map(|service| service.options.iter());
        let arguments = self
            .services
            .iter()
            .flat_map(|service| service.arguments.iter());
        let mut users = self
            .settings
            .iter()
            .chain(options)
            .filter(|other| uses(&other.value));
        if let Some(user) = users.next() {
            return vec![not_needed(format!(
                "it is used by {}, and told of there",
                user.name
            ))];
        }
        if arguments.into_iter().any(|argument| uses(argument)) || self.is_of_service(name) {
            return vec![not_needed(
                "it is about a service of master.cf, and told of there",
            )];
        }
        vec![Told {
            verdict: Verdict::NotTranslated,
            text: "it is not known here: see postconf(5), or where the name comes from, whether it is needed".to_owned(),
        }]
    }
}

fn not_needed(text: impl Into<String>) -> Told {
    Told {
        verdict: Verdict::NotNeeded,
        text: text.into(),
    }
}

fn entry(file: &'static str, service: Option<String>, setting: &Setting, told: Vec<Told>) -> Entry {
    let worst = told.iter().map(|one| one.verdict).max();
    Entry {
        file,
        line: setting.line,
        service,
        name: setting.name.clone(),
        value: setting.value.clone(),
        verdict: worst.unwrap_or(Verdict::NotNeeded),
        told,
    }
}

const HEAD: &str = "\
# Postroad: made of the configuration of a Postfix by `postroad migrate postfix`.
#
# Every key is told where it comes from. What is not here is as built in; the sample postroad.toml has all keys. See
# deploy/guide/migrate-postfix.md for what comes next, and `postroad check` for what is wrong.
";
const DIRECTORY_HEAD: &str = "\
# Postroad: domains, accounts and aliases, made of the maps of a Postfix by `postroad migrate postfix`.
#
# An account without a password gets mail and cannot log in: `postroad account hash` makes a password_hash.
";
