//! Where the events of a mail lie: in memory, 16 octets for each record and key.
//!
//! A key is a hash: of the id for every record, of the Message-ID and of each recipient for the one that tells of the
//! acceptance. Whoever finds a place by it reads the record and looks whether it is the one that was meant.

use std::collections::{BTreeMap, BTreeSet};

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{Location, Lsn, SegmentNumber};

use super::record::{Decoded, Entry};

/// What mails are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u32);

impl Key {
    pub fn of_id(id: QueueId) -> Self {
        Self::of(b'i', &id.to_bytes())
    }

    /// Without angle brackets.
    pub fn of_message_id(id: &str) -> Self {
        Self::of(b'm', id.as_bytes())
    }

    /// Folded.
    pub fn of_recipient(address: &str) -> Self {
        Self::of(b'r', address.as_bytes())
    }

    fn of(what: u8, name: &[u8]) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&[what]), name))
    }

    /// What an entry is found by besides the id of its mail.
    pub fn of_entry(entry: &Entry) -> impl Iterator<Item = Self> + '_ {
        let message_id = entry.message_id().map(Self::of_message_id);
        let recipients = entry.recipients.iter().map(|to| Self::of_recipient(to));
        message_id.into_iter().chain(recipients)
    }

    /// Everything these entries of a mail are found by.
    pub fn of_entries(id: QueueId, entries: &[Entry]) -> BTreeSet<Self> {
        let of_id = std::iter::once(Self::of_id(id));
        of_id
            .chain(entries.iter().flat_map(Self::of_entry))
            .collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    /// Counted from the segment's first record.
    number: u32,
    offset: u32,
    len: u32,
}

/// What one segment holds.
#[derive(Debug)]
pub struct SegmentIndex {
    first: Lsn,
    places: Vec<Place>,
    sorted: bool,
    newest: Timestamp,
}

impl Default for SegmentIndex {
    fn default() -> Self {
        Self {
            first: Lsn::default(),
            places: Vec::new(),
            sorted: false,
            newest: Timestamp::from_millis(0),
        }
    }
}

impl SegmentIndex {
    pub fn add(&mut self, location: &Location, keys: BTreeSet<Key>, at: Timestamp) {
        if self.places.is_empty() {
            self.first = location.lsn;
        }
        // Dense inside a segment, whose length is a u32.
        let number = location.lsn.0.saturating_sub(self.first.0);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.places.extend(keys.into_iter().map(|key| Place {
            key,
            number,
            offset: location.offset,
            len: location.len,
        }));
        self.newest = self.newest.max(at);
        self.sorted = false;
    }

    pub fn add_record(&mut self, location: &Location, record: &Decoded) {
        let keys = Key::of_entries(record.queue_id, &record.entries);
        self.add(location, keys, record.written_at);
    }

    /// Once nothing more is added.
    pub fn seal(&mut self) {
        self.places
            .sort_unstable_by_key(|place| (place.key, place.number));
        self.places.shrink_to_fit();
        self.sorted = true;
    }

    fn find(&self, key: Key) -> &[Place] {
        let from = self.places.partition_point(|place| place.key < key);
        let rest = self.places.get(from..).unwrap_or_default();
        let len = rest.partition_point(|place| place.key == key);
        rest.get(..len).unwrap_or_default()
    }
}

/// All segments.
#[derive(Debug, Default)]
pub struct Index {
    segments: BTreeMap<SegmentNumber, SegmentIndex>,
}

impl Index {
    /// A record that was just written.
    pub fn add(&mut self, location: &Location, keys: BTreeSet<Key>, at: Timestamp) {
        if !self.segments.contains_key(&location.segment) {
            let grown = self.segments.values_mut().filter(|known| !known.sorted);
            grown.for_each(SegmentIndex::seal);
        }
        let segment = self.segments.entry(location.segment).or_default();
        segment.add(location, keys, at);
    }

    pub fn knows(&self, segment: SegmentNumber) -> bool {
        self.segments.contains_key(&segment)
    }

    /// A segment that was read; what is known already stays.
    pub fn insert(&mut self, number: SegmentNumber, segment: SegmentIndex) {
        self.segments.entry(number).or_insert(segment);
    }

    /// Forgets one segment.
    pub fn forget(&mut self, number: SegmentNumber) {
        self.segments.remove(&number);
    }

    /// Forgets all other segments.
    pub fn retain(&mut self, living: &BTreeSet<SegmentNumber>) {
        self.segments.retain(|number, _| living.contains(number));
    }

    /// When the newest record of a segment was written; none if that is not known yet.
    pub fn newest(&self, segment: SegmentNumber) -> Option<Timestamp> {
        self.segments.get(&segment).map(|known| known.newest)
    }

    /// Records that may be what is meant, oldest first.
    pub fn find(&self, key: Key) -> Vec<Location> {
        let mut found = Vec::new();
        for (number, segment) in &self.segments {
            let location = |place: &Place| Location {
                segment: *number,
                offset: place.offset,
                len: place.len,
                lsn: Lsn(segment.first.0 + u64::from(place.number)),
            };
            if segment.sorted {
                found.extend(segment.find(key).iter().map(location));
            } else {
                let places = segment.places.iter().filter(|place| place.key == key);
                found.extend(places.map(location));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(segment: u32, lsn: u64) -> Location {
        Location {
            segment: SegmentNumber(segment),
            offset: u32::try_from(lsn).unwrap() * 8,
            len: 5,
            lsn: Lsn(lsn),
        }
    }

    #[test]
    fn records_are_found_by_each_of_their_keys_also_when_their_segment_is_sealed() {
        let (one, two) = (Key::of_recipient("a@b"), Key::of_message_id("a@b"));
        assert_ne!(one, two);
        let mut index = Index::default();
        let at = Timestamp::from_millis;
        index.add(&location(1, 10), BTreeSet::from([one, two]), at(1));
        index.add(&location(1, 11), BTreeSet::from([two]), at(2));
        let of = |index: &Index, key| {
            let found = index.find(key).into_iter();
            found.map(|place| place.lsn.0).collect::<Vec<_>>()
        };
        assert_eq!(of(&index, two), [10, 11]);
        index.add(&location(2, 12), BTreeSet::from([one]), at(3));
        assert_eq!(of(&index, one), [10, 12]);
        assert_eq!(of(&index, two), [10, 11]);
        assert_eq!(index.find(two)[1], location(1, 11));
        assert_eq!(index.newest(SegmentNumber(1)), Some(at(2)));
        index.retain(&BTreeSet::from([SegmentNumber(2)]));
        assert_eq!(of(&index, one), [12]);
        assert_eq!(of(&index, two), [0_u64; 0]);
    }
}
