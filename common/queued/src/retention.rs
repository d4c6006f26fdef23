//! Segments that are given up by age and by room: those of the timeline and of retired mails.

use std::{collections::BTreeMap, time::Duration};

use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::Timestamp;
use postroad_journal::{Journal, SegmentInfo, SegmentNumber};
use tracing::warn;

/// Segments are 4 MiB, or shorter so that a small store has some to give up.
const SEGMENT: u64 = 4 << 20;
const SHORTEST_SEGMENT: u64 = 64 << 10;
/// The prepared ones count, too.
pub(crate) const PREPARED: u64 = 2;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub keep: Duration,
    pub segment_bytes: u32,
    pub segments: usize,
}

impl Limits {
    /// None: nothing is kept.
    pub fn of(keep: Interval, size: ByteSize) -> Option<Self> {
        let (keep, size) = (keep.as_duration(), size.as_u64());
        if keep.is_zero() || size == 0 {
            return None;
        }
        let segment = SEGMENT.min(size / 8).max(SHORTEST_SEGMENT);
        Some(Self::in_segments(keep, size, segment))
    }

    /// Others, for a store whose segments are as long as they are; nothing is kept by none of both.
    pub fn renewed(self, keep: Interval, size: ByteSize) -> Option<Self> {
        Self::of(keep, size)?;
        let segment = u64::from(self.segment_bytes);
        Some(Self::in_segments(
            keep.as_duration(),
            size.as_u64(),
            segment,
        ))
    }

    fn in_segments(keep: Duration, size: u64, segment: u64) -> Self {
        let segments = (size / segment).saturating_sub(PREPARED).max(2);
        Self {
            keep,
            segment_bytes: u32::try_from(segment).unwrap_or(u32::MAX),
            segments: usize::try_from(segments).unwrap_or(usize::MAX),
        }
    }
}

/// Gives up the oldest segments while there are more than `most`, and those whose newest record is older than `keep`; of a
/// segment of which that is not known, nothing is. Tells whether any went. The newest always stays.
pub(crate) fn give_up(
    journal: &mut Journal,
    most: usize,
    keep: Duration,
    now: Timestamp,
    mut newest: impl FnMut(&SegmentInfo) -> Option<Timestamp>,
) -> bool {
    let segments = journal.segments();
    let mut left = segments.len();
    for segment in &segments {
        let old = left > most || newest(segment).is_some_and(|newest| now.since(newest) > keep);
        if !old {
            break;
        }
        match journal.reclaim_oldest() {
            Ok(Some(_)) => left -= 1,
            Ok(None) => break,
            Err(error) => {
                warn!(event = "fault", segment = %segment.number, error = %error, "an old segment stays");
                break;
            }
        }
    }
    left < segments.len()
}

/// The times of the oldest and the newest record in each segment.
#[derive(Debug, Default)]
pub(crate) struct Spans(BTreeMap<SegmentNumber, (Timestamp, Timestamp)>);

impl Spans {
    pub fn add(&mut self, segment: SegmentNumber, at: Timestamp) {
        let (oldest, newest) = self.0.entry(segment).or_insert((at, at));
        *oldest = at.min(*oldest);
        *newest = at.max(*newest);
    }

    pub fn of(&self, segment: SegmentNumber) -> Option<(Timestamp, Timestamp)> {
        self.0.get(&segment).copied()
    }

    pub fn retain(&mut self, living: &[SegmentInfo]) {
        self.0
            .retain(|number, _| living.iter().any(|known| known.number == *number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_hold_with_what_is_prepared() {
        let of = |keep, max_size: &str| Limits::of(keep, max_size.parse().unwrap());
        let day = Interval::days(1);
        let limits = of(day, "1GiB").unwrap();
        assert_eq!((limits.segment_bytes, limits.segments), (4 << 20, 254));
        let renewed = limits.renewed(Interval::days(2), "64MiB".parse().unwrap());
        let renewed = renewed.unwrap();
        assert_eq!((renewed.segment_bytes, renewed.segments), (4 << 20, 14));
        assert_eq!(renewed.keep, Duration::from_secs(2 * 86_400));
        let limits = of(day, "512KiB").unwrap();
        assert_eq!((limits.segment_bytes, limits.segments), (64 << 10, 6));
        assert!(of(day, "0B").is_none());
        assert!(of(Interval::seconds(0), "1GiB").is_none());
    }
}
