//! The stream between two stores: lines of words parted by tabs, and contents of the length that their line says.
//!
//! ```text
//! postroad-mailbox 1
//! account<TAB>alice@example.org
//! folder<TAB>.Lists.Rust
//! file<TAB>folder<TAB>name<TAB>size<TAB>crc32c                                          + content
//! mail<TAB>folder<TAB>new|cur<TAB>name<TAB>size<TAB>crc32c<TAB>modified ms<TAB>copies   + content
//! end<TAB>mails<TAB>crc32c of all before
//! ```

use std::io::{BufRead, Read, Write};

use super::names::{Leaf, is_folder, is_name};
use super::{PIECE, TransferError};

const MAGIC: &str = "postroad-mailbox 1";
/// Octets of a line: two names and some numbers.
const LONGEST_LINE: u64 = 2048;
/// Files beside the mails that go along.
pub const SUBSCRIPTIONS: &str = "subscriptions";
pub const KEYWORDS: &str = "dovecot-keywords";
/// Octets of such a file.
pub const LARGEST_FILE: u64 = 1 << 20;

/// A mail as the stream announces it; its content follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub folder: String,
    pub leaf: Leaf,
    /// With flags.
    pub name: String,
    pub size: u64,
    pub crc: u32,
    /// When the file was changed last, in ms since 1970: readers show it as the time a mail came.
    pub modified: u64,
    /// Mails of this name in the mailbox, this one included.
    pub copies: u32,
}

/// One part.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Folder(String),
    /// A file beside the mails, whole.
    File {
        folder: String,
        name: &'static str,
        content: Vec<u8>,
    },
    Mail(Mail),
    /// All has come, and so many mails.
    End(u64),
}

/// Writes and sums up.
pub struct Writer<W> {
    out: W,
    crc: u32,
}

impl<W: Write> Writer<W> {
    pub fn begin(out: W, account: &str) -> Result<Self, TransferError> {
        let mut writer = Self { out, crc: 0 };
        writer.line(&[MAGIC])?;
        writer.line(&["account", account])?;
        Ok(writer)
    }

    pub fn folder(&mut self, folder: &str) -> Result<(), TransferError> {
        self.line(&["folder", folder])
    }

    pub fn file(&mut self, folder: &str, name: &str, content: &[u8]) -> Result<(), TransferError> {
        let (size, crc) = (content.len().to_string(), hex(crc32c::crc32c(content)));
        self.line(&["file", folder, name, &size, &crc])?;
        self.octets(content)
    }

    /// The content follows, by [`Writer::octets`].
    pub fn mail(&mut self, mail: &Mail) -> Result<(), TransferError> {
        let (size, crc) = (mail.size.to_string(), hex(mail.crc));
        let (modified, copies) = (mail.modified.to_string(), mail.copies.to_string());
        let leaf = mail.leaf.as_str();
        self.line(&[
            "mail",
            &mail.folder,
            leaf,
            &mail.name,
            &size,
            &crc,
            &modified,
            &copies,
        ])
    }

    pub fn octets(&mut self, octets: &[u8]) -> Result<(), TransferError> {
        self.crc = crc32c::crc32c_append(self.crc, octets);
        self.out.write_all(octets).map_err(TransferError::writing)
    }

    pub fn end(mut self, mails: u64) -> Result<(), TransferError> {
        let crc = hex(self.crc);
        self.line(&["end", &mails.to_string(), &crc])?;
        self.out.flush().map_err(TransferError::writing)
    }

    fn line(&mut self, words: &[&str]) -> Result<(), TransferError> {
        self.octets(format!("{}\n", words.join("\t")).as_bytes())
    }
}

/// Reads, and refuses what cannot be.
pub struct Reader<R> {
    from: R,
    crc: u32,
    /// Whose mailbox it is.
    pub account: String,
}

