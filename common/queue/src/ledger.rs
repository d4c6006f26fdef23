//! What the journal alone says of living mails: made record by record, compact, in parts if there are many.
//!
//! A mail takes some 110 octets here whatever its size, a finished id some 50. Where more than [`MOST`] of them come
//! together the ledger keeps one half of the ids and names the other half, for which the journal is to be walked again:
//! so memory stays below some 130 MiB however long the queue is.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
};

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{ContentRef, Location, Lsn, RecordRef, SegmentNumber};

use crate::{
    JobState, QueueError,
    record::{self, Finished, Record, encode_state, split_head},
};

/// Mails and finished ids that one ledger holds at most.
pub const MOST: usize = 900_000;

/// Some of all ids: those whose last octets, by this mask, are this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Part {
    mask: u64,
    value: u64,
}

impl Part {
    /// Whether an id belongs to it.
    pub fn has(self, id: QueueId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = id.to_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) & self.mask == self.value
    }

    /// Its two halves.
    const fn halves(self) -> (Self, Self) {
        let bit = self.mask + 1;
        let mask = self.mask | bit;
        let (value, other) = (self.value, self.value | bit);
        (Self { mask, value }, Self { mask, value: other })
    }
}

/// What the journal says of one living mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its newest record.
    pub location: Location,
    /// Its content file, if it has one.
    pub file: Option<Box<ContentRef>>,
    /// The last record that tells of it.
    pub newest: Lsn,
    /// Its jobs, as far as their states were met.
    pub jobs: Jobs,
    /// For whoever walks both sides: it was met on the other one.
    pub(crate) met: bool,
}

/// The jobs of a mail; mostly one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Jobs {
    first: Option<KnownJob>,
    // Boxed: it is one word where, as mostly, there is none.
    #[allow(clippy::box_collection)]
    others: Option<Box<Vec<KnownJob>>>,
}

/// The newest state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownJob {
    /// Its number.
    pub number: u32,
    /// Where the state lies; the place of the mail if it is one of those it was accepted with.
    pub location: Location,
    pub(crate) of_jobs: u32,
    pub(crate) ended: bool,
    pub(crate) changed_at: Timestamp,
    pub(crate) print: u64,
}

impl Jobs {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &KnownJob> {
        self.first
            .iter()
            .chain(self.others.iter().flat_map(|more| more.iter()))
    }

    /// Whether a job lives, as far as it is known.
    fn lives(&self, number: u32) -> Option<bool> {
        let known = self.iter().find(|known| known.number == number);
        known.map(|known| !known.ended)
    }

    fn put(&mut self, job: KnownJob) {
        if self.first.is_none_or(|first| first.number == job.number) {
            self.first = Some(job);
            return;
        }
        let others = self.others.get_or_insert_default();
        match others.iter_mut().find(|known| known.number == job.number) {
            Some(known) => *known = job,
            None => others.push(job),
        }
    }

    /// Whether all jobs of the mail are known and have ended.
    fn all_ended(&self) -> bool {
        let count = u32::try_from(self.iter().count()).unwrap_or(u32::MAX);
        self.first.is_some_and(|first| count >= first.of_jobs) && self.iter().all(|job| job.ended)
    }
}

/// What is known of a finished mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEnd {
    /// When it finished.
    pub at: Timestamp,
    /// The record that says so.
    pub lsn: Lsn,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    part: Part,
    most: usize,
    pub(crate) mails: HashMap<QueueId, Known>,
    pub(crate) finished: HashMap<QueueId, KnownEnd>,
    left_out: Vec<Part>,
    last_seen: Lsn,
    /// How many jobs should live: by the last checkpoint, and what was met since. None before one that tells it.
    expected: Option<u64>,
}

impl Ledger {
    /// An empty one for some of the ids.
    pub fn new(part: Part) -> Self {
        Self::with_room(part, MOST)
    }

    fn with_room(part: Part, most: usize) -> Self {
        Self {
            part,
            most,
            ..Self::default()
        }
    }

