//! What a disk gives of the journal. Its checksums keep random octets out, so here the octets say what the disk did to segments
//! that were written well: turned bits, lost blocks, copied old ones, cut files, and what has good checksums and makes no sense.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crc32c::{crc32c, crc32c_append};
use postroad_journal::{
    Formats, Inspection, Journal, Location, Lsn, Options, Reader, RecordDraft, RecordKind,
};
use tempfile::TempDir;

/// Segments are of the least length there is, so that two of them are a short input.
const SEGMENT: usize = 4096;
/// Lengths of headers, as common/journal/README.md has them.
const SEGMENT_HEADER: usize = 128;
const RECORD_HEADER: usize = 40;
/// Of a record's header: the field that says what was surely durable when it was written.
const BASE: usize = 32;
/// Of a segment's header: its length, which decides how much is read. No disk makes one up that has good checksums.
const LENGTH: Range<usize> = 24..28;
/// Payloads of the groups that were committed, one after the other.
const GROUPS: [&[usize]; 7] = [
    &[5],
    &[0, 900],
    &[1500],
    &[300],
    &[1200, 700],
    &[20, 30],
    &[400],
];

/// A journal of two segments, as it was written.
struct Written {
    segments: Vec<Vec<u8>>,
    records: Vec<(Location, Vec<u8>)>,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let folder = TempDir::new().expect("a folder");
    let (mut journal, _) = open(folder.path()).expect("a journal");
    let mut records = Vec::new();
    for lengths in GROUPS {
        let payload = |length: &usize| -> Vec<u8> { (0..*length).map(|at| at as u8).collect() };
        let payloads: Vec<Vec<u8>> = lengths.iter().map(payload).collect();
        let drafts: Vec<RecordDraft> = payloads
            .iter()
            .map(|payload| RecordDraft::new(RecordKind(1), payload.clone()))
            .collect();
        let locations = journal.append_group(&drafts).expect("room for it");
        records.extend(locations.into_iter().zip(payloads));
    }
    let segments: Vec<Vec<u8>> = journal
        .segments()
        .iter()
        .map(|segment| fs::read(path(folder.path(), segment.number.0)).expect("a segment"))
        .collect();
    assert_eq!(segments.len(), 2);
    Written { segments, records }
});

fn open(folder: &Path) -> postroad_journal::Result<(Journal, postroad_journal::Recovery)> {
    let options = Options {
        segment_bytes: SEGMENT as u32,
        prepare_ahead: 0,
        open_files: 2,
        keep_free: 0,
    };
    // A salt is never used twice: where a header is lost, that is what keeps its records from being guessed at.
    static SALT: AtomicU64 = AtomicU64::new(1);
    let entropy = |octets: &mut [u8]| {
        let salt = SALT.fetch_add(1, Ordering::Relaxed);
        let salt = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        for (octet, salt) in octets.iter_mut().zip(salt.iter().cycle()) {
            *octet = *salt;
        }
    };
    Journal::open(folder, options, Arc::new(entropy))
}

fn path(folder: &Path, number: u32) -> std::path::PathBuf {
    folder.join(format!("segments/{number:010}.seg"))
}

/// The two segments, one behind the other, and what was done to them.
struct Disk {
    octets: Vec<u8>,
    touched: Vec<bool>,
    /// How long each file is.
    lengths: [usize; 2],
    /// Somebody has written with good checksums what no journal writes.
    is_forged: bool,
}

impl Disk {
    /// Six octets for each thing that is done: what, where (2), and how (3).
    fn suffer(&mut self, input: &[u8]) {
        for act in input.chunks_exact(6).take(64) {
            let &[what, high, low, a, b, c] = act else {
                continue;
            };
            let at = usize::from(u16::from_be_bytes([high, low])) % self.octets.len();
            match what % 6 {
                0 => self.put(at, &[self.octets.get(at).unwrap_or(&0) ^ a]),
                1 => self.put(at, &vec![0; usize::from(a) * 16 + usize::from(b)]),
                2 => {
                    let from = usize::from(u16::from_be_bytes([b, c])) % self.octets.len();
                    let range = from..(from + usize::from(a) * 8).min(self.octets.len());
                    let copy = self.octets.get(range).unwrap_or_default().to_vec();
                    self.put(at, &copy);
                }
                3 => {
                    let length = at % SEGMENT;
                    let here = at / SEGMENT;
                    self.touched[at..(here + 1) * SEGMENT].fill(true);
                    self.lengths[here] = self.lengths[here].min(length);
                }
                4 => self.forge_record(at, b, c),
                _ => self.forge_segment(at / SEGMENT, b, c),
            }
        }
    }

    fn put(&mut self, at: usize, octets: &[u8]) {
        let end = (at + octets.len()).min(self.octets.len());
        for (place, octet) in (at..end).zip(octets) {
            self.touched[place] |= self.octets[place] != *octet;
            self.octets[place] = *octet;
        }
    }

    fn forge_record(&mut self, near: usize, field: u8, value: u8) {
        let records = &WRITTEN.records;
        let (location, _) = &records[near % records.len()];
        let at = place(location).start;
        let here = at / SEGMENT * SEGMENT;
        let seed: [u8; 4] = self.octets[here + 16..here + 20].try_into().expect("four");
        let field = 4 + usize::from(field) % (RECORD_HEADER - 4);
        self.octets[at + field] = value;
        let header = &self.octets[at + 4..at + RECORD_HEADER];
        let sum = crc32c_append(u32::from_le_bytes(seed), header).to_le_bytes();
        self.octets[at..at + 4].copy_from_slice(&sum);
        self.is_forged = true;
    }

