//! Forgetting records for good: a sealed segment is written anew with some payloads as zeros, and takes the place of the
//! old file. Everything else lies where it lay, so locations stay true.
use crate::{
    error::{Result, failed},
    folder::sync_folder,
    format::{RecordHeader, SEGMENT_HEADER},
    journal::Journal,
    reader::{Reader, Segment, read_blocks},
    record::{RecordRef, SegmentNumber},
    walk::{Step, Walk},
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
};

/// A segment that is being written anew; what a crash leaves of it is removed at opening.
pub(crate) const DRAFT: &str = "blanking.tmp";

impl Reader {
    /// Blanks the records of a sealed segment that are not wanted any more, and all that lies behind its end: a file may
    /// hold octets of its former life. Durable when this returns; a crash leaves the segment as it was or as it is to be.
    /// Whoever has it open goes on. Tells how many records were blanked; none if the segment has gone, or is not sealed.
    pub fn blank_segment(
        &self,
        number: SegmentNumber,
        unwanted: impl FnMut(&RecordRef<'_>) -> bool,
    ) -> Result<u64> {
        let Some(segment) = self.segment(number).filter(|segment| segment.sealed) else {
            return Ok(0);
        };
        let path = self.shared.folder.segment(number);
        let file = match self.shared.file(number) {
            Ok(file) => file,
            Err(_) if self.segment(number).is_none() => return Ok(0),
            Err(error) => return Err(error),
        };
        let (mut bytes, _) = read_blocks(&file, segment.header.size);
        if self.segment(number).is_none() {
            return Ok(0);
        }
        let blanked = blank_records(&segment, &mut bytes, unwanted);
        let rest = clear_behind(&segment, &mut bytes);
        if blanked == 0 && !rest {
            return Ok(0);
        }
        let draft = path.with_file_name(DRAFT);
        let written = write_whole(&draft, &bytes).and_then(|()| self.replace(number, &draft));
        if written.is_err() {
            // Best effort: opening the journal removes it too.
            let _ = fs::remove_file(&draft);
        }
        written.map(|()| blanked)
    }

    fn replace(&self, number: SegmentNumber, draft: &Path) -> Result<()> {
        let path = self.shared.folder.segment(number);
        let _turn = self.shared.changing()?;
        if self.segment(number).is_none() {
            // Given up meanwhile. It must not come back.
            return fs::remove_file(draft).map_err(failed("remove", draft));
        }
        fs::rename(draft, &path).map_err(failed("name", &path))?;
        self.shared.close(number);
        sync_folder(&self.shared.folder.segments())
    }
}

/// Blanks in memory; tells how many.
fn blank_records(
    segment: &Segment,
    bytes: &mut [u8],
    mut unwanted: impl FnMut(&RecordRef<'_>) -> bool,
) -> u64 {
    let mut found = Vec::new();
    for step in Walk::new(&segment.header, bytes, segment.end.offset) {
        let Step::Record(record, payload) = step else {
            continue;
        };
        let seen = RecordRef {
            lsn: record.lsn,
            location: record.location(),
            kind: record.kind,
            payload,
        };
        if !record.is_blank && unwanted(&seen) {
            found.push(record);
        }
    }
    let mut blanked = 0;
    for record in found {
        let mut blank = Vec::new();
        let zeros = Bytes::from(vec![0; usize::try_from(record.len).unwrap_or_default()]);
        let record = RecordHeader {
            is_blank: true,
            ..record
        };
        record.encode(&segment.header, &[zeros], &mut blank);
        let at = usize::try_from(record.offset).unwrap_or(usize::MAX);
        if let Some(place) = at
            .checked_add(blank.len())
            .and_then(|end| bytes.get_mut(at..end))
        {
            place.copy_from_slice(&blank);
            blanked += 1;
        }
    }
    blanked
}

/// Tells whether anything lay behind the end.
fn clear_behind(segment: &Segment, bytes: &mut [u8]) -> bool {
    let cut = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
    let range = cut(segment.end.offset)..cut(segment.header.records_end());
    let Some(rest) = bytes.get_mut(range) else {
        return false;
    };
    let any = rest.iter().any(|octet| *octet != 0);
    rest.fill(0);
    // Either header may have been unreadable.
    let header = segment.header.encode();
    for at in [0, cut(segment.header.records_end())] {
        if let Some(place) = bytes.get_mut(at..at + header.len()) {
            place.copy_from_slice(&header);
        }
    }
    any
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(failed("write", path))
}

impl Journal {
    /// What was prepared goes, and no segment is recycled until [`Journal::recycle_again`]: whatever becomes a segment
    /// meanwhile holds nothing old.
    pub fn stop_recycling(&mut self) -> Result<()> {
        // A segment that is being given up at this moment is among what was prepared.
        let _turn = self.shared.changing()?;
        self.pool.set_recycling(false)
    }

    /// The end of [`Journal::stop_recycling`].
    pub fn recycle_again(&mut self) {
        // Turning it on removes nothing, so nothing can fail.
        let _ = self.pool.set_recycling(true);
    }

    /// Whether a segment can be begun without waiting for one to be prepared.
    pub fn is_prepared(&self) -> bool {
        self.pool.is_ready()
    }

    /// Ends the newest segment, so that all that was appended lies in sealed ones. One without any record is cleared
    /// instead: its file may hold old octets.
    pub fn seal(&mut self) -> Result<()> {
        if self.begin_segment()? {
            return Ok(());
        }
        let Some(active) = &self.active else {
            return Ok(());
        };
        let cleared = clear_records(&active.file, active.header.records_end());
        cleared
            .map_err(failed("clear", &active.path))
            .inspect_err(|_| self.poisoned = true)
    }
}

/// Overwrites the whole room for records of a segment that has none.
pub(crate) fn clear_records(file: &File, end: u32) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let (mut at, end) = (u64::from(SEGMENT_HEADER), u64::from(end));
    while at < end {
        let len = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        file.write_all_at(zeros.get(..len).unwrap_or_default(), at)?;
        at += u64::try_from(len).unwrap_or(u64::MAX);
    }
    file.sync_all()
}

#[cfg(test)]
mod tests;
