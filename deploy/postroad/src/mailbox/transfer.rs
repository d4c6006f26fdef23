//! `postroad mailbox export|import|remove`: a mailbox moves to another store.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use postroad_address::Mailbox;
use postroad_maildir::{TransferError, maildir_path};
use serde_json::{Value, json};

use super::{address_of, knows_accounts, no_mailbox};
use crate::fault::Fault;
use crate::home::Home;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// Octets on their way through a pipe.
const BUFFER: usize = 256 * 1024;

/// A mailbox of this store.
struct Place {
    address: Mailbox,
    maildir: PathBuf,
    mda: postroad_mda::Config,
}

impl Place {
    fn of(home: &Home, account: &str) -> Result<Self, Fault> {
        let mda: postroad_mda::Config = home.file.section("mda")?;
        let address = address_of(home, account)?;
        let (domain, local_part) = (address.domain().a_label(), address.local_part().as_str());
        let maildir = maildir_path(&mda.mail_root, domain, local_part)?;
        Ok(Self {
            address,
            maildir,
            mda,
        })
    }

    /// Files of another user's would be no use to the delivery agent.
    fn must_be_ours(&self) -> Result<(), Fault> {
        let root = &self.mda.mail_root;
        let (Ok(us), Ok(root_of)) = (fs::metadata("/proc/self"), fs::metadata(root)) else {
            return Ok(());
        };
        if us.uid() == root_of.uid() {
            return Ok(());
        }
        Err(Fault::NotDone(format!(
            "{} belongs to another user (number {}); do this as that one, such as with: sudo -u postroad-mda",
            root.display(),
            root_of.uid()
        )))
    }
}

/// The stream goes to standard output, what was done is told beside it.
pub fn export(home: &Home, account: &str, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let place = Place::of(home, account)?;
    if !place.maildir.exists() {
        return Err(no_mailbox(account));
    }
    let to = "| ssh NEW-HOST postroad mailbox import ADDRESS > RECEIPT";
    not_to_a_person("a mailbox is for a program to read", to)?;
    let (mut total, mut progress) = (0, Progress::new());
    let mut out = BufWriter::with_capacity(BUFFER, terminal.stream());
    let address = place.address.to_string();
    let exported = postroad_maildir::export(
        &place.maildir,
        &address,
        &mut out,
        &mut total,
        &mut |done| progress.count(done, "mails exported"),
    );
    let exported = exported.and_then(|exported| {
        out.flush().map_err(|source| TransferError::Pipe {
            what: "cannot write the stream",
            source,
        })?;
        Ok(exported)
    });
    drop(out);
    progress.clear();
    let exported = exported.map_err(Fault::not_done)?;
    let (mails, octets) = (exported.mails, exported.octets);
    tell(
        terminal,
        json!({
            "account": address, "mails": mails, "octets": octets, "gone": exported.gone,
            "under_way": exported.under_way, "left_out": exported.left_out,
        }),
        format_args!("{mails} mails of {address} are exported, {octets} octets"),
    );
    for path in &exported.left_out {
        terminal.say(format_args!(
            "left out, for its name cannot be told: {path}"
        ));
    }
    if exported.under_way > 0 {
        let count = exported.under_way;
        terminal.say(format_args!(
            "{count} files are in tmp: mails that are being filed, or what an agent left that was killed"
        ));
    }
    match exported.left_out.len() {
        0 => Ok(()),
        count => Err(Fault::NotDone(format!(
            "{count} files are left out; rename them, and export once more"
        ))),
    }
}

/// The stream comes from standard input, the receipt goes to standard output.
pub fn import(home: &Home, account: &str, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let place = Place::of(home, account)?;
    place.must_be_ours()?;
    let from = io::stdin();
    if from.is_terminal() {
        return Err(Fault::Usage(
            "standard input is to be what `postroad mailbox export` writes".to_owned(),
        ));
    }
    not_to_a_person("the old store needs the receipt", "> RECEIPT")?;
    let mut progress = Progress::new();
    let address = place.address.to_string();
    let imported = postroad_maildir::import(
        &place.maildir,
        &address,
        BufReader::with_capacity(BUFFER, from.lock()),
        terminal.stream(),
        &mut |done| progress.count(done, "mails looked at"),
    );
    progress.clear();
    let imported = imported.map_err(|error| {
        Fault::NotDone(format!(
            "{error}; what came whole before is here: repeat export and import"
        ))
    })?;
    let (mails, known) = (imported.mails, imported.known);
    tell(
        terminal,
        json!({
            "account": address, "mails": mails, "octets": imported.octets, "known": known,
            "left_out": imported.left_out,
        }),
        format_args!("{mails} mails of {address} are imported, {known} were here before"),
    );
    for what in &imported.left_out {
        terminal.say(format_args!("not taken over: {what}"));
    }
    Ok(())
}

/// Only what the receipt names, and says the size and checksum of.
pub fn remove(
    home: &Home,
    account: &str,
    receipt: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let place = Place::of(home, account)?;
    place.must_be_ours()?;
    must_have_moved(home, &place)?;
    let mut progress = Progress::new();
    let address = place.address.to_string();
    let read: Box<dyn io::Read> = match receipt.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(receipt).map_err(|error| {
            Fault::NotDone(format!("cannot read {}: {error}", receipt.display()))
        })?),
    };
    let removed = postroad_maildir::remove(
        &place.maildir,
        &address,
        BufReader::with_capacity(BUFFER, read),
        &mut |done| progress.count(done, "mails looked at"),
    );
    progress.clear();
    let removed = removed.map_err(Fault::not_done)?;
    let (mails, left) = (removed.mails, removed.left);
    if terminal.wants_json() {
        terminal.object(json!({
            "account": address, "mails": mails, "left": left, "under_way": removed.under_way,
        }));
    } else {
        terminal.line(format_args!("{mails} mails of {address} are removed here"));
    }
    if left == 0 {
        return Ok(());
    }
    terminal.say(format_args!(
        "{left} mails are still here, which the receipt does not name: export, import and remove once more"
    ));
    Err(Fault::Told)
}

/// Where the directory is here, it says whether the account is still of this store: then its mail goes on coming here.
fn must_have_moved(home: &Home, place: &Place) -> Result<(), Fault> {
    if !knows_accounts(home) {
        return Ok(());
    }
    let directory = home.directory()?;
    let account = directory.account(&place.address);
    let store = account.map(|account| account.store.as_str());
    if store != Some(place.mda.store.as_str()) {
        return Ok(());
    }
    Err(Fault::NotDone(format!(
        "{} is of this store, {}; first: postroad account move {} --to-store NAME",
        place.address, place.mda.store, place.address
    )))
}

/// Standard output is a stream or a receipt.
fn not_to_a_person(why: &str, to: &str) -> Result<(), Fault> {
    match io::stdout().is_terminal() {
        true => Err(Fault::Usage(format!("{why}: add {to}"))),
        false => Ok(()),
    }
}

/// What was done, on standard error, since standard output is taken.
fn tell(terminal: &mut Terminal<'_>, object: Value, text: impl std::fmt::Display) {
    match terminal.wants_json() {
        true => terminal.say(Terminal::with_schema(object)),
        false => terminal.say(text),
    }
}