    fn forge_segment(&mut self, segment: usize, field: u8, value: u8) {
        let field = usize::from(field) % (SEGMENT_HEADER - 4);
        if LENGTH.contains(&field) {
            return;
        }
        let at = segment * SEGMENT;
        // What was done before may have reached it.
        let length = &WRITTEN.segments[segment][LENGTH];
        self.octets[at + LENGTH.start..at + LENGTH.end].copy_from_slice(length);
        self.octets[at + field] = value;
        let sum = crc32c(&self.octets[at..at + SEGMENT_HEADER - 4]).to_le_bytes();
        self.octets[at + SEGMENT_HEADER - 4..at + SEGMENT_HEADER].copy_from_slice(&sum);
        self.is_forged = true;
    }

    fn write(&self, folder: &Path) {
        fs::create_dir(folder.join("segments")).expect("a folder");
        fs::write(folder.join("FORMAT"), "postroad-journal 1\n").expect("a file");
        for ((octets, length), number) in self.octets.chunks(SEGMENT).zip(self.lengths).zip(1..) {
            fs::write(path(folder, number), &octets[..length]).expect("a file");
        }
    }

    fn is_whole(&self, range: Range<usize>) -> bool {
        !self.touched[range].contains(&true)
    }

    /// Either copy of its header will do.
    fn has_header(&self, segment: usize) -> bool {
        let (start, end) = (segment * SEGMENT, (segment + 1) * SEGMENT);
        self.is_whole(start..start + SEGMENT_HEADER) || self.is_whole(end - SEGMENT_HEADER..end)
    }

    /// The records that must be there whatever else was lost: whole ones that something else that is whole calls durable.
    fn must_have(&self) -> Vec<Lsn> {
        if !self.has_header(0) || !self.has_header(1) {
            return Vec::new();
        }
        let whole = || {
            let records = WRITTEN.records.iter();
            records.filter(|(location, _)| self.is_whole(place(location)))
        };
        let base = |location: &Location| {
            let at = place(location).start + BASE;
            let octets = self.octets[at..at + 8].try_into().expect("eight");
            Lsn(u64::from_le_bytes(octets))
        };
        let second = |location: &&Location| location.segment.0 == 2;
        let locations = || whole().map(|(location, _)| location);
        let durable = locations().filter(second).map(base).max();
        locations()
            .filter(|found| !second(found) || durable.is_some_and(|durable| found.lsn < durable))
            .map(|found| found.lsn)
            .collect()
    }
}

/// Where a record lies in the two segments.
fn place(location: &Location) -> Range<usize> {
    let at = (location.segment.0 as usize - 1) * SEGMENT + location.offset as usize;
    at..at + RECORD_HEADER + location.len as usize
}

type Shown = BTreeMap<Lsn, Vec<u8>>;

/// What a replay shows: numbers rise.
fn shown(reader: &Reader) -> Shown {
    let mut shown = Shown::new();
    let replay = reader.replay(Lsn(0), |record| {
        let last = shown.last_key_value().map(|(lsn, _)| *lsn);
        assert!(last < Some(record.lsn), "{last:?}, {:?}", record.lsn);
        shown.insert(record.lsn, record.payload.to_vec());
        ControlFlow::Continue(())
    });
    replay.expect("the disk can be read");
    shown
}

/// Whatever the disk did, the journal opens; what it shows was written under this number, nothing is missing that was durable and
/// whole, looking foresees what opening finds, and what is appended then is there besides when it is opened again.
pub fn journal(input: &[u8]) {
    let mut disk = Disk {
        octets: WRITTEN.segments.concat(),
        touched: vec![false; 2 * SEGMENT],
        lengths: [SEGMENT; 2],
        is_forged: false,
    };
    disk.suffer(input);
    let folder = TempDir::new().expect("a folder");
    disk.write(folder.path());
    let look = Inspection::open(folder.path(), Formats::default()).expect("it can be looked at");
    if disk.is_forged {
        // Only a journal's own hand could have done it; no panic, and an end.
        let _ = look.reader().replay(Lsn(0), |_| ControlFlow::Continue(()));
        return;
    }
    let foreseen = shown(&look.reader());
    drop(look);
    for (lsn, payload) in &foreseen {
        let written = WRITTEN
            .records
            .iter()
            .find(|(location, _)| location.lsn == *lsn);
        assert!(
            written.is_some_and(|(_, written)| written == payload),
            "{lsn} was never written so"
        );
    }
    for lsn in disk.must_have() {
        assert!(foreseen.contains_key(&lsn), "{lsn} is lost");
    }

    let (mut journal, _) = open(folder.path()).expect("it opens");
    assert_same(&shown(&journal.reader()), &foreseen);
    let draft = RecordDraft::new(RecordKind(1), &b"later"[..]);
    let later = journal.append_group(&[draft]).expect("room for it")[0].lsn;
    assert!(foreseen.keys().all(|lsn| *lsn < later));
    drop(journal);
    let mut wanted = foreseen;
    wanted.insert(later, b"later".to_vec());
    let (journal, _) = open(folder.path()).expect("it opens again");
    assert_same(&shown(&journal.reader()), &wanted);
}

/// Says numbers alone if they differ: payloads are long.
fn assert_same(shown: &Shown, wanted: &Shown) {
    let numbers = |records: &Shown| records.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(shown), numbers(wanted));
    assert!(shown == wanted, "a payload differs");
}
