//! The index: derived from the journal, may be deleted at any time. The only place that names sled.
//!
//! | tree | key | value |
//! |---|---|---|
//! | mail | id | `MailEntry`: location of the record, digest, content file; sender, tenant, account, tags for filters |
//! | job | id, number | the print of the sender, and the job's state, at most 4 KiB |
//! | leaving | id | `Leaving`: a finished mail that is not retired yet; its jobs' last states are still in `job` |
//! | done | id | time and digest of a finished mail, for the window of idempotency |
//! | ended | the first id | a hundred of those, packed |
//! | meta | name | format, epoch, checkpoint, places of blocks and snapshot |
//!
//! What is newest of `mail`, `job` and `leaving` is in memory until a checkpoint (`recent.rs`).

mod apply;
mod check;
mod count;
mod done;
mod entries;
mod jobs;
mod keys;
mod leaving;
mod open;
mod recent;
mod renewal;
mod store;
mod tree;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use postroad_envelope::{MailTraits, QueueId, Timestamp};
use postroad_journal::{ContentRef, Location, Lsn, SegmentNumber};
use prost::Message;

pub use check::{CheckCursor, CheckRules, Suspect};
pub use count::side_by_side;
use done::Packed;
pub use jobs::directed;
pub use leaving::LeavingMail;
pub use open::{Former, Looked, Opened, look, open};
use recent::Recent;
pub use renewal::Renewal;
use store::Store;
use tree::Tree;

use crate::{
    Digest, QueueError, Usage,
    error::unreadable,
    record::{Finished, digest_from_wire, digest_to_wire, file_from_wire, wire},
};

/// 2: tenant, account and tags of each mail. 3: no keys by time, destination or sender; a job has the
/// print of its sender; finished ids are packed.
const FORMAT: u64 = 3;

/// What sled has open.
pub struct Raw {
    db: sled::Db,
    /// In the order of [`NAMES`].
    trees: [sled::Tree; NAMES.len()],
}

const NAMES: [&str; 6] = ["mail", "job", "leaving", "done", "ended", "meta"];

impl Raw {
    fn open(path: &Path, cache_capacity: u64, segment_size: usize) -> sled::Result<Self> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(cache_capacity)
            .segment_size(segment_size)
            // Only a checkpoint makes it durable; a flusher in between would compete with it for the disk.
            .flush_every_ms(None)
            .open()?;
        let [mail, job, leaving, done, ended, meta] = NAMES.map(|name| db.open_tree(name));
        let trees = [mail?, job?, leaving?, done?, ended?, meta?];
        Ok(Self { db, trees })
    }
}

pub struct Trees {
    db: Mutex<sled::Db>,
    /// What is newest of mails, jobs and leaving mails, most of which are gone soon.
    recent: Arc<Recent>,
    mail: Tree,
    job: Tree,
    leaving: Tree,
    done: Tree,
    ended: Tree,
    meta: Tree,
}

impl Trees {
    fn open(path: &Path, cache_capacity: u64, segment_size: usize) -> sled::Result<Box<Self>> {
        let Raw { db, trees } = Raw::open(path, cache_capacity, segment_size)?;
        let [mail, job, leaving, done, ended, meta] = trees.map(|tree| Arc::new(Store::new(tree)));
        let recent = Arc::<Recent>::default();
        Ok(Box::new(Self {
            db: Mutex::new(db),
            mail: Tree::behind(&recent, mail),
            job: Tree::behind(&recent, job),
            leaving: Tree::behind(&recent, leaving),
            // Before anything is forgotten that tells of a mail, sled knows that it has finished.
            done: Tree::direct(done),
            ended: Tree::direct(ended),
            meta: Tree::direct(meta),
            recent,
        }))
    }

    /// In the order of [`NAMES`].
    const fn all(&self) -> [&Tree; NAMES.len()] {
        [
            &self.mail,
            &self.job,
            &self.leaving,
            &self.done,
            &self.ended,
            &self.meta,
        ]
    }

