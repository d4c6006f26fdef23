//! What is done about once a second, away from the mail: checkpoint, reclaim, reserve, mails whose time is over, routes
//! after the directory changed, unlinking.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use postroad_address::Domain;
use postroad_directory::Directory;
use postroad_envelope::{Filter, QueueId, Route, RouteClass};
use postroad_journal::{Location, Lsn, RecordKind, SegmentInfo};
use postroad_queue::{Instruction, JobKey, JobState, Listing, Prepared, Queue, QueueError};
use tokio::{sync::mpsc, task::spawn_blocking, time::interval};
use tracing::{Instrument as _, debug, debug_span, error, info, warn};

use crate::{
    clock,
    committer::CommitError,
    core::{Core, Front},
    disk,
    renewal::Renewals,
    routing::{self, Router},
    store::damage,
};

pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// Checkpoints are this far apart at least.
const CHECKPOINT_TURNS: u32 = 2;
/// Most that one round of reclaiming copies forward: other mail waits for so much at most.
const KEEP_OCTETS: usize = 1 << 20;
const KEEP_RECORDS: usize = 500;
/// Octets a second.
const SLOW_COPY: u64 = 64 << 10;
/// Segments given up in one turn.
const SEGMENTS_A_TURN: usize = 8;
/// Jobs changed, or looked at, in one commit or page.
const PAGE: usize = 500;

/// Before anything is leased: where starts that ended early have left segments with next to nothing in them, some of them
/// go first. A queue that then ends early again has not grown.
pub(crate) async fn clear_away(core: &Arc<Core>) -> Result<(), CommitError> {
    let segments = core.segments();
    let room = core.room_taken(&segments);
    let used: u64 = segments.iter().map(|one| u64::from(one.bytes_used)).sum();
    if room <= core.config.disk.journal_target.as_u64() || used > room / 2 {
        return Ok(());
    }
    let mut upkeep = Upkeep::new(Arc::clone(core));
    upkeep.checkpoint().await?;
    upkeep.shorten().await
}

/// Runs until the queue ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut upkeep = Upkeep::new(core);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0_u32;
    loop {
        tokio::select! {
            () = upkeep.core.upkeep_stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // The first checkpoint at once: a queue that ends early again and again still gives room back.
        let checkpoint = turn.is_multiple_of(CHECKPOINT_TURNS);
        turn = turn.wrapping_add(1);
        if let Err(failed) = upkeep.turn(checkpoint).await {
            if matches!(failed, CommitError::Ended) {
                return;
            }
            error!(event = "fault", error = %failed, "upkeep failed; it is tried again");
        }
    }
}

struct Upkeep {
    core: Arc<Core>,
    /// The round after which nothing is new since the last checkpoint.
    quiet_round: u64,
    /// Where a replay would begin.
    checkpoint: Lsn,
    rest: Option<Rest>,
    directory: Option<Arc<Directory>>,
    renewals: Renewals,
}

