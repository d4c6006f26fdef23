//! Reading committed records, from any thread, while others are appended.
use crate::{
    error::{JournalError, Result, failed},
    folder::Folder,
    format::{RECORD_HEADER, RecordHeader, SegmentHeader},
    quarantine,
    record::{Location, Lsn, Position, RecordRef, Replay, SegmentInfo, SegmentNumber},
    walk::{Step, Walk},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

pub(crate) const BLOCK: usize = 4096;

/// A segment that is part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Where its part of the log ends so far.
    pub(crate) end: Position,
    pub(crate) sealed: bool,
}

/// Whether the journal that this belongs to is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Open,
    Closed,
}

/// What the journal and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    table: RwLock<BTreeMap<SegmentNumber, Segment>>,
    files: Mutex<Vec<(SegmentNumber, Arc<File>)>>,
    /// Held by whoever gives the file of a segment another name, which nobody may once the journal is closed.
    changing: Mutex<Owner>,
    open_files: usize,
    /// Damaged ranges are copied to `quarantine/`; not where the folder is only looked at.
    keeps_damage: bool,
}

impl Shared {
    pub(crate) fn new(
        folder: Folder,
        table: BTreeMap<SegmentNumber, Segment>,
        open_files: usize,
    ) -> Self {
        Self {
            folder,
            table: RwLock::new(table),
            files: Mutex::default(),
            changing: Mutex::new(Owner::Open),
            open_files: open_files.max(1),
            keeps_damage: true,
        }
    }

    /// The same for a folder that nothing may be written to.
    pub(crate) fn looking_only(self) -> Self {
        Self {
            keeps_damage: false,
            ..self
        }
    }

    pub(crate) fn table(&self) -> RwLockReadGuard<'_, BTreeMap<SegmentNumber, Segment>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn table_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<SegmentNumber, Segment>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the segment out of every reader's sight. Whoever reads it at this moment checks afterwards
    /// that it is still in the table, so its file may be overwritten from now on.
    pub(crate) fn forget(&self, number: SegmentNumber) {
        self.table_mut().remove(&number);
        self.files().retain(|(cached, _)| *cached != number);
    }

    /// The next reader opens the file of a segment anew.
    pub(crate) fn close(&self, number: SegmentNumber) {
        self.files().retain(|(cached, _)| *cached != number);
    }

    /// The turn to give the file of a segment another name.
    pub(crate) fn changing(&self) -> Result<MutexGuard<'_, Owner>> {
        let turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match *turn {
            Owner::Open => Ok(turn),
            Owner::Closed => Err(JournalError::Closed),
        }
    }

    /// The folder may belong to another journal from now on. Waits for whoever changes it.
    pub(crate) fn end(&self) {
        *self.changing.lock().unwrap_or_else(PoisonError::into_inner) = Owner::Closed;
    }

    fn files(&self) -> MutexGuard<'_, Vec<(SegmentNumber, Arc<File>)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file of a segment; the most recently used ones stay open.
    pub(crate) fn file(&self, number: SegmentNumber) -> Result<Arc<File>> {
        let mut files = self.files();
        let found = match files.iter().position(|(cached, _)| *cached == number) {
            Some(at) => files.remove(at).1,
            None => {
                let path = self.folder.segment(number);
                Arc::new(File::open(&path).map_err(failed("open", &path))?)
            }
        };
        files.insert(0, (number, Arc::clone(&found)));
        files.truncate(self.open_files);
        Ok(found)
    }
}

