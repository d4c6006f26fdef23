//! Giving up the oldest segment of the journal: what still counts in it is copied forward first.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use postroad_journal::{Location, RecordKind, SegmentInfo, SegmentNumber};
use postroad_queue::{Prepared, Queue, QueueError};
use tokio::{sync::mpsc, task::spawn_blocking};
use tracing::{Instrument as _, debug, debug_span, error};

use super::{Upkeep, join};
use crate::{
    clock,
    committer::{Clean, CommitError},
    core::Core,
    store::damage,
};

/// Most that one round copies forward: other mail waits for so much at most. A record takes some 0.1 ms of that round.
const KEEP_OCTETS: usize = 128 << 10;
const KEEP_RECORDS: usize = 50;
/// Octets that a record takes beside its payload.
const RECORD: usize = 48;
/// Octets a second.
const SLOW_COPY: u64 = 64 << 10;
/// Segments given up in one turn.
const SEGMENTS_A_TURN: usize = 8;

/// Where most of a segment lives, copying it frees little: then it is done no faster than [`SLOW_COPY`], unless the journal
/// grows by a quarter meanwhile, or half of the mail has gone: a full disk that empties must not wait.
pub(super) struct Rest {
    until: Instant,
    unless_above: u64,
    unless_below: usize,
}

impl Rest {
    fn after(kept: u64, length: u64, jobs: usize) -> Self {
        let until = Instant::now() + Duration::from_millis(kept.saturating_mul(1000) / SLOW_COPY);
        Self {
            until,
            unless_above: length + length / 4,
            unless_below: jobs.div_ceil(2),
        }
    }

    fn lasts(&self, length: u64, jobs: usize) -> bool {
        Instant::now() < self.until && length <= self.unless_above && jobs >= self.unless_below
    }
}

