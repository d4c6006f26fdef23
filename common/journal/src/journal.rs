//! Appending, committing, reclaiming: what the one committer thread does.
use crate::{
    Entropy,
    error::{JournalError, Result, failed},
    folder::{Folder, Formats, sync_folder},
    format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, record_size},
    pool::{Pool, SPARE},
    random_u64,
    reader::{Reader, Segment, Shared},
    reclaim::Reclaimer,
    record::{
        Location, Lsn, Position, RecordDraft, RecordRef, Recovery, Replay, SegmentInfo,
        SegmentNumber,
    },
    recovery::{Mode, recover},
};
use bytes::Bytes;
use std::{
    borrow::Borrow,
    fmt,
    fs::{self, File, OpenOptions},
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A buffer larger than this is not kept from one group to the next.
const KEEP_BUFFER: usize = 16 << 20;

/// What may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Length of new segments; kept between 4 KiB and 1 GiB. Segments of other lengths stay readable.
    pub segment_bytes: u32,
    /// How many segments are prepared ahead; as many again are kept of those that were reclaimed.
    pub prepare_ahead: usize,
    /// How many segment files readers keep open.
    pub open_files: usize,
    /// Octets of the file system that no new segment takes: what others must write there (an index) finds room, also
    /// while a segment is being prepared.
    pub keep_free: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            prepare_ahead: 2,
            open_files: 16,
            keep_free: 4 << 20,
        }
    }
}

impl Options {
    fn segment_size(&self) -> u32 {
        self.segment_bytes.clamp(4 << 10, 1 << 30) & !7
    }
}

/// An open journal. It belongs to the committer; everyone else holds a `Reader`.
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    entropy: Entropy,
    segment_size: u32,
    /// None until the first append: opening alone writes no segment.
    pub(crate) active: Option<Active>,
    next_number: SegmentNumber,
    next_lsn: Lsn,
    /// Where the log ends.
    end: Position,
    /// Where the last whole group ends.
    whole_end: Position,
    last_lsn: Lsn,
    /// The first number not known to be durable.
    base: Lsn,
    pub(crate) poisoned: bool,
    buffer: Vec<u8>,
    format: u32,
    /// Readers do not hold the lock: one that outlives a failed journal must not keep its successor out.
    _lock: File,
}

