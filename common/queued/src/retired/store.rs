//! Segments of one kind, written by whoever retires: records go in, old segments go. Where the disk refuses it tells so
//! once, passes records over, and opens the segments anew every now and then.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::Timestamp;
use postroad_journal::{Journal, JournalError, Location, Options, RecordDraft, SegmentInfo};
use tracing::{error, info, warn};

use super::log::Log;
use crate::{
    clock,
    retention::{self, Limits, PREPARED, Spans},
};

/// How long the segments are left alone after a failure.
const REOPEN: Duration = Duration::from_secs(10);
/// A segment spans no more than this part of the time that is kept: so much longer, at most, its oldest record stays.
const SLICES: u32 = 8;

#[derive(Debug)]
pub struct Store {
    pub log: Arc<Log>,
    folder: PathBuf,
    limits: Limits,
    journal: Option<Journal>,
    /// Since when it cannot be written.
    failed: Option<Instant>,
    spans: Spans,
    /// Segments it may have now.
    most: usize,
}

impl Store {
    pub fn open(folder: PathBuf, limits: Limits) -> Self {
        let mut store = Self {
            log: Arc::default(),
            folder,
            limits,
            journal: None,
            failed: None,
            spans: Spans::default(),
            most: limits.segments,
        };
        // One that was never needed takes no room.
        if store.folder.exists() {
            store.try_open();
        }
        store
    }

    /// Keeps as much from now on.
    pub fn renew(&mut self, keep: Interval, size: ByteSize) {
        self.limits = self.limits.renewed(keep, size).unwrap_or(self.limits);
    }

    /// Opens the segments the first time they are needed.
    fn journal(&mut self) -> Option<&mut Journal> {
        if self.journal.is_none() && self.failed.is_none() {
            self.try_open();
        }
        self.journal.as_mut()
    }

    fn try_open(&mut self) {
        let options = Options {
            segment_bytes: self.limits.segment_bytes,
            prepare_ahead: 1,
            ..Options::default()
        };
        let made = std::fs::create_dir_all(&self.folder);
        let opened = made
            .map_err(|source| JournalError::Io {
                doing: "create",
                path: self.folder.clone(),
                source,
            })
            .and_then(|()| Journal::open(&self.folder, options, clock::entropy()));
        let (journal, recovery) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.fail(&error),
        };
        for segment in recovery.unreadable.iter().chain(&recovery.missing) {
            error!(event = "corruption", segment = %segment, "a segment of retired mails is missing or unreadable");
        }
        self.log.set_reader(Some(journal.reader()));
        self.journal = Some(journal);
        self.mended();
    }

    /// Durable when this returns; none if it cannot be written. `at` is when each was retired.
    pub fn append(&mut self, drafts: &[RecordDraft], at: &[Timestamp]) -> Option<Vec<Location>> {
        if drafts.is_empty() {
            return Some(Vec::new());
        }
        let journal = self.journal()?;
        match journal.append_group(drafts) {
            Ok(locations) => {
                for (location, at) in locations.iter().zip(at) {
                    self.spans.add(location.segment, *at);
                }
                self.mended();
                Some(locations)
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Longest payload of a record.
    pub fn longest(&mut self) -> usize {
        self.journal()
            .map_or(0, |journal| journal.longest_payload())
    }

    /// Octets of the segments, prepared ones too.
    pub fn octets(&self) -> u64 {
        let Some(journal) = &self.journal else {
            return 0;
        };
        let segments = u64::try_from(journal.segments().len()).unwrap_or(u64::MAX);
        segments.saturating_add(PREPARED) * u64::from(self.limits.segment_bytes)
    }

    /// Opens anew after a failure, ends a segment that spans long enough, and gives up what is too old or too much. While the
    /// disk is short it does not grow.
    pub fn tend(&mut self, now: Timestamp, is_short: bool) {
        if self.journal.is_none() && self.failed.is_some_and(|since| since.elapsed() >= REOPEN) {
            self.try_open();
        }
        self.log.forget_idle();
        let Some(journal) = &mut self.journal else {
            return;
        };
        let segments = journal.segments();
        self.most = match is_short {
            true => self.most.min(segments.len()).max(1),
            false => self.limits.segments,
        };
        let slice = self.limits.keep / SLICES;
        if let Some(newest) = segments.last()
            && let Some((oldest, _)) = span(&mut self.spans, &self.log, newest)
            && now.since(oldest) > slice
            && let Err(error) = journal.begin_segment()
        {
            return self.fail(&error);
        }
        let (log, spans) = (&self.log, &mut self.spans);
        let newest = |segment: &SegmentInfo| Some(newest_in(spans, log, segment));
        if retention::give_up(journal, self.most, self.limits.keep, now, newest) {
            self.spans.retain(&journal.segments());
        }
    }

    /// When the newest record of the oldest segment was retired, if that segment can go.
    pub fn oldest(&mut self) -> Option<Timestamp> {
        let segments = self.journal.as_ref()?.segments();
        let oldest = segments.first().filter(|_| segments.len() > 1)?;
        Some(newest_in(&mut self.spans, &self.log, oldest))
    }

    /// A purge begins: what was written lies in sealed segments then, and none is recycled; or it has ended. False: it
    /// cannot be written now.
    pub fn clean(&mut self, begins: bool) -> bool {
        let Some(journal) = &mut self.journal else {
            // One that was never needed holds nothing.
            return self.failed.is_none();
        };
        if !begins {
            journal.recycle_again();
            return true;
        }
        let sealed = journal.stop_recycling().and_then(|()| journal.seal());
        sealed.inspect_err(|error| self.fail(error)).is_ok()
    }

    /// Gives up the oldest segment; tells whether one went.
    pub fn give_up_oldest(&mut self) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        match journal.reclaim_oldest() {
            Ok(gone) => gone.is_some(),
            Err(error) => {
                warn!(event = "fault", error = %error, "an old segment stays");
                false
            }
        }
    }

    fn mended(&mut self) {
        if self.failed.take().is_some() {
            info!(event = "replay", "retired mails can be written again");
        }
    }

    /// Tells a person, once.
    fn fail(&mut self, error: &JournalError) {
        if self.failed.is_none() {
            let path = self.folder.display();
            error!(
                event = "disk_failed", path = %path, error = error as &dyn std::error::Error,
                "retired mails cannot be written; finished mails go without until they can"
            );
        }
        self.failed = Some(Instant::now());
        // What is on the disk only opening it anew can tell; where a segment is missing, later calls may succeed.
        if !matches!(error, JournalError::NoSegment(_)) {
            self.journal = None;
        }
    }
}

/// When the newest record of a segment was retired; of one in which nothing is left, long ago.
fn newest_in(spans: &mut Spans, log: &Log, segment: &SegmentInfo) -> Timestamp {
    span(spans, log, segment).map_or_else(Timestamp::default, |(_, newest)| newest)
}

/// The times of a segment's records: known of those written since the start, else read.
fn span(spans: &mut Spans, log: &Log, segment: &SegmentInfo) -> Option<(Timestamp, Timestamp)> {
    if let Some(known) = spans.of(segment.number) {
        return Some(known);
    }
    log.each(segment.number, |_, _, at| {
        spans.add(segment.number, at);
        ControlFlow::Continue(())
    });
    spans.of(segment.number)
}
