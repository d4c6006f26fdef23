//! The thread that keeps the timeline: writes rounds of events, syncs about once a second, gives up old segments.
//!
//! Nobody waits for it but who asks for events. Where the disk refuses it tells so once, passes events over, and opens
//! the segments anew every now and then.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use postroad_envelope::QueueId;
use postroad_journal::{
    Journal, JournalError, Location, Options, Reader, RecordDraft, SegmentInfo, SegmentNumber,
};
use tracing::{error, info, warn};

use super::{
    Shared, Written,
    inbox::{Inbox, Request},
    index::SegmentIndex,
    record::{self, Draft},
};
use crate::{
    clock,
    retention::{self, Limits},
};

/// A round waits this long for more.
const GATHER: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_secs(1);
/// How long the segments are left alone after a failure.
const REOPEN: Duration = Duration::from_secs(10);

pub struct Store {
    pub shared: Arc<Shared>,
    pub folder: PathBuf,
    pub limits: Arc<Mutex<Limits>>,
    /// Whether the disk has fallen below its reserve.
    pub is_short: Box<dyn Fn() -> bool + Send>,
}

impl Store {
    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn run(self, inbox: &Inbox) {
        let mut writer = Writer {
            most: self.limits().segments,
            store: self,
            journal: None,
            failed: None,
            dirty: false,
            indexing: None,
        };
        writer.open();
        let mut tick = Instant::now() + TICK;
        let mut stop = false;
        while !stop {
            let round = inbox.take(tick.saturating_duration_since(Instant::now()), GATHER);
            writer.write(round.entries);
            for request in round.requests {
                // Who asked may have given up waiting.
                match request {
                    Request::Flush(asked) => drop(asked.try_send(())),
                    Request::Clean(begins, asked) => drop(asked.try_send(writer.clean(begins))),
                    Request::Stop => stop = true,
                }
            }
            if stop || Instant::now() >= tick {
                writer.tick();
                tick = Instant::now() + TICK;
            }
        }
        writer.store.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(indexing) = writer.indexing.take() {
            let _ = indexing.join();
        }
    }
}

struct Writer {
    store: Store,
    journal: Option<Journal>,
    /// Since when it cannot be written.
    failed: Option<Instant>,
    /// Something is not synced yet.
    dirty: bool,
    indexing: Option<JoinHandle<()>>,
    /// Segments it may have now.
    most: usize,
}

impl Writer {
    fn open(&mut self) {
        let options = Options {
            segment_bytes: self.store.limits().segment_bytes,
            prepare_ahead: 1,
            ..Options::default()
        };
        let opened = Journal::open(&self.store.folder, options, clock::entropy());
        let (journal, recovery) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.fail(&error),
        };
        for segment in recovery.unreadable.iter().chain(&recovery.missing) {
            error!(event = "corruption", segment = %segment, "a segment of the timeline is missing or unreadable");
        }
        let reader = journal.reader();
        *self.store.shared.reader() = Some(reader.clone());
        self.journal = Some(journal);
        if self.failed.take().is_some() {
            info!(event = "replay", "the timeline can be written again");
        }
        let shared = Arc::clone(&self.store.shared);
        let index = move || shared.index_all(&reader);
        let spawned = thread::Builder::new().name("timeline-index".to_owned());
        // Without it the first look-up does the same.
        self.indexing = spawned.spawn(index).ok().or(self.indexing.take());
    }

    /// Tells a person, once.
    fn fail(&mut self, error: &JournalError) {
        if self.failed.is_none() {
            let path = self.store.folder.display();
            error!(
                event = "disk_failed", path = %path, error = error as &dyn std::error::Error,
                "the timeline cannot be written; events are lost until it can, mail goes on"
            );
        }
        self.failed = Some(Instant::now());
        // What is on the disk only opening it anew can tell; where a segment is missing, later calls may succeed.
        if !matches!(error, JournalError::NoSegment(_)) {
            self.journal = None;
        }
    }

    fn write(&mut self, entries: Vec<Draft>) {
        if entries.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.store.shared);
        let (count, octets) = (entries.len(), entries.iter().map(Draft::octets).sum());
        if !self.append(entries) {
            shared.lose(count);
        }
        shared.written_out(octets);
    }

    fn append(&mut self, entries: Vec<Draft>) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        let now = clock::now();
        let mut drafts = Vec::new();
        let mut told = Vec::new();
        // Whoever begins to follow later finds these on the disk.
        let is_followed = self.store.shared.written.receiver_count() > 0;
        for (queue_id, entries) in by_mail(entries) {
            for mut record in record::encode(queue_id, entries, now, is_followed) {
                if record.payload.len() > journal.longest_payload() {
                    self.store.shared.lose(record.count);
                    continue;
                }
                let payload = mem::take(&mut record.payload);
                drafts.push(RecordDraft::new(record::EVENTS, payload));
                told.push((queue_id, record));
            }
        }
        let locations = match journal.append_unsynced(&drafts) {
            Ok(locations) => locations,
            Err(error) => {
                self.fail(&error);
                return false;
            }
        };
        if self.failed.take().is_some() {
            info!(event = "replay", "the timeline can be written again");
        }
        self.dirty = true;
        let shared = &self.store.shared;
        let mut index = shared.index();
        for (location, (_, record)) in locations.iter().zip(&mut told) {
            index.add(location, mem::take(&mut record.keys), now);
        }
        drop(index);
        if !is_followed {
            return true;
        }
        for (location, (queue_id, record)) in locations.iter().zip(told) {
            let written = Written {
                lsn: location.lsn,
                queue_id,
                entries: record.entries,
            };
            // Nobody may be listening any more.
            let _ = shared.written.send(Arc::new(written));
        }
        true
    }

    fn tick(&mut self) {
        if self.journal.is_none() && self.failed.is_some_and(|since| since.elapsed() >= REOPEN) {
            self.open();
        }
        if self.dirty
            && let Some(journal) = &mut self.journal
        {
            self.dirty = false;
            if let Err(error) = journal.sync() {
                self.fail(&error);
            }
        }
        self.give_up();
    }

    fn clean(&mut self, begins: bool) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        if !begins {
            journal.recycle_again();
            return true;
        }
        let sealed = journal.stop_recycling().and_then(|()| journal.seal());
        sealed.inspect_err(|error| self.fail(error)).is_ok()
    }

    /// The oldest segments, when they are too many or too old.
    fn give_up(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let (segments, limits) = (journal.segments(), self.store.limits());
        // While the disk is short it does not grow.
        self.most = match (self.store.is_short)() {
            true => self.most.min(segments.len()).max(1),
            false => limits.segments,
        };
        let now = clock::now();
        let newest = |segment: &SegmentInfo| self.store.shared.index().newest(segment.number);
        if retention::give_up(journal, self.most, limits.keep, now, newest) {
            let living = journal
                .segments()
                .iter()
                .map(|known| known.number)
                .collect();
            self.store.shared.index().retain(&living);
        }
    }
}

