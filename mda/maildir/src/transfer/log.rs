//! What was imported into a mailbox, so that a repeated import brings nothing back that a reader has moved or removed since.
//! A file in the mailbox, so that it goes with it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::TransferError;
use super::names::{is_folder, is_name};
use super::stream::{hex, parse_hex};
use crate::disk::{if_there, sync_folder};
use crate::error::at;

const NAME: &str = "postroad-imported";

/// A mail as it was in the store it came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Known {
    pub folder: String,
    /// Its name without flags.
    pub base: String,
    pub size: u64,
    pub crc: u32,
}

impl Known {
    pub fn line(&self) -> String {
        let Self {
            folder,
            base,
            size,
            crc,
        } = self;
        format!("mail\t{folder}\t{base}\t{size}\t{}\n", hex(*crc))
    }

    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split('\t').collect();
        let ["mail", folder, base, size, crc] = words.as_slice() else {
            return None;
        };
        let names = (folder.is_empty() || is_folder(folder)) && is_name(base);
        Some(Self {
            folder: (*folder).to_owned(),
            base: (*base).to_owned(),
            size: size.parse().ok()?,
            crc: parse_hex(crc).ok()?,
        })
        .filter(|_| names)
    }

    /// Whether both are one mail. A name that stands for one mail alone stands for it in whatever folder it is now.
    pub fn is(&self, other: &Self, copies: u32) -> bool {
        (&self.base, self.size, self.crc) == (&other.base, other.size, other.crc)
            && (copies < 2 || self.folder == other.folder)
    }
}

/// Mails by their names.
#[derive(Debug, Default)]
pub struct Set(HashMap<String, Vec<Known>>);

impl Set {
    pub fn insert(&mut self, known: Known) {
        let of_name = self.0.entry(known.base.clone()).or_default();
        if !of_name.contains(&known) {
            of_name.push(known);
        }
    }

    pub fn has(&self, mail: &Known, copies: u32) -> bool {
        let of_name = self.0.get(&mail.base);
        of_name.is_some_and(|all| all.iter().any(|known| known.is(mail, copies)))
    }

    pub fn has_name(&self, base: &str) -> bool {
        self.0.contains_key(base)
    }
}

/// The list of a mailbox, to be added to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    pub all: Set,
}

impl Log {
    /// Reads it; made when missing. What a crash left of a line is cut off: nobody was told of it.
    pub fn open(maildir: &Path) -> Result<Self, TransferError> {
        let path = maildir.join(NAME);
        let text = if_there(fs::read(&path)).map_err(at("read", &path))?;
        let text = text.unwrap_or_default();
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        let mut all = Set::default();
        for known in lines(text.get(..whole).unwrap_or_default()) {
            all.insert(known);
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(at("open", &path))?;
        file.set_len(whole as u64).map_err(at("write", &path))?;
        Ok(Self { path, file, all })
    }

    /// Durable when this returns.
    pub fn add(&mut self, mails: &[Known]) -> Result<(), TransferError> {
        let lines: String = mails.iter().map(Known::line).collect();
        let written = self.file.write_all(lines.as_bytes());
        written.map_err(at("write", &self.path))?;
        self.file.sync_all().map_err(at("sync", &self.path))?;
        for mail in mails {
            self.all.insert(mail.clone());
        }
        Ok(())
    }

    /// Forgets mails by their names, durably: they leave this store, and may come back to it one day.
    pub fn forget(maildir: &Path, bases: &HashSet<&str>) -> Result<(), TransferError> {
        let path = maildir.join(NAME);
        let Some(text) = if_there(fs::read(&path)).map_err(at("read", &path))? else {
            return Ok(());
        };
        let kept = lines(&text).filter(|known| !bases.contains(known.base.as_str()));
        let kept: String = kept.map(|known| known.line()).collect();
        let new = maildir.join(format!("{NAME}.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&new).and_then(|mut file| {
            file.write_all(kept.as_bytes())?;
            file.sync_all()
        });
        written.map_err(at("write", &new))?;
        fs::rename(&new, &path).map_err(at("rename to", &path))?;
        Ok(sync_folder(maildir)?)
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = Known> {
    let lines = text.split(|&byte| byte == b'\n');
    lines.filter_map(|line| Known::parse(std::str::from_utf8(line).ok()?))
}
