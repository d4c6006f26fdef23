//! `postroad account add|password|app-password|move|list|export|hash`.

mod app_password;
mod export;

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use comfy_table::Cell;
use postroad_address::Mailbox;
use postroad_directory::{
    Account, DirectoryError, Keys, Secrets, add_account, hash_password, letters, move_account,
    set_password,
};
use postroad_envelope::StoreName;
use postroad_sasl::{CramSecret, SCRAM_ITERATIONS, ScramHash, ScramKeys};
use serde_json::json;

use crate::cli::{AccountVerb, PasswordOptions};
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
            password,
            store,
        } => add(&address, &password, store.as_ref(), config, terminal),
        AccountVerb::Password { address, password } => {
            set_password_of(&address, &password, config, terminal)
        }
        AccountVerb::AppPassword(verb) => app_password::carry_out(verb, config, terminal),
        AccountVerb::Move { address, to_store } => move_to(&address, &to_store, config, terminal),
        AccountVerb::List => list(config, terminal),
        AccountVerb::Export { to } => export::carry_out(to.as_deref(), config, terminal),
        AccountVerb::Hash => {
            let password = ask_password(terminal)?;
            let hash = hash(&password)?;
            let scram = scram_keys(&password, ScramHash::Sha256);
            if terminal.wants_json() {
                let scram = scram.map(|keys| keys.to_string());
                terminal.object(json!({ "password_hash": hash, "scram_sha_256": scram }));
            } else {
                terminal.line(hash);
                if let Some(scram) = scram {
                    terminal.say("for SCRAM-SHA-256, as scram_sha_256:");
                    terminal.say(scram);
                }
            }
            Ok(())
        }
    }
}

fn add(
    address: &Mailbox,
    options: &PasswordOptions,
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
    let (password, secrets) = new_password(options, terminal)?;
    add_account(&home.common.directory, address, &secrets, store)?;
    tell(
        address,
        "is added",
        options.generate.then_some(password),
        terminal,
    );
    Ok(())
}

fn set_password_of(
    address: &Mailbox,
    options: &PasswordOptions,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    if home.directory()?.account(address).is_none() {
        return Err(not_found(DirectoryError::NoSuchAccount(address.clone())));
    }
    let (password, secrets) = new_password(options, terminal)?;
    set_password(&home.common.directory, address, &secrets).map_err(not_found)?;
    let made = options.generate.then_some(password);
    tell(address, "has another password", made, terminal);
    Ok(())
}

/// A password that is made here is shown, and never again.
fn tell(address: &Mailbox, what: &str, made: Option<String>, terminal: &mut Terminal<'_>) {
    if terminal.wants_json() {
        terminal.object(json!({ "address": address.to_string(), "password": made }));
    } else if let Some(password) = made {
        terminal.say(format_args!(
            "{address} {what}; its password, shown only now:"
        ));
        terminal.line(password);
    } else {
        terminal.say(format_args!("{address} {what}"));
    }
}

/// A password that is typed or made, and what is kept of it.
fn new_password(
    options: &PasswordOptions,
    terminal: &mut Terminal<'_>,
) -> Result<(String, Secrets), Fault> {
    let password = match options.generate {
        true => random_password(),
        false => ask_password(terminal)?,
    };
    let mut keys = Keys::default();
    if !options.no_scram {
        keys.scram_sha_256 = scram_keys(&password, ScramHash::Sha256);
        if keys.scram_sha_256.is_none() {
            terminal.say("this password has characters that SCRAM does not allow: it can be used with PLAIN and LOGIN alone");
        }
    }
    if options.scram_sha_1 {
        keys.scram_sha_1 = scram_keys(&password, ScramHash::Sha1);
    }
    if options.cram_md5 {
        keys.recoverable_secret = Some(CramSecret::new(password.as_bytes()));
        terminal.say("for CRAM-MD5 the password itself is in the directory file: whoever reads that can log in");
    }
    let secrets = Secrets {
        password_hash: hash(&password)?,
        keys,
    };
    Ok((password, secrets))
}

/// None: SCRAM has no place for this password.
fn scram_keys(password: &str, hash: ScramHash) -> Option<ScramKeys> {
    let salt: [u8; 16] = rand::random();
    ScramKeys::derive(hash, password, &salt, SCRAM_ITERATIONS).ok()
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
        (false, Some(_)) => "ok",
        (false, None) if account.app_passwords.is_empty() => "no login",
        (false, None) => "app passwords",
    }
}

/// The verifier of a password, with a fresh salt.
pub fn hash(password: &str) -> Result<String, Fault> {
    Ok(hash_password(password.as_bytes(), rand::random())?)
}

/// 130 bits that can be typed: 26 letters and digits, none of which look alike.
pub fn random_password() -> String {
    letters(rand::random(), 13) + &letters(rand::random(), 13)
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
