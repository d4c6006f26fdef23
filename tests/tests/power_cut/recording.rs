//! What `recorder.c` wrote down: every change of files below a folder, and what was told, in one order.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};

/// The source of the library that is preloaded.
pub const LIBRARY: &[u8] = include_bytes!("recorder.c");

/// One thing that happened. Names are relative to the folder; files are known by their inode.
#[derive(Debug, Clone)]
pub enum Entry {
    Create {
        inode: u64,
        name: String,
    },
    Resize {
        inode: u64,
        size: u64,
    },
    Write {
        inode: u64,
        at: u64,
        octets: Arc<[u8]>,
    },
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    MakeFolder {
        name: String,
    },
    SyncFile {
        inode: u64,
    },
    SyncFolder {
        name: String,
    },
    SyncAll,
    Told {
        line: String,
    },
}

impl Entry {
    /// For a person; without octets.
    pub fn describe(&self) -> String {
        match self {
            Self::Write { inode, at, octets } => {
                format!("write of {} octets at {at} to inode {inode}", octets.len())
            }
            other => format!("{other:?}"),
        }
    }
}

/// All entries. The last one may be cut short, for the process may have ended in the middle of it; it never told of it.
pub fn read(log: &Path) -> Result<Vec<Entry>> {
    let log = fs::read(log).context("the recorder wrote nothing")?;
    let mut rest = &log[..];
    let mut entries = Vec::new();
    while let Some(entry) = next(&mut rest)? {
        entries.push(entry);
    }
    Ok(entries)
}

fn next(rest: &mut &[u8]) -> Result<Option<Entry>> {
    let mut number = |width: usize| {
        let (number, after) = rest.split_at_checked(width)?;
        *rest = after;
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(number);
        Some(u64::from_le_bytes(wide))
    };
    let mut head = || Some((number(8)?, number(8)?, number(8)?, number(4)?, number(4)?));
    let Some((kind, inode, at, first, second)) = head() else {
        return Ok(None);
    };
    let (first, second) = (usize::try_from(first)?, usize::try_from(second)?);
    let Some((texts, after)) = rest.split_at_checked(first + second) else {
        return Ok(None);
    };
    *rest = after;
    let (first, second) = texts.split_at(first);
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec());
    Ok(Some(match u8::try_from(kind)? {
        b'C' => Entry::Create {
            inode,
            name: text(first)?,
        },
        b'T' => Entry::Resize { inode, size: at },
        b'W' => Entry::Write {
            inode,
            at,
            octets: first.into(),
        },
        b'Z' => {
            let len = first.try_into().map(u64::from_le_bytes)?;
            Entry::Write {
                inode,
                at,
                octets: vec![0; usize::try_from(len)?].into(),
            }
        }
        b'R' => Entry::Rename {
            from: text(first)?,
            to: text(second)?,
        },
        b'L' => Entry::Link {
            from: text(first)?,
            to: text(second)?,
        },
        b'U' => Entry::Remove { name: text(first)? },
        b'M' => Entry::MakeFolder { name: text(first)? },
        b'S' => Entry::SyncFile { inode },
        b'F' => Entry::SyncFolder { name: text(first)? },
        b'A' => Entry::SyncAll,
        b'P' => Entry::Told { line: text(first)? },
        b'X' => bail!("a call was not recorded: {}", text(first)?),
        other => bail!("what is an entry {:?}?", char::from(other)),
    }))
}
