//! The bytes of segment and record headers; the table is in README.md.
use crate::record::{Location, Lsn, Position, RecordKind, SegmentNumber};
use bytes::{Buf, BufMut, Bytes};
use crc32c::{crc32c, crc32c_append};

const MAGIC: &[u8; 8] = b"PRJOURNL";
/// The format this release writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Length of a segment header. It stands at the start of the file and again at its end, so that one bad
/// sector does not make a whole segment unreadable.
pub(crate) const SEGMENT_HEADER: u32 = 128;
/// Length of a record header.
pub(crate) const RECORD_HEADER: u32 = 40;
/// Where in it stands the place of the record: segment, which is not 0, and offset.
pub(crate) const RECORD_PLACE: u32 = 24;
const LAST_OF_GROUP: u16 = 1;
const BLANKED: u16 = 2;

/// Bytes a record of this payload takes; records begin at multiples of eight.
pub(crate) fn record_size(payload: u32) -> u64 {
    (u64::from(RECORD_HEADER) + u64::from(payload)).next_multiple_of(8)
}

/// How many numbers a segment of this length can use up at most.
pub(crate) fn most_records(segment_len: u64) -> u64 {
    segment_len / u64::from(RECORD_HEADER) + 1
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: SegmentNumber,
    /// Random; seeds every checksum in the segment. Never leaves this folder, so no payload can know it.
    pub(crate) salt: u64,
    /// Length of the file.
    pub(crate) size: u32,
    pub(crate) first_lsn: Lsn,
    /// Where the log ended when this segment began. All before it was durable by then.
    pub(crate) previous_end: Position,
    /// Where the last whole group ended when this segment began: `previous_end`, or before it if a
    /// group runs across the border.
    pub(crate) whole_end: Position,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut out = [0; SEGMENT_HEADER as usize];
        let mut body = &mut out[..];
        body.put_slice(MAGIC);
        body.put_u32_le(VERSION);
        body.put_u32_le(self.number.0);
        body.put_u64_le(self.salt);
        body.put_u32_le(self.size);
        body.put_u32_le(0);
        body.put_u64_le(self.first_lsn.0);
        for position in [self.previous_end, self.whole_end] {
            body.put_u32_le(position.segment.0);
            body.put_u32_le(position.offset);
            body.put_u64_le(position.lsn.0);
        }
        let crc = crc32c(&out[..out.len() - 4]);
        (&mut out[SEGMENT_HEADER as usize - 4..]).put_u32_le(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER as usize)?;
        let (mut body, mut crc) = bytes.split_at(bytes.len() - 4);
        if crc.get_u32_le() != crc32c(body) || !body.starts_with(MAGIC) {
            return None;
        }
        body.advance(MAGIC.len());
        if body.get_u32_le() != VERSION {
            return None;
        }
        let number = SegmentNumber(body.get_u32_le());
        let salt = body.get_u64_le();
        let size = body.get_u32_le();
        body.advance(4);
        let first_lsn = Lsn(body.get_u64_le());
        let mut position = || Position {
            segment: SegmentNumber(body.get_u32_le()),
            offset: body.get_u32_le(),
            lsn: Lsn(body.get_u64_le()),
        };
        let (previous_end, whole_end) = (position(), position());
        Some(Self {
            number,
            salt,
            size,
            first_lsn,
            previous_end,
            whole_end,
        })
    }

    /// Where records must end: before the second copy of this header.
    pub(crate) fn records_end(&self) -> u32 {
        self.size.saturating_sub(SEGMENT_HEADER)
    }

    fn header_seed(&self) -> u32 {
        self.salt as u32
    }

    fn payload_seed(&self) -> u32 {
        (self.salt >> 32) as u32
    }
}

/// The header of a record.
///
/// It names its own segment and offset: a copy of genuine bytes at another place is not a record, and
/// what a recycled file still holds from its former life is not either, whatever the checksums say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: RecordKind,
    pub(crate) last_of_group: bool,
    /// Its payload was overwritten with zeros; it is shown to nobody.
    pub(crate) is_blank: bool,
    pub(crate) len: u32,
    pub(crate) lsn: Lsn,
    pub(crate) segment: SegmentNumber,
    pub(crate) offset: u32,
    /// The first number that was not yet known to be durable when this record was written. All smaller
    /// ones are committed, so if one of them cannot be read that is damage and not a torn tail.
    pub(crate) base: Lsn,
}

impl RecordHeader {
    pub(crate) fn location(&self) -> Location {
        Location {
            segment: self.segment,
            offset: self.offset,
            len: self.len,
            lsn: self.lsn,
        }
    }

