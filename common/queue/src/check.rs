//! Comparing the index with the journal, for a queue that runs and for one that does not.

use std::path::Path;

use postroad_envelope::Timestamp;
use postroad_journal::Lsn;

use crate::{
    CheckCursor, CheckRules, JobKey, Queue, QueueError, Suspect,
    index::{self, Index},
    ledger::Ledger,
};

/// The index of a queue that does not run, opened to be looked at.
pub struct StoredIndex {
    index: Index,
}

impl std::fmt::Debug for StoredIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredIndex").finish_non_exhaustive()
    }
}

/// What there is of an index.
#[derive(Debug)]
pub enum IndexFound {
    /// It opens.
    Opened(StoredIndex),
    /// There is none: the next start builds it.
    None,
    /// It does not open; why. The next start puts it aside and builds another.
    Broken(String),
}

impl StoredIndex {
    /// Opens the index in `folder/index` and leaves one that does not open where it is.
    pub fn open(folder: &Path, cache_capacity: u64) -> Result<IndexFound, QueueError> {
        Ok(match index::look(folder, cache_capacity)? {
            index::Looked::Opened(index) => IndexFound::Opened(Self { index }),
            index::Looked::None => IndexFound::None,
            index::Looked::Broken(why) => IndexFound::Broken(why),
        })
    }

    /// Where the replay of the next start begins.
    pub fn replayed_from(&self) -> Result<Lsn, QueueError> {
        self.index.checkpoint_lsn()
    }
}

/// An index that can be compared with a ledger of the journal.
pub trait Checked {
    /// Looks at the next `limit` entries; adds what does not fit to `found`. None: that was all.
    fn check_piece(
        &self,
        ledger: &mut Ledger,
        rules: &CheckRules,
        cursor: CheckCursor,
        limit: usize,
        found: &mut Vec<Suspect>,
    ) -> Result<Option<CheckCursor>, QueueError>;

    /// What is wrong with a suspect now; none if nothing is.
    fn problem(
        &self,
        suspect: &Suspect,
        ledger: &Ledger,
        rules: &CheckRules,
    ) -> Result<Option<String>, QueueError>;
}

impl Checked for StoredIndex {
    fn check_piece(
        &self,
        ledger: &mut Ledger,
        rules: &CheckRules,
        cursor: CheckCursor,
        limit: usize,
        found: &mut Vec<Suspect>,
    ) -> Result<Option<CheckCursor>, QueueError> {
        let problem = |suspect: &Suspect, ledger: &Ledger| self.problem(suspect, ledger, rules);
        self.index
            .check_piece(ledger, cursor, limit, &problem, found)
    }

    fn problem(
        &self,
        suspect: &Suspect,
        ledger: &Ledger,
        rules: &CheckRules,
    ) -> Result<Option<String>, QueueError> {
        self.index.problem(suspect, ledger, rules)
    }
}

impl Checked for Queue {
    fn check_piece(
        &self,
        ledger: &mut Ledger,
        rules: &CheckRules,
        cursor: CheckCursor,
        limit: usize,
        found: &mut Vec<Suspect>,
    ) -> Result<Option<CheckCursor>, QueueError> {
        let problem = |suspect: &Suspect, ledger: &Ledger| self.problem(suspect, ledger, rules);
        self.index
            .check_piece(ledger, cursor, limit, &problem, found)
    }

    fn problem(
        &self,
        suspect: &Suspect,
        ledger: &Ledger,
        rules: &CheckRules,
    ) -> Result<Option<String>, QueueError> {
        let problem = self.index.problem(suspect, ledger, rules)?;
        match suspect {
            Suspect::Job(job) if problem.is_none() => self.unscheduled(*job),
            _ => Ok(problem),
        }
    }
}

/// What the ledger knows and the walk over the index did not meet; to be asked after its last piece.
pub fn unmet(ledger: &Ledger, rules: &CheckRules) -> Vec<Suspect> {
    Index::check_unmet(ledger, rules)
}

impl Queue {
    /// A job that lives in the index and is nowhere in the schedule, or as it was before, would never be tried.
    fn unscheduled(&self, job: JobKey) -> Result<Option<String>, QueueError> {
        let state = self.index.job(job)?;
        let living = state.filter(|state| !state.has_ended());
        let Some(revision) = living.map(|state| state.revision) else {
            return Ok(None);
        };
        let core = self.core();
        let is_there =
            core.schedule.is_changing(job) || core.schedule.revision(job) == Some(revision);
        Ok((!is_there).then(|| {
            format!(
                "job {job}: it lives in the index at revision {}, and is not scheduled as such",
                revision.0
            )
        }))
    }

    /// Finished ids from this time on are still known.
    pub fn window_from(&self, now: Timestamp) -> Timestamp {
        let window = u64::try_from(self.options.finished_window.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(window))
    }
}
