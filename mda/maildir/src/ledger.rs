//! The ledger: which deliveries are decided. An entry is there before its mail is visible and stays until
//! the queue has durably acknowledged the settlement.
//!
//! Records are appended to the newest segment; threads that come while a sync is under way share the next one, which one of
//! them does. Each is woken once, when its own fate is known, or to do that.
//! The living entries are few (what is between delivery and settlement) and are held in memory; when the
//! segments hold mostly forgotten ones, the living are written to a new segment and the old ones go.

mod segment;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{make_folders, sync_folder};
use crate::error::at;
use crate::{DeliveryId, MaildirError};
pub use segment::Damage;
use segment::{Record, Segment};

/// One decided delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub id: DeliveryId,
    /// The folder that holds tmp and new, relative to the root.
    pub mailbox: String,
    pub tmp_name: String,
    pub final_name: String,
}

/// Why an entry was not recorded.
#[derive(Debug)]
pub(crate) enum Unrecorded {
    /// Surely not in the ledger: the tmp file may go.
    Refused(MaildirError),
    /// Perhaps in the ledger: the tmp file must stay until the ledger has been read again.
    Unknown(MaildirError),
}

#[derive(Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
    state: Mutex<State>,
    /// How often entries were synced.
    pub(crate) syncs: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    living: HashMap<DeliveryId, Entry>,
    waiting: Vec<Waiting>,
    /// Records nobody waits for.
    forgotten: Vec<DeliveryId>,
    /// Absent while a thread writes and syncs for the others.
    segments: Option<Segments>,
    /// A sync failed; nothing more is written.
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    entries: Vec<Entry>,
    told: Sender<Word>,
}

/// What one who waits is told.
#[derive(Debug)]
enum Word {
    /// It was written, or not: the last word.
    Fate(Fate),
    /// Nobody is at it any more: write for all who wait.
    Lead,
}

/// What became of a group, in a form all its members can share.
#[derive(Debug, Clone, Copy)]
#[must_use = "what was recorded is decided"]
pub(crate) enum Fate {
    Recorded,
    Refused(io::ErrorKind),
    Unknown,
    /// An earlier group's fate is unknown; this one was never written.
    Closed,
}

#[derive(Debug)]
struct Segments {
    current: Segment,
    /// Numbers of the older ones that still stand.
    older: Vec<u64>,
    /// Bytes of records in all segments.
    bytes: u64,
}

