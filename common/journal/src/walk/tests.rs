//! Segments made by hand, with what an enemy or a failing disk may put into them.
use super::*;
use crate::{format::tests::segment, record::RecordKind};
use bytes::Bytes;

/// A segment under construction.
struct Draft {
    header: SegmentHeader,
    bytes: Vec<u8>,
    next: RecordHeader,
}

fn empty() -> Draft {
    let header = segment(7, 0xfeed_beef_dead_cafe);
    let (lsn, offset) = (header.first_lsn, SEGMENT_HEADER);
    let next = RecordHeader {
        kind: RecordKind(1),
        last_of_group: true,
        is_blank: false,
        len: 0,
        lsn,
        segment: header.number,
        offset,
        base: lsn,
    };
    Draft {
        header,
        bytes: vec![0; SEGMENT_HEADER as usize],
        next,
    }
}

impl Draft {
    /// Adds a record; `commit` closes its group and syncs.
    fn add(&mut self, payload: Vec<u8>, commit: bool) -> RecordHeader {
        let record = RecordHeader {
            len: payload.len() as u32,
            last_of_group: commit,
            ..self.next
        };
        record.encode(&self.header, &[Bytes::from(payload)], &mut self.bytes);
        let lsn = record.lsn.next();
        self.next = RecordHeader {
            lsn,
            offset: record.end(),
            base: if commit { lsn } else { record.base },
            ..record
        };
        record
    }

    fn commit(&mut self, payload: &[u8]) -> RecordHeader {
        self.add(payload.to_vec(), true)
    }

    fn whole(mut self) -> (SegmentHeader, Vec<u8>) {
        self.bytes.resize(self.header.size as usize, 0);
        (self.header, self.bytes)
    }
}

fn walk(header: &SegmentHeader, bytes: &[u8], end: u32) -> (Vec<u64>, Vec<Gap>) {
    let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
    for step in Walk::new(header, bytes, end) {
        match step {
            Step::Record(record, _) => numbers.push(record.lsn.0),
            Step::Gap(gap) => gaps.push(gap),
        }
    }
    (numbers, gaps)
}

#[test]
fn a_forged_record_changes_nothing_whether_its_carrier_is_whole_damaged_or_torn() {
    let mut draft = empty();
    draft.commit(b"first");
    let carrier_at = draft.next.offset;
    // All that an enemy can know or guess: the place, the numbers, the format. Not the salt.
    let mut forged = Vec::new();
    for guess in [0, 1, u64::MAX] {
        let guessed = SegmentHeader {
            salt: guess,
            ..draft.header
        };
        for lsn in 11..14 {
            let offset = carrier_at + RECORD_HEADER + forged.len() as u32;
            let (lsn, base) = (Lsn(lsn), Lsn(lsn));
            let record = RecordHeader {
                len: 6,
                lsn,
                base,
                offset,
                ..draft.next
            };
            record.encode(&guessed, &[Bytes::from("forged")], &mut forged);
            assert!(
                RecordHeader::decode(&guessed, offset, &forged[forged.len() - 48..]).is_some(),
                "well forged"
            );
        }
    }
    let carrier = draft.commit(&forged);
    let (torn_header, torn) = (draft.header, draft.bytes.clone());
    let last = draft.commit(b"last");
    let (header, mut bytes) = draft.whole();
    assert_eq!(
        walk(&header, &bytes, last.end()),
        (vec![10, 11, 12], vec![])
    );
    bytes[carrier.offset as usize] ^= 1;
    let gap = Gap {
        bytes: carrier.offset..last.offset,
        before: Lsn(10),
        after: Some(Lsn(12)),
    };
    assert_eq!(walk(&header, &bytes, last.end()), (vec![10, 12], vec![gap]));
    // Torn at each byte of the carrier: the log ends before it.
    for cut in carrier.offset..carrier.end() {
        let tail = find_tail(&torn_header, &torn[..cut as usize]);
        assert_eq!(
            (tail.end.lsn, tail.end.offset, tail.dropped),
            (Lsn(10), carrier.offset, 0),
            "cut {cut}"
        );
    }
}

