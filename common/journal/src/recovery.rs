//! Opening a folder: which segments there are, and where the log ends.
use crate::{
    Entropy,
    blank::clear_records,
    error::{Result, failed},
    folder::{Folder, sync_folder},
    format::{SEGMENT_HEADER, SegmentHeader, most_records},
    reader::{Segment, read_blocks},
    record::{Lsn, Position, Recovery, SegmentNumber, TornTail},
    walk::{Tail, find_tail},
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

/// What an opened journal starts from.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) segments: BTreeMap<SegmentNumber, Segment>,
    pub(crate) log_end: Position,
    pub(crate) next_number: SegmentNumber,
    pub(crate) next_lsn: Lsn,
    /// Something was dropped or unreadable at the end: a new segment must make that final at once.
    pub(crate) settle: bool,
    pub(crate) report: Recovery,
}

/// A segment file on the disk.
struct Candidate {
    number: SegmentNumber,
    size: u32,
    header: Option<SegmentHeader>,
    end: Option<Position>,
}

/// Whether what is found may be put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The end of the log is made durable, dead segments go.
    Settle,
    /// Nothing in the folder is changed.
    LookOnly,
}

pub(crate) fn recover(folder: &Folder, entropy: &Entropy, mode: Mode) -> Result<Found> {
    let mut files = list(folder)?;
    let mut report = Recovery::default();
    let mut settle = false;
    // Newest first: each header says where the log ended before its segment began, and that word is
    // final. Only where no such word is left do the bytes have to decide.
    let mut before: Option<Position> = None;
    let mut dead = Vec::new();
    for file in files.iter_mut().rev() {
        let Some(header) = file.header else {
            report.unreadable.push(file.number);
            file.end = before.filter(|end| end.segment == file.number);
            before = before.filter(|end| end.segment < file.number);
            if before.is_some() {
                dead.push(file.number);
            }
            continue;
        };
        let end = match before {
            Some(end) if end.segment <= file.number => end,
            _ => {
                let (tail, unreadable) = settle_tail(folder, &header, mode)?;
                settle |= tail.dropped > 0 || unreadable > 0;
                if tail.dropped > 0 {
                    report.torn = Some(TornTail {
                        end: tail.end,
                        records: tail.dropped,
                    });
                }
                tail.end
            }
        };
        if end.segment == header.number {
            file.end = Some(end);
            before = Some(header.previous_end);
        } else {
            // Nothing in it ever became part of the log.
            dead.push(file.number);
            before = Some(end);
        }
    }
    let next_number = SegmentNumber(files.last().map_or(0, |file| file.number.0) + 1);
    let next_lsn = beyond(&files);
    let segments = build_table(&files, &dead, next_lsn, entropy);
    report.missing = missing(&segments, &report.unreadable);
    report.unreadable.reverse();
    // The newest file stays even if dead: its header is what keeps its numbers from being used twice.
    if mode == Mode::Settle {
        for number in dead.iter().filter(|number| number.next() != next_number) {
            let path = folder.segment(*number);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        clear_newest(folder, &files, &dead)?;
        sync_folder(&folder.segments())?;
    }
    let log_end = segments
        .values()
        .next_back()
        .map(|segment| segment.end)
        .or(before)
        .unwrap_or_default();
    report.last_lsn = log_end.lsn;
    report.next_lsn = next_lsn;
    Ok(Found {
        segments,
        log_end,
        next_number,
        next_lsn,
        settle,
        report,
    })
}

/// A dead file that stays may be a recycled one; nothing of its former life must stay in it.
fn clear_newest(folder: &Folder, files: &[Candidate], dead: &[SegmentNumber]) -> Result<()> {
    let newest = files.last().filter(|file| dead.contains(&file.number));
    let Some(header) = newest.and_then(|file| file.header) else {
        return Ok(());
    };
    let path = folder.segment(header.number);
    let file = OpenOptions::new().write(true).open(&path);
    file.and_then(|file| clear_records(&file, header.records_end()))
        .map_err(failed("clear", &path))
}

impl SegmentNumber {
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

fn list(folder: &Folder) -> Result<Vec<Candidate>> {
    let path = folder.segments();
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed("read folder", &path))? {
        let entry = entry.map_err(failed("read folder", &path))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .and_then(|stem| stem.parse().ok());
        let Some(number) = number.map(SegmentNumber) else {
            continue;
        };
        let size = entry
            .metadata()
            .map_err(failed("read", &entry.path()))?
            .len();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        files.push(Candidate {
            number,
            size,
            header: read_header(&entry.path(), number, size)?,
            end: None,
        });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Either copy of the header will do.
fn read_header(path: &Path, number: SegmentNumber, size: u32) -> Result<Option<SegmentHeader>> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut offsets = [0, size.saturating_sub(SEGMENT_HEADER)].into_iter();
    Ok(offsets.find_map(|offset| {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        file.read_exact_at(&mut bytes, offset.into()).ok()?;
        SegmentHeader::decode(&bytes).filter(|header| header.number == number)
    }))
}

/// Finds the end of the newest segment and makes sure that what is kept of it is durable.
///
/// What we read may have been in the page cache only. Syncing alone is not enough either: after a failed
/// `fdatasync` the kernel calls the lost pages clean. So the bytes whose sync may have failed are written
/// again, the same to the same place, and then synced.
fn settle_tail(folder: &Folder, header: &SegmentHeader, mode: Mode) -> Result<(Tail, u64)> {
    let path = folder.segment(header.number);
    let file = OpenOptions::new()
        .read(true)
        .write(mode == Mode::Settle)
        .open(&path)
        .map_err(failed("open", &path))?;
    let (bytes, unreadable) = read_blocks(&file, header.size);
    let tail = find_tail(header, &bytes);
    if mode == Mode::LookOnly {
        return Ok((tail, unreadable));
    }
    let suspect = bytes
        .get(tail.suspect.start as usize..tail.suspect.end as usize)
        .unwrap_or_default();
    file.write_all_at(suspect, tail.suspect.start.into())
        .and_then(|()| file.sync_all())
        .map_err(failed("sync", &path))?;
    Ok((tail, unreadable))
}

/// A number above all that may ever have been given out, even by a segment we can no longer read and even
/// if the disk lost acknowledged bytes: an index that is ahead of the journal must never meet its numbers again.
fn beyond(files: &[Candidate]) -> Lsn {
    files.iter().fold(Lsn(1), |next, file| {
        let first = file.header.map_or(next, |header| header.first_lsn);
        Lsn(first.0.saturating_add(most_records(file.size.into())))
    })
}

fn build_table(
    files: &[Candidate],
    dead: &[SegmentNumber],
    next_lsn: Lsn,
    entropy: &Entropy,
) -> BTreeMap<SegmentNumber, Segment> {
    let mut table = BTreeMap::new();
    let mut last = Lsn::default();
    for file in files.iter().filter(|file| !dead.contains(&file.number)) {
        let header = file
            .header
            .unwrap_or_else(|| stand_in(file, last.next(), entropy));
        let all = Position {
            segment: file.number,
            offset: header.records_end(),
            lsn: next_lsn.previous(),
        };
        let mut end = file.end.unwrap_or(all);
        // Another header said so, and so much memory is taken for it.
        end.offset = end.offset.min(header.records_end());
        last = end.lsn;
        table.insert(
            file.number,
            Segment {
                header,
                end,
                sealed: true,
            },
        );
    }
    table
}

/// For a segment neither of whose headers can be read: under a salt that nobody ever used, all of it is
/// one damaged range, so a replay keeps its bytes in quarantine and reports it like any other damage.
fn stand_in(file: &Candidate, first_lsn: Lsn, entropy: &Entropy) -> SegmentHeader {
    let here = Position {
        segment: file.number,
        offset: SEGMENT_HEADER,
        lsn: first_lsn.previous(),
    };
    let salt = crate::random_u64(entropy);
    SegmentHeader {
        number: file.number,
        salt,
        size: file.size,
        first_lsn,
        previous_end: here,
        whole_end: here,
    }
}

/// Segments that a later one names as its predecessor and that are not there, though older ones are.
fn missing(
    table: &BTreeMap<SegmentNumber, Segment>,
    unreadable: &[SegmentNumber],
) -> Vec<SegmentNumber> {
    let neighbours = table.values().zip(table.values().skip(1));
    let named = neighbours.filter_map(|(older, newer)| {
        let before = newer.header.previous_end.segment;
        (before > older.header.number && !unreadable.contains(&newer.header.number))
            .then_some(before)
    });
    named.collect()
}