impl<R: BufRead> Reader<R> {
    pub fn begin(from: R) -> Result<Self, TransferError> {
        let mut reader = Self {
            from,
            crc: 0,
            account: String::new(),
        };
        let (magic, account) = (reader.words()?, reader.words());
        if magic != [MAGIC] {
            return Err(TransferError::damaged(
                "this is no stream of `postroad mailbox export`, or of a later release",
            ));
        }
        match account?.as_slice() {
            [word, account] if word == "account" => reader.account.clone_from(account),
            _ => return Err(damaged()),
        }
        Ok(reader)
    }

    /// The next part. The content of a mail must be taken, by [`Reader::content`], before the one after.
    pub fn next(&mut self) -> Result<Part, TransferError> {
        let crc = self.crc;
        let words = self.words()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["folder", folder] if is_folder(folder) => Ok(Part::Folder((*folder).to_owned())),
            ["file", folder, name, size, sum] => {
                let known = [SUBSCRIPTIONS, KEYWORDS].into_iter();
                let name = known.into_iter().find(|known| known == name);
                let size = number(size)?;
                let (Some(name), true) = (name, is_place(folder) && size <= LARGEST_FILE) else {
                    return Err(damaged());
                };
                let mut content = Vec::new();
                self.content(size, parse_hex(sum)?, &mut |piece| {
                    content.extend_from_slice(piece);
                    Ok(())
                })?;
                Ok(Part::File {
                    folder: (*folder).to_owned(),
                    name,
                    content,
                })
            }
            ["mail", folder, leaf, name, size, sum, modified, copies] => {
                let leaf = Leaf::parse(leaf).ok_or_else(damaged)?;
                if !is_place(folder) || !is_name(name) {
                    return Err(damaged());
                }
                Ok(Part::Mail(Mail {
                    folder: (*folder).to_owned(),
                    leaf,
                    name: (*name).to_owned(),
                    size: number(size)?,
                    crc: parse_hex(sum)?,
                    modified: number(modified)?,
                    copies: u32::try_from(number(copies)?).map_err(|_| damaged())?,
                }))
            }
            ["end", mails, sum] if parse_hex(sum)? == crc => Ok(Part::End(number(mails)?)),
            _ => Err(damaged()),
        }
    }

    /// Gives a content out in pieces; an error at its end if it is not what was announced.
    pub fn content(
        &mut self,
        size: u64,
        crc: u32,
        take: &mut dyn FnMut(&[u8]) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let (mut left, mut sum) = (size, 0);
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let room = piece.get_mut(..most).unwrap_or_default();
            self.from.read_exact(room).map_err(TransferError::reading)?;
            self.crc = crc32c::crc32c_append(self.crc, room);
            sum = crc32c::crc32c_append(sum, room);
            take(room)?;
            left -= most as u64;
        }
        match sum == crc {
            true => Ok(()),
            false => Err(TransferError::damaged("a mail of the stream is damaged")),
        }
    }

    fn words(&mut self) -> Result<Vec<String>, TransferError> {
        let mut line = Vec::new();
        let mut limited = self.from.by_ref().take(LONGEST_LINE);
        limited
            .read_until(b'\n', &mut line)
            .map_err(TransferError::reading)?;
        if line.last() != Some(&b'\n') {
            let at_end = (line.len() as u64) < LONGEST_LINE;
            return Err(match at_end {
                true => TransferError::reading(std::io::ErrorKind::UnexpectedEof.into()),
                false => damaged(),
            });
        }
        self.crc = crc32c::crc32c_append(self.crc, &line);
        line.pop();
        let line = String::from_utf8(line).map_err(|_| damaged())?;
        Ok(line.split('\t').map(ToOwned::to_owned).collect())
    }
}

fn damaged() -> TransferError {
    TransferError::damaged("the stream is damaged, or of a later release")
}

/// The inbox or a folder.
fn is_place(folder: &str) -> bool {
    folder.is_empty() || is_folder(folder)
}

fn number(text: &str) -> Result<u64, TransferError> {
    text.parse().map_err(|_| damaged())
}

pub fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

pub fn parse_hex(text: &str) -> Result<u32, TransferError> {
    u32::from_str_radix(text, 16).map_err(|_| damaged())
}