/// In the order in which each came first.
fn by_mail(entries: Vec<Draft>) -> Vec<(QueueId, Vec<Draft>)> {
    let mut places: HashMap<QueueId, usize> = HashMap::new();
    let mut mails: Vec<(QueueId, Vec<Draft>)> = Vec::new();
    for entry in entries {
        let id = entry.queue_id;
        let at = *places.entry(id).or_insert(mails.len());
        match mails.get_mut(at) {
            Some((_, of)) => of.push(entry),
            None => mails.push((id, vec![entry])),
        }
    }
    mails
}

impl Shared {
    /// Reads every sealed segment that is not in the index, newest first.
    pub(super) fn index_all(&self, reader: &Reader) {
        let unknown = |segment: &SegmentInfo| segment.sealed && !self.index().knows(segment.number);
        let unknown: Vec<SegmentNumber> = reader
            .segments()
            .iter()
            .filter(|segment| unknown(segment))
            .map(|segment| segment.number)
            .collect();
        for number in unknown.into_iter().rev() {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            if !self.index().knows(number) {
                self.index_segment(reader, number);
            }
        }
        let living: BTreeSet<_> = reader.segments().iter().map(|known| known.number).collect();
        self.index().retain(&living);
    }

    pub(super) fn index_segment(&self, reader: &Reader, number: SegmentNumber) {
        let mut found = SegmentIndex::default();
        let replayed = reader.replay_segment(number, |seen| {
            let decoded = (seen.kind == record::EVENTS).then(|| record::decode(seen.payload));
            if let Some(decoded) = decoded.flatten() {
                found.add_record(&seen.location, &decoded);
            }
            ControlFlow::Continue(())
        });
        match replayed {
            Ok(replayed) => {
                for damage in replayed.damage.iter().filter(|damage| damage.fresh) {
                    error!(
                        event = "corruption", segment = %number,
                        path = damage.copy.as_ref().map(|path| tracing::field::display(path.display())),
                        "octets {} to {} of the timeline are damaged; a copy is in quarantine", damage.start, damage.end
                    );
                }
            }
            Err(JournalError::NoSuchSegment(_)) => return,
            Err(error) => {
                warn!(event = "fault", segment = %number, error = %error, "a segment of the timeline cannot be read");
            }
        }
        found.seal();
        self.index().insert(number, found);
    }

    /// The record at a place; none if it was given up or is damaged.
    pub(super) fn read(&self, location: &Location) -> Option<record::Decoded> {
        let reader = self.reader().clone()?;
        record::decode(&reader.read(location).ok()?)
    }
}
