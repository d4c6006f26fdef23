//! `postroad tlsrpt`: what this host's MTA counted of TLS with the mail hosts of the world (RFC 8460).

use std::fs;
use std::path::Path;

use comfy_table::Cell;
use jiff::civil::Date;
use postroad_tlsrpt::{Day, Submitter};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{Terminal, lines, number, table};

/// `postroad tlsrpt`.
#[derive(Debug, clap::Args)]
pub struct TlsrptArguments {
    /// Only this domain; with --json its reports as they are sent
    domain: Option<String>,
    /// Only this day, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Date>,
}

/// A day and what became of its reports.
struct Kept {
    date: Date,
    sent: bool,
    day: Day,
}

/// Carries out the verb.
pub fn carry_out(
    arguments: &TlsrptArguments,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let folder = home.common.state_dir.join("mta/tlsrpt");
    let days = read(&folder, arguments.date)?;
    let wanted = |domain: &str| {
        let only = arguments.domain.as_deref();
        only.is_none_or(|only| only.eq_ignore_ascii_case(domain))
    };
    let counted: Vec<(&Kept, &str)> = days
        .iter()
        .flat_map(|kept| kept.day.domains().map(move |domain| (kept, domain)))
        .filter(|(_, domain)| wanted(domain))
        .collect();
    if counted.is_empty() {
        let what = arguments.domain.as_deref().unwrap_or("any domain");
        return Err(Fault::NoMatch(format!(
            "nothing was counted of {what} (looked in {}; an MTA writes there each minute)",
            folder.display()
        )));
    }
    if terminal.wants_json() {
        let organisation = home.common.domain().a_label().to_owned();
        let contact = format!("postmaster@{organisation}");
        let by = Submitter {
            organisation: &organisation,
            contact: &contact,
        };
        let hostname = home.common.hostname.a_label();
        let reports: Vec<Value> = counted
            .iter()
            .filter_map(|(kept, domain)| {
                let id = format!("{}.{domain}@{hostname}", kept.date);
                kept.day.report(domain, kept.date, &by, &id)
            })
            .collect();
        terminal.object(json!({ "reports": reports }));
        return Ok(());
    }
    let mut rows = table(["DAY", "DOMAIN", "GOOD", "FAILED", "REPORTS"]);
    for (kept, domain) in counted {
        let (good, failed) = kept.day.totals(domain);
        rows.add_row([
            Cell::new(kept.date),
            Cell::new(domain),
            number(good),
            number(failed),
            Cell::new(if kept.sent { "sent" } else { "not yet" }),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

/// The days that are kept, oldest first.
fn read(folder: &Path, only: Option<Date>) -> Result<Vec<Kept>, Fault> {
    let Ok(files) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut days = Vec::new();
    for file in files.flatten() {
        let path = file.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let date = stem.and_then(|stem| stem.parse::<Date>().ok());
        let Some(date) = date.filter(|date| only.is_none_or(|only| only == *date)) else {
            continue;
        };
        let text = fs::read(&path)
            .map_err(|error| Fault::NotDone(format!("cannot read {}: {error}", path.display())))?;
        days.push(Kept {
            date,
            sent: path.extension().is_some_and(|kind| kind == "sent"),
            day: serde_json::from_slice(&text).unwrap_or_default(),
        });
    }
    days.sort_by_key(|kept| kept.date);
    Ok(days)
}
