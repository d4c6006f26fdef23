//! Looking at a journal without changing anything in its folder: for tools, also on a damaged or read-only disk.
use crate::{
    error::Result,
    folder::{Folder, Formats},
    reader::{Reader, Shared},
    record::Recovery,
    recovery::{Mode, recover},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

const OPEN_FILES: usize = 2;

/// A journal that is only read. While it lives nobody else can open the folder, if that has a lock file.
#[derive(Debug)]
pub struct Inspection {
    reader: Reader,
    recovery: Recovery,
    root: PathBuf,
    /// Or what is wrong with the FORMAT file.
    format: std::result::Result<u32, String>,
    lock: Option<File>,
}

impl Inspection {
    /// Finds the log in `folder`. [`crate::JournalError::Locked`]: a process has it open. [`crate::JournalError::Format`]: it holds no
    /// journal. [`crate::JournalError::LaterFormat`]: one of a later release. A FORMAT file that says nothing sensible is no reason to
    /// give up.
    pub fn open(folder: &Path, formats: Formats) -> Result<Self> {
        let (folder, lock) = Folder::look(folder)?;
        Self::of(folder, formats, lock)
    }

    /// The same for a journal of this very process that runs on: what is being written at this moment may look torn.
    pub fn beside(folder: &Path, formats: Formats) -> Result<Self> {
        Self::of(Folder::at(folder), formats, None)
    }

    fn of(folder: Folder, formats: Formats, lock: Option<File>) -> Result<Self> {
        let format = folder.format(formats)?;
        let root = folder.root().to_owned();
        // Headers that cannot be read get a salt that no record was written under; which one does not matter here.
        let entropy: crate::Entropy = Arc::new(|bytes| bytes.fill(0xa5));
        let found = recover(&folder, &entropy, Mode::LookOnly)?;
        let shared = Shared::new(folder, found.segments, OPEN_FILES).looking_only();
        Ok(Self {
            reader: Reader {
                shared: Arc::new(shared),
            },
            recovery: found.report,
            root,
            format,
            lock,
        })
    }

    /// Reads its records. Damage is told and not copied anywhere.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// What an opening would find.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What is wrong with the FORMAT file.
    pub fn format_problem(&self) -> Option<&str> {
        self.format.as_ref().err().map(String::as_str)
    }

    /// The format of the folder, if its FORMAT file says one.
    pub fn format(&self) -> Option<u32> {
        self.format.as_ref().ok().copied()
    }

    /// Puts it into another format, durably, and changes nothing else: what was written stays readable as it is.
    pub fn set_format(&mut self, format: u32) -> Result<()> {
        let folder = Folder::at(&self.root);
        if self.lock.is_none() {
            self.lock = Some(folder.make_lock()?);
        }
        folder.write_format(format)?;
        self.format = Ok(format);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Journal, JournalError, Lsn, Options, RecordDraft, RecordKind};
    use std::{fs, ops::ControlFlow};

    const KNOWN: Formats = Formats {
        oldest: 1,
        newest: 1,
    };

    fn journal(folder: &Path) -> Journal {
        let options = Options {
            segment_bytes: 4096,
            prepare_ahead: 0,
            open_files: 2,
            ..Options::default()
        };
        let entropy: crate::Entropy = Arc::new(|bytes| bytes.fill(0x5a));
        Journal::open(folder, options, entropy).unwrap().0
    }

    fn texts(reader: &Reader) -> (Vec<String>, usize) {
        let mut seen = Vec::new();
        let replay = reader.replay(Lsn(0), |record| {
            seen.push(String::from_utf8_lossy(record.payload).into_owned());
            ControlFlow::Continue(())
        });
        (seen, replay.unwrap().damage.len())
    }

    fn listing(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(listing(&path));
            }
            found.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
        found.sort();
        found
    }

    #[test]
    fn looking_changes_nothing_and_keeps_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut open = journal(folder.path());
        for text in ["one", "two", "three"] {
            open.append_group(&[RecordDraft::new(RecordKind(1), text)])
                .unwrap();
        }
        assert!(matches!(
            Inspection::open(folder.path(), KNOWN),
            Err(JournalError::Locked { .. })
        ));
        let beside = Inspection::beside(folder.path(), KNOWN).unwrap();
        assert_eq!(texts(&beside.reader()).0, ["one", "two", "three"]);
        drop(open);
        // Damage in the middle.
        let path = folder.path().join("segments/0000000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|found| found == b"two").unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let before = listing(folder.path());
        let look = Inspection::open(folder.path(), KNOWN).unwrap();
        let (seen, damaged) = texts(&look.reader());
        assert_eq!((seen.len(), damaged), (2, 1));
        assert_eq!(look.format_problem(), None);
        assert_eq!(listing(folder.path()), before);
        drop(look);
        fs::write(folder.path().join("FORMAT"), "rubbish").unwrap();
        let look = Inspection::open(folder.path(), KNOWN).unwrap();
        assert!(look.format_problem().is_some());
        drop(look);
        fs::write(folder.path().join("FORMAT"), "postroad-journal 2\n").unwrap();
        assert!(matches!(
            Inspection::open(folder.path(), KNOWN),
            Err(JournalError::LaterFormat {
                format: 2,
                newest: 1,
                ..
            })
        ));
    }

    #[test]
    fn a_folder_changes_its_format_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut open = journal(folder.path());
        assert_eq!(open.format(), 1);
        open.append_group(&[RecordDraft::new(RecordKind(1), "one")])
            .unwrap();
        drop(open);
        let both = Formats {
            oldest: 1,
            newest: 2,
        };
        let mut look = Inspection::open(folder.path(), both).unwrap();
        assert_eq!(look.format(), Some(1));
        look.set_format(2).unwrap();
        assert_eq!(look.format(), Some(2));
        assert!(
            Inspection::open(folder.path(), both).is_err(),
            "still locked"
        );
        drop(look);
        let text = fs::read_to_string(folder.path().join("FORMAT")).unwrap();
        assert_eq!(text, "postroad-journal 2\n");
        let look = Inspection::open(folder.path(), both).unwrap();
        assert_eq!(texts(&look.reader()).0, ["one"]);
    }
}
