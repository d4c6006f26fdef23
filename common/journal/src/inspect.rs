//! Looking at a journal without changing anything in its folder: for tools, also on a damaged or read-only disk.
use crate::{
    error::{JournalError, Result},
    folder::Folder,
    format::VERSION,
    reader::{Reader, Shared},
    record::Recovery,
    recovery::{Mode, recover},
};
use std::{fs::File, path::Path, sync::Arc};

const OPEN_FILES: usize = 2;

/// A journal that is only read. While it lives nobody else can open the folder, if that has a lock file.
#[derive(Debug)]
pub struct Inspection {
    reader: Reader,
    recovery: Recovery,
    format_problem: Option<String>,
    _lock: Option<File>,
}

impl Inspection {
    /// Finds the log in `folder`. [`JournalError::Locked`]: a process has it open. [`JournalError::Format`]: it holds no
    /// journal, or one of a later release; a FORMAT file that says nothing sensible is no reason to give up.
    pub fn open(folder: &Path) -> Result<Self> {
        let (folder, lock) = Folder::look(folder)?;
        Self::of(folder, lock)
    }

    /// The same for a journal of this very process that runs on: what is being written at this moment may look torn.
    pub fn beside(folder: &Path) -> Result<Self> {
        Self::of(Folder::at(folder), None)
    }

    fn of(folder: Folder, lock: Option<File>) -> Result<Self> {
        let format = folder.format();
        let version = format
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("postroad-journal "))
            .and_then(|version| version.trim().parse::<u32>().ok());
        let format_problem = match version {
            Some(VERSION) => None,
            Some(_) => {
                return Err(JournalError::Format {
                    folder: folder.root().to_owned(),
                    found: format,
                });
            }
            None => Some(format!("FORMAT does not say what it should: {format:?}")),
        };
        // Headers that cannot be read get a salt that no record was written under; which one does not matter here.
        let entropy: crate::Entropy = Arc::new(|bytes| bytes.fill(0xa5));
        let found = recover(&folder, &entropy, Mode::LookOnly)?;
        let shared = Shared::new(folder, found.segments, OPEN_FILES).looking_only();
        Ok(Self {
            reader: Reader {
                shared: Arc::new(shared),
            },
            recovery: found.report,
            format_problem,
            _lock: lock,
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
        self.format_problem.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Journal, Lsn, Options, RecordDraft, RecordKind};
    use std::{fs, ops::ControlFlow};

    fn journal(folder: &Path) -> Journal {
        let options = Options {
            segment_bytes: 4096,
            prepare_ahead: 0,
            open_files: 2,
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
            Inspection::open(folder.path()),
            Err(JournalError::Locked { .. })
        ));
        let beside = Inspection::beside(folder.path()).unwrap();
        assert_eq!(texts(&beside.reader()).0, ["one", "two", "three"]);
        drop(open);
        // Damage in the middle.
        let path = folder.path().join("segments/0000000001.seg");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(3).position(|found| found == b"two").unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let before = listing(folder.path());
        let look = Inspection::open(folder.path()).unwrap();
        let (seen, damaged) = texts(&look.reader());
        assert_eq!((seen.len(), damaged), (2, 1));
        assert_eq!(look.format_problem(), None);
        assert_eq!(listing(folder.path()), before);
        drop(look);
        fs::write(folder.path().join("FORMAT"), "rubbish").unwrap();
        let look = Inspection::open(folder.path()).unwrap();
        assert!(look.format_problem().is_some());
        drop(look);
        fs::write(folder.path().join("FORMAT"), "postroad-journal 2\n").unwrap();
        assert!(matches!(
            Inspection::open(folder.path()),
            Err(JournalError::Format { .. })
        ));
    }
}