/// Where most of a segment lives, copying it frees little: then it is done no faster than [`SLOW_COPY`], unless the journal
/// grows by a quarter meanwhile, or half of the mail has gone: a full disk that empties must not wait.
struct Rest {
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
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            quiet_round: 0,
            checkpoint: Lsn(0),
            rest: None,
            directory: None,
            renewals: Renewals::default(),
        }
    }

    async fn turn(&mut self, checkpoint: bool) -> Result<(), CommitError> {
        look_at_disk(self.core.front()).await;
        if checkpoint {
            self.checkpoint().await?;
            self.renewals.tend(&self.core)?;
            self.tend_retired().await;
        }
        self.shorten().await?;
        self.expire().await?;
        self.reroute().await
    }

    async fn shorten(&mut self) -> Result<(), CommitError> {
        for _ in 0..SEGMENTS_A_TURN {
            if !self.reclaim().await? {
                break;
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<(), CommitError> {
        let before = *self.core.committer.rounds().borrow();
        if before == self.quiet_round {
            return Ok(());
        }
        let made = checkpoint(&self.core).instrument(debug_span!("checkpoint"));
        if let Some(lsn) = made.await? {
            self.checkpoint = lsn;
            // Only the checkpoint's own round has passed, unless other rounds came too.
            self.quiet_round = before + 1;
        }
        Ok(())
    }

    /// Gives up the oldest segment if the journal is too long; tells whether it did.
    async fn reclaim(&mut self) -> Result<bool, CommitError> {
        let segments = self.core.segments();
        let length = self.core.room_taken(&segments);
        let Some(oldest) = segments.first().copied() else {
            return Ok(false);
        };
        let may_go = segments.len() > 2 && oldest.sealed && oldest.last_lsn < self.checkpoint;
        let target = self.core.config.disk.journal_target.as_u64();
        let jobs = self.core.queue.living_jobs();
        let rests = self
            .rest
            .as_ref()
            .is_some_and(|rest| rest.lasts(length, jobs));
        if length <= target || rests || !may_go {
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
        self.core.committer.reclaim_oldest().await?;
        let core = Arc::clone(&self.core);
        let forgotten = spawn_blocking(move || core.queue.forget_segment(oldest.number)).await;
        if let Ok(Err(error)) = forgotten {
            return Err(error.into());
        }
        Ok(Some(kept))
    }

    /// What finished since the last checkpoint, before the records of it go: some may lie in a segment before that.
    async fn retire(&self) -> Result<(), CommitError> {
        let core = Arc::clone(&self.core);
        let retired = spawn_blocking(move || core.retired.retire(&core)).await;
        Ok(retired.map_err(|_| CommitError::Ended)??)
    }

    async fn tend_retired(&self) {
        let core = Arc::clone(&self.core);
        let tend = move || {
            let is_short = core.admission.borrow().is_some();
            core.retired.tend(clock::now(), is_short);
        };
        // A panic in it has been logged; the next turn tries again.
        let _ = spawn_blocking(tend).await;
    }

    /// Jobs whose time is over though no worker came for them fail now.
    async fn expire(&self) -> Result<(), CommitError> {
        loop {
            let over = self.core.queue.out_of_time(clock::now(), PAGE);
            let found = over.len();
            if found == 0 {
                return Ok(());
            }
            let over = over.into_iter().map(|job| (job, Instruction::Expire));
            let expired = instruct(&self.core, over.collect()).await?;
            if found < PAGE || expired.changed.is_empty() {
                return Ok(());
            }
        }
    }

    /// Routes follow the directory and the configuration: at start, and whenever the directory changed.
    async fn reroute(&mut self) -> Result<(), CommitError> {
        let directory = self.core.directory.current();
        if self
            .directory
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &directory))
        {
            return Ok(());
        }
        self.directory = Some(directory);
        let mut from = None;
        loop {
            let core = Arc::clone(&self.core);
            let page = spawn_blocking(move || wrongly_routed(&core, from)).await;
            let (wrong, next) = page.map_err(|_| CommitError::Ended)??;
            for (job, route) in wrong {
                self.move_to(job, route).await?;
            }
            if next.is_none() {
                return Ok(());
            }
            from = next;
        }
    }
}

impl Upkeep {
    async fn move_to(&self, job: JobKey, route: Route) -> Result<(), CommitError> {
        let (class, rule) = (route.class, route.rule.clone());
        // Holds and releases what the table holds; what a person holds stays held.
        let moved = instruct(&self.core, vec![(job, Instruction::Reroute(route))]).await?;
        if !moved.changed.is_empty() {
            info!(event = "rerouted", queue_id = %job.queue_id, route = %class, rule);
        }
        Ok(())
    }
}

/// Unlinks what nobody needs, and looks whether there is room for new mail.
pub(crate) async fn look_at_disk(front: &Arc<Front>) {
    let core = Arc::clone(front);
    let look = move || {
        for nonce in core.pins.allow(core.trash.take()) {
            if let Err(error) = core.contents.remove(nonce) {
                warn!(event = "fault", error = %error, "a content file stays until the next start");
            }
        }
        disk::shortage(&core.folder, &core.config.disk)
    };
    let Ok(shortage) = spawn_blocking(look).await else {
        return;
    };
    if front.stopping.is_cancelled() {
        return;
    }
    let was_short = front.admission.borrow().is_some();
    match &shortage {
        Some(why) if !was_short => {
            warn!(event = "disk_full", reason = why, "no new mail is taken");
        }
        None if was_short => info!(event = "disk_recovered"),
        _ => {}
    }
    front.admission.send_if_modified(|now| {
        let changed = now.is_some() != shortage.is_some();
        if changed {
            *now = shortage;
        }
        changed
    });
}

/// Commits a checkpoint and makes the index durable up to it.
pub(crate) async fn checkpoint(core: &Arc<Core>) -> Result<Option<Lsn>, CommitError> {
    let _turn = core.checkpointing.lock().await;
    let begun = Instant::now();
    let prepare = |queue: &Queue, now| Ok((Some(queue.prepare_checkpoint(now)), ()));
    let committed = core.committer.commit_alone(prepare).await?;
    let Some(lsn) = committed.lsn else {
        return Ok(None);
    };
    let retiring = Arc::clone(core);
    let flush = move || {
        // Whatever finished before this checkpoint is durable elsewhere before its segments may go.
        retiring.retired.retire(&retiring)?;
        retiring.queue.retired_before(lsn);
        retiring.queue.checkpoint(lsn, clock::now())
    };
    let flushed = spawn_blocking(flush).await;
    let flushed = flushed.map_err(|_| CommitError::Ended)?;
    core.committer.unless_unsynced(flushed).await?;
    let duration_ms = clock::millis_since(begun);
    debug!(event = "checkpoint", lsn = lsn.0, duration_ms);
    Ok(Some(lsn))
}

/// What became of instructions.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Jobs that follow.
    pub changed: Vec<JobKey>,
    /// Those of them that are held now, and why.
    pub held: BTreeMap<JobKey, String>,
    /// Jobs that a worker holds, or that change at this moment.
    pub busy: Vec<JobKey>,
}

