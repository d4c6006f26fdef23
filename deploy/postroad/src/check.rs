//! `postroad check`: loads everything the agents would load, and tells all that is wrong with it.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use comfy_table::Cell;
use postroad_daemon::{
    AccountsFrom, AgentConfig, CommonConfig, ConfigError, ConfigFile, EffectiveValue, TlsFiles,
};
use postroad_directory::{Directory, DirectoryError};
use postroad_dns::ResolverOptions;
use postroad_envelope::NextHop;
use postroad_msa::MechanismName;
use postroad_net::{CertFiles, Revocations};
use postroad_sasl::{Mechanism, ScramHash, SecretKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cli::CheckArguments;
use crate::fault::Fault;
use crate::health::AGENTS;
use crate::home::{choose, last_demo};
use crate::sendmail;
use crate::terminal::{Terminal, lines, one_line, table};

/// Carries out the verb.
pub fn carry_out(
    arguments: &CheckArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let (path, _) = choose(config, last_demo());
    let report = match arguments.agents.as_slice() {
        [] => inspect(&path),
        agents => {
            let named: Vec<&str> = agents.iter().map(String::as_str).collect();
            inspect_for(&path, &named)
        }
    };
    let ok = report.problems.is_empty();
    if terminal.wants_json() {
        terminal.object(report.json(arguments.print));
    } else {
        if arguments.print {
            terminal.line(report.table());
        }
        for problem in &report.problems {
            terminal.line(problem);
        }
        for note in &report.notes {
            terminal.say(note);
        }
        match (ok, report.problems.len()) {
            (true, _) => terminal.say(format_args!("{}: all is well", path.display())),
            (false, 1) => terminal.say("1 problem"),
            (false, many) => terminal.say(format_args!("{many} problems")),
        }
    }
    if ok { Ok(()) } else { Err(Fault::Told) }
}

fn tls_files(tls: &TlsFiles) -> [(&'static str, &Path); 3] {
    [
        ("common.tls.ca_file", &tls.ca_file),
        ("common.tls.cert_file", &tls.cert_file),
        ("common.tls.key_file", &tls.key_file),
    ]
}

/// All that is wrong, and what is in force.
#[derive(Debug, Default)]
pub struct Report {
    /// One line each: place, what is wrong, what to do.
    pub problems: Vec<String>,
    /// What is right and worth knowing.
    pub notes: Vec<String>,
    /// Every value of every section.
    pub values: Vec<EffectiveValue>,
    certificates: Vec<CertFiles>,
}

/// Looks at a configuration and at everything it names.
pub fn inspect(path: &Path) -> Report {
    inspect_for(path, &AGENTS)
}

/// Looks at what these agents use of a configuration: on their host nothing else need be there.
pub fn inspect_for(path: &Path, agents: &[&str]) -> Report {
    let mut report = Report::default();
    match ConfigFile::load(path) {
        Ok(file) => report.look_at(&file, agents),
        Err(error) => report.problems.push(error.to_string()),
    }
    report
}

impl Report {
    fn look_at(&mut self, file: &ConfigFile, agents: &[&str]) {
        let common = self.take(file, "common", file.common());
        let queued = self.section::<postroad_queued::Config>(file, "queued", agents);
        let msa = self.section::<postroad_msa::Config>(file, "msa", agents);
        let mta = self.section::<postroad_mta::Config>(file, "mta", agents);
        let mda = self.section::<postroad_mda::Config>(file, "mda", agents);
        let sendmail = self.take(
            file,
            "sendmail",
            file.section::<sendmail::Config>("sendmail"),
        );
        if let Some(why) = sendmail.and_then(|sendmail| sendmail.check()) {
            self.meaning(
                file,
                "sendmail.accounts",
                why,
                "write an address of an account",
            );
        }
        let shown = [
            msa.as_ref().map(|msa| &msa.certificates),
            mta.as_ref().map(|mta| &mta.inbound.certificates),
        ];
        let shown = shown.into_iter().flatten().flatten();
        self.certificates.extend(shown.cloned());
        let own = mta.iter().flat_map(|mta| &mta.outbound.hosts);
        self.certificates
            .extend(own.filter_map(postroad_mta::HostConfig::own_certificate));
        self.note(file, "queued", queued.as_ref());
        self.note(file, "msa", msa.as_ref());
        self.note(file, "mta", mta.as_ref());
        self.note(file, "mda", mda.as_ref());
        if let (Some(mta), Some(queued)) = (&mta, &queued) {
            self.compare_known_clients(file, mta, queued);
        }
        let mechanisms = msa.as_ref().map(|msa| msa.auth.mechanisms.clone());
        let mechanisms = mechanisms.unwrap_or_default();
        // An agent without a section is at work with its defaults, or on another host.
        let meanings = [
            msa.filter(|_| file.is_set("msa"))
                .map(|msa| msa.check(file)),
            mta.filter(|_| file.is_set("mta"))
                .map(|mta| [mta.check(file), mta.unknown_sources(file)].concat()),
            mda.filter(|_| file.is_set("mda"))
                .map(|mda| mda.check(file)),
        ];
        let meanings = meanings.into_iter().flatten().flatten();
        self.problems
            .extend(meanings.map(|problem| problem.to_string()));
        if let Some(common) = common {
            self.certificates
                .extend(common.tls.iter().map(|tls| CertFiles {
                    cert_file: tls.cert_file.clone(),
                    key_file: tls.key_file.clone(),
                }));
            self.look_at_certificates(&common);
            self.look_at_sockets(file, queued.as_ref());
            if let Some(error) = queued.and_then(|queued| queued.check(&common).err()) {
                let place = file.place(&error.key());
                self.problems.push(format!("{place}: {error}"));
            }
            self.look_at_accounts(file, &common, agents, &mechanisms);
            self.look_at_common(file, &common);
        }
    }

    /// Who may send to anyone by its certificate is known to the listener and to the queue: one alone is of no use.
    fn compare_known_clients(
        &mut self,
        file: &ConfigFile,
        mta: &postroad_mta::Config,
        queued: &postroad_queued::Config,
    ) {
        let same_host = file.is_set("queued") || !file.is_set("common.queue");
        if !(file.is_set("mta.inbound") && same_host) {
            return;
        }
        let key = "queued.relay_certificates";
        let at_queue = &queued.relay_certificates;
        let mut at_mta = Vec::new();
        for (listener, config) in &mta.inbound.listeners {
            for name in config.known_clients() {
                if !at_queue.iter().any(|client| client.is(&name)) {
                    let problem = format!(
                        "the queue does not know {name}, to whom mta.inbound.listeners.{listener} is open, and would refuse its mail for others"
                    );
                    self.meaning(file, key, problem, &format!("add \"{name}\" to the list"));
                }
                at_mta.push(name);
            }
        }
        for client in at_queue {
            if !at_mta.iter().any(|name| client.is(name)) {
                let place = file.place(key);
                self.notes.push(format!(
                    "{place}: {key}: no listener of this mta knows {client}"
                ));
            }
        }
    }

    fn note(&mut self, file: &ConfigFile, agent: &str, section: Option<&impl AgentConfig>) {
        if let Some(note) = section.and_then(|section| section.http().note()) {
            let key = format!("{agent}.http.listen");
            self.notes
                .push(format!("{}: {key}: {note}", file.place(&key)));
        }
    }

    /// One that has little time left works; one that cannot be read is told of where its key is.
    fn look_at_certificates(&mut self, common: &CommonConfig) {
        let before = common.certificate_warning.into();
        let mut told = Vec::new();
        for files in std::mem::take(&mut self.certificates) {
            if let Ok(Some(concern)) = files.concern(before)
                && !told.contains(&concern)
            {
                self.notes.push(format!("{concern}; renew it"));
                told.push(concern);
            }
        }
    }

    /// The mta connects to sockets that routes name, on its host and as its user; who looks here may be somebody else.
    fn look_at_sockets(&mut self, file: &ConfigFile, queued: Option<&postroad_queued::Config>) {
        let routes = queued.into_iter().flat_map(|queued| &queued.routes);
        let sockets = routes.enumerate().flat_map(|(number, route)| {
            let hops = route.hops().into_iter().map(|hop| hop.hop);
            hops.map(move |hop| (number, hop))
        });
        for (number, hop) in sockets {
            let NextHop::Unix(path) = &hop else {
                continue;
            };
            let found = match std::fs::metadata(path.as_path()) {
                Ok(found) if found.file_type().is_socket() => format!(
                    "belongs to user {} and group {}, mode {:o}",
                    found.uid(),
                    found.gid(),
                    found.mode() & 0o777
                ),
                Ok(_) => "is no socket".to_owned(),
                Err(error) => {
                    format!("is not there ({error}); the program that serves it makes it")
                }
            };
            let place = file.place(&format!("queued.routes[{number}]"));
            self.notes.push(format!(
                "{place}: {hop}: the mta connects there, so it must be on its host, for its user to write to; here it {found}"
            ));
        }
    }

    fn section<T: DeserializeOwned + Serialize>(
        &mut self,
        file: &ConfigFile,
        name: &str,
        agents: &[&str],
    ) -> Option<T> {
        if !agents.contains(&name) {
            return None;
        }
        let read = file.section(name);
        self.take(file, name, read)
    }

    fn take<T: Serialize>(
        &mut self,
        file: &ConfigFile,
        name: &str,
        read: Result<T, ConfigError>,
    ) -> Option<T> {
        match read {
            Ok(section) => {
                self.values.extend(file.effective(name, &section));
                Some(section)
            }
            Err(error) => {
                self.problems.push(error.to_string());
                None
            }
        }
    }

    /// The directory file, if one of these agents reads it.
    fn look_at_accounts(
        &mut self,
        file: &ConfigFile,
        common: &CommonConfig,
        agents: &[&str],
        mechanisms: &[MechanismName],
    ) {
        if common.accounts.from == AccountsFrom::File || agents.contains(&"queued") {
            self.look_at_directory(file, common, mechanisms);
        }
        let key = "common.accounts.from";
        if common.accounts.from == AccountsFrom::Queue && file.is_set("common.directory") {
            self.notes.push(format!(
                "{}: {key}: msa, mta and mda ask the queue for accounts; common.directory is read by queued alone",
                file.place(key)
            ));
        }
    }

    fn look_at_directory(
        &mut self,
        file: &ConfigFile,
        common: &CommonConfig,
        mechanisms: &[MechanismName],
    ) {
        match Directory::load(&common.directory) {
            Ok(directory) => {
                self.problems
                    .extend(directory.check().iter().map(ToString::to_string));
                let key = "msa.auth.mechanisms";
                let place = file.place(key);
                let notes = mechanisms.iter();
                let notes = notes.filter_map(|name| cannot_prove(&directory, name.0));
                self.notes
                    .extend(notes.map(|note| format!("{place}: {key}: {note}")));
            }
            Err(DirectoryError::Invalid(problems)) => {
                self.problems
                    .extend(problems.iter().map(ToString::to_string));
            }
            Err(error) => {
                let remedy = "create the file, or name another";
                self.meaning(file, "common.directory", error, remedy);
            }
        }
    }

    fn look_at_common(&mut self, file: &ConfigFile, common: &CommonConfig) {
        if let Err(error) = postroad_rpc::nodes(common) {
            use postroad_rpc::Error;
            let (key, remedy) = match error {
                Error::NotListed(_) | Error::AllRetiring => ("common.retiring", "mend the list"),
                _ => ("common.queue", "write one of these forms"),
            };
            self.meaning(file, key, error, remedy);
        }
        for (key, path) in common.tls.iter().flat_map(tls_files) {
            if let Err(error) = std::fs::File::open(path) {
                let problem = format!("{}: {error}", path.display());
                self.meaning(file, key, problem, "name a PEM file this user can read");
            }
        }
        let revoked = common.tls.as_ref().and_then(|tls| tls.revoked.as_ref());
        if let Some(Err(error)) = revoked.map(|path| Revocations::open(path)) {
            let remedy = "mend the file, or make it by `postroad pki revoke`";
            self.meaning(file, "common.tls.revoked", error, remedy);
        }
        if let Err(error) = ResolverOptions::from(&common.dns).open() {
            let key = match common.dns.zone {
                Some(_) => "common.dns.zone",
                None => "common.dns",
            };
            self.meaning(file, key, error, "mend it, or leave the key out");
        }
    }

    fn meaning(&mut self, file: &ConfigFile, key: &str, problem: impl ToString, remedy: &str) {
        self.problems
            .push(file.error(key, problem.to_string(), remedy).to_string());
    }

    fn table(&self) -> String {
        let mut rows = table(["KEY", "VALUE", "FROM"]);
        for value in &self.values {
            rows.add_row([
                Cell::new(&value.key),
                Cell::new(one_line(&value.value, 80)),
                Cell::new(value.place.to_string()),
            ]);
        }
        lines(&rows)
    }

    fn json(&self, print: bool) -> serde_json::Value {
        let mut object = json!({
            "ok": self.problems.is_empty(),
            "problems": self.problems,
            "notes": self.notes,
        });
        if print {
            let values = self.values.iter().map(|value| {
                json!({ "key": value.key, "value": value.value, "from": value.place.to_string() })
            });
            object["values"] = values.collect();
        }
        object
    }
}

/// Whom a mechanism that is offered shuts out: a mail program takes the strongest, and does not try another.
fn cannot_prove(directory: &Directory, mechanism: Mechanism) -> Option<String> {
    const NAMED: usize = 3;
    let kind = match mechanism {
        Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => SecretKind::Scram(ScramHash::Sha256),
        Mechanism::ScramSha1 => SecretKind::Scram(ScramHash::Sha1),
        Mechanism::CramMd5 => SecretKind::Cram,
        _ => return None,
    };
    let all = directory.without_keys(kind);
    let (first, rest) = all.split_at(all.len().min(NAMED));
    if first.is_empty() {
        return None;
    }
    let names: Vec<String> = first.iter().map(|one| one.address.to_string()).collect();
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{mechanism} is offered, and {}{more} cannot log in by it: give them keys with `postroad account password`, or take it out",
        names.join(", ")
    ))
}
