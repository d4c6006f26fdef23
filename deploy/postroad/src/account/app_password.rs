//! `postroad account app-password add|list|remove`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use comfy_table::Cell;
use postroad_address::Mailbox;
use postroad_daemon::Interval;
use postroad_directory::{
    Account, AppPassword, Directory, DirectoryError, KeptAppPassword, add_app_password, app_prefix,
    remove_app_password,
};
use postroad_envelope::Timestamp;
use serde_json::{Value, json};

use super::not_found;
use crate::cli::AppPasswordVerb;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{Terminal, lines, table};

/// Carries out the verb.
pub fn carry_out(
    verb: AppPasswordVerb,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let file = &home.common.directory;
    match verb {
        AppPasswordVerb::Add {
            address,
            name,
            scope,
            network,
            expires,
        } => {
            let mut terms = AppPassword {
                name,
                scopes: scope,
                networks: network.iter().map(ipnet::IpNet::trunc).collect(),
                expires: expires.as_deref().map(time).transpose()?,
            };
            terms.scopes.sort_unstable();
            terms.scopes.dedup();
            let chance = (rand::random(), rand::random(), rand::random());
            let made = add_app_password(file, &address, &terms, chance).map_err(not_found)?;
            if terminal.wants_json() {
                terminal.object(json!({ "address": address.to_string(), "password": *made }));
            } else {
                terminal.say(format_args!(
                    "{address} has an app password for {:?}; shown only now:",
                    terms.name
                ));
                terminal.line(&*made);
            }
            Ok(())
        }
        AppPasswordVerb::List { address } => list(&home.directory()?, address.as_ref(), terminal),
        AppPasswordVerb::Remove { address, prefix } => {
            let prefix = app_prefix(prefix.as_bytes()).unwrap_or(&prefix);
            if !remove_app_password(file, &address, prefix).map_err(not_found)? {
                return Err(Fault::NoMatch(format!(
                    "{address} has no app password that begins with {prefix:?}; see `postroad account app-password list {address}`"
                )));
            }
            if terminal.wants_json() {
                terminal.object(json!({ "address": address.to_string(), "removed": prefix }));
            } else {
                terminal.say(format_args!(
                    "the app password {prefix} of {address} opens nothing any more, as soon as the agents have read the directory again"
                ));
            }
            Ok(())
        }
    }
}

/// A moment, or how long from now on.
fn time(text: &str) -> Result<Timestamp, Fault> {
    let now = Timestamp::from(SystemTime::now());
    let at = match text.parse::<Interval>() {
        Ok(from_now) => Some(now.plus(Duration::from(from_now))),
        Err(_) => text.parse().ok(),
    };
    let at = at.ok_or_else(|| {
        Fault::Usage(format!(
            "{text:?} is no time; write 90d, 12h or 2027-01-01T00:00:00Z"
        ))
    })?;
    match at > now {
        true => Ok(at),
        false => Err(Fault::Usage(format!("{text} is past"))),
    }
}

fn list(
    directory: &Directory,
    address: Option<&Mailbox>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let accounts: Vec<&Account> = match address {
        None => directory.accounts(),
        Some(address) => {
            let none = || not_found(DirectoryError::NoSuchAccount(address.clone()));
            vec![directory.account(address).ok_or_else(none)?]
        }
    };
    let all = accounts.iter().flat_map(|account| {
        let kept = account.app_passwords.iter();
        kept.map(|kept| (*account, kept))
    });
    if terminal.wants_json() {
        let all: Vec<Value> = all.map(|(account, kept)| object(account, kept)).collect();
        terminal.object(json!({ "app_passwords": all }));
        return Ok(());
    }
    let mut rows = table(["ACCOUNT", "PREFIX", "NAME", "FOR", "FROM", "UNTIL"]);
    for (account, KeptAppPassword { prefix, terms, .. }) in all {
        let or = |texts: Vec<String>, none: &str| match texts.is_empty() {
            true => none.to_owned(),
            false => texts.join(", "),
        };
        let until = terms.expires.map(|expires| expires.to_string());
        rows.add_row([
            Cell::new(&account.address),
            Cell::new(prefix),
            Cell::new(&terms.name),
            Cell::new(or(texts(&terms.scopes), "everything")),
            Cell::new(or(texts(&terms.networks), "everywhere")),
            Cell::new(until.unwrap_or_else(|| "it is removed".to_owned())),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

fn object(account: &Account, kept: &KeptAppPassword) -> Value {
    let KeptAppPassword { prefix, terms, .. } = kept;
    json!({
        "address": account.address.to_string(),
        "prefix": prefix,
        "name": terms.name,
        "scopes": texts(&terms.scopes),
        "networks": texts(&terms.networks),
        "expires": terms.expires.map(|expires| expires.to_string()),
    })
}

fn texts(all: &[impl ToString]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}
