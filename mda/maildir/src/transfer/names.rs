//! Names in a mailbox: what may stand in a stream, and what a mailbox has.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::TransferError;
use crate::disk::if_there;
use crate::error::at;
use crate::path::is_our_tmp_name;

/// The most a file name may have.
const NAME_MAX: usize = 255;

/// Whether readers have seen that there is a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leaf {
    New,
    Cur,
}

impl Leaf {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Cur => "cur",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::New, Self::Cur]
            .into_iter()
            .find(|leaf| leaf.as_str() == text)
    }
}

/// A mail of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Empty: the inbox; else as on disk, `.Lists.Rust`.
    pub folder: String,
    /// With flags.
    pub name: String,
    pub leaf: Leaf,
}

impl Listed {
    /// The name without flags, which never changes.
    pub fn base(&self) -> &str {
        base(&self.name)
    }

    pub fn path(&self, maildir: &Path) -> PathBuf {
        folder_path(maildir, &self.folder)
            .join(self.leaf.as_str())
            .join(&self.name)
    }
}

/// What a mailbox has.
#[derive(Debug, Default)]
pub struct Listing {
    /// As on disk; the inbox first.
    pub folders: Vec<String>,
    pub mails: Vec<Listed>,
    /// Files of the delivery agent in tmp.
    pub under_way: u64,
    /// Files that cannot be told by a name.
    pub odd: Vec<PathBuf>,
}

impl Listing {
    /// All of a mailbox. A mail that a reader moves meanwhile may be listed in neither place; never in both.
    pub fn of(maildir: &Path) -> Result<Self, TransferError> {
        let mut listing = Self {
            folders: vec![String::new()],
            ..Self::default()
        };
        for entry in fs::read_dir(maildir).map_err(at("list", maildir))? {
            let entry = entry.map_err(at("list", maildir))?;
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match entry.file_name().into_string() {
                Ok(name) if is_folder(&name) => listing.folders.push(name),
                Ok(name) if !name.starts_with('.') => {}
                _ => listing.odd.push(entry.path()),
            }
        }
        listing.folders.sort_unstable();
        for folder in listing.folders.clone() {
            listing.add(maildir, &folder)?;
        }
        // What was moved from new to cur while this looked is where it was seen last.
        let place = |mail: &Listed| (mail.folder.clone(), mail.base().to_owned(), mail.leaf);
        listing.mails.sort_by_cached_key(place);
        listing.mails.reverse();
        listing
            .mails
            .dedup_by(|one, other| one.folder == other.folder && one.base() == other.base());
        listing.mails.reverse();
        Ok(listing)
    }

    fn add(&mut self, maildir: &Path, folder: &str) -> Result<(), TransferError> {
        for leaf in [Leaf::New, Leaf::Cur] {
            let path = folder_path(maildir, folder).join(leaf.as_str());
            let entries = if_there(fs::read_dir(&path)).map_err(at("list", &path))?;
            for entry in entries.into_iter().flatten() {
                let entry = entry.map_err(at("list", &path))?;
                match entry.file_name().into_string() {
                    Ok(name) if name.starts_with('.') => {}
                    Ok(name) if is_name(&name) => self.mails.push(Listed {
                        folder: folder.to_owned(),
                        name,
                        leaf,
                    }),
                    _ => self.odd.push(entry.path()),
                }
            }
        }
        let tmp = folder_path(maildir, folder).join("tmp");
        let entries = if_there(fs::read_dir(&tmp)).map_err(at("list", &tmp))?;
        for entry in entries.into_iter().flatten() {
            let name = entry.map_err(at("list", &tmp))?.file_name();
            self.under_way += u64::from(name.to_str().is_some_and(is_our_tmp_name));
        }
        Ok(())
    }

    /// How many mails have each name: more than one only where a reader copies a mail under its name.
    pub fn copies(&self) -> HashMap<&str, u32> {
        let mut copies = HashMap::new();
        for mail in &self.mails {
            *copies.entry(mail.base()).or_default() += 1;
        }
        copies
    }
}

/// The name without flags.
pub fn base(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// What our own names say: queue id and recipient, `Q…R…`.
pub fn delivery(base: &str) -> Option<&str> {
    let middle = base.split('.').nth(1)?;
    let (id, index) = middle.strip_prefix('Q')?.split_once('R')?;
    let plain =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain(id) && plain(index)).then_some(middle)
}

/// Another name for a mail whose own is taken by a mail that is not the same.
pub fn instead(name: &str, crc: u32) -> String {
    let end = name.find([',', ':']).unwrap_or(name.len());
    let (front, rest) = name.split_at(end);
    format!("{front}_{crc:08x}{rest}")
}

pub fn folder_path(maildir: &Path, folder: &str) -> PathBuf {
    match folder {
        "" => maildir.to_owned(),
        folder => maildir.join(folder),
    }
}

/// A Maildir++ folder as on disk: `.Lists.Rust`. Nothing else is one, so no name leads out of a mailbox.
pub fn is_folder(name: &str) -> bool {
    name.strip_prefix('.')
        .is_some_and(|levels| levels.split('.').all(|level| !level.is_empty()))
        && is_plain(name)
}

/// A mail's file name.
pub fn is_name(name: &str) -> bool {
    !name.starts_with('.') && is_plain(name) && !base(name).is_empty()
}

fn is_plain(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !name.contains('/')
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_a_mailbox() {
        let long = "x".repeat(256);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            ".a",
            "a\0",
            "a\tb",
            "a\n",
            ":2,S",
            &long,
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for bad in [
            "", ".", "..", "...", ".a..b", ".a.", "a", "./a", ".a/b", ".a/../b", ".\0",
        ] {
            assert!(!is_folder(bad), "{bad:?}");
        }
        assert!(is_folder(".Lists.B&APw-cher") && is_name("1.Qa1R0.h,S=3:2,S") && is_name("ü"));
    }

    #[test]
    fn names_tell_what_they_are_of() {
        assert_eq!(base("1.Qa1R0.h,S=3:2,S"), "1.Qa1R0.h,S=3");
        assert_eq!(delivery("1.Qa1R0.h,S=3"), Some("Qa1R0"));
        assert_eq!(delivery("1.M2P3.h"), None);
        assert_eq!(delivery("1.QxR.h"), None);
        assert_eq!(instead("1.M2.h,S=3:2,S", 0xab), "1.M2.h_000000ab,S=3:2,S");
        assert_eq!(instead("x", 1), "x_00000001");
    }
}
