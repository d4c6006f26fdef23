//! `postroad migrate postfix DIR`: a configuration of ours from that of a Postfix, and what became of each parameter.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comfy_table::Cell;
use postroad_postfix::report::{Entry, Report, Verdict};
use postroad_postfix::{Files, Layout, Migration};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::terminal::{Terminal, lines, one_line, table};

/// Where agents look for their configuration.
const HOME: &str = "/etc/postroad";
/// A map or configuration that is longer is none.
const LONGEST: u64 = 256 << 20;
const WIDEST: usize = 300;

/// `postroad migrate …`.
#[derive(Debug, Subcommand)]
pub enum MigrateVerb {
    /// Make postroad.toml and directory.toml of a folder like /etc/postfix, and tell what became of every parameter; exit status 1 if
    /// something is left for a person to do
    Postfix(PostfixArguments),
}

/// `postroad migrate postfix`.
#[derive(Debug, Args)]
pub struct PostfixArguments {
    /// The folder with main.cf, master.cf and the maps as text; a copy will do. Other files that main.cf names are looked for in it too
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Write the files into this folder, which is made; without it they are printed
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// A passwd-file of Dovecot, or lines `address|hash`: argon2id hashes are taken along, others are told
    #[arg(long, value_name = "FILE")]
    pub passwords: Option<PathBuf>,
}

/// Carries out a verb.
pub fn carry_out(verb: &MigrateVerb, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let MigrateVerb::Postfix(arguments) = verb;
    let files = Files {
        layout: Layout::of(&absolute(&arguments.folder)),
        config: "/etc/postfix".to_owned(),
        read: &read,
    };
    let passwords = match &arguments.passwords {
        Some(path) => passwords(path)?,
        None => Vec::new(),
    };
    let target = arguments.to.as_deref().map(absolute);
    let target = target.unwrap_or_else(|| PathBuf::from(HOME));
    let migration = postroad_postfix::migrate(&files, &passwords, &target.display().to_string());
    let migration = migration.map_err(Fault::not_done)?;
    let written = match &arguments.to {
        Some(_) => write(&target, &migration)?,
        None => Vec::new(),
    };
    tell(&migration, &written, terminal);
    match migration.report.is_complete() {
        true => Ok(()),
        false => Err(Fault::Told),
    }
}

/// So that `.` in /etc/postfix is known for what it is.
fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

/// Maps may have octets of any kind in their comments.
fn read(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > LONGEST {
        return Err(io::Error::other(format!(
            "it is too long ({length} octets)"
        )));
    }
    let octets = fs::read(path)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// `user:{SCHEME}hash:…` as Dovecot has it, or `address|{SCHEME}hash`.
fn passwords(path: &Path) -> Result<Vec<(String, String)>, Fault> {
    let text =
        read(path).map_err(|error| Fault::NotDone(format!("{}: {error}", path.display())))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.filter_map(password).collect())
}

fn password(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once(['|', ':'])?;
    // No scheme of a hash has a colon or a bar in it.
    let hash = rest.split(['|', ':']).next().unwrap_or(rest);
    (!name.is_empty() && !hash.is_empty()).then(|| (name.to_owned(), hash.to_owned()))
}

/// What is there stays: a configuration may have been worked on.
fn write(folder: &Path, migration: &Migration) -> Result<Vec<String>, Fault> {
    let mut files = vec![
        ("postroad.toml".to_owned(), migration.config.as_str(), 0o644),
        (
            "directory.toml".to_owned(),
            migration.directory.as_str(),
            0o640,
        ),
    ];
    let secrets = migration.secrets.iter();
    files.extend(secrets.map(|one| (one.name.clone(), one.secret.as_str(), 0o640)));
    let paths: Vec<PathBuf> = files.iter().map(|(name, _, _)| folder.join(name)).collect();
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        return Err(Fault::NotDone(format!(
            "{} is there already: name another folder, or move it away",
            there.display()
        )));
    }
    postroad_pki::make_folder(folder, 0o755, None)?;
    for ((_, text, mode), path) in files.iter().zip(&paths) {
        postroad_pki::write(path, text, *mode, None)?;
    }
    Ok(paths
        .iter()
        .map(|path| path.display().to_string())
        .collect())
}

