//! What is done about once a second, away from the mail: checkpoint, reclaim, reserve, mails whose time is over, routes
//! after the directory changed, unlinking.

mod reclaim;
pub(crate) mod rerouting;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use postroad_directory::Directory;
use postroad_envelope::{EventKind, QueueId};
use postroad_journal::Lsn;
use postroad_queue::{Instruction, JobKey, Prepared, Queue, QueueError};
use postroad_reply::EXPIRED_5_4_7;
use tokio::{task::spawn_blocking, time::interval};
use tracing::{Instrument as _, debug, debug_span, error, info, warn};

use crate::{
    clock,
    committer::CommitError,
    core::{Core, Front},
    disk,
    renewal::Renewals,
    routing::Router,
};
use reclaim::Rest;

pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// Checkpoints are this far apart at least.
const CHECKPOINT_TURNS: u32 = 2;
/// After so long a turn begins nothing more: the next checkpoint is not to wait until all of a long queue was looked at.
const LONGEST_TURN: Duration = Duration::from_secs(1);
/// Jobs changed, or looked at, in one commit or page.
const PAGE: usize = 500;

/// Before anything is leased: where starts that ended early have left segments with next to nothing in them, some of them
/// go first. A queue that then ends early again has not grown.
pub(crate) async fn clear_away(core: &Arc<Core>) -> Result<(), CommitError> {
    let segments = core.segments();
    let room = core.room_taken(&segments);
    let used: u64 = segments.iter().map(|one| u64::from(one.bytes_used)).sum();
    if room <= core.config().disk.journal_target.as_u64() || used > room / 2 {
        return Ok(());
    }
    let mut upkeep = Upkeep::new(Arc::clone(core));
    upkeep.checkpoint().await?;
    upkeep.shorten(Instant::now() + LONGEST_TURN).await
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
    /// What routes follow: the directory, also as to stores, and the routing table.
    followed: Option<(Arc<Directory>, bool, Arc<Router>)>,
    began: Instant,
    /// Where the walk that follows them goes on, from the first mail or this one.
    rerouting: Option<Option<QueueId>>,
    renewals: Renewals,
}