    /// Offset after this record and its padding.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(u64::from(self.offset) + record_size(self.len)).unwrap_or(u32::MAX)
    }

    fn flags(&self) -> u16 {
        let last = if self.last_of_group { LAST_OF_GROUP } else { 0 };
        let blank = if self.is_blank { BLANKED } else { 0 };
        last | blank
    }

    /// Appends the record with its payload and padding.
    pub(crate) fn encode(&self, segment: &SegmentHeader, parts: &[Bytes], out: &mut Vec<u8>) {
        let payload_crc = parts
            .iter()
            .fold(segment.payload_seed(), |crc, part| crc32c_append(crc, part));
        let mut header = [0; RECORD_HEADER as usize];
        let mut body = &mut header[4..];
        body.put_u32_le(payload_crc);
        body.put_u32_le(self.len);
        body.put_u16_le(self.kind.0);
        body.put_u16_le(self.flags());
        body.put_u64_le(self.lsn.0);
        body.put_u32_le(self.segment.0);
        body.put_u32_le(self.offset);
        body.put_u64_le(self.base.0);
        let header_crc = crc32c_append(segment.header_seed(), &header[4..]);
        (&mut header[..]).put_u32_le(header_crc);
        out.extend_from_slice(&header);
        for part in parts {
            out.extend_from_slice(part);
        }
        out.resize(out.len().next_multiple_of(8), 0);
    }

    /// The record that stands at `offset` of `segment`, `bytes` being the segment from there on.
    /// Nothing that is not exactly the record written there is accepted.
    pub(crate) fn decode<'a>(
        segment: &SegmentHeader,
        offset: u32,
        bytes: &'a [u8],
    ) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_at_checked(RECORD_HEADER as usize)?;
        // Cheap comparison first: recovery asks this at each eighth byte of a damaged range.
        let mut place = header.get(RECORD_PLACE as usize..RECORD_PLACE as usize + 8)?;
        if place.get_u32_le() != segment.number.0 || place.get_u32_le() != offset {
            return None;
        }
        let mut body = header;
        let header_crc = body.get_u32_le();
        if header_crc != crc32c_append(segment.header_seed(), body) {
            return None;
        }
        let payload_crc = body.get_u32_le();
        let len = body.get_u32_le();
        let kind = RecordKind(body.get_u16_le());
        let flags = body.get_u16_le();
        let lsn = Lsn(body.get_u64_le());
        body.advance(8);
        let base = Lsn(body.get_u64_le());
        let record = Self {
            kind,
            last_of_group: flags & LAST_OF_GROUP != 0,
            is_blank: flags & BLANKED != 0,
            len,
            lsn,
            segment: segment.number,
            offset,
            base,
        };
        if lsn < segment.first_lsn
            || base < segment.first_lsn
            || base > lsn
            || record.end() > segment.records_end()
        {
            return None;
        }
        let payload = rest.get(..usize::try_from(len).ok()?)?;
        (crc32c_append(segment.payload_seed(), payload) == payload_crc).then_some((record, payload))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn segment(number: u32, salt: u64) -> SegmentHeader {
        let before = Position {
            segment: SegmentNumber(number - 1),
            offset: 640,
            lsn: Lsn(9),
        };
        SegmentHeader {
            number: SegmentNumber(number),
            salt,
            size: 4096,
            first_lsn: Lsn(10),
            previous_end: before,
            whole_end: Position {
                offset: 600,
                lsn: Lsn(8),
                ..before
            },
        }
    }

    #[test]
    fn a_segment_header_survives_the_way_and_no_flipped_bit_does() {
        let header = segment(7, 0x1234_5678_9abc_def0);
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_accepted_only_whole_and_only_where_it_was_written() {
        let here = segment(7, 42 << 32 | 43);
        let record = RecordHeader {
            kind: RecordKind(3),
            last_of_group: true,
            is_blank: false,
            len: 11,
            lsn: Lsn(12),
            segment: here.number,
            offset: 256,
            base: Lsn(11),
        };
        let mut bytes = Vec::new();
        record.encode(
            &here,
            &[Bytes::from("hello "), Bytes::from("world")],
            &mut bytes,
        );
        assert_eq!(bytes.len() as u64, record_size(11));
        assert_eq!(
            RecordHeader::decode(&here, 256, &bytes),
            Some((record, &b"hello world"[..]))
        );
        assert_eq!(
            RecordHeader::decode(&here, 264, &bytes),
            None,
            "another offset"
        );
        assert_eq!(
            RecordHeader::decode(&segment(8, here.salt), 256, &bytes),
            None,
            "another segment"
        );
        assert_eq!(
            RecordHeader::decode(&segment(7, 42 << 32), 256, &bytes),
            None,
            "another salt of headers"
        );
        assert_eq!(
            RecordHeader::decode(&segment(7, 43), 256, &bytes),
            None,
            "another salt of payloads"
        );
        for bit in 0..(RECORD_HEADER as usize + 11) * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&here, 256, &bad), None, "bit {bit}");
        }
    }
}
