//! One file of the ledger: zeros written beforehand, so that an append changes neither size nor extents,
//! and frames of magic, length, CRC and payload, the CRC seeded with the segment's number.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Entry, Fate, refused, remove_if_there};
use crate::disk::sync_folder;
use crate::error::at;
use crate::{DeliveryId, MaildirError};

/// 0xFB never occurs in UTF-8, so no payload holds it; the last octet is the format's version.
const MAGIC: [u8; 4] = [0xFB, b'L', b'G', 1];
const HEADER: usize = 12;
const SIZE: usize = 1 << 20;
/// A forgotten-record is never larger: the QueueId of a [`DeliveryId`] is at most 64 octets.
pub(super) const FORGOTTEN_SIZE: usize = HEADER + 1 + 4 + 4 + 64;

/// A range of a segment that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// Where the unreadable part starts.
    pub offset: usize,
    /// How long it is.
    pub length: usize,
    /// Nothing readable follows, at the end of the newest segment: an append that a crash cut short and
    /// that nobody was told of. Anything else is a failing disk.
    pub torn_tail: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Delivering(Entry),
    Forgotten(DeliveryId),
}

#[derive(Debug)]
pub(super) struct Segment {
    pub number: u64,
    pub(super) file: File,
    path: PathBuf,
    used: usize,
    size: usize,
}

impl Segment {
    /// A new file with `records` in it and room for at least `room` octets more, durable with its name.
    pub(super) fn create(
        folder: &Path,
        number: u64,
        records: &[u8],
        room: usize,
    ) -> Result<Self, MaildirError> {
        let path = path_of(folder, number);
        // A leftover of this number was never started: numbers go up from the highest that exists.
        remove_if_there(&path)?;
        let written = || {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            let mut image = records.to_vec();
            image.resize((records.len() + room).max(SIZE / 2) + SIZE / 2, 0);
            file.write_all_at(&image, 0)?;
            file.sync_all()?;
            Ok((file, image.len()))
        };
        let (file, size) = written().map_err(|error| {
            let _ = fs::remove_file(&path);
            at("write ledger segment", &path)(error)
        })?;
        sync_folder(folder)?;
        Ok(Self {
            number,
            file,
            path,
            used: records.len(),
            size,
        })
    }

    pub(super) fn has_room(&self, length: usize) -> bool {
        self.used + length <= self.size
    }

    /// Writes without syncing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.used as u64)?;
        self.used += bytes.len();
        Ok(())
    }

    /// Writes and syncs a group.
    pub(super) fn commit(&mut self, bytes: &[u8]) -> Fate {
        if bytes.is_empty() {
            return Fate::Recorded;
        }
        if let Err(error) = self.append(bytes) {
            // Part of the group may stand in the file. Only when zeros are durably in its place is it surely refused.
            let zeros = vec![0; bytes.len()];
            let undone = self.file.write_all_at(&zeros, self.used as u64);
            return match undone.and_then(|()| self.file.sync_data()) {
                Ok(()) => refused(&error),
                Err(_) => self.unknown(&error),
            };
        }
        match self.file.sync_data() {
            Ok(()) => Fate::Recorded,
            Err(error) => self.unknown(&error),
        }
    }

    fn unknown(&self, error: &io::Error) -> Fate {
        tracing::error!(path = %self.path.display(), %error, "the delivery ledger failed to sync");
        Fate::Unknown
    }
}

impl Record {
    pub(super) fn encode_entry(entry: &Entry, number: u64, out: &mut Vec<u8>) {
        let mut payload = vec![1];
        put_id(&entry.id, &mut payload);
        for text in [&entry.mailbox, &entry.tmp_name, &entry.final_name] {
            put(text, &mut payload);
        }
        frame(&payload, number, out);
    }

    pub(super) fn encode_forgotten(id: &DeliveryId, number: u64, out: &mut Vec<u8>) {
        let mut payload = vec![2];
        put_id(id, &mut payload);
        frame(&payload, number, out);
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (&kind, mut rest) = payload.split_first()?;
        let (index, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        let id = DeliveryId::new(take(&mut rest)?, u32::from_le_bytes(*index)).ok()?;
        let record = match kind {
            1 => Self::Delivering(Entry {
                id,
                mailbox: take(&mut rest)?.to_owned(),
                tmp_name: take(&mut rest)?.to_owned(),
                final_name: take(&mut rest)?.to_owned(),
            }),
            2 => Self::Forgotten(id),
            _ => return None,
        };
        rest.is_empty().then_some(record)
    }
}

/// The numbers of all segments in the folder.
pub(super) fn numbers(folder: &Path) -> Result<Vec<u64>, MaildirError> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(folder).map_err(at("list", folder))? {
        let name = file.map_err(at("list", folder))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("segment-"));
        numbers.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    Ok(numbers)
}

