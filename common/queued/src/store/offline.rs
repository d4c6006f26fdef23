//! Work on the folder of a queue that does not run.

use std::{
    fs, io,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use postroad_journal::{ContentStore, Formats, Inspection, JournalError};
use postroad_queue::{Checked, IndexFound, StoredIndex, record::FORMATS};
use postroad_queue_client::VerifyProgress;

use super::verify::{Ended, Sources, Verify, chain};
use crate::{Config, clock};

/// Why an offline tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Operator: a queue runs on this folder.
    #[error("a queue runs on {} ({holder}): stop it first", folder.display())]
    Runs {
        /// The folder.
        folder: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// Operator: this is no queue, or one of a later release.
    #[error("{0}")]
    NoQueue(String),
    /// Operator: there is something in the folder that was named for what is made.
    #[error("{} is not empty; name a new folder, or one that is empty", .0.display())]
    NotEmpty(PathBuf),
    /// Resource: a file cannot be read or written.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Resource: the journal or the index cannot be read at all.
    #[error("{0}")]
    Store(String),
    /// Whoever heard of the progress broke it off.
    #[error("broken off")]
    BrokenOff,
}

impl From<JournalError> for OfflineError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Locked { folder, holder } => Self::Runs { folder, holder },
            JournalError::Format { .. } | JournalError::LaterFormat { .. } => {
                Self::NoQueue(error.to_string())
            }
            other => Self::Store(chain(&other)),
        }
    }
}

impl From<Ended> for OfflineError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::BrokenOff => Self::BrokenOff,
            Ended::Journal(error) => error.into(),
            Ended::Index(error) => Self::Store(chain(&error)),
        }
    }
}

/// What [`Offline::rebuild`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Where the former index lies now; none if there was none.
    pub aside: Option<PathBuf>,
}

/// The folder of a queue that does not run; while this lives none can be started on it.
#[derive(Debug)]
pub struct Offline {
    pub(crate) folder: PathBuf,
    pub(crate) journal: Inspection,
}

impl Offline {
    /// Takes the folder.
    pub fn open(folder: &Path) -> Result<Self, OfflineError> {
        let journal = Inspection::open(folder, FORMATS)?;
        Ok(Self {
            folder: folder.to_owned(),
            journal,
        })
    }

    /// Reads everything and compares; `each` hears of progress and problems. Tells how many problems there are.
    pub fn verify(
        &self,
        config: &Config,
        each: &mut dyn FnMut(VerifyProgress) -> ControlFlow<()>,
    ) -> Result<u64, OfflineError> {
        let index = StoredIndex::open(&self.folder, config.disk.index_cache.as_u64())
            .map_err(Ended::Index)?;
        let mut early = Vec::new();
        let index = match index {
            IndexFound::Opened(index) => Some(index),
            IndexFound::None => None,
            IndexFound::Broken(why) => {
                early.push(format!(
                    "the index does not open ({why}): the next start puts it aside and builds another"
                ));
                None
            }
        };
        let replayed_from = index.as_ref().map(StoredIndex::replayed_from);
        let replayed_from = replayed_from.transpose().map_err(Ended::Index)?;
        let mut others = Vec::new();
        let mut inspections = Vec::new();
        for stage in ["timeline", "retired"] {
            match beside(&self.folder.join(stage)) {
                Ok(Some(found)) => {
                    early.extend(recovery_problems(&found, &format!("the {stage}")));
                    others.push((stage, found.reader()));
                    inspections.push(found);
                }
                Ok(None) => {}
                Err(error) => early.push(format!("the {stage}: {}", chain(&error))),
            }
        }
        early.extend(recovery_problems(&self.journal, "the journal"));
        let window = u64::try_from(config.remember_finished.as_duration().as_millis());
        let window = window.unwrap_or(u64::MAX);
        let now = clock::now().as_millis();
        let octets = fs::metadata(self.folder.join("index/db")).map_or(0, |found| found.len());
        let sources = Sources {
            journal: self.journal.reader(),
            contents: ContentStore::look(&self.folder),
            index_octets: if index.is_some() { octets } else { 0 },
            index: index.as_ref().map(|index| index as &dyn Checked),
            others,
            replayed_from,
            window_from: Box::new(move || {
                postroad_envelope::Timestamp::from_millis(now.saturating_sub(window))
            }),
            is_live: false,
        };
        let mut verify = Verify::new(sources, each);
        early.into_iter().for_each(|what| verify.problem(what));
        let outcome = verify.run();
        drop(index);
        give_to_owner(&self.folder, &self.folder.join("index"));
        Ok(outcome?)
    }

