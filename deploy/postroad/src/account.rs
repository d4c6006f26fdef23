//! `postroad account add|move|list|export|hash`.

mod export;

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use comfy_table::Cell;
use postroad_address::Mailbox;
use postroad_directory::{Account, DirectoryError, add_account, hash_password, move_account};
use postroad_envelope::StoreName;
use serde_json::json;

use crate::cli::AccountVerb;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{Terminal, lines, table};

/// Carries out the verb.
pub fn carry_out(
    verb: AccountVerb,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    match verb {
        AccountVerb::Add {
            address,
            generate,
            store,
        } => add(&address, generate, store.as_ref(), config, terminal),
        AccountVerb::Move { address, to_store } => move_to(&address, &to_store, config, terminal),
        AccountVerb::List => list(config, terminal),
        AccountVerb::Export { to } => export::carry_out(to.as_deref(), config, terminal),
        AccountVerb::Hash => {
            let hash = hash(&ask_password(terminal)?)?;
            match terminal.wants_json() {
                true => terminal.object(json!({ "password_hash": hash })),
                false => terminal.line(hash),
            }
            Ok(())
        }
    }
}

fn add(
    address: &Mailbox,
    generate: bool,
    store: Option<&StoreName>,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let domain = address.domain();
    if !home.directory()?.is_local_domain(domain) {
        let file = home.common.directory.display();
        return Err(Fault::NotDone(format!(
            "{domain} is no domain of {file}; add [[domain]] with name = \"{domain}\""
        )));
    }
    let password = if generate {
        random_password()
    } else {
        ask_password(terminal)?
    };
    let hash = hash(&password)?;
    add_account(&home.common.directory, address, &hash, store)?;
    let made = generate.then_some(password);
    if terminal.wants_json() {
        terminal.object(json!({ "address": address.to_string(), "password": made }));
    } else if let Some(password) = made {
        terminal.say(format_args!(
            "{address} is added; its password, shown only now:"
        ));
        terminal.line(password);
    } else {
        terminal.say(format_args!("{address} is added"));
    }
    Ok(())
}

/// Mail that waits follows when the queue reads the file again, which it does by itself.
fn move_to(
    address: &Mailbox,
    store: &StoreName,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    let former = move_account(&home.common.directory, address, store).map_err(not_found)?;
    let moved = former != *store;
    if terminal.wants_json() {
        terminal.object(json!({
            "address": address.to_string(),
            "former_store": former.as_str(),
            "store": store.as_str(),
            "moved": moved,
        }));
    } else if moved {
        terminal.line(format_args!(
            "{address} is of store {store} now, and was of {former}: new mail goes there as soon as the queue has read the directory again"
        ));
        terminal.say(format_args!(
            "what lies in store {former} stays there until you move it: postroad mailbox export, import, remove"
        ));
    } else {
        terminal.line(format_args!("{address} is of store {store} already"));
    }
    Ok(())
}

fn not_found(error: DirectoryError) -> Fault {
    match error {
        DirectoryError::NoSuchAccount(_) => Fault::NoMatch(error.to_string()),
        error => error.into(),
    }
}

fn list(config: Option<&Path>, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let directory = Home::open(config, terminal)?.directory()?;
    let aliases = directory.aliases();
    let also = |account: &Account| -> Vec<String> {
        aliases
            .iter()
            .filter(|alias| alias.to.iter().any(|to| to.folded() == account.name()))
            .map(|alias| alias.address.to_string())
            .collect()
    };
    let accounts = directory.accounts();
    if terminal.wants_json() {
        let accounts: Vec<_> = accounts
            .iter()
            .map(|account| {
                json!({
                    "address": account.address.to_string(),
                    "state": state(account),
                    "store": account.store.as_str(),
                    "aliases": also(account),
                    "may_send_as": account.may_send_as.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        terminal.object(json!({ "accounts": accounts }));
        return Ok(());
    }
    let mut rows = table(["ADDRESS", "STATE", "STORE", "GETS MAIL FOR"]);
    for account in accounts {
        rows.add_row([
            Cell::new(&account.address),
            Cell::new(state(account)),
            Cell::new(&account.store),
            Cell::new(also(account).join(", ")),
        ]);
    }
    terminal.line(lines(&rows));
    Ok(())
}

fn state(account: &Account) -> &'static str {
    match (account.disabled, &account.password) {
        (true, _) => "disabled",
        (false, None) => "no login",
        (false, Some(_)) => "ok",
    }
}

/// The verifier of a password, with a fresh salt.
pub fn hash(password: &str) -> Result<String, Fault> {
    Ok(hash_password(password.as_bytes(), rand::random())?)
}

/// 128 bits that can be typed: 26 letters and digits, none of which look alike.
pub fn random_password() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bits: u128 = rand::random();
    (0..26)
        .map(|place| char::from(ALPHABET[(bits >> (place * 5)) as usize & 31]))
        .collect()
}

/// From a terminal twice and unseen, else the first line of standard input.
fn ask_password(terminal: &mut Terminal<'_>) -> Result<String, Fault> {
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() {
        terminal.say("Password:");
        let unseen = Unseen::begin();
        let first = read_line(&mut stdin.lock())?;
        terminal.say("Again:");
        let second = read_line(&mut stdin.lock())?;
        drop(unseen);
        if first != second {
            return Err(Fault::NotDone("the two are not the same".to_owned()));
        }
        first
    } else {
        read_line(&mut stdin.lock())?
    };
    match password.is_empty() {
        true => Err(Fault::Usage(
            "an empty password is none; type one or pipe it in".to_owned(),
        )),
        false => Ok(password),
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String, Fault> {
    let mut line = String::new();
    from.take(4096)
        .read_line(&mut line)
        .map_err(Fault::not_done)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal does not show what is typed while this lives.
struct Unseen;

impl Unseen {
    fn begin() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// Where there is no stty the password is seen, which is better than not being able to set one.
fn stty(mode: &str) {
    let _ = Command::new("stty")
        .arg(mode)
        .stdin(Stdio::inherit())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_the_line_ends() {
        let mut input = "päss word\r\nrest".as_bytes();
        assert_eq!(read_line(&mut input).unwrap(), "päss word");
    }

    #[test]
    fn made_passwords_are_long_and_differ() {
        let (one, two) = (random_password(), random_password());
        assert_eq!(one.len(), 26);
        assert_ne!(one, two);
        assert!(
            one.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        );
    }
}