impl Upkeep {
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            quiet_round: 0,
            checkpoint: Lsn(0),
            rest: None,
            followed: None,
            began: Instant::now(),
            rerouting: None,
            renewals: Renewals::default(),
        }
    }

    async fn turn(&mut self, checkpoint: bool) -> Result<(), CommitError> {
        let until = Instant::now() + LONGEST_TURN;
        look_at_disk(self.core.front()).await;
        if checkpoint {
            self.checkpoint().await?;
            self.renewals.tend(&self.core)?;
            self.tend_retired().await;
        }
        self.shorten(until).await?;
        self.expire(until).await?;
        self.reroute(until).await
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

    async fn tend_retired(&self) {
        let core = Arc::clone(&self.core);
        let tend = move || {
            let is_short = core.admission.borrow().is_some();
            core.retired.tend(clock::now(), is_short);
        };
        // A panic in it has been logged; the next turn tries again.
        let _ = spawn_blocking(tend).await;
    }

    /// Jobs whose time is over and that no worker has fail now, or their senders are told; also of those that wait for their site.
    async fn expire(&self, until: Instant) -> Result<(), CommitError> {
        loop {
            let why = |class, destination: &str| self.core.waits(class, destination);
            let over = self.core.queue.out_of_time(&why, clock::now(), PAGE);
            let found = over.len();
            if found == 0 {
                return Ok(());
            }
            let told = over.clone();
            let expired = instruct(&self.core, over).await?;
            for (job, told) in told.iter().filter(|(job, _)| expired.changed.contains(job)) {
                tell_of_time(&self.core, *job, told);
            }
            if found < PAGE || expired.changed.is_empty() || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Routes follow the directory and the configuration: at start, and whenever one of them changed.
    async fn reroute(&mut self, until: Instant) -> Result<(), CommitError> {
        let directory = self.core.directory.current();
        let router = self.core.router();
        // Before that, workers may still come back with what they had before the restart.
        let grace: Duration = self.core.config().lease.resume_grace.into();
        let stores = self.began.elapsed() >= grace;
        let seen = self.followed.as_ref();
        let same = |(known, all, table): &(Arc<Directory>, bool, Arc<Router>)| {
            Arc::ptr_eq(known, &directory) && *all == stores && Arc::ptr_eq(table, &router)
        };
        if !seen.is_some_and(same) {
            self.followed = Some((directory, stores, router));
            self.rerouting = Some(None);
        }
        while let Some(from) = self.rerouting {
            let core = Arc::clone(&self.core);
            let page = spawn_blocking(move || rerouting::wrongly_routed(&core, from, stores)).await;
            let (wrong, next) = page.map_err(|_| CommitError::Ended)??;
            for (job, way) in wrong {
                rerouting::take(&self.core, job, way).await?;
            }
            self.rerouting = next.map(Some);
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }
}

/// No attempt tells of it.
fn tell_of_time(core: &Core, job: JobKey, told: &Instruction) {
    let (outcome, status, text) = match told {
        Instruction::Expire(None) => {
            let text = "delivery time expired".to_owned();
            ("failed", EXPIRED_5_4_7, text)
        }
        Instruction::Expire(Some(why)) => {
            let text = format!("delivery time expired: {}", why.text);
            ("failed", EXPIRED_5_4_7, text)
        }
        Instruction::TellWaiting(why) => ("delayed", why.status, why.text.clone()),
        _ => return,
    };
    let status = status.to_string();
    info!(event = "settled", queue_id = %job.queue_id, outcome, enhanced = status, reply = text);
    let fields = [("outcome", outcome), ("enhanced", status.as_str())];
    core.tell(job.queue_id, EventKind::Settled, &[], text, fields);
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
        let config = core.config();
        let room = disk::room(&core.folder, &config.disk);
        if let Ok(room) = &room {
            core.counts.room(*room);
        }
        let segment = || {
            let is_short = core.reclaimer.is_short();
            is_short.then(|| "there is no room for another segment of the journal".to_owned())
        };
        disk::shortage_of(&room, &config.disk).or_else(segment)
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

/// Recipients that came to their end without an attempt.
#[derive(Debug, Default)]
struct Ended {
    failed: usize,
    dropped: usize,
}

impl Ended {
    /// Where those are counted that this instruction ends.
    fn by(&mut self, instruction: &Instruction) -> Option<&mut usize> {
        match instruction {
            Instruction::Fail(_) | Instruction::Expire(_) => Some(&mut self.failed),
            Instruction::Drop => Some(&mut self.dropped),
            _ => None,
        }
    }
}

/// Gives each job its instruction, in one commit; jobs that are busy or gone are passed over.
pub(crate) async fn instruct(
    core: &Core,
    jobs: Vec<(JobKey, Instruction)>,
) -> Result<Told, CommitError> {
    let mut ended = Ended::default();
    let prepare = move |queue: &Queue, now| {
        let mut all: Option<Prepared> = None;
        let mut told = Told::default();
        for (job, instruction) in jobs {
            let end = ended.by(&instruction);
            match queue.prepare(job, instruction, now) {
                Ok(one) => {
                    told.changed.push(job);
                    if let Some(end) = end {
                        *end += one.ended();
                    }
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
        Ok((all, (told, ended)))
    };
    let (told, ended) = core.committer.commit(prepare).await?.value;
    core.counts.given_up(ended.failed);
    core.counts
        .dropped
        .add(u64::try_from(ended.dropped).unwrap_or(u64::MAX));
    Ok(told)
}

fn join(all: Option<Prepared>, one: Prepared) -> Prepared {
    match all {
        Some(all) => all.and(one),
        None => one,
    }
}