/// The segment that is being appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("end", &self.end)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens or creates the journal in `folder`. When this returns, all that can be read is durable.
    pub fn open(folder: &Path, options: Options, entropy: Entropy) -> Result<(Self, Recovery)> {
        Self::open_in(folder, Formats::default(), options, entropy)
    }

    /// The same where what lies in the records has had several formats. A new folder gets the newest of them, another one
    /// stays what it is.
    pub fn open_in(
        folder: &Path,
        formats: Formats,
        options: Options,
        entropy: Entropy,
    ) -> Result<(Self, Recovery)> {
        let (folder, lock, format) = Folder::open(folder, formats)?;
        let found = recover(&folder, &entropy, Mode::Settle)?;
        let segment_size = options.segment_size();
        let pool = Pool::open(&folder.segments(), segment_size, &options)?;
        let mut journal = Self {
            shared: Arc::new(Shared::new(folder, found.segments, options.open_files)),
            pool,
            entropy,
            segment_size,
            active: None,
            next_number: found.next_number,
            next_lsn: found.next_lsn,
            end: found.log_end,
            whole_end: found.log_end,
            last_lsn: found.log_end.lsn,
            base: found.next_lsn,
            poisoned: false,
            buffer: Vec::new(),
            format,
            _lock: lock,
        };
        if found.settle {
            // What was dropped must not come back even if the disk reads otherwise next time.
            let prepared = journal.pool.take(1, 0).map_err(JournalError::NoSegment)?;
            prepared.iter().try_for_each(|path| journal.roll(path))?;
        }
        Ok((journal, found.report))
    }

    /// The format of the folder: what may be written into its records.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Writes the records as one group and syncs once. **Its return is the instant of commit.** After a
    /// crash the group is there whole, or, if this had not returned, perhaps not at all.
    pub fn append_group<D: Borrow<RecordDraft>>(&mut self, drafts: &[D]) -> Result<Vec<Location>> {
        self.append(drafts, true, 0)
    }

    /// As [`Journal::append_group`], for what may be refused: a prepared segment is left to the others, or nothing is written
    /// and the error is [`JournalError::NoSegment`]. So what ends the work that was taken in this way always has a segment,
    /// whoever else fills the disk.
    pub fn append_sparing<D: Borrow<RecordDraft>>(
        &mut self,
        drafts: &[D],
    ) -> Result<Vec<Location>> {
        self.append(drafts, true, SPARE)
    }

    /// Writes the records as a group without syncing: they survive the end of this process at once and a
    /// power cut after the next `append_group` or `sync`. For hints only.
    pub fn append_unsynced<D: Borrow<RecordDraft>>(
        &mut self,
        drafts: &[D],
    ) -> Result<Vec<Location>> {
        self.append(drafts, false, 0)
    }

    /// Makes durable what `append_unsynced` wrote.
    pub fn sync(&mut self) -> Result<()> {
        self.check()?;
        let outcome = self.sync_active();
        self.poisoned |= outcome.is_err();
        outcome
    }

    /// Begins a new segment, so that the ones before may be given up whatever room is left in them. Does nothing where the
    /// newest holds no record yet; tells whether it did.
    pub fn begin_segment(&mut self) -> Result<bool> {
        self.check()?;
        let is_empty = match &self.active {
            Some(active) => self.end.lsn < active.header.first_lsn,
            None => self.shared.table().is_empty(),
        };
        if is_empty {
            return Ok(false);
        }
        let prepared = self.pool.take(1, 0).map_err(JournalError::NoSegment)?;
        let outcome = prepared.iter().try_for_each(|path| self.roll(path));
        self.poisoned |= outcome.is_err();
        outcome.map(|()| true)
    }

    /// Longest payload that fits into a record.
    pub fn longest_payload(&self) -> usize {
        let room = self.segment_size - 2 * SEGMENT_HEADER - RECORD_HEADER;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// The last record appended, or 0 if there never was one.
    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    /// Reads for other threads.
    pub fn reader(&self) -> Reader {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// See [`Reader::replay`].
    pub fn replay<F>(&self, from: Lsn, each: F) -> Result<Replay>
    where
        F: FnMut(RecordRef<'_>) -> ControlFlow<()>,
    {
        self.check()?;
        self.reader().replay(from, each)
    }

    /// See [`Reader::read`].
    pub fn read(&self, location: &Location) -> Result<Bytes> {
        self.check()?;
        self.reader().read(location)
    }

    /// See [`Reader::read_range`].
    pub fn read_range(&self, location: &Location, range: Range<u32>) -> Result<Bytes> {
        self.check()?;
        self.reader().read_range(location, range)
    }

    /// The segments of the log, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.reader().segments()
    }

    /// See [`Reclaimer::reclaim_oldest`].
    pub fn reclaim_oldest(&mut self) -> Result<Option<SegmentNumber>> {
        self.check()?;
        self.reclaimer().reclaim_oldest()
    }

    /// Gives up segments on another thread: whoever appends need not wait for that.
    pub fn reclaimer(&self) -> Reclaimer {
        Reclaimer {
            shared: Arc::clone(&self.shared),
            shelf: self.pool.shelf(),
        }
    }

    fn check(&self) -> Result<()> {
        if self.poisoned {
            Err(JournalError::Poisoned)
        } else {
            Ok(())
        }
    }

    fn append<D: Borrow<RecordDraft>>(
        &mut self,
        drafts: &[D],
        sync: bool,
        spare: usize,
    ) -> Result<Vec<Location>> {
        self.check()?;
        let shares = self.share_out(drafts)?;
        // Before the first byte is written all segments needed are in hand, so a full disk spoils nothing.
        let prepared = self
            .pool
            .take(shares.len() - 1, spare)
            .map_err(JournalError::NoSegment)?;
        let outcome = self.write_group(drafts, &shares, &prepared, sync);
        // From here on nobody knows what the disk holds; only reading it anew can tell. A failed sync
        // must not be tried again: the kernel would report success for pages it has thrown away.
        self.poisoned |= outcome.is_err();
        outcome
    }

    /// How many drafts go into the active segment, and into each new one after it.
    fn share_out<D: Borrow<RecordDraft>>(&self, drafts: &[D]) -> Result<Vec<usize>> {
        let room = |end: u32, from: u32| u64::from(end.saturating_sub(from));
        let fresh = room(self.segment_size - SEGMENT_HEADER, SEGMENT_HEADER);
        let mut left = self.active.as_ref().map_or(0, |active| {
            room(active.header.records_end(), self.end.offset)
        });
        let mut shares = vec![0];
        for draft in drafts {
            let (len, max) = (draft.borrow().payload_len(), self.longest_payload());
            let size = u32::try_from(len)
                .ok()
                .filter(|_| len <= max)
                .map(record_size);
            let size = size.ok_or(JournalError::TooLarge { len, max })?;
            if size > left {
                shares.push(0);
                left = fresh;
            }
            left -= size;
            if let Some(share) = shares.last_mut() {
                *share += 1;
            }
        }
        Ok(shares)
    }

    fn write_group<D: Borrow<RecordDraft>>(
        &mut self,
        drafts: &[D],
        shares: &[usize],
        prepared: &[PathBuf],
        sync: bool,
    ) -> Result<Vec<Location>> {
        let mut locations = Vec::with_capacity(drafts.len());
        let mut left = drafts;
        let mut prepared = prepared.iter();
        for (at, share) in shares.iter().enumerate() {
            if at > 0 {
                prepared.next().map_or(Ok(()), |path| self.roll(path))?;
            }
            let (now, later) = left.split_at(*share);
            left = later;
            self.write_share(now, later.is_empty(), &mut locations)?;
        }
        self.whole_end = self.end;
        if sync {
            self.sync_active()?;
        }
        self.last_lsn = locations.last().map_or(self.last_lsn, |last| last.lsn);
        self.publish(false);
        Ok(locations)
    }

    /// One write: the records of a group that go into the active segment.
    fn write_share<D: Borrow<RecordDraft>>(
        &mut self,
        drafts: &[D],
        last_share: bool,
        locations: &mut Vec<Location>,
    ) -> Result<()> {
        let Some(active) = self.active.as_ref().filter(|_| !drafts.is_empty()) else {
            return Ok(());
        };
        self.buffer.clear();
        let start = self.end.offset;
        for (at, draft) in drafts.iter().map(Borrow::borrow).enumerate() {
            let record = RecordHeader {
                kind: draft.kind,
                last_of_group: last_share && at + 1 == drafts.len(),
                is_blank: false,
                // `share_out` has checked that it fits.
                len: u32::try_from(draft.payload_len()).unwrap_or(u32::MAX),
                lsn: self.next_lsn,
                segment: active.header.number,
                offset: self.end.offset,
                base: self.base,
            };
            record.encode(&active.header, &draft.parts, &mut self.buffer);
            locations.push(record.location());
            self.end = Position {
                segment: record.segment,
                offset: record.end(),
                lsn: record.lsn,
            };
            self.next_lsn = record.lsn.next();
        }
        active
            .file
            .write_all_at(&self.buffer, start.into())
            .map_err(failed("write", &active.path))?;
        if self.buffer.capacity() > KEEP_BUFFER {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Seals the active segment and begins a new one in a prepared file.
    ///
    /// The order is the proof: the old segment is durable before the new header says where it ended; the
    /// header is durable before the file gets a segment's name; the name is durable before a record lies in it.
    fn roll(&mut self, prepared: &Path) -> Result<()> {
        self.sync_active()?;
        self.publish(true);
        let header = SegmentHeader {
            number: self.next_number,
            salt: random_u64(&self.entropy),
            size: self.segment_size,
            first_lsn: self.next_lsn,
            previous_end: self.end,
            whole_end: self.whole_end,
        };
        let bytes = header.encode();
        let file = OpenOptions::new()
            .write(true)
            .open(prepared)
            .map_err(failed("open", prepared))?;
        file.write_all_at(&bytes, 0)
            .and_then(|()| file.write_all_at(&bytes, header.records_end().into()))
            // Its length and its place on the disk are durable since it was prepared.
            .and_then(|()| file.sync_data())
            .map_err(failed("write", prepared))?;
        let path = self.shared.folder.segment(header.number);
        fs::rename(prepared, &path).map_err(failed("name", &path))?;
        sync_folder(&self.shared.folder.segments())?;
        self.end = Position {
            segment: header.number,
            offset: SEGMENT_HEADER,
            lsn: header.first_lsn.previous(),
        };
        self.base = header.first_lsn;
        self.next_number = header.number.next();
        self.shared.table_mut().insert(
            header.number,
            Segment {
                header,
                end: self.end,
                sealed: false,
            },
        );
        self.active = Some(Active { file, path, header });
        Ok(())
    }

    fn sync_active(&mut self) -> Result<()> {
        if let Some(active) = self.active.as_ref().filter(|_| self.base < self.next_lsn) {
            active
                .file
                .sync_data()
                .map_err(failed("sync", &active.path))?;
            self.base = self.next_lsn;
        }
        Ok(())
    }

    /// Lets readers see the active segment up to where it ends now.
    fn publish(&self, sealed: bool) {
        let mut table = self.shared.table_mut();
        if let Some(segment) = self
            .active
            .as_ref()
            .and_then(|active| table.get_mut(&active.header.number))
        {
            segment.end = self.end;
            segment.sealed = sealed;
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.end();
    }
}

#[cfg(test)]
mod tests;