impl Ledger {
    /// Reads all segments, writes what lives into a new one and syncs it. Damage is returned, not fatal.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<Damage>), MaildirError> {
        make_folders(folder)?;
        let mut living = HashMap::new();
        let mut damages = Vec::new();
        let mut numbers = segment::numbers(folder)?;
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |last| last + 1);
        let newest = numbers.last().copied();
        for &number in &numbers {
            let (records, mut damage) = segment::read(folder, number)?;
            for record in records {
                match record {
                    Record::Delivering(entry) => drop(living.insert(entry.id.clone(), entry)),
                    Record::Forgotten(id) => drop(living.remove(&id)),
                }
            }
            // What a power cut tore off the end was never acknowledged.
            damage
                .iter_mut()
                .for_each(|damage| damage.torn_tail &= Some(number) == newest);
            damages.append(&mut damage);
        }
        let segments = Segments::start(folder, next, &living)?;
        for number in numbers {
            let keep = damages
                .iter()
                .any(|damage| damage.segment == number && !damage.torn_tail);
            segment::retire(folder, number, keep)?;
        }
        sync_folder(folder)?;
        let state = State {
            living,
            waiting: Vec::new(),
            forgotten: Vec::new(),
            segments: Some(segments),
            closed: false,
        };
        let folder = folder.to_path_buf();
        Ok((
            Self {
                folder,
                state: Mutex::new(state),
                syncs: Arc::default(),
            },
            damages,
        ))
    }

    /// The entry of a delivery, if it is decided.
    pub(crate) fn find(&self, id: &DeliveryId) -> Option<Entry> {
        self.lock().living.get(id).cloned()
    }

    /// The same for whoever concludes from the want of one: with a closed ledger an entry may be on the disk alone.
    pub(crate) fn find_for_sure(&self, id: &DeliveryId) -> Result<Option<Entry>, MaildirError> {
        let state = self.lock();
        match state.living.get(id) {
            None if state.closed => Err(self.closed()),
            found => Ok(found.cloned()),
        }
    }

    /// All that is decided and not forgotten.
    pub(crate) fn living(&self) -> Vec<Entry> {
        self.lock().living.values().cloned().collect()
    }

    /// Appends and syncs; returns when the entries are durable, or not: [`Ledger::told`] says so of each. This return is the commit
    /// of their deliveries.
    pub(crate) fn record(&self, entries: Vec<Entry>) -> Fate {
        if entries.is_empty() {
            return Fate::Recorded;
        }
        let (told, word) = channel();
        let mut state = self.lock();
        if state.closed {
            return Fate::Closed;
        }
        // Must not be written behind the new entries.
        let is_new = |id: &DeliveryId| entries.iter().any(|entry| entry.id == *id);
        state.forgotten.retain(|id| !is_new(id));
        state.waiting.push(Waiting { entries, told });
        self.lead(state);
        loop {
            match word.recv() {
                Ok(Word::Fate(fate)) => return fate,
                Ok(Word::Lead) => self.lead(self.lock()),
                // Whoever wrote for us ended by a fault of ours, and nobody knows how far it came.
                Err(_) => return Fate::Unknown,
            }
        }
    }

    /// Writes for all who wait, unless another thread is at it, which sees to them when it is done.
    fn lead(&self, mut state: MutexGuard<'_, State>) {
        if state.waiting.is_empty() {
            // They were written for before we came.
            return;
        }
        if let Some(segments) = state.segments.take() {
            drop(self.write_group(state, segments));
        }
    }

    /// Drops an entry, in memory now and on disk with the next group, or by [`tidy`](Self::tidy), without a sync: should a
    /// crash bring it back, it only takes some room.
    pub(crate) fn forget(&self, id: &DeliveryId) {
        let mut state = self.lock();
        if state.living.remove(id).is_some() && !state.closed {
            state.forgotten.push(id.clone());
        }
    }

    /// Writes what was forgotten, unless another thread is writing, which does it too. Blocks.
    pub(crate) fn tidy(&self) {
        let mut state = self.lock();
        if let Some(mut segments) = state.segments.take() {
            if segments.current.has_room(state.room_to_forget()) {
                self.write_forgotten(&mut state, &mut segments);
                state.segments = Some(segments);
            } else {
                drop(self.write_group(state, segments));
            }
        }
    }

    /// One thread writes for all who wait, without the lock.
    fn write_group<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut segments: Segments,
    ) -> MutexGuard<'a, State> {
        let group = std::mem::take(&mut state.waiting);
        let mut bytes = encode(&group, segments.current.number);
        let room = bytes.len() + state.room_to_forget();
        let living = (!segments.current.has_room(room)).then(|| state.living.clone());
        let closed = state.closed;
        drop(state);

        let fate = match (closed, living) {
            (true, _) => Fate::Closed,
            (false, None) => segments.current.commit(&bytes),
            (false, Some(living)) => match segments.roll(&self.folder, &living, room) {
                Err(error) => Fate::Refused(kind_of(&error)),
                Ok(()) => {
                    bytes = encode(&group, segments.current.number);
                    segments.current.commit(&bytes)
                }
            },
        };

        if !group.is_empty() {
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.lock();
        match fate {
            Fate::Recorded => segments.bytes += bytes.len() as u64,
            Fate::Refused(_) | Fate::Closed => {}
            Fate::Unknown => state.closed = true,
        }
        for Waiting { entries, told } in group {
            if matches!(fate, Fate::Recorded) {
                let entries = entries.into_iter().map(|entry| (entry.id.clone(), entry));
                state.living.extend(entries);
            }
            // Who does not listen any more ended by a fault of ours.
            let _ = told.send(Word::Fate(fate));
        }
        self.write_forgotten(&mut state, &mut segments);
        state.segments = Some(segments);
        if let Some(next) = state.waiting.first() {
            let _ = next.told.send(Word::Lead);
        }
        state
    }

    /// Best effort: without room or with a fault the records wait for the next group.
    fn write_forgotten(&self, state: &mut State, segments: &mut Segments) {
        let mut bytes = Vec::new();
        for id in &state.forgotten {
            Record::encode_forgotten(id, segments.current.number, &mut bytes);
        }
        if state.closed || bytes.is_empty() {
            return;
        }
        if segments.current.has_room(bytes.len()) && segments.current.append(&bytes).is_ok() {
            segments.bytes += bytes.len() as u64;
            state.forgotten.clear();
        }
    }

    /// What became of an entry that was recorded with others.
    pub(crate) fn told(&self, fate: Fate) -> Result<(), Unrecorded> {
        match fate {
            Fate::Recorded => Ok(()),
            Fate::Refused(kind) => {
                let error = at("append to the ledger", &self.folder)(kind.into());
                Err(Unrecorded::Refused(error))
            }
            Fate::Unknown => Err(Unrecorded::Unknown(self.closed())),
            Fate::Closed => Err(Unrecorded::Refused(self.closed())),
        }
    }

    fn closed(&self) -> MaildirError {
        MaildirError::LedgerClosed {
            path: self.folder.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.tidy();
    }
}

