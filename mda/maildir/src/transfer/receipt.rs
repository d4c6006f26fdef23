//! What an import says is durable, so that the other store may remove it.
//!
//! ```text
//! postroad-receipt 1
//! account<TAB>alice@example.org
//! mail<TAB>folder<TAB>name without flags<TAB>size<TAB>crc32c
//! end<TAB>mails<TAB>crc32c of all before
//! ```

use std::io::{BufRead, Read as _, Write};

use super::TransferError;
use super::log::{Known, Set};
use super::stream::{hex, parse_hex};

const MAGIC: &str = "postroad-receipt 1";
const LONGEST_LINE: u64 = 2048;

/// Writes one.
pub struct Writer<W> {
    out: W,
    crc: u32,
    mails: u64,
}

impl<W: Write> Writer<W> {
    pub fn begin(out: W, account: &str) -> Result<Self, TransferError> {
        let mut writer = Self {
            out,
            crc: 0,
            mails: 0,
        };
        writer.write(&format!("{MAGIC}\naccount\t{account}\n"))?;
        Ok(writer)
    }

    /// These are durable.
    pub fn mails(&mut self, mails: &[Known]) -> Result<(), TransferError> {
        self.mails += mails.len() as u64;
        let lines: String = mails.iter().map(Known::line).collect();
        self.write(&lines)
    }

    pub fn end(mut self) -> Result<(), TransferError> {
        let line = format!("end\t{}\t{}\n", self.mails, hex(self.crc));
        self.write(&line)
    }

    fn write(&mut self, text: &str) -> Result<(), TransferError> {
        self.crc = crc32c::crc32c_append(self.crc, text.as_bytes());
        let written = self.out.write_all(text.as_bytes());
        let written = written.and_then(|()| self.out.flush());
        written.map_err(|source| TransferError::Pipe {
            what: "cannot write the receipt",
            source,
        })
    }
}

/// Reads one, to its end.
pub fn read(mut from: impl BufRead, account: &str) -> Result<Set, TransferError> {
    let bad =
        || TransferError::damaged("the receipt is none of `postroad mailbox import`, or damaged");
    let cut = || TransferError::damaged("the receipt was cut: repeat export and import");
    let (mut set, mut crc, mut mails, mut lines) = (Set::default(), 0, 0_u64, 0_u64);
    loop {
        let (before, mut line) = (crc, String::new());
        let read = from.by_ref().take(LONGEST_LINE).read_line(&mut line);
        let read = read.map_err(|source| TransferError::Pipe {
            what: "cannot read the receipt",
            source,
        })?;
        crc = crc32c::crc32c_append(crc, line.as_bytes());
        let line = line.strip_suffix('\n').ok_or_else(|| match read as u64 {
            LONGEST_LINE => bad(),
            _ => cut(),
        })?;
        let words: Vec<&str> = line.split('\t').collect();
        match (lines, words.as_slice()) {
            (0, [MAGIC]) => {}
            (1, ["account", theirs]) if same_account(theirs, account) => {}
            (1, ["account", theirs]) => {
                return Err(TransferError::OtherAccount {
                    theirs: (*theirs).to_owned(),
                    ours: account.to_owned(),
                });
            }
            (2.., ["end", count, sum]) => {
                let whole =
                    count.parse() == Ok(mails) && parse_hex(sum).is_ok_and(|sum| sum == before);
                return if whole { Ok(set) } else { Err(bad()) };
            }
            (2.., ["mail", ..]) => {
                set.insert(Known::parse(line).ok_or_else(bad)?);
                mails += 1;
            }
            _ => return Err(bad()),
        }
        lines += 1;
    }
}

/// Addresses of one mailbox.
pub fn same_account(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}