/// Reads records. Cheap to clone; every method may be called from any thread. It belongs to the journal it
/// came from: when that is closed and opened anew, take a new one.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// The payload at a location, checked. `Gone` if the segment has been reclaimed meanwhile, or the record blanked.
    pub fn read(&self, location: &Location) -> Result<Bytes> {
        let segment = self.segment(location.segment).ok_or(JournalError::Gone)?;
        let outcome = self.read_in(&segment.header, location);
        // A failure may only mean that the file was given up under our hands.
        if outcome.is_err() && self.segment(location.segment).is_none() {
            Err(JournalError::Gone)
        } else {
            outcome
        }
    }

    /// A part of the payload at a location, cut to what there is. The whole record is read and checked,
    /// so whoever wants all of it piece by piece does better to `read` it once.
    pub fn read_range(&self, location: &Location, range: Range<u32>) -> Result<Bytes> {
        let payload = self.read(location)?;
        let cut = |at: u32| usize::try_from(at).unwrap_or(usize::MAX).min(payload.len());
        let (start, end) = (cut(range.start), cut(range.end));
        Ok(payload.slice(start..end.max(start)))
    }

    /// Shows `each` record from `from` on, in order. Segments that end before `from` are not read.
    /// Damaged ranges are copied to quarantine and returned; the rest goes on.
    pub fn replay<F>(&self, from: Lsn, mut each: F) -> Result<Replay>
    where
        F: FnMut(RecordRef<'_>) -> ControlFlow<()>,
    {
        let segments: Vec<Segment> = self.shared.table().values().copied().collect();
        let mut replay = Replay::default();
        for segment in segments.iter().filter(|segment| segment.end.lsn >= from) {
            self.replay_in(segment, from, &mut each, &mut replay)?;
            if replay.stopped {
                break;
            }
        }
        Ok(replay)
    }

    /// Like `replay`, for one segment: what a reclaimer reads before it gives the segment up.
    pub fn replay_segment<F>(&self, number: SegmentNumber, mut each: F) -> Result<Replay>
    where
        F: FnMut(RecordRef<'_>) -> ControlFlow<()>,
    {
        let segment = self
            .segment(number)
            .ok_or(JournalError::NoSuchSegment(number))?;
        let mut replay = Replay::default();
        self.replay_in(&segment, Lsn::default(), &mut each, &mut replay)?;
        Ok(replay)
    }

    /// The segments of the log, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let table = self.shared.table();
        let info = table.values().map(|segment| SegmentInfo {
            number: segment.header.number,
            first_lsn: segment.header.first_lsn,
            last_lsn: segment.end.lsn,
            bytes_used: segment.end.offset,
            sealed: segment.sealed,
        });
        info.collect()
    }

    pub(crate) fn segment(&self, number: SegmentNumber) -> Option<Segment> {
        self.shared.table().get(&number).copied()
    }

    fn read_in(&self, segment: &SegmentHeader, location: &Location) -> Result<Bytes> {
        let damaged = || JournalError::Damaged(*location);
        let len = location
            .len
            .checked_add(RECORD_HEADER)
            .filter(|len| *len <= segment.size)
            .ok_or_else(damaged)?;
        let mut record = vec![0; usize::try_from(len).map_err(|_| damaged())?];
        let path = self.shared.folder.segment(segment.number);
        match self
            .shared
            .file(segment.number)?
            .read_exact_at(&mut record, location.offset.into())
        {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
            Err(error) => return Err(failed("read", &path)(error)),
        }
        match RecordHeader::decode(segment, location.offset, &record) {
            Some((found, _)) if found.location() == *location => {
                if found.is_blank {
                    return Err(JournalError::Gone);
                }
            }
            _ => return Err(damaged()),
        }
        Ok(Bytes::from(record).slice(record_payload(location.len)))
    }

    fn replay_in<F>(
        &self,
        segment: &Segment,
        from: Lsn,
        each: &mut F,
        replay: &mut Replay,
    ) -> Result<()>
    where
        F: FnMut(RecordRef<'_>) -> ControlFlow<()>,
    {
        let read = self
            .shared
            .file(segment.header.number)
            .map(|file| read_blocks(&file, segment.end.offset));
        // Reclaimed meanwhile: what lived in it was copied forward and is met there.
        if self.segment(segment.header.number).is_none() {
            return Ok(());
        }
        let (bytes, _) = read?;
        for step in Walk::new(&segment.header, &bytes, segment.end.offset) {
            let (record, payload) = match step {
                Step::Record(record, payload) => (record, payload),
                Step::Gap(gap) if !self.shared.keeps_damage => {
                    replay
                        .damage
                        .push(quarantine::seen(segment.header.number, &gap));
                    continue;
                }
                Step::Gap(gap) => {
                    let number = segment.header.number;
                    replay.damage.push(quarantine::keep(
                        &self.shared.folder.quarantine(),
                        number,
                        &gap,
                        &bytes,
                    ));
                    continue;
                }
            };
            if record.lsn < from || record.is_blank {
                continue;
            }
            let seen = RecordRef {
                lsn: record.lsn,
                location: record.location(),
                kind: record.kind,
                payload,
            };
            replay.records += 1;
            replay.last = Some(record.lsn);
            if each(seen).is_break() {
                replay.stopped = true;
                return Ok(());
            }
        }
        Ok(())
    }
}

fn record_payload(len: u32) -> Range<usize> {
    let header = RECORD_HEADER as usize;
    header..header + usize::try_from(len).unwrap_or(usize::MAX - header)
}

/// The first `len` bytes of a file and how many blocks could not be read. Those are left as zeros: one bad
/// sector costs the records in it and not the start of the queue.
pub(crate) fn read_blocks(file: &File, len: u32) -> (Vec<u8>, u64) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    if file.read_exact_at(&mut bytes, 0).is_ok() {
        return (bytes, 0);
    }
    bytes.fill(0);
    let mut unreadable = 0;
    let mut offset = 0;
    for block in bytes.chunks_mut(BLOCK) {
        // Filled as far as the file goes, block by block.
        let (mut filled, size) = (0, block.len());
        while filled < size {
            match file.read_at(&mut block[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    block.fill(0);
                    unreadable += 1;
                    break;
                }
            }
        }
        offset += size as u64;
    }
    (bytes, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_zeros_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short");
        std::fs::write(&path, b"short").unwrap();
        let (bytes, unreadable) = read_blocks(&File::open(&path).unwrap(), 5000);
        assert_eq!(
            (&bytes[..6], bytes.len(), unreadable),
            (&b"short\0"[..], 5000, 0)
        );
        // A folder opens and does not read: each of its blocks fails, as bad sectors do.
        let (bytes, unreadable) = read_blocks(&File::open(folder.path()).unwrap(), 5000);
        assert_eq!((bytes, unreadable), (vec![0; 5000], 2));
    }
}