    fn db(&self) -> sled::Db {
        self.db
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_db(&self, db: sled::Db) {
        *self.db.lock().unwrap_or_else(PoisonError::into_inner) = db;
    }

    /// Whether it is of this format: new, or written by this release. None: who knows.
    fn is_of_this_format(&self) -> Option<bool> {
        match self.meta.get("format") {
            Ok(None) => self
                .meta
                .insert("format", &FORMAT.to_be_bytes())
                .ok()
                .map(|_| true),
            Ok(Some(format)) => {
                let format = u64::from_be_bytes(format.as_ref().try_into().ok()?);
                Some(format == FORMAT)
            }
            Err(_) => None,
        }
    }
}

impl Drop for Trees {
    fn drop(&mut self) {
        // A help for the next start, as what sled writes when it is dropped: without it a replay makes the changes again.
        let _ = self.recent.store_all();
    }
}

/// What the index knows of a living mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailPlace {
    /// Which mail.
    pub queue_id: QueueId,
    /// Its record in the journal.
    pub location: Location,
    /// Its content file, if the content is not in the record.
    pub file: Option<ContentRef>,
    /// The reverse-path; empty if null.
    pub sender: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// How many recipients it was accepted for.
    pub recipients: u32,
    /// What it is known by.
    pub digest: Digest,
    /// Who pays for it.
    pub tenant: String,
    /// Who submitted it.
    pub account: Option<String>,
    /// Words it carries for later selection.
    pub tags: Vec<String>,
}

impl MailPlace {
    /// What filters ask of it.
    pub fn traits(&self) -> MailTraits<'_> {
        MailTraits {
            queue_id: self.queue_id,
            sender: &self.sender,
            size: self.digest.len,
            tenant: &self.tenant,
            account: self.account.as_deref(),
            tags: &self.tags,
        }
    }
}

/// A mail that is all done, with its content file, which nobody needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedMail {
    /// Which mail, and when.
    pub finished: Finished,
    /// Its content file.
    pub file: Option<ContentRef>,
    /// It is to be retired: until then its record and its content file are needed.
    pub leaving: bool,
}

pub struct Index {
    trees: Box<Trees>,
    packed: Box<Packed>,
    /// The folder of the queue.
    folder: PathBuf,
    cache_capacity: u64,
    db_file: Mutex<Arc<File>>,
    /// Whether finished mails wait until they are retired.
    retire: bool,
    /// What those that are applied change is counted here, from [`Index::begin_counting`] on.
    usage: Mutex<Option<Box<Usage>>>,
}

impl Index {
    pub fn new(opened: Opened, retire: bool) -> (Self, Former) {
        let Opened {
            trees,
            packed,
            db_file,
            former,
            folder,
            cache_capacity,
        } = opened;
        let index = Self {
            trees,
            packed,
            folder,
            cache_capacity,
            db_file: Mutex::new(Arc::new(db_file)),
            retire,
            usage: Mutex::new(None),
        };
        (index, former)
    }

    pub fn mail(&self, id: QueueId) -> Result<Option<MailPlace>, QueueError> {
        let value = self.trees.mail.get(id.to_bytes())?;
        value.map(|value| mail_place(id, &value)).transpose()
    }

    /// Mails by ascending id from `from` on.
    pub fn mails(&self, from: QueueId) -> impl Iterator<Item = Result<MailPlace, QueueError>> {
        self.trees.mail.range(from.to_bytes()..).map(|item| {
            let (key, value) = item?;
            let id = keys::parse_id(&key).ok_or_else(|| unreadable("mail key", "length"))?;
            mail_place(id, &value)
        })
    }

    /// Mails with ids from the first to the last, by ascending id; may be asked from both ends.
    pub fn mails_between(
        &self,
        (first, last): (QueueId, QueueId),
    ) -> impl DoubleEndedIterator<Item = Result<MailPlace, QueueError>> + use<> {
        let range = first.to_bytes()..=last.to_bytes();
        self.trees.mail.range(range).map(|item| {
            let (key, value) = item?;
            let id = keys::parse_id(&key).ok_or_else(|| unreadable("mail key", "length"))?;
            mail_place(id, &value)
        })
    }

    pub fn epoch(&self) -> Result<u64, QueueError> {
        self.number("epoch")
    }

    /// Where replay begins; 0 in an empty index.
    pub fn checkpoint_lsn(&self) -> Result<Lsn, QueueError> {
        Ok(Lsn(self.number("checkpoint")?))
    }

    /// Makes all that was applied durable, then says so. Only after sled's flush *and* our own `fdatasync` is it on the
    /// disk (sled ends its flush with `sync_file_range`); the number is written last, so that it never says too much.
    pub fn checkpoint(&self, lsn: Lsn) -> Result<(), QueueError> {
        self.trees.recent.store_all()?;
        self.trees.db().flush()?;
        self.db_file()
            .sync_data()
            .map_err(|source| QueueError::Unsynced {
                doing: "sync the index",
                source,
            })?;
        self.trees.meta.insert("checkpoint", &lsn.0.to_be_bytes())?;
        Ok(())
    }