/// Everything readable in a segment, and where it was not.
pub(super) fn read(folder: &Path, number: u64) -> Result<(Vec<Record>, Vec<Damage>), MaildirError> {
    let path = path_of(folder, number);
    let bytes = fs::read(&path).map_err(at("read ledger segment", &path))?;
    Ok(parse(&bytes, number))
}

/// Takes a segment out of use: removed, or kept aside under another name for a person to look at.
pub(super) fn retire(folder: &Path, number: u64, keep: bool) -> Result<(), MaildirError> {
    let path = path_of(folder, number);
    if keep {
        let aside = folder.join(format!("damaged-{number:016x}"));
        return fs::rename(&path, aside).map_err(at("set aside", &path));
    }
    remove_if_there(&path)
}

fn parse(bytes: &[u8], number: u64) -> (Vec<Record>, Vec<Damage>) {
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    let (mut at, mut bad_since) = (0, None);
    // Zeros are the prepared rest of the file; every frame ends in text.
    let end = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    let mut damaged = |from: usize, to: usize, torn_tail| {
        damages.push(Damage {
            segment: number,
            offset: from,
            length: to - from,
            torn_tail,
        });
    };
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if let Some((record, length)) = parse_frame(rest, number) {
            if let Some(from) = bad_since.take() {
                damaged(from, at, false);
            }
            records.push(record);
            at += length;
            continue;
        }
        bad_since.get_or_insert(at);
        let next = rest
            .windows(MAGIC.len())
            .skip(1)
            .position(|window| window == MAGIC);
        at = next.map_or(bytes.len(), |distance| at + 1 + distance);
    }
    if let Some(from) = bad_since {
        damaged(from, bytes.len(), true);
    }
    (records, damages)
}

fn parse_frame(bytes: &[u8], number: u64) -> Option<(Record, usize)> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if u32::from_le_bytes(*crc) != checksum(payload, number) {
        return None;
    }
    Some((Record::decode(payload)?, HEADER + payload.len()))
}

fn frame(payload: &[u8], number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    // A payload is five names of at most a kilobyte each.
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(&checksum(payload, number).to_le_bytes());
    out.extend_from_slice(payload);
}

fn checksum(payload: &[u8], number: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), payload)
}

fn put_id(id: &DeliveryId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.recipient_index().to_le_bytes());
    put(id.queue_id(), out);
}

fn put(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("segment-{number:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(number: u32) -> Entry {
        Entry {
            id: DeliveryId::new("abc", number).unwrap(),
            mailbox: "demo.test/bob/Maildir".into(),
            tmp_name: format!("t{number}"),
            final_name: format!("f{number}"),
        }
    }

    fn image(count: u32) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        for number in 0..count {
            Record::encode_entry(&entry(number), 7, &mut bytes);
        }
        let length = bytes.len() / usize::try_from(count).unwrap();
        bytes.resize(bytes.len() + 100, 0);
        (bytes, length)
    }

    #[test]
    fn any_single_damage_costs_one_record_and_is_told() {
        let (whole, length) = image(5);
        assert_eq!(
            parse(&whole, 7).0,
            (0..5)
                .map(|n| Record::Delivering(entry(n)))
                .collect::<Vec<_>>()
        );
        assert_eq!(parse(&whole, 7).1, []);
        assert_eq!(
            parse(&whole, 8).0,
            [],
            "a record of another segment is none"
        );
        for at in 0..5 * length {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let (records, damages) = parse(&bytes, 7);
            let hit = at / length;
            let rest = (0..5)
                .filter(|n| usize::try_from(*n).unwrap() != hit)
                .map(|n| Record::Delivering(entry(n)));
            assert_eq!(records, rest.collect::<Vec<_>>(), "damage at {at}");
            let [damage] = damages.as_slice() else {
                panic!("{damages:?}")
            };
            assert_eq!(
                (damage.offset, damage.torn_tail),
                (hit * length, hit == 4),
                "damage at {at}"
            );
        }
    }

    #[test]
    fn a_cut_anywhere_keeps_what_is_before() {
        let (whole, length) = image(3);
        for at in 0..3 * length {
            let mut bytes = whole.clone();
            bytes[at..].fill(0);
            let (records, damages) = parse(&bytes, 7);
            assert_eq!(records.len(), at / length, "cut at {at}");
            assert_eq!(damages.is_empty(), at % length == 0, "cut at {at}");
            assert!(damages.iter().all(|damage| damage.torn_tail));
        }
    }

    #[test]
    fn a_failed_write_that_cannot_be_undone_is_of_unknown_fate() {
        let folder = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(folder.path(), 1, &[], 0).unwrap();
        segment.file = File::open(&segment.path).unwrap();
        assert!(matches!(segment.commit(b"x"), Fate::Unknown));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..300usize) {
            let mut image = image(3).0;
            let end = (at + bytes.len()).min(image.len());
            if at < end {
                image[at..end].copy_from_slice(&bytes[..end - at]);
            }
            let (records, _) = parse(&image, 7);
            prop_assert!(records.len() <= 3);
            parse(&bytes, 7);
        }
    }
}