#[test]
fn what_was_committed_before_the_last_sync_is_never_taken_for_a_torn_tail() {
    let mut draft = empty();
    let (first, second, third) = (draft.commit(b"1"), draft.commit(b"2"), draft.commit(b"3"));
    let (header, whole) = draft.whole();
    let tail_without = |lost: &[RecordHeader]| {
        let mut bytes = whole.clone();
        lost.iter()
            .for_each(|record| bytes[record.offset as usize] ^= 1);
        find_tail(&header, &bytes)
    };
    assert_eq!(tail_without(&[]).end.lsn, third.lsn);
    assert_eq!(tail_without(&[]).suspect, third.offset..third.end());
    assert_eq!(tail_without(&[first]).end.lsn, third.lsn);
    assert_eq!(tail_without(&[first, second]).end.lsn, third.lsn);
    assert_eq!(tail_without(&[third]).end.lsn, second.lsn);
    assert_eq!(tail_without(&[second, third]).end.lsn, first.lsn);
    assert_eq!(tail_without(&[first, second, third]).end, header.whole_end);
}

#[test]
fn an_unfinished_group_is_dropped_and_the_damage_before_it_stays_damage() {
    let mut draft = empty();
    draft.commit(b"1");
    let second = draft.commit(b"2");
    let open = draft.add(b"3".to_vec(), false);
    draft.add(b"4".to_vec(), false);
    let (header, mut bytes) = draft.whole();
    let tail = find_tail(&header, &bytes);
    assert_eq!(
        (tail.end.lsn, tail.end.offset, tail.dropped),
        (second.lsn, open.offset, 2)
    );
    bytes[second.offset as usize] ^= 1;
    let tail = find_tail(&header, &bytes);
    assert_eq!(
        (tail.end.lsn, tail.end.offset, tail.dropped),
        (second.lsn, open.offset, 2)
    );
    let gap = Gap {
        bytes: second.offset..open.offset,
        before: Lsn(10),
        after: None,
    };
    assert_eq!(
        walk(&header, &bytes, tail.end.offset),
        (vec![10], vec![gap])
    );
}

#[test]
fn hints_and_groups_that_share_a_sync_are_kept_group_by_group() {
    let mut draft = empty();
    draft.commit(b"1");
    // Two hints and a group, written one after the other and synced together.
    let base = draft.next.base;
    let mut written = Vec::new();
    for payload in [&b"hint"[..], b"hint", b"group"] {
        written.push(draft.commit(payload));
        draft.next.base = base;
    }
    let (header, whole) = draft.whole();
    for (kept, lost) in written.iter().enumerate() {
        let mut bytes = whole.clone();
        bytes[lost.offset as usize] ^= 1;
        let tail = find_tail(&header, &bytes);
        assert_eq!(tail.end.offset, lost.offset);
        // What lies behind the lost one was not committed either, whole as it may be.
        assert_eq!(tail.dropped, (written.len() - kept - 1) as u64);
    }
    assert_eq!(
        find_tail(&header, &whole).suspect,
        written[0].offset..written[2].end()
    );
}

#[test]
fn a_record_behind_octets_that_were_wiped_is_found_wherever_it_lies() {
    for len in (3_900..4_300).step_by(8).chain([8_000, 8_192, 20_008]) {
        let mut draft = empty();
        let first = draft.commit(b"first");
        let wiped = draft.commit(&vec![b'x'; len]);
        let last = draft.commit(b"last");
        draft.header.size = 64 << 10;
        let (header, mut bytes) = draft.whole();
        bytes[wiped.offset as usize..wiped.end() as usize].fill(0);
        let (numbers, gaps) = walk(&header, &bytes, last.end());
        assert_eq!(numbers, [first.lsn.0, last.lsn.0], "{len}");
        assert_eq!(gaps[0].bytes, wiped.offset..wiped.end());
    }
}
