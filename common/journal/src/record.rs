//! The words of the journal: numbers, places, drafts and records.
use bytes::Bytes;
use std::fmt;

/// The log sequence number of a record: strictly increasing over the life of a journal and never
/// given out twice. Numbers are dense inside a segment and may jump between segments. The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a segment, and its file name; never given out twice. The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u32);

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// What a payload means: the caller's business. The journal passes every kind through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKind(pub u16);

/// Where a record lies. The number makes it safe to keep: a location never comes to mean another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The segment.
    pub segment: SegmentNumber,
    /// Where in the segment the record's header begins.
    pub offset: u32,
    /// Length of the payload, without the header.
    pub len: u32,
    /// The record's number.
    pub lsn: Lsn,
}

/// A record to append. Its payload may come in parts, so that content need not be copied together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordDraft {
    /// What the payload means.
    pub kind: RecordKind,
    /// The payload, in order.
    pub parts: Vec<Bytes>,
}

impl RecordDraft {
    /// A draft of one part.
    pub fn new(kind: RecordKind, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            parts: vec![payload.into()],
        }
    }

    /// The draft with one more part.
    #[must_use]
    pub fn with_part(mut self, part: impl Into<Bytes>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// Length of the payload.
    pub fn payload_len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// A record as a replay sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The record's number.
    pub lsn: Lsn,
    /// Where it lies.
    pub location: Location,
    /// What the payload means.
    pub kind: RecordKind,
    /// The payload, already checked.
    pub payload: &'a [u8],
}

/// A point between two records: the segment and offset after which the log goes on, and the number of
/// the record before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment; 0 means before the first.
    pub segment: SegmentNumber,
    /// Offset in the segment.
    pub offset: u32,
    /// The last record before this point.
    pub lsn: Lsn,
}

/// What is known of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: SegmentNumber,
    /// The number its first record has or would have.
    pub first_lsn: Lsn,
    /// The number of its last record; the one before `first_lsn` if it holds none.
    pub last_lsn: Lsn,
    /// Bytes used, header included.
    pub bytes_used: u32,
    /// Nothing will be appended to it any more.
    pub sealed: bool,
}

/// A range of bytes in which records were lost though they had been committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: SegmentNumber,
    /// First byte of the range.
    pub start: u32,
    /// First byte after the range.
    pub end: u32,
    /// The record before the range.
    pub lsn_before: Lsn,
    /// The next record that could be read in the segment.
    pub lsn_after: Option<Lsn>,
    /// Where the bytes were copied to; none if that failed (a full disk).
    pub copy: Option<std::path::PathBuf>,
    /// Seen now for the first time, so a person should hear of it.
    pub fresh: bool,
}

/// The outcome of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// How many records the caller was shown.
    pub records: u64,
    /// The last of them.
    pub last: Option<Lsn>,
    /// Ranges that could not be read. The rest was replayed.
    pub damage: Vec<Damage>,
    /// The caller broke off.
    pub stopped: bool,
}

/// What `Journal::open` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last committed record, or 0 in an empty journal.
    pub last_lsn: Lsn,
    /// The number the next record will have.
    pub next_lsn: Lsn,
    /// Bytes of an interrupted append that were dropped.
    pub torn: Option<TornTail>,
    /// Segments neither of whose headers could be read. Replay reports the loss as `Damage`.
    pub unreadable: Vec<SegmentNumber>,
    /// Segments that should lie between the others and do not.
    pub missing: Vec<SegmentNumber>,
}

/// The remains of an append that never returned: dropped, and never seen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the log ends now.
    pub end: Position,
    /// How many whole records of the interrupted group were dropped.
    pub records: u64,
}