/// Gives each job its instruction, in one commit; jobs that are busy or gone are passed over.
pub(crate) async fn instruct(
    core: &Core,
    jobs: Vec<(JobKey, Instruction)>,
) -> Result<Told, CommitError> {
    let prepare = move |queue: &Queue, now| {
        let mut all: Option<Prepared> = None;
        let mut told = Told::default();
        for (job, instruction) in jobs {
            match queue.prepare(job, instruction, now) {
                Ok(one) => {
                    told.changed.push(job);
                    let held = one.hold().map(|why| (job, why.to_owned()));
                    told.held.extend(held);
                    all = Some(join(all, one));
                }
                Err(QueueError::Busy(_)) => told.busy.push(job),
                Err(QueueError::NoSuchJob(_)) => {}
                Err(error) => {
                    // The others are not to wait for a commit that never comes.
                    all.into_iter().for_each(|all| queue.abandon(all));
                    return Err(error);
                }
            }
        }
        Ok((all, told))
    };
    Ok(core.committer.commit(prepare).await?.value)
}

fn join(all: Option<Prepared>, one: Prepared) -> Prepared {
    match all {
        Some(all) => all.and(one),
        None => one,
    }
}

type Misrouted = (Vec<(JobKey, Route)>, Option<QueueId>);

fn wrongly_routed(core: &Core, from: Option<QueueId>) -> Result<Misrouted, QueueError> {
    let directory = core.directory.current();
    let all = Filter::all();
    let listing = Listing::oldest(&all, from, PAGE);
    let page = core.queue.list(&listing, clock::now(), &|| true)?;
    let jobs = page
        .mails
        .iter()
        .flat_map(|mail| &mail.jobs)
        .map(|job| &job.state);
    let wrong = jobs.filter(|state| state.is_pending() && routing::follows_table(&state.rule));
    let wrong = wrong.filter_map(|state| {
        let route = route_of(&core.router, &directory, state)?;
        let same = route.class == state.class && route.next_hop == state.next_hop;
        (!same).then_some((state.key, route))
    });
    Ok((wrong.collect(), page.next))
}

fn route_of(router: &Router, directory: &Directory, state: &JobState) -> Option<Route> {
    let domain = Domain::parse(&state.destination).ok()?;
    let route = router.route_domain(&domain, |domain| directory.is_local_domain(domain));
    // A mail that was accepted is not thrown away since a rule changed.
    (route.class != RouteClass::Discard).then_some(route)
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
            let (octets, busy) = core.committer.commit(prepare).await?.value;
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

/// Blocks until all of the segment was taken, or nobody takes any more.
fn read_pieces(
    core: &Core,
    segment: SegmentInfo,
    pieces: &mpsc::Sender<Vec<Old>>,
) -> Result<(), CommitError> {
    let (mut records, mut octets) = (Vec::new(), 0);
    let replay = core.reader.replay_segment(segment.number, |record| {
        octets += record.payload.len();
        records.push((
            record.location,
            record.kind,
            Bytes::copy_from_slice(record.payload),
        ));
        if octets < KEEP_OCTETS && records.len() < KEEP_RECORDS {
            return ControlFlow::Continue(());
        }
        octets = 0;
        match pieces.blocking_send(std::mem::take(&mut records)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    let replay = replay.map_err(|error| {
        error!(event = "fault", segment = %segment.number, error = %error, "a segment cannot be read");
        CommitError::Full
    })?;
    damage::tell(core, &replay);
    // Nobody takes it if the round before it failed; then that is told.
    let _ = pieces.blocking_send(records);
    Ok(())
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