    fn db_file(&self) -> Arc<File> {
        let file = self.db_file.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&file)
    }

    /// Forgets ids that finished before `before`, and their blocks; a bounded number at a time.
    pub fn forget_before(&self, before: Timestamp) -> Result<usize, QueueError> {
        let forgotten = self.forget_ids(before)?;
        for (location, newest) in self.blocks()? {
            if newest < before {
                self.trees.meta.remove(block_key(location.lsn))?;
            }
        }
        Ok(forgotten)
    }

    /// Blocks of finished ids still within the window: where they lie, and the newest time in them.
    pub fn blocks(&self) -> Result<Vec<(Location, Timestamp)>, QueueError> {
        let blocks = self.trees.meta.store.scan_prefix(BLOCK).map(|item| {
            let (_, value) = item?;
            let (at, place) = value
                .split_at_checked(8)
                .ok_or_else(|| unreadable("place of a block", "length"))?;
            let at = at.try_into().map(u64::from_be_bytes).unwrap_or_default();
            Ok((location(place)?, Timestamp::from_millis(at)))
        });
        blocks.collect()
    }

    /// Forgets blocks that lay in a segment that is gone.
    pub fn forget_segment(&self, segment: SegmentNumber) -> Result<(), QueueError> {
        for (location, _) in self.blocks()? {
            if location.segment <= segment {
                self.trees.meta.remove(block_key(location.lsn))?;
            }
        }
        Ok(())
    }

    pub fn snapshot(&self) -> Result<Option<Location>, QueueError> {
        self.trees
            .meta
            .get("snapshot")?
            .map(|value| location(&value))
            .transpose()
    }

    fn number(&self, name: &str) -> Result<u64, QueueError> {
        let value = self.trees.meta.get(name)?;
        let number = value.and_then(|value| value.as_ref().try_into().ok().map(u64::from_be_bytes));
        Ok(number.unwrap_or(0))
    }
}

const BLOCK: &[u8] = b"block\0";

fn block_key(lsn: Lsn) -> Vec<u8> {
    [BLOCK, &lsn.0.to_be_bytes()].concat()
}

fn mail_place(queue_id: QueueId, value: &[u8]) -> Result<MailPlace, QueueError> {
    let entry = wire::MailEntry::decode(value).map_err(|e| unreadable("mail entry", e))?;
    let place = entry
        .location
        .ok_or_else(|| unreadable("mail entry", "no location"))?;
    Ok(MailPlace {
        queue_id,
        location: location_from_wire(place),
        file: entry.file.as_ref().map(file_from_wire).transpose()?,
        sender: entry.sender,
        received_at: Timestamp::from_millis(entry.received_at),
        recipients: entry.recipients,
        digest: digest_from_wire(entry.digest),
        tenant: entry.tenant,
        account: entry.account,
        tags: entry.tags,
    })
}

fn finished(queue_id: QueueId, value: &[u8]) -> Result<Finished, QueueError> {
    let entry = wire::Finished::decode(value).map_err(|e| unreadable("finished entry", e))?;
    Ok(Finished {
        queue_id,
        at: Timestamp::from_millis(entry.at),
        digest: digest_from_wire(entry.digest),
    })
}

fn finished_value(finished: &Finished) -> Vec<u8> {
    wire::Finished {
        queue_id: Vec::new(),
        at: finished.at.as_millis(),
        digest: Some(digest_to_wire(finished.digest)),
    }
    .encode_to_vec()
}

fn location(value: &[u8]) -> Result<Location, QueueError> {
    let place = wire::Location::decode(value).map_err(|e| unreadable("location", e))?;
    Ok(location_from_wire(place))
}

const fn location_to_wire(location: Location) -> wire::Location {
    wire::Location {
        segment: location.segment.0,
        offset: location.offset,
        len: location.len,
        lsn: location.lsn.0,
    }
}

const fn location_from_wire(place: wire::Location) -> Location {
    Location {
        segment: SegmentNumber(place.segment),
        offset: place.offset,
        len: place.len,
        lsn: Lsn(place.lsn),
    }
}

#[cfg(test)]
mod tests;