    /// Which ids it is about.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Parts that had to be left out so far: the journal is to be walked again for each.
    pub fn take_left_out(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.left_out)
    }

    /// How many mails live.
    pub fn len(&self) -> usize {
        self.mails.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.mails.is_empty()
    }

    /// How many jobs should live by what the last checkpoint counted, and how many do, if these are not the same: then
    /// records are missing. None where it cannot be told: in format 1, and where only some of the ids are kept. Only of a
    /// journal of which nothing was given up while it was read.
    pub fn miscounted(&self) -> Option<(u64, u64)> {
        let expected = self.expected.filter(|_| self.part == Part::default())?;
        let jobs = self.mails.values().flat_map(|known| known.jobs.iter());
        let found = u64::try_from(jobs.filter(|job| !job.ended).count()).unwrap_or(u64::MAX);
        (expected != found).then_some((expected, found))
    }

    /// The last record that was taken in.
    pub fn last_seen(&self) -> Lsn {
        self.last_seen
    }

    /// The last record that tells of a mail, living or finished.
    pub fn newest(&self, id: QueueId) -> Option<Lsn> {
        let living = self.mails.get(&id).map(|known| known.newest);
        living.or_else(|| self.finished.get(&id).map(|end| end.lsn))
    }

    /// A living mail.
    pub fn mail(&self, id: QueueId) -> Option<&Known> {
        self.mails.get(&id)
    }

    /// The ids of living mails, in the order in which their records lie in the journal.
    pub fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<(Lsn, QueueId)> = self
            .mails
            .iter()
            .map(|(id, known)| (known.location.lsn, *id))
            .collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes in the next record. An error tells of a record that cannot be read; it is passed over.
    pub fn see(&mut self, record: RecordRef<'_>) -> Result<(), QueueError> {
        let (location, payload) = (record.location, record.payload);
        self.last_seen = record.lsn;
        match record.kind {
            record::MAIL => self.see_mail(location, payload)?,
            record::JOB_STATE | record::FINISHED_BLOCK | record::CHECKPOINT => {
                match Record::decode(record.kind, payload)? {
                    Record::JobState(state) => self.see_state(location, &state),
                    Record::FinishedBlock(block) => {
                        block.0.iter().for_each(|end| self.see_end(location, end));
                    }
                    Record::Checkpoint(checkpoint) => self.expected = checkpoint.living_jobs,
                    _ => {}
                }
            }
            // The others are read only to know that they can be.
            other => drop(Record::decode(other, payload)?),
        }
        self.make_room();
        Ok(())
    }

    /// Mails whose newest record lies before this segment, which is the oldest there is, have moved or finished: what said
    /// so went with segments that were given up before they were met.
    pub fn forget_before(&mut self, oldest: SegmentNumber) {
        self.mails
            .retain(|_, known| known.location.segment >= oldest);
    }

    fn see_mail(&mut self, location: Location, payload: &[u8]) -> Result<(), QueueError> {
        let (head, _) = split_head(payload)?;
        let id = head.envelope.queue_id;
        if !self.part.has(id) {
            return Ok(());
        }
        self.finished.remove(&id);
        let file = head.file.map(Box::new);
        let known = match self.mails.entry(id) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                (known.location, known.file) = (location, file);
                known
            }
            Entry::Vacant(place) => place.insert(Known {
                location,
                file,
                newest: location.lsn,
                jobs: Jobs::default(),
                met: false,
            }),
        };
        known.newest = location.lsn;
        let mut begun = 0_u64;
        for state in &head.jobs {
            begun += u64::from(!state.has_ended() && known.jobs.lives(state.key.number).is_none());
            known.jobs.put(job_of(location, state));
        }
        // Those of a mail that was copied forward lived before.
        self.expected = self.expected.map(|count| count.saturating_add(begun));
        if let Some(last) = head.jobs.last()
            && known.jobs.all_ended()
        {
            self.end(id, last.changed_at, location.lsn);
        }
        Ok(())
    }

    fn see_state(&mut self, location: Location, state: &JobState) {
        let id = state.key.queue_id;
        // States of a mail that is not there belong to one that finished, or that is met when it was copied forward.
        let Some(known) = self.mails.get_mut(&id) else {
            if state.has_ended() && !self.finished.contains_key(&id) {
                self.one_ended();
            }
            return;
        };
        known.newest = location.lsn;
        let lived = known.jobs.lives(state.key.number) == Some(true);
        known.jobs.put(job_of(location, state));
        let has_ended = known.jobs.all_ended();
        if lived && state.has_ended() {
            self.one_ended();
        }
        if has_ended {
            self.end(id, state.changed_at, location.lsn);
        }
    }

    fn one_ended(&mut self) {
        self.expected = self.expected.map(|count| count.saturating_sub(1));
    }

    fn see_end(&mut self, location: Location, end: &Finished) {
        let id = end.queue_id;
        if !self.part.has(id) {
            return;
        }
        // The record of its end is lost if the mail still lives here; one accepted anew is younger than this end.
        let is_older = |known: &Known| known.jobs.iter().all(|job| job.changed_at <= end.at);
        if self.mails.get(&id).is_none_or(is_older) {
            self.end(id, end.at, location.lsn);
        }
    }

    fn end(&mut self, id: QueueId, at: Timestamp, lsn: Lsn) {
        self.mails.remove(&id);
        self.finished.insert(id, KnownEnd { at, lsn });
    }

    fn make_room(&mut self) {
        while self.mails.len() + self.finished.len() / 2 > self.most {
            let (kept, other) = self.part.halves();
            self.part = kept;
            self.left_out.push(other);
            self.mails.retain(|id, _| kept.has(*id));
            self.finished.retain(|id, _| kept.has(*id));
        }
    }
}

fn job_of(location: Location, state: &JobState) -> KnownJob {
    KnownJob {
        number: state.key.number,
        location,
        of_jobs: state.of_jobs,
        ended: state.has_ended(),
        changed_at: state.changed_at,
        print: print(&encode_state(state)),
    }
}

/// What two equal states have in common.
pub(crate) fn print(state: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}
