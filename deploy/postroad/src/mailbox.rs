//! `postroad mailbox …`: the stored mail of an account.

mod transfer;

use std::path::{Path, PathBuf};

use comfy_table::Cell;
use mail_parser::MessageParser;
use postroad_address::{Domain, LocalPart, Mailbox};
use postroad_daemon::AccountsFrom;
use postroad_directory::Directory;
use postroad_envelope::Timestamp;
use postroad_maildir::{Entry, maildir_path};
use serde_json::json;

use crate::cli::MailboxVerb;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{Terminal, harmless, lines, local_time, number, one_line, table, utc_time};

/// The fewest characters of an id.
const SHORTEST_PREFIX: usize = 8;

/// Carries out the verb.
pub fn carry_out(
    verb: &MailboxVerb,
    config: Option<&Path>,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let home = Home::open(config, terminal)?;
    match verb {
        MailboxVerb::List { account } => {
            let mailbox = StoredMail::open(&home, account)?;
            mailbox.list(terminal)
        }
        MailboxVerb::Show { account, id, raw } => {
            let mailbox = StoredMail::open(&home, account)?;
            mailbox.show(id.as_deref(), *raw, terminal)
        }
        MailboxVerb::Export { account } => transfer::export(&home, account, terminal),
        MailboxVerb::Import { account } => transfer::import(&home, account, terminal),
        MailboxVerb::Remove {
            account,
            as_imported,
        } => transfer::remove(&home, account, as_imported, terminal),
    }
}

/// The mails of one account.
pub struct StoredMail {
    address: Mailbox,
    maildir: PathBuf,
    entries: Vec<Entry>,
}

impl StoredMail {
    /// Lists the mailbox of an account that exists.
    pub fn open(home: &Home, account: &str) -> Result<Self, Fault> {
        let mda: postroad_mda::Config = home.file.section("mda")?;
        let stored = Self::at(&mda.mail_root, address_of(home, account)?)?;
        // Where accounts are asked of the queue, what tells of one is its mailbox.
        match knows_accounts(home) || stored.maildir.exists() {
            true => Ok(stored),
            false => Err(no_mailbox(account)),
        }
    }

    /// Lists the mailbox of an address below a root.
    pub fn at(root: &Path, address: Mailbox) -> Result<Self, Fault> {
        let maildir = maildir_path(
            root,
            address.domain().a_label(),
            address.local_part().as_str(),
        )?;
        let entries = postroad_maildir::list(&maildir)?;
        Ok(Self {
            address,
            maildir,
            entries,
        })
    }

    /// Its mails, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn list(&self, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        if terminal.wants_json() {
            let mails: Vec<_> = self
                .entries
                .iter()
                .map(|entry| Mail::read(entry).json())
                .collect();
            terminal.object(json!({
                "account": self.address.to_string(),
                "maildir": self.maildir,
                "mails": mails,
            }));
            return Ok(());
        }
        if self.entries.is_empty() {
            terminal.say(format_args!(
                "{} has no mail in {}",
                self.address,
                self.maildir.display()
            ));
            return Ok(());
        }
        let mut rows = table(["ID", "RECEIVED", "FROM", "SUBJECT", "SIZE"]);
        for entry in &self.entries {
            let mail = Mail::read(entry);
            rows.add_row([
                Cell::new(one_line(&mail.id, 40)),
                Cell::new(local_time(mail.received)),
                Cell::new(one_line(&mail.from, 40)),
                Cell::new(one_line(&mail.subject, 60)),
                number(mail.size),
            ]);
        }
        terminal.line(lines(&rows));
        Ok(())
    }

    fn show(&self, id: Option<&str>, raw: bool, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
        let entry = self.find(id)?;
        let gone = || Fault::NoMatch("the mail was removed meanwhile".to_owned());
        let octets = postroad_maildir::read(entry)?.ok_or_else(gone)?;
        let text = String::from_utf8_lossy(&octets);
        if terminal.wants_json() {
            let mut object = Mail::parse(entry, &octets).json();
            object["content"] = json!(text);
            terminal.object(object);
        } else if raw {
            terminal.octets(&octets);
        } else {
            terminal.line(harmless(text.trim_end_matches('\n')));
        }
        Ok(())
    }

    /// The mail whose id begins so, or the newest.
    pub fn find(&self, id: Option<&str>) -> Result<&Entry, Fault> {
        let Some(prefix) = id else {
            let none = || Fault::NoMatch(format!("{} has no mail", self.address));
            return self.entries.last().ok_or_else(none);
        };
        let fitting: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|entry| fits(&mail_id(entry), prefix))
            .collect();
        match fitting.as_slice() {
            [entry] => Ok(entry),
            [] => Err(Fault::NoMatch(format!(
                "{} has no mail {prefix}",
                self.address
            ))),
            several => Err(Fault::NotDone(format!(
                "{prefix} fits {} mails; write more of the id",
                several.len()
            ))),
        }
    }
}

fn fits(id: &str, prefix: &str) -> bool {
    id == prefix
        || (prefix.len() >= SHORTEST_PREFIX && id.starts_with(&prefix.to_ascii_lowercase()))
}

