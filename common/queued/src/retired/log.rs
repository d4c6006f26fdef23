//! Reading the segments of retired mails or contents. Nothing of them is in memory until someone asks; then, for each
//! segment that was looked into, 32 octets a record, for ten minutes after the last question.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use postroad_envelope::{QueueId, QueueIdPrefix, Timestamp};
use postroad_journal::{
    JournalError, Location, Lsn, Reader, RecordRef, SegmentInfo, SegmentNumber,
};
use postroad_queue::record::retired_key;
use tracing::{error, warn};

/// How long the index stays after the last question.
const IDLE: Duration = Duration::from_secs(600);

/// Where the record of a mail lies in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub id: QueueId,
    pub lsn: Lsn,
    offset: u32,
    len: u32,
}

/// The segments of one kind.
#[derive(Debug, Default)]
pub struct Log {
    reader: Mutex<Option<Reader>>,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// Of sealed segments, in the order of their records.
    segments: BTreeMap<SegmentNumber, Arc<[Place]>>,
    asked: Option<Instant>,
}

impl Log {
    pub fn set_reader(&self, reader: Option<Reader>) {
        let mut now = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *now = reader;
    }

    pub fn reader(&self) -> Option<Reader> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.clone()
    }

    /// Newest first. Blocks.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let reader = self.reader();
        let mut segments = reader.map(|reader| reader.segments()).unwrap_or_default();
        segments.reverse();
        segments
    }

    /// The records of a segment, oldest first. Blocks.
    pub fn places(&self, segment: &SegmentInfo) -> Arc<[Place]> {
        let known = self.index().segments.get(&segment.number).cloned();
        if let Some(known) = known {
            return known;
        }
        let mut places = Vec::new();
        self.each(segment.number, |seen, id, _| {
            places.push(Place {
                id,
                lsn: seen.lsn,
                offset: seen.location.offset,
                len: seen.location.len,
            });
            ControlFlow::Continue(())
        });
        let places: Arc<[Place]> = places.into();
        if segment.sealed {
            let mut index = self.index();
            index.segments.insert(segment.number, Arc::clone(&places));
        }
        places
    }

    /// Where the newest record of a mail lies. Blocks.
    pub fn find(&self, id: QueueId) -> Option<Location> {
        let found = self.segments().into_iter().find_map(|segment| {
            let places = self.places(&segment);
            let place = places.iter().rev().find(|place| place.id == id)?;
            Some(place.in_segment(segment.number))
        });
        self.tidy();
        found
    }

    /// Mails whose ids begin so, at most `limit`. Blocks.
    pub fn find_prefix(&self, prefix: &QueueIdPrefix, limit: usize) -> Vec<QueueId> {
        let (first, last) = (prefix.first(), prefix.last());
        let mut found = Vec::new();
        for segment in self.segments() {
            for place in self.places(&segment).iter() {
                let is_meant = (first..=last).contains(&place.id);
                if is_meant && !found.contains(&place.id) {
                    found.push(place.id);
                }
                if found.len() >= limit {
                    return found;
                }
            }
        }
        self.tidy();
        found
    }

    /// The payload at a place; none if it was given up or is damaged. Blocks.
    pub fn read(&self, location: &Location) -> Option<Bytes> {
        self.reader()?.read(location).ok()
    }

    /// Shows every record of a segment that tells whose it is, with when that was retired. Blocks.
    pub fn each(
        &self,
        number: SegmentNumber,
        mut show: impl FnMut(RecordRef<'_>, QueueId, Timestamp) -> ControlFlow<()>,
    ) {
        let Some(reader) = self.reader() else { return };
        let replayed =
            reader.replay_segment(number, |seen| match retired_key(seen.kind, seen.payload) {
                Some((id, at)) => show(seen, id, at),
                None => ControlFlow::Continue(()),
            });
        match replayed {
            Ok(replayed) => {
                for damage in replayed.damage.iter().filter(|damage| damage.fresh) {
                    error!(
                        event = "corruption", segment = %number,
                        path = damage.copy.as_ref().map(|path| tracing::field::display(path.display())),
                        "octets {} to {} of retired mails are damaged; a copy is in quarantine", damage.start, damage.end
                    );
                }
            }
            // Given up meanwhile.
            Err(JournalError::NoSuchSegment(_)) => {}
            Err(error) => {
                warn!(event = "fault", segment = %number, error = %error, "a segment of retired mails cannot be read");
            }
        }
    }

    /// Forgets these mails, as far as they lie in one sealed segment. Durable when this returns. Blocks.
    pub fn blank(
        &self,
        number: SegmentNumber,
        ids: &HashSet<QueueId>,
    ) -> Result<u64, JournalError> {
        let Some(reader) = self.reader() else {
            return Ok(0);
        };
        let blanked = reader.blank_segment(number, |seen| {
            let key = retired_key(seen.kind, seen.payload);
            key.is_some_and(|(id, _)| ids.contains(&id))
        })?;
        self.index().segments.remove(&number);
        Ok(blanked)
    }

    /// Forgets segments that are gone, and all of them when nobody asks any more.
    pub fn forget_idle(&self) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if index.asked.is_some_and(|asked| asked.elapsed() > IDLE) {
            *index = Index::default();
        }
    }

    fn tidy(&self) {
        let living = self.segments();
        self.index().segments.retain(|number, _| {
            let is_this = |segment: &SegmentInfo| segment.number == *number;
            living.iter().any(is_this)
        });
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.asked = Some(Instant::now());
        index
    }
}

impl Place {
    pub const fn in_segment(&self, segment: SegmentNumber) -> Location {
        Location {
            segment,
            offset: self.offset,
            len: self.len,
            lsn: self.lsn,
        }
    }
}