impl State {
    /// At most, in octets.
    fn room_to_forget(&self) -> usize {
        self.forgotten.len() * segment::FORGOTTEN_SIZE
    }
}

impl Segments {
    /// A first segment with all that lives.
    fn start(
        folder: &Path,
        number: u64,
        living: &HashMap<DeliveryId, Entry>,
    ) -> Result<Self, MaildirError> {
        let mut bytes = Vec::new();
        for entry in living.values() {
            Record::encode_entry(entry, number, &mut bytes);
        }
        let current = Segment::create(folder, number, &bytes, 0)?;
        Ok(Self {
            current,
            older: Vec::new(),
            bytes: bytes.len() as u64,
        })
    }

    /// A new segment with room for `room` octets. If less than half of all records live, they move there and
    /// the older segments go; else those stay, so that the work of copying never exceeds that of appending.
    fn roll(
        &mut self,
        folder: &Path,
        living: &HashMap<DeliveryId, Entry>,
        room: usize,
    ) -> Result<(), MaildirError> {
        let number = self.current.number + 1;
        let mut copied = Vec::new();
        for entry in living.values() {
            Record::encode_entry(entry, number, &mut copied);
        }
        if copied.len() as u64 * 2 > self.bytes {
            let next = Segment::create(folder, number, &[], room)?;
            self.older
                .push(std::mem::replace(&mut self.current, next).number);
            return Ok(());
        }
        let next = Segment::create(folder, number, &copied, room)?;
        self.older
            .push(std::mem::replace(&mut self.current, next).number);
        self.bytes = copied.len() as u64;
        // Oldest first: a forgotten-record must not go before the entry it ends.
        self.older.sort_unstable();
        for number in self.older.drain(..) {
            if let Err(error) = segment::retire(folder, number, false) {
                tracing::warn!(%error, "an old ledger segment stays behind");
                break;
            }
        }
        Ok(())
    }
}

fn encode(group: &[Waiting], segment: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in group.iter().flat_map(|waiting| &waiting.entries) {
        Record::encode_entry(entry, segment, &mut bytes);
    }
    bytes
}

fn kind_of(error: &MaildirError) -> io::ErrorKind {
    match error {
        MaildirError::NoSpace { .. } => io::ErrorKind::StorageFull,
        MaildirError::Permission { .. } => io::ErrorKind::PermissionDenied,
        MaildirError::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    }
}

/// How a fault before the sync is told to the group.
fn refused(error: &io::Error) -> Fate {
    Fate::Refused(error.kind())
}

/// Removes nothing that is not there.
fn remove_if_there(path: &Path) -> Result<(), MaildirError> {
    crate::disk::if_there(fs::remove_file(path))
        .map(drop)
        .map_err(at("remove", path))
}

#[cfg(test)]
pub(crate) mod tests;