fn tell(migration: &Migration, written: &[String], terminal: &mut Terminal<'_>) {
    let report = &migration.report;
    if terminal.wants_json() {
        terminal.object(object(migration, written));
        return;
    }
    if written.is_empty() {
        terminal.line(format_args!("# postroad.toml -----\n{}", migration.config));
        terminal.line(format_args!(
            "# directory.toml -----\n{}",
            migration.directory
        ));
    }
    for verdict in [
        Verdict::Translated,
        Verdict::NotNeeded,
        Verdict::NotTranslated,
    ] {
        let all = report
            .parameters
            .iter()
            .filter(|entry| entry.verdict == verdict);
        section(verdict.as_str(), "PARAMETER", all, terminal);
    }
    let (other, own): (Vec<&Entry>, Vec<&Entry>) = report
        .services
        .iter()
        .partition(|entry| entry.verdict == Verdict::NotNeeded);
    section("services", "PROGRAM", own.into_iter(), terminal);
    if !other.is_empty() {
        let names: Vec<String> = other
            .iter()
            .filter_map(|entry| entry.service.clone())
            .collect();
        terminal.line(format_args!(
            "Of these services nothing is needed: {}\n",
            one_line(&names.join(", "), 2_000)
        ));
    }
    if !report.to_do.is_empty() {
        terminal.line("TO DO");
        for one in &report.to_do {
            terminal.line(format_args!("- {}", one_line(one, 1_000)));
        }
        terminal.line("");
    }
    for path in written {
        terminal.say(format_args!("wrote {path}"));
    }
    terminal.line(counts(report));
}

fn counts(report: &Report) -> String {
    format!(
        "{} parameters: {} translated, {} not needed, {} not translated; {} % handled",
        report.parameters.len(),
        report.count(Verdict::Translated),
        report.count(Verdict::NotNeeded),
        report.count(Verdict::NotTranslated),
        report.handled_percent()
    )
}

fn section<'a>(
    heading: &str,
    of: &str,
    entries: impl Iterator<Item = &'a Entry>,
    terminal: &mut Terminal<'_>,
) {
    let mut rows = table(["PLACE", of, "WHAT BECAME OF IT"]);
    let mut is_empty = true;
    for entry in entries {
        is_empty = false;
        let service = entry.service.as_ref();
        let place = match service {
            Some(service) => format!("{}:{} {service}", entry.file, entry.line),
            None => format!("{}:{}", entry.file, entry.line),
        };
        let (mut place, mut name) = (one_line(&place, 60), one_line(&entry.name, 60));
        // What is worst comes first: it is why the parameter stands here.
        let mut told: Vec<_> = entry.told.iter().collect();
        told.sort_by_key(|one| std::cmp::Reverse(one.verdict));
        for one in told {
            let mark = match one.verdict == entry.verdict {
                true => String::new(),
                false => format!("({}) ", one.verdict.as_str()),
            };
            rows.add_row([
                Cell::new(std::mem::take(&mut place)),
                Cell::new(std::mem::take(&mut name)),
                Cell::new(format!("{mark}{}", one_line(&one.text, WIDEST))),
            ]);
        }
    }
    if !is_empty {
        terminal.line(format_args!(
            "{}\n{}\n",
            heading.to_uppercase(),
            lines(&rows)
        ));
    }
}

fn object(migration: &Migration, written: &[String]) -> Value {
    let report = &migration.report;
    json!({
        "parameters": report.parameters.iter().map(shown).collect::<Vec<_>>(),
        "services": report.services.iter().map(shown).collect::<Vec<_>>(),
        "to_do": report.to_do,
        "counts": {
            "parameters": report.parameters.len(),
            "translated": report.count(Verdict::Translated),
            "not_needed": report.count(Verdict::NotNeeded),
            "not_translated": report.count(Verdict::NotTranslated),
            "handled_percent": report.handled_percent(),
        },
        "complete": report.is_complete(),
        "files": written,
        "config": migration.config,
        "directory": migration.directory,
    })
}

fn shown(entry: &Entry) -> Value {
    // Some have passwords in them.
    let value = (!entry.name.contains("password")).then_some(&entry.value);
    let told = entry.told.iter();
    let told = told.map(|one| json!({ "verdict": one.verdict.as_str(), "text": one.text }));
    json!({
        "file": entry.file,
        "line": entry.line,
        "service": entry.service,
        "name": entry.name,
        "value": value,
        "verdict": entry.verdict.as_str(),
        "told": told.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_both_forms() {
        let pair = |line| password(line).unwrap();
        assert_eq!(
            pair("a@b.test:{ARGON2ID}$argon2id$v=19$m=1,t=1,p=1$x$y:1000:1000::/home/a::"),
            (
                "a@b.test".to_owned(),
                "{ARGON2ID}$argon2id$v=19$m=1,t=1,p=1$x$y".to_owned()
            )
        );
        assert_eq!(
            pair("a@b.test|{SHA512-CRYPT}$6$x$y").1,
            "{SHA512-CRYPT}$6$x$y"
        );
        assert_eq!(password("nonsense"), None);
    }
}
