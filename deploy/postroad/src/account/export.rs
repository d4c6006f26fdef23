//! `postroad account export`: the accounts for a Dovecot that has their mailboxes, or reads ours.
//!
//! A line is `address:{ARGON2ID}hash::::::` (passwd-file of Dovecot). Who cannot log in here has a hash that no password fits, so that
//! mail for the account is taken all the same. Disabled accounts are left out: they neither log in nor receive. So are those of an
//! `accounts_file`, which came from there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use postroad_directory::{Account, Directory};
use postroad_pki::Owner;
use serde_json::json;

use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::Terminal;

/// crypt(3) makes no such hash.
const NO_LOGIN: &str = "{CRYPT}*";
/// Dovecot runs the part that reads it as root or in a group of its own.
const MODE: u32 = 0o640;

pub fn carry_out(
    to: Option<&Path>,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let directory = Home::open(config, terminal)?.directory()?;
    let text = passwd_file(&directory);
    let count = text.lines().count();
    let Some(file) = to else {
        match terminal.wants_json() {
            true => terminal.object(json!({ "passwd_file": text })),
            false => text.lines().for_each(|line| terminal.line(line)),
        }
        return Ok(());
    };
    // Whoever gave the file to Dovecot's group need not do so again.
    let owner = fs::metadata(file).ok().map(|now| Owner {
        uid: now.uid(),
        gid: now.gid(),
    });
    postroad_pki::write(file, &text, MODE, owner).map_err(Fault::not_done)?;
    match terminal.wants_json() {
        true => terminal.object(json!({ "file": file, "accounts": count })),
        false => terminal.say(format_args!("{count} accounts are in {}", file.display())),
    }
    Ok(())
}

fn passwd_file(directory: &Directory) -> String {
    let accounts = directory.accounts().into_iter();
    accounts
        .filter(|account| !account.disabled && !account.elsewhere)
        .filter_map(line)
        .collect()
}

/// A quoted local part may hold what divides fields and lines; Dovecot's file has no way to write it.
fn line(account: &Account) -> Option<String> {
    let name = account.name();
    if name.contains([':', '\n', '\r', '"']) {
        return None;
    }
    let password = match &account.password {
        Some(password) => format!("{{ARGON2ID}}{}", password.phc()),
        None => NO_LOGIN.to_owned(),
    };
    Some(format!("{name}:{password}::::::\n"))
}
