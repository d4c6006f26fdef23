//! The index against a ledger of the journal, in pieces: what a walk over either side finds wrong is a suspicion, to be
//! looked at again once the ledger has caught up.

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::Lsn;

use super::{Index, MailPlace, done, jobs, keys};
use crate::{
    JobKey, QueueError, SenderPrint,
    ledger::{Ledger, print},
    record::decode_state,
};

/// Where a walk over the index stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckCursor {
    stage: Stage,
    after: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Mails,
    Jobs,
    Finished,
    Packed,
}

impl Stage {
    const fn next(self) -> Option<Self> {
        match self {
            Self::Mails => Some(Self::Jobs),
            Self::Jobs => Some(Self::Finished),
            Self::Finished => Some(Self::Packed),
            Self::Packed => None,
        }
    }
}

impl CheckCursor {
    /// Before the first entry.
    pub const fn start() -> Self {
        Self {
            stage: Stage::Mails,
            after: Vec::new(),
        }
    }
}

/// Something that does not fit, at least at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspect {
    /// A mail of the index, of the ledger, or of both.
    Mail(QueueId),
    /// A job whose mail is not there.
    Job(JobKey),
    /// An id that is known as finished on one side only.
    Finished(QueueId),
    /// The content file of a mail; no matter of the index.
    Content(QueueId),
    /// A key of no sense.
    Key(&'static str, Vec<u8>),
}

impl Suspect {
    /// The mail it is about.
    pub fn queue_id(&self) -> Option<QueueId> {
        match self {
            Self::Mail(id) | Self::Finished(id) | Self::Content(id) => Some(*id),
            Self::Job(job) => Some(job.queue_id),
            Self::Key(..) => None,
        }
    }
}

/// What both sides are compared by.
#[derive(Debug, Clone, Copy)]
pub struct CheckRules {
    /// From this record on the index need not know anything yet: the next start replays it. None for a running queue.
    pub replayed_from: Option<Lsn>,
    /// Finished ids older than this need not be known.
    pub window_from: Timestamp,
}

/// What is wrong with a suspect; none if nothing is.
type Problem<'a> = &'a dyn Fn(&Suspect, &Ledger) -> Result<Option<String>, QueueError>;

impl Index {
    /// Looks at the next `limit` entries of the index; those with a problem are found. None: that was all.
    pub fn check_piece(
        &self,
        ledger: &mut Ledger,
        cursor: CheckCursor,
        limit: usize,
        problem: Problem<'_>,
        found: &mut Vec<Suspect>,
    ) -> Result<Option<CheckCursor>, QueueError> {
        let CheckCursor { stage, after } = cursor;
        let tree = match stage {
            Stage::Mails => &self.trees.mail,
            Stage::Jobs => &self.trees.job,
            Stage::Finished => &self.trees.done,
            Stage::Packed => &self.trees.ended,
        };
        let mut last = None;
        let from = (
            std::ops::Bound::Excluded(after),
            std::ops::Bound::<Vec<u8>>::Unbounded,
        );
        let mut looked = 0;
        for item in tree.range(from) {
            let (key, value) = item?;
            let suspects = suspects_of(stage, &key, &value);
            looked += suspects.len();
            for suspect in suspects {
                if let Suspect::Mail(id) = suspect
                    && let Some(known) = ledger.mails.get_mut(&id)
                {
                    known.met = true;
                }
                if problem(&suspect, ledger)?.is_some() {
                    found.push(suspect);
                }
            }
            last = Some(key.to_vec());
            if looked >= limit {
                break;
            }
        }
        Ok(match last {
            Some(after) => Some(CheckCursor { stage, after }),
            None => stage.next().map(|stage| CheckCursor {
                stage,
                after: Vec::new(),
            }),
        })
    }

    /// What is wrong with it now; none if nothing is.
    pub fn problem(
        &self,
        suspect: &Suspect,
        ledger: &Ledger,
        rules: &CheckRules,
    ) -> Result<Option<String>, QueueError> {
        let Some(id) = suspect.queue_id() else {
            return Ok(self.key_problem(suspect));
        };
        if !ledger.part().has(id) || is_replayed(ledger, rules, id) {
            return Ok(None);
        }
        let readable = match suspect {
            Suspect::Mail(id) => self.mail_problem(*id, ledger),
            Suspect::Job(job) => self.job_problem(*job),
            Suspect::Finished(id) => self.finished_problem(*id, ledger, rules),
            Suspect::Key(..) | Suspect::Content(_) => Ok(None),
        };
        match readable {
            Err(QueueError::Unreadable { what, why }) => Ok(Some(format!(
                "mail {id}: the index has a {what} that cannot be read: {why}"
            ))),
            other => other,
        }
    }

    /// The key is still there, and nobody knows what it is.
    fn key_problem(&self, suspect: &Suspect) -> Option<String> {
        let Suspect::Key(tree, key) = suspect else {
            return None;
        };
        Some(format!(
            "the index has a {tree} key of no sense: {key:02x?}"
        ))
    }

