//! The mail that waits in a queue of Postfix, for `postroad queue import --postfix`.
//!
//! A folder of a queue (`/var/spool/postfix`, or a copy) has the mails in `active`, `deferred`, `hold` and `incoming`; any other folder
//! has one in each of its files. Files are read one at a time and never changed.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::tz::TimeZone;
use postroad_envelope::{Outcome, RecipientIndex, StatusReport};
use postroad_postfix::mail::{Found, WaitingMail, Zone, read};
use postroad_queue_client::{ContentStream, ImportedMail, ImportedRecipient};

use crate::fault::Fault;

/// Folders of a queue that have whole mails in them, and the one whose mails are named as not taken.
const FOLDERS: [&str; 5] = ["active", "deferred", "hold", "incoming", "maildrop"];
/// Octets of a file at most.
const LONGEST: u64 = 1 << 30;
/// Folders within folders: `hash_queue_depth` is at most 16.
const DEEPEST: u32 = 17;
const PIECE: usize = 64 << 10;
const HELD: &str = "held by Postfix";
const DONE: &str = "Postfix was done with this recipient: it was delivered or returned there";

/// One file.
struct File {
    path: PathBuf,
    folder: Option<&'static str>,
}

/// All mails of a folder.
pub struct PostfixQueue {
    files: VecDeque<File>,
    zone: TimeZone,
    /// How many files there are.
    pub mails: u64,
}

/// What one file came to: its name, and the mail or why there is none.
pub type Read = (
    String,
    Result<(ImportedMail, ContentStream, Vec<&'static str>), String>,
);

impl PostfixQueue {
    /// Lists the files.
    pub fn open(folder: &Path, zone: Option<&str>) -> Result<Self, Fault> {
        let zone = match zone {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                Fault::Usage(format!(
                    "{name} is no time zone that this system knows, such as UTC or Europe/Berlin"
                ))
            })?,
        };
        let mut files = Vec::new();
        let within: Vec<&'static str> = FOLDERS
            .into_iter()
            .filter(|name| folder.join(name).is_dir())
            .collect();
        let own = FOLDERS.into_iter().find(|name| folder.ends_with(name));
        let listed = match within.as_slice() {
            [] => list(
                folder,
                own,
                if own.is_some() { DEEPEST } else { 1 },
                &mut files,
            ),
            some => some
                .iter()
                .try_for_each(|name| list(&folder.join(name), Some(name), DEEPEST, &mut files)),
        };
        listed.map_err(|error| {
            Fault::NotDone(format!("cannot read {}: {error}", folder.display()))
        })?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self {
            mails: u64::try_from(files.len()).unwrap_or(u64::MAX),
            files: files.into(),
            zone,
        })
    }

    /// The next one. Reads its file; blocks.
    pub fn next_mail(&mut self) -> Option<Read> {
        let file = self.files.pop_front()?;
        let name = file
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let found = Found {
            folder: file.folder,
            name: &name,
        };
        let mail = contents(&file.path).map_err(|error| format!("cannot be read: {error}"));
        let mail = mail.and_then(|octets| {
            read(&octets, found, Zone(&self.zone)).map_err(|fault| fault.to_string())
        });
        let shown = mail
            .as_ref()
            .map_or_else(|_| name.clone(), |mail| mail.name.clone());
        Some((shown, mail.map(imported)))
    }
}

fn list(
    folder: &Path,
    named: Option<&'static str>,
    depth: u32,
    files: &mut Vec<File>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            files.push(File {
                path: entry.path(),
                folder: named,
            });
        } else if kind.is_dir() && depth > 1 {
            list(&entry.path(), named, depth - 1, files)?;
        }
    }
    Ok(())
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    match length > LONGEST {
        true => Err(io::Error::other(format!(
            "it is too long ({length} octets)"
        ))),
        false => fs::read(path),
    }
}

fn imported(mail: WaitingMail) -> (ImportedMail, ContentStream, Vec<&'static str>) {
    let crc32c = mail.crc32c();
    let all = mail.envelope.recipients.iter().map(|one| one.index);
    let standing = |index: RecipientIndex| {
        let is_done = mail.done.contains(&index);
        ImportedRecipient {
            index,
            outcome: is_done.then(|| {
                Outcome::Relayed(StatusReport::local(postroad_reply::SUCCESS_2_0_0, DONE))
            }),
            dropped: false,
            owed: false,
            attempts: 0,
            next_attempt: None,
            hold: (mail.held && !is_done).then(|| HELD.to_owned()),
            priority: None,
        }
    };
    let recipients = all.map(standing).collect();
    let content = Bytes::from(mail.content);
    let pieces = (0..content.len()).step_by(PIECE).map(move |at| {
        let end = at.saturating_add(PIECE).min(content.len());
        Ok(content.slice(at..end))
    });
    let remarks = mail.remarks;
    let imported = ImportedMail {
        envelope: mail.envelope,
        crc32c,
        recipients,
        by: String::new(),
        dry_run: false,
    };
    (imported, stream::iter(pieces).boxed(), remarks)
}