/// What can be told of a stored mail.
struct Mail {
    id: String,
    received: Timestamp,
    from: String,
    subject: String,
    size: u64,
    path: PathBuf,
    folder: Option<String>,
    flags: String,
}

impl Mail {
    fn read(entry: &Entry) -> Self {
        let octets = postroad_maildir::read(entry)
            .ok()
            .flatten()
            .unwrap_or_default();
        Self::parse(entry, &octets)
    }

    fn parse(entry: &Entry, octets: &[u8]) -> Self {
        let message = MessageParser::new().parse_headers(octets);
        let from = message
            .as_ref()
            .and_then(|message| message.from()?.first()?.address().map(str::to_owned));
        let subject = message
            .as_ref()
            .and_then(|message| message.subject().map(str::to_owned));
        Self {
            id: mail_id(entry),
            received: Timestamp::from_millis(entry.received_sec.saturating_mul(1000)),
            from: from.unwrap_or_default(),
            subject: subject.unwrap_or_default(),
            size: entry.size,
            path: entry.path.clone(),
            folder: entry.folder.clone(),
            flags: entry.flags.clone(),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "id": self.id,
            "received_at": utc_time(self.received),
            "from": self.from,
            "subject": self.subject,
            "size": self.size,
            "folder": self.folder,
            "flags": self.flags,
            "path": self.path,
        })
    }
}

/// The queue's id, if the name carries one (`<sec>.Q<id>R<index>.<host>`); else the name without its flags.
pub fn mail_id(entry: &Entry) -> String {
    let name = entry.file_name.split(':').next().unwrap_or_default();
    let ours = name
        .split('.')
        .nth(1)
        .and_then(|middle| middle.strip_prefix('Q')?.split_once('R'));
    match ours {
        Some((id, _)) => id.to_owned(),
        None => name.to_owned(),
    }
}

/// Whether the directory is here.
fn knows_accounts(home: &Home) -> bool {
    let common = &home.common;
    common.accounts.from != AccountsFrom::Queue || common.directory.exists()
}

/// The address of an account; where the directory is not here, whatever is one.
fn address_of(home: &Home, account: &str) -> Result<Mailbox, Fault> {
    if knows_accounts(home) {
        return whose(&home.directory()?, account);
    }
    let domain = home.common.domain().clone();
    named(account, Some(domain)).ok_or_else(|| no_mailbox(account))
}

fn no_mailbox(account: &str) -> Fault {
    Fault::NoMatch(format!("there is no mailbox of {account} here"))
}

/// The address as it is, or the local part in this domain.
fn named(account: &str, domain: Option<Domain>) -> Option<Mailbox> {
    match account.contains('@') {
        true => Mailbox::parse(account).ok(),
        false => LocalPart::parse(account)
            .ok()
            .zip(domain)
            .map(|(local, domain)| Mailbox::new(local, domain)),
    }
}

/// The account by its address, or by its local part in the first domain.
fn whose(directory: &Directory, account: &str) -> Result<Mailbox, Fault> {
    let address = named(account, primary(directory));
    let known = address
        .as_ref()
        .and_then(|address| directory.account(address));
    known.map(|account| account.address.clone()).ok_or_else(|| {
        let all: Vec<String> = directory
            .accounts()
            .iter()
            .map(|account| account.address.to_string())
            .take(10)
            .collect();
        Fault::NoMatch(format!(
            "there is no account {account}; there are {}",
            all.join(", ")
        ))
    })
}

fn primary(directory: &Directory) -> Option<Domain> {
    directory.primary_domain().map(|domain| domain.name.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mailbox(names: &[&str]) -> (tempfile::TempDir, StoredMail) {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("demo.test/bob/Maildir/new");
        fs::create_dir_all(&new).unwrap();
        for name in names {
            fs::write(
                new.join(name),
                "From: Al <al@a.test>\nSubject: hi\n\nbody\n",
            )
            .unwrap();
        }
        let mail = StoredMail::at(root.path(), Mailbox::parse("Bob@demo.test").unwrap()).unwrap();
        (root, mail)
    }

    #[test]
    fn a_mail_is_found_by_the_beginning_of_its_id() {
        let (_root, mail) = mailbox(&[
            "1700000001.Q06dkw3q4hr0000000000000001R0.host,S=9",
            "1700000002.Q06dkw3q4hr0000000000000002R0.host,S=9",
            "1700000003.foreign.host",
        ]);
        assert_eq!(mail_id(mail.find(None).unwrap()), "1700000003.foreign.host");
        let one = mail.find(Some("06DKW3Q4HR0000000000000001")).unwrap();
        assert_eq!(one.received_sec, 1_700_000_001);
        let status = |id| mail.find(Some(id)).unwrap_err().status();
        assert_eq!(status("06dkw3q4"), 1);
        assert_eq!(status("06dkw3q"), 3);
        assert_eq!(status("zzzzzzzz"), 3);
    }

    #[test]
    fn headers_are_told() {
        let (_root, mail) = mailbox(&["1700000001.Q06dkw3q4hr0000000000000001R0.host,S=9"]);
        let told = Mail::read(&mail.entries[0]);
        assert_eq!(
            (told.from.as_str(), told.subject.as_str(), told.size),
            ("al@a.test", "hi", 39)
        );
    }
}
