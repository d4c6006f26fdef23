//! A mailbox as a stream.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::names::{Leaf, Listed, Listing, folder_path};
use super::stream::{KEYWORDS, LARGEST_FILE, Mail, SUBSCRIPTIONS, Writer};
use super::{PIECE, Progress, TransferError, exists, lock};
use crate::MaildirError;
use crate::disk::if_there;
use crate::error::at;

/// What went into a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Mails.
    pub mails: u64,
    /// Octets of these.
    pub octets: u64,
    /// Mails that readers removed, or moved to another folder, meanwhile.
    pub gone: u64,
    /// Files in tmp: mails that the delivery agent is just filing, which are for the next export, or left by one that was killed.
    pub under_way: u64,
    /// What has no name that can be told, and is left here.
    pub left_out: Vec<String>,
}

/// Writes all of a mailbox (`…/Maildir`) of an account. Changes nothing in it. `total` is told how many mails there are.
pub fn export(
    maildir: &Path,
    account: &str,
    out: impl Write,
    total: &mut u64,
    progress: Progress<'_>,
) -> Result<Exported, TransferError> {
    let mut exported = Exported::default();
    let mut writer = Writer::begin(out, account)?;
    if !exists(maildir) {
        writer.end(0)?;
        return Ok(exported);
    }
    let _turn = lock(maildir)?;
    let listing = Listing::of(maildir)?;
    *total = listing.mails.len() as u64;
    for folder in &listing.folders {
        if !folder.is_empty() {
            writer.folder(folder)?;
        }
        for name in [SUBSCRIPTIONS, KEYWORDS] {
            if let Some(content) = small_file(&folder_path(maildir, folder).join(name))? {
                writer.file(folder, name, &content)?;
            }
        }
    }
    let copies = listing.copies();
    for listed in &listing.mails {
        let Some((now, file)) = open(maildir, listed)? else {
            exported.gone += 1;
            continue;
        };
        let copies = copies.get(listed.base()).copied().unwrap_or(1);
        exported.octets += send(&mut writer, maildir, &now, file, copies)?;
        exported.mails += 1;
        progress(exported.mails);
    }
    exported.under_way = listing.under_way;
    let left_out = listing.odd.iter().map(|path| path.display().to_string());
    exported.left_out = left_out.collect();
    writer.end(exported.mails)?;
    Ok(exported)
}

/// A file beside the mails; none if it is not there, or larger than any reader writes it.
fn small_file(path: &Path) -> Result<Option<Vec<u8>>, MaildirError> {
    let meta = if_there(fs::metadata(path)).map_err(at("look at", path))?;
    match meta {
        Some(meta) if meta.is_file() && meta.len() <= LARGEST_FILE => {
            let content = if_there(fs::read(path)).map_err(at("read", path))?;
            Ok(content.filter(|content| content.len() as u64 <= LARGEST_FILE))
        }
        _ => Ok(None),
    }
}

/// Opens a mail under the name it has now; none: it has left its folder. Readers rename it when flags change.
fn open(maildir: &Path, listed: &Listed) -> Result<Option<(Listed, File)>, MaildirError> {
    let path = listed.path(maildir);
    if let Some(file) = if_there(File::open(&path)).map_err(at("open", &path))? {
        return Ok(Some((listed.clone(), file)));
    }
    for leaf in [Leaf::New, Leaf::Cur] {
        let folder = folder_path(maildir, &listed.folder).join(leaf.as_str());
        for entry in if_there(fs::read_dir(&folder))
            .map_err(at("list", &folder))?
            .into_iter()
            .flatten()
        {
            let name = entry.map_err(at("list", &folder))?.file_name();
            let Some(name) = name
                .to_str()
                .filter(|name| super::names::base(name) == listed.base())
            else {
                continue;
            };
            let now = Listed {
                folder: listed.folder.clone(),
                name: name.to_owned(),
                leaf,
            };
            let path = now.path(maildir);
            let file = if_there(File::open(&path)).map_err(at("open", &path))?;
            return Ok(file.map(|file| (now, file)));
        }
    }
    Ok(None)
}

/// Reads it twice, so that the checksum stands before the content; tells its octets.
fn send<W: Write>(
    writer: &mut Writer<W>,
    maildir: &Path,
    mail: &Listed,
    mut file: File,
    copies: u32,
) -> Result<u64, TransferError> {
    let path = mail.path(maildir);
    let reading = |error: io::Error| TransferError::from(at("read", &path)(error));
    let modified = file
        .metadata()
        .and_then(|meta| meta.modified())
        .map_err(reading)?;
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut size, mut crc) = (0, 0);
    each_piece(&mut file, &mut |piece| {
        size += piece.len() as u64;
        crc = crc32c::crc32c_append(crc, piece);
        Ok(())
    })
    .map_err(|failed| failed.of(reading))?;
    file.rewind().map_err(reading)?;
    writer.mail(&Mail {
        folder: mail.folder.clone(),
        leaf: mail.leaf,
        name: mail.name.clone(),
        size,
        crc,
        modified: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        copies,
    })?;
    let (mut sent, mut sum) = (0, 0);
    each_piece(&mut file, &mut |piece| {
        sent += piece.len() as u64;
        sum = crc32c::crc32c_append(sum, piece);
        writer.octets(piece)
    })
    .map_err(|failed| failed.of(reading))?;
    match (sent, sum) == (size, crc) {
        true => Ok(size),
        false => Err(TransferError::damaged(format!(
            "{} was changed while it was read: mails of a Maildir never change; repeat the export",
            path.display()
        ))),
    }
}

enum Failed {
    Reading(io::Error),
    Taking(TransferError),
}

impl Failed {
    fn of(self, reading: impl FnOnce(io::Error) -> TransferError) -> TransferError {
        match self {
            Self::Reading(error) => reading(error),
            Self::Taking(error) => error,
        }
    }
}

fn each_piece(
    file: &mut File,
    take: &mut dyn FnMut(&[u8]) -> Result<(), TransferError>,
) -> Result<(), Failed> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => take(piece.get(..read).unwrap_or_default()).map_err(Failed::Taking)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::Reading(error)),
        }
    }
}