impl Upkeep {
    pub(super) async fn shorten(&mut self, until: Instant) -> Result<(), CommitError> {
        for _ in 0..SEGMENTS_A_TURN {
            if !self.reclaim().await? || Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    /// Gives up the oldest segment if the journal is too long, or finds no room for another; tells whether it did.
    async fn reclaim(&mut self) -> Result<bool, CommitError> {
        let segments = self.core.segments();
        let length = self.core.room_taken(&segments);
        let Some(oldest) = segments.first().copied() else {
            return Ok(false);
        };
        let is_short = self.core.reclaimer.is_short();
        let least = if is_short { 1 } else { 2 };
        let may_go = segments.len() > least && oldest.sealed && oldest.last_lsn < self.checkpoint;
        let target = self.core.config().disk.journal_target.as_u64();
        let jobs = self.core.queue.living_jobs();
        let rests = self
            .rest
            .as_ref()
            .is_some_and(|rest| rest.lasts(length, jobs));
        if !(length > target || is_short) || rests {
            return Ok(false);
        }
        if is_short && segments.len() == 1 {
            // The disk has room for two: what ended in this one can go only from behind another.
            self.core.committer.clean(Clean::Seal).await?;
            return Ok(false);
        }
        if !may_go || (is_short && !self.fits(oldest, &segments).await?) {
            return Ok(false);
        }
        let begun = Instant::now();
        let given_up = self.give_up(oldest).instrument(debug_span!("reclaim"));
        let Some(kept) = given_up.await? else {
            return Ok(false);
        };
        let duration_ms = clock::millis_since(begun);
        debug!(event = "reclaimed", segment = %oldest.number, size = kept, duration_ms);
        let mostly_living = kept > u64::from(oldest.bytes_used) / 2;
        self.rest = mostly_living.then(|| Rest::after(kept, length, jobs));
        Ok(true)
    }

    /// Whether all that still counts in the oldest segment finds room in the newest, where no other can be had. Copies that end halfway
    /// would free nothing, and take the room that is left to what ends mails.
    async fn fits(
        &self,
        oldest: SegmentInfo,
        segments: &[SegmentInfo],
    ) -> Result<bool, CommitError> {
        let newest = segments.last().filter(|newest| !newest.sealed);
        let used = newest.map_or(u64::MAX, |newest| newest.bytes_used.into());
        let room = self.core.room_taken(&[oldest]).saturating_sub(used);
        let core = Arc::clone(&self.core);
        let fits = spawn_blocking(move || room_for_living(&core, oldest, room));
        fits.await.map_err(|_| CommitError::Ended)?
    }

    /// Copies forward what still counts in the oldest segment and gives it up; tells how many octets were copied. None: not
    /// all of it can be kept now.
    async fn give_up(&self, oldest: SegmentInfo) -> Result<Option<u64>, CommitError> {
        let Some(_turn) = self.core.pins.reclaim(oldest.number).await else {
            return Ok(None);
        };
        let Some(kept) = keep(&self.core, oldest).await? else {
            return Ok(None);
        };
        self.retire().await?;
        // What finished since the last checkpoint, and is known by records of that segment alone, must still be known.
        let finished = |queue: &Queue, _| Ok((queue.prepare_finished(), ()));
        self.core.committer.commit(finished).await?;
        // What could not be read is told and held before its segment goes.
        damage::let_go(&self.core, oldest.number).await?;
        self.let_go(oldest.number).await?;
        Ok(Some(kept))
    }

    /// The files change their names here, and not on the committing thread: mail need not wait for that.
    async fn let_go(&self, oldest: SegmentNumber) -> Result<(), CommitError> {
        let core = Arc::clone(&self.core);
        let gone = spawn_blocking(move || core.reclaimer.reclaim_oldest()).await;
        let gone = gone.map_err(|_| CommitError::Ended)?;
        // As where a commit fails: only opening anew can tell what the disk holds.
        self.core.committer.unless_failed(gone).await?;
        let core = Arc::clone(&self.core);
        let forgotten = spawn_blocking(move || core.queue.forget_segment(oldest)).await;
        Ok(forgotten.map_err(|_| CommitError::Ended)??)
    }

    /// What finished since the last checkpoint, before the records of it go: some may lie in a segment before that.
    async fn retire(&self) -> Result<(), CommitError> {
        let core = Arc::clone(&self.core);
        let retired = spawn_blocking(move || core.retired.retire(&core)).await;
        Ok(retired.map_err(|_| CommitError::Ended)??)
    }
}

/// A record of a segment that is to go.
type Old = (Location, RecordKind, Bytes);

/// Copies forward what still counts in a segment, piece by piece; tells how many octets. None: not all of it can be kept
/// now.
async fn keep(core: &Arc<Core>, segment: SegmentInfo) -> Result<Option<u64>, CommitError> {
    // The segment is read once; the next piece waits until this one is committed.
    let (pieces, mut read) = mpsc::channel(1);
    let reading = Arc::clone(core);
    let reading = spawn_blocking(move || read_pieces(&reading, segment, &pieces));
    let mut kept = 0_u64;
    while let Some(mut records) = read.recv().await {
        let mut tries = 0;
        while !records.is_empty() {
            let round = std::mem::take(&mut records);
            let prepare = move |queue: &Queue, _| keep_piece(queue, round);
            let (octets, busy) = match core.committer.copy(prepare).await {
                Ok(committed) => committed.value,
                Err(CommitError::Full) => return Ok(None),
                Err(failed) => return Err(failed),
            };
            kept += octets;
            records = busy;
            tries += 1;
            if tries > 10 {
                return Ok(None);
            }
        }
    }
    reading.await.map_err(|_| CommitError::Ended)??;
    Ok(Some(kept))
}

/// Reads what counts still. Blocks until all of it was taken, or nobody takes any more.
fn read_pieces(
    core: &Core,
    segment: SegmentInfo,
    pieces: &mpsc::Sender<Vec<Old>>,
) -> Result<(), CommitError> {
    let (mut records, mut octets, mut failed) = (Vec::new(), 0, None);
    let replay = core.reader.replay_segment(segment.number, |record| {
        let payload = Bytes::copy_from_slice(record.payload);
        match counts(&core.queue, record.location, record.kind, &payload) {
            Ok(true) => {}
            Ok(false) => return ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        octets += payload.len();
        records.push((record.location, record.kind, payload));
        if octets < KEEP_OCTETS && records.len() < KEEP_RECORDS {
            return ControlFlow::Continue(());
        }
        octets = 0;
        match pieces.blocking_send(std::mem::take(&mut records)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    if let Some(failed) = failed {
        return Err(failed.into());
    }
    let replay = replay.map_err(|error| {
        error!(event = "fault", segment = %segment.number, error = %error, "a segment cannot be read");
        CommitError::Full
    })?;
    damage::tell(core, &replay);
    // Nobody takes it if the round before it failed; then that is told.
    let _ = pieces.blocking_send(records);
    Ok(())
}

/// Reads until there is too much of it. Blocks.
fn room_for_living(core: &Core, segment: SegmentInfo, room: u64) -> Result<bool, CommitError> {
    let (mut left, mut failed) = (Some(room), None);
    let replay = core.reader.replay_segment(segment.number, |record| {
        let payload = Bytes::copy_from_slice(record.payload);
        let kept = core
            .queue
            .prepare_keep(record.location, record.kind, &payload);
        let octets = match kept {
            Ok(kept) => kept.map_or(0, |kept| kept.len() + kept.count() * RECORD),
            // It is changing; what it will be is no longer than it and its states.
            Err(QueueError::Busy(_)) => payload.len() + 2 * RECORD,
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        };
        left = left.and_then(|left| left.checked_sub(u64::try_from(octets).ok()?));
        match left {
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        }
    });
    if let Some(failed) = failed {
        return Err(failed.into());
    }
    // A segment that cannot be read is told of where it is copied.
    Ok(replay.is_err() || left.is_some())
}

/// Whether a record must be copied, or may have to be: what counts no more never counts again. So the committing thread is
/// asked about the others alone.
fn counts(
    queue: &Queue,
    location: Location,
    kind: RecordKind,
    payload: &Bytes,
) -> Result<bool, QueueError> {
    match queue.prepare_keep(location, kind, payload) {
        Ok(kept) => Ok(kept.is_some()),
        Err(QueueError::Busy(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

type Kept = (Option<Prepared>, (u64, Vec<Old>));

fn keep_piece(queue: &Queue, records: Vec<Old>) -> Result<Kept, QueueError> {
    let (mut all, mut octets, mut busy) = (None, 0, Vec::new());
    for (location, kind, payload) in records {
        match queue.prepare_keep(location, kind, &payload) {
            Ok(Some(one)) => {
                octets += u64::try_from(one.len()).unwrap_or(u64::MAX);
                all = Some(join(all, one));
            }
            Ok(None) => {}
            Err(QueueError::Busy(_)) => busy.push((location, kind, payload)),
            Err(error) => return Err(error),
        }
    }
    Ok((all, (octets, busy)))
}
