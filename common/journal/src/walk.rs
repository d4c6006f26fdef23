//! Reading the bytes of one segment in order: pure, no files.
use crate::{
    format::{RECORD_HEADER, RECORD_PLACE, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    record::{Lsn, Position},
};
use std::ops::Range;

/// Octets passed over at once where nothing was written: the rest of a segment is read at each start.
const STRIDE: u32 = 4096;
static BLANK: [u8; STRIDE as usize] = [0; STRIDE as usize];

/// One step through a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Record(RecordHeader, &'a [u8]),
    /// Bytes in which no record can be read. Whether that is damage or the end of the log depends on
    /// what the caller knows.
    Gap(Gap),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) bytes: Range<u32>,
    pub(crate) before: Lsn,
    pub(crate) after: Option<Lsn>,
}

/// Walks over the records of a segment, from its header to `end`.
pub(crate) struct Walk<'a> {
    segment: &'a SegmentHeader,
    bytes: &'a [u8],
    at: u32,
    end: u32,
    expected: Lsn,
}

impl<'a> Walk<'a> {
    /// `bytes` is the segment from its first byte; what is missing of it counts as unreadable.
    pub(crate) fn new(segment: &'a SegmentHeader, bytes: &'a [u8], end: u32) -> Self {
        let end = end.min(segment.records_end());
        Self {
            segment,
            bytes,
            at: SEGMENT_HEADER,
            end,
            expected: segment.first_lsn,
        }
    }

    fn record_at(&self, offset: u32) -> Option<(RecordHeader, &'a [u8])> {
        let bytes = self.bytes.get(usize::try_from(offset).ok()?..)?;
        RecordHeader::decode(self.segment, offset, bytes)
            .filter(|(record, _)| record.end() <= self.end)
    }

    /// The next record after a gap. Numbers are dense, so a record further on has a higher number, but
    /// not one higher than the bytes between could have held records.
    fn resume_after_gap(&self) -> Option<(RecordHeader, &'a [u8])> {
        let mut offset = self.at;
        while offset < self.end {
            offset = offset.saturating_add(8);
            while self.is_blank(offset) {
                offset = offset.saturating_add(STRIDE);
            }
            let most = u64::from((offset - self.at) / RECORD_HEADER);
            if let Some(found) = self.record_at(offset)
                && found.0.lsn > self.expected
                && found.0.lsn.0 - self.expected.0 <= most
            {
                return Some(found);
            }
        }
        None
    }
}

impl Walk<'_> {
    /// Whether no record begins in the next [`STRIDE`] octets: each names its segment, whose number is not 0.
    fn is_blank(&self, offset: u32) -> bool {
        let from = usize::try_from(offset.saturating_add(RECORD_PLACE)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        rest.starts_with(&BLANK)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        if self.at >= self.end {
            return None;
        }
        if let Some((record, payload)) = self
            .record_at(self.at)
            .filter(|(record, _)| record.lsn == self.expected)
        {
            self.at = record.end();
            self.expected = record.lsn.next();
            return Some(Step::Record(record, payload));
        }
        let after = self.resume_after_gap().map(|(record, _)| record);
        let end = after.map_or(self.end, |record| record.offset);
        let gap = Gap {
            bytes: self.at..end,
            before: self.expected.previous(),
            after: after.map(|record| record.lsn),
        };
        self.at = end;
        self.expected = gap.after.unwrap_or(self.expected);
        Some(Step::Gap(gap))
    }
}

/// Where the log ends in a segment that no later segment closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// In this segment, or in an earlier one if no whole group ends in this one.
    pub(crate) end: Position,
    /// Bytes before the end whose sync may not have succeeded.
    pub(crate) suspect: Range<u32>,
    /// Whole records after the end; they are dropped.
    pub(crate) dropped: u64,
}

/// Decides where the log ends in the newest segment.
///
/// Let `base` be the highest base any record names. All numbers below it were committed: they stay, and a
/// gap among them is damage. From `base` on nothing is known to be synced: of that the unbroken run up to
/// the last end of a group is kept (it may have been acknowledged), the rest never was.
pub(crate) fn find_tail(segment: &SegmentHeader, bytes: &[u8]) -> Tail {
    let records: Vec<RecordHeader> = Walk::new(segment, bytes, segment.records_end())
        .filter_map(|step| match step {
            Step::Record(record, _) => Some(record),
            Step::Gap(_) => None,
        })
        .collect();
    let base = records
        .iter()
        .map(|record| record.base)
        .max()
        .unwrap_or(segment.first_lsn);
    let (committed, open) = records.split_at(records.partition_point(|record| record.lsn < base));
    let run = open.iter().scan(base, |expected, record| {
        let unbroken = record.lsn == *expected;
        *expected = expected.next();
        unbroken.then_some(record)
    });
    let here = |offset, lsn| Position {
        segment: segment.number,
        offset,
        lsn,
    };
    let (end, suspect) = match (
        run.filter(|record| record.last_of_group).last(),
        committed.last(),
        open.first(),
    ) {
        (Some(last), _, Some(first)) => (here(last.end(), last.lsn), first.offset..last.end()),
        // No whole group in this segment: the log ends where it did before the segment began.
        (None, None, _) if base == segment.first_lsn => (segment.whole_end, 0..0),
        (_, Some(last), _) if last.lsn.next() == base => (here(last.end(), last.lsn), 0..0),
        // The end of the committed part is itself unreadable; the gap reaches to the first open record.
        (_, _, first) => (
            here(
                first.map_or(SEGMENT_HEADER, |record| record.offset),
                base.previous(),
            ),
            0..0,
        ),
    };
    let dropped = records.iter().filter(|record| record.lsn > end.lsn).count();
    Tail {
        end,
        suspect,
        dropped: u64::try_from(dropped).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests;