    fn mail_problem(&self, id: QueueId, ledger: &Ledger) -> Result<Option<String>, QueueError> {
        let found = self.mail(id)?;
        let (known, place) = match (ledger.mail(id), found) {
            (None, None) => return Ok(None),
            (None, Some(place)) => {
                return Ok(Some(format!(
                    "mail {id}: it is in the index, at record {} of segment {}, and does not live in the journal",
                    place.location.lsn, place.location.segment
                )));
            }
            (Some(known), None) => {
                return Ok(Some(format!(
                    "mail {id}: it lives in the journal, at record {} of segment {}, and is not in the index",
                    known.location.lsn, known.location.segment
                )));
            }
            (Some(known), Some(place)) => (known, place),
        };
        if place.location != known.location || place.file.as_ref() != known.file.as_deref() {
            return Ok(Some(format!(
                "mail {id}: the index says that it lies at record {} of segment {}; in the journal it is record {} of segment {}",
                place.location.lsn,
                place.location.segment,
                known.location.lsn,
                known.location.segment
            )));
        }
        self.states_problem(&place, known)
    }

    fn states_problem(
        &self,
        place: &MailPlace,
        known: &crate::ledger::Known,
    ) -> Result<Option<String>, QueueError> {
        let (id, mut seen) = (place.queue_id, 0);
        let sender = SenderPrint::of(&place.sender);
        for item in self.trees.job.of_mail(id) {
            let (_, value) = item?;
            let (print_of_sender, state) = jobs::split(&value)?;
            let state = decode_state(state)?;
            let number = state.key.number;
            let in_journal = known.jobs.iter().find(|job| job.number == number);
            let Some(in_journal) = in_journal else {
                return Ok(Some(format!(
                    "mail {id}: job {number} is in the index and not in the journal"
                )));
            };
            if in_journal.print != print(&crate::record::encode_state(&state)) {
                return Ok(Some(format!(
                    "mail {id}: the index has another state of job {number} (revision {}) than the journal",
                    state.revision.0
                )));
            }
            if print_of_sender != sender {
                return Ok(Some(format!(
                    "mail {id}: lists would not find job {number} by its sender"
                )));
            }
            seen += 1;
        }
        let missing = known.jobs.iter().count() != seen;
        Ok(missing.then(|| format!("mail {id}: a job of it is not in the index")))
    }

    fn job_problem(&self, job: JobKey) -> Result<Option<String>, QueueError> {
        // The states of a finished mail stay until it is retired.
        let orphan = self.mail(job.queue_id)?.is_none()
            && !self.is_leaving(job.queue_id)?
            && self.trees.job.contains_key(keys::job(job))?;
        Ok(orphan.then(|| format!("job {job}: it is in the index without its mail")))
    }

    fn finished_problem(
        &self,
        id: QueueId,
        ledger: &Ledger,
        rules: &CheckRules,
    ) -> Result<Option<String>, QueueError> {
        let here = self.finished(id)?;
        let there = ledger.finished.get(&id);
        Ok(match (here, there) {
            (Some(here), None) if here.at >= rules.window_from => Some(format!(
                "mail {id}: the index knows it as finished, the journal does not"
            )),
            (None, Some(there)) if there.at >= rules.window_from => Some(format!(
                "mail {id}: it has finished, and the index has forgotten it too early"
            )),
            _ => None,
        })
    }

    /// What the ledger knows and the walk over the index did not meet.
    pub fn check_unmet(ledger: &Ledger, rules: &CheckRules) -> Vec<Suspect> {
        let mails = ledger.mails.iter().filter(|(_, known)| !known.met);
        let mails = mails.map(|(id, _)| Suspect::Mail(*id));
        let ends = ledger.finished.iter();
        let ends = ends.filter(|(_, end)| end.at >= rules.window_from);
        mails
            .chain(ends.map(|(id, _)| Suspect::Finished(*id)))
            .collect()
    }
}

fn is_replayed(ledger: &Ledger, rules: &CheckRules, id: QueueId) -> bool {
    let Some(from) = rules.replayed_from else {
        return false;
    };
    ledger.newest(id).is_some_and(|newest| newest >= from)
}

/// What an entry is about.
fn suspects_of(stage: Stage, key: &[u8], value: &[u8]) -> Vec<Suspect> {
    let id = || keys::parse_id(key);
    let (tree, known) = match stage {
        Stage::Mails => ("mail", id().map(|id| vec![Suspect::Mail(id)])),
        Stage::Jobs => (
            "job",
            keys::parse_job(key).map(|job| vec![Suspect::Job(job)]),
        ),
        Stage::Finished => ("finished", id().map(|id| vec![Suspect::Finished(id)])),
        Stage::Packed => ("block of finished", packed(key, value)),
    };
    known.unwrap_or_else(|| vec![Suspect::Key(tree, key.to_vec())])
}

/// A block is found by the first of its ids.
fn packed(key: &[u8], block: &[u8]) -> Option<Vec<Suspect>> {
    let ids = done::decode(block).ok()?.into_iter();
    let ids: Vec<QueueId> = ids.map(|end| end.queue_id).collect();
    let is_in_place = ids.is_sorted() && ids.first()?.to_bytes()[..] == *key;
    is_in_place.then(|| ids.into_iter().map(Suspect::Finished).collect())
}