    /// Its format and the newest that this release knows, if they are not the same.
    pub fn to_upgrade(&self) -> Result<Option<(u32, u32)>, OfflineError> {
        match self.journal.format() {
            Some(format) if format == FORMATS.newest => Ok(None),
            Some(format) => Ok(Some((format, FORMATS.newest))),
            None => Err(OfflineError::NoQueue(
                self.journal.format_problem().unwrap_or_default().to_owned(),
            )),
        }
    }

    /// Lets the queue write the newest format from its next start on. What lies there stays as it is; releases that do not
    /// know this format do not open the folder any more.
    pub fn upgrade_format(&mut self) -> Result<(), OfflineError> {
        if self.to_upgrade()?.is_some() {
            self.journal.set_format(FORMATS.newest)?;
            give_to_owner(&self.folder, &self.folder.join("FORMAT"));
        }
        Ok(())
    }

    /// Puts the index aside, so that the next start builds another from the journal.
    pub fn rebuild(&self) -> Result<Rebuilt, OfflineError> {
        let aside = put_index_aside(&self.folder)?;
        give_to_owner(&self.folder, &self.folder.join("quarantine"));
        Ok(Rebuilt { aside })
    }
}

/// Moves the index to quarantine; none if there is none. Whoever calls holds the folder.
pub(super) fn put_index_aside(folder: &Path) -> Result<Option<PathBuf>, OfflineError> {
    let index = folder.join("index");
    if !index.exists() {
        return Ok(None);
    }
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| OfflineError::Io {
            doing,
            path,
            source,
        }
    };
    let quarantine = folder.join("quarantine");
    fs::create_dir_all(&quarantine).map_err(failed("create folder", &quarantine))?;
    let name = format!("index-{}", clock::now().as_millis());
    let aside = (0..)
        .map(|n: u32| match n {
            0 => quarantine.join(&name),
            n => quarantine.join(format!("{name}-{n}")),
        })
        .find(|path| !path.exists())
        .unwrap_or_default();
    fs::rename(&index, &aside).map_err(failed("put aside", &index))?;
    for folder in [quarantine.as_path(), folder] {
        let sync = fs::File::open(folder).and_then(|folder| folder.sync_all());
        sync.map_err(failed("sync folder", folder))?;
    }
    Ok(Some(aside))
}

/// The journal of a folder beside the queue's, if there is one.
fn beside(folder: &Path) -> Result<Option<Inspection>, JournalError> {
    match folder.join("segments").is_dir() {
        true => Inspection::open(folder, Formats::default()).map(Some),
        false => Ok(None),
    }
}

pub(crate) fn recovery_problems(journal: &Inspection, of: &str) -> Vec<String> {
    let recovery = journal.recovery();
    let unreadable = recovery
        .unreadable
        .iter()
        .map(|number| format!("segment {number} of {of}: neither of its headers can be read"));
    let missing = recovery
        .missing
        .iter()
        .map(|number| format!("segment {number} of {of} is not there"));
    let format = journal
        .format_problem()
        .map(|problem| format!("{of}: {problem}"));
    unreadable.chain(missing).chain(format).collect()
}

/// What root made in the folder of another user belongs to that user, so that the queue can go on with it. Where it does
/// not work the next start says so.
pub(super) fn give_to_owner(folder: &Path, made: &Path) {
    let Ok(owner) = fs::metadata(folder) else {
        return;
    };
    if owner.uid() == 0 {
        return;
    }
    let mut open = vec![made.to_owned()];
    while let Some(path) = open.pop() {
        let _ = chown(&path, Some(owner.uid()), Some(owner.gid()));
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        for entry in is_folder.then(|| fs::read_dir(&path)).into_iter().flatten() {
            open.extend(entry.into_iter().flatten().map(|entry| entry.path()));
        }
    }
}
