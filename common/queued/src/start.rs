//! From a folder to a running queue, and back.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_journal::{ContentNonce, ContentStore, Journal, JournalError, Recovery};
use postroad_metrics::Metrics;
use postroad_queue::{Newcomers, Options, Quotas, RetrySchedule, record::FORMATS};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinError, JoinHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    Config, LocalQueue, ServeError,
    agents::Agents,
    backup,
    catch_up::{self, CaughtUp, Standing, millis},
    clock, committer,
    core::{Core, Front, Trash},
    counting::{self, Counting},
    counts::Counts,
    decoys, disk,
    dispatch::{self, ToDispatcher},
    holds,
    reload::lease_times,
    reports,
    retired::Retired,
    routing::Router,
    sections,
    sites::Sites,
    store::damage,
    timeline::Timeline,
    upkeep,
};

/// Content up to this size lies in the record, if a segment is large enough for that.
const INLINE_LIMIT: usize = 256 << 10;
const TO_DISPATCHER: usize = 1024;
const REPORTS: usize = 1024;
/// How long tasks may take to notice the end.
const END_GRACE: Duration = Duration::from_secs(5);

/// A queue that runs: what its owner waits for.
#[derive(Debug)]
pub struct RunningQueue {
    queue: LocalQueue,
    committer_end: oneshot::Receiver<Result<Journal, ServeError>>,
    timeline_end: oneshot::Receiver<()>,
    coming: JoinHandle<Coming>,
}

/// None: the queue stops, or its committer has ended.
type Coming = Result<Option<Parts>, ServeError>;

/// What works once the queue has caught up.
#[derive(Debug)]
struct Parts {
    core: Arc<Core>,
    dispatcher_end: oneshot::Receiver<()>,
    /// Reports and upkeep: without them mail stays that should go.
    helpers: JoinSet<()>,
}

/// What was found on the disk.
struct Opened {
    journal: Journal,
    newcomers: Arc<Newcomers>,
    contents: ContentStore,
    files: Vec<ContentNonce>,
    is_whole: bool,
    begun: Instant,
    retired: Retired,
}

/// Opens the queue: lock, end of the journal. From then on it accepts mail, while the index is brought up to the journal in
/// the background: no lease is given, and nothing else told, before that is done and a new epoch is committed.
pub async fn start(
    config: Config,
    common: &CommonConfig,
    directory: DirectoryHandle,
    metrics: &Metrics,
) -> Result<(LocalQueue, RunningQueue), ServeError> {
    let router = Router::new(&config.routes, config.foreign)?;
    let causes = config.causes()?;
    let shaping = config.shaping()?;
    let folder = config.folder(common);
    let opening = (config.clone(), folder.clone());
    let opened = spawn_blocking(move || open(&opening.0, &opening.1)).await;
    let Opened {
        journal,
        newcomers,
        contents,
        files,
        is_whole,
        begun,
        retired,
    } = opened.map_err(|error| ServeError::Task(error.to_string()))??;

    let inline_limit = INLINE_LIMIT.min(journal.longest_payload() / 4);
    let (reader, reclaimer) = (journal.reader(), journal.reclaimer());
    let format = journal.format();
    let options = queue_options(&config, &folder, newcomers.quotas(), &journal);
    let trash = Arc::new(Trash::default());
    let unwanted = Arc::clone(&trash);
    let counts = Counts::new(metrics);
    let (committer, committer_end) = committer::start(
        journal,
        Arc::clone(&newcomers),
        counts.commits.clone(),
        move |mails| {
            unwanted.add(
                mails
                    .iter()
                    // Others go when they are retired.
                    .filter(|mail| !mail.leaving)
                    .filter_map(|mail| mail.file)
                    .map(|file| file.nonce),
            );
        },
    )?;
    let segment = config.disk.segment.as_u64();
    let shared = Arc::new(ArcSwap::from_pointee(config.clone()));
    let disk = (folder.clone(), Arc::clone(&shared));
    let is_short = move || disk::shortage(&disk.0, &disk.1.load().disk).is_some();
    let (timeline, timeline_end) = Timeline::start(&config.timeline, &folder, is_short);
    let (of_both, room) = (folder.clone(), config.counters.room());
    let read = move || (decoys::key(&of_both), Counting::open(&of_both, room));
    let beside = spawn_blocking(read).await;
    let (decoys, counting) = beside.map_err(|error| ServeError::Task(error.to_string()))?;
    let memory = config.max_submission_memory.as_usize() / 1024;
    let front = Arc::new(Front {
        submissions: Arc::new(Semaphore::new(config.max_submissions)),
        memory: Arc::new(Semaphore::new(memory.clamp(1, Semaphore::MAX_PERMITS))),
        admission: watch::channel(disk::shortage(&folder, &config.disk)).0,
        unasked: watch::channel(Front::unasked_of(&config, &newcomers.quotas())).0,
        standing: watch::channel(Standing::Opening).0,
        name: format!("queued@{}", common.hostname),
        hostname: common.hostname.clone(),
        timeline,
        retired,
        agents: Agents::default(),
        sites: Sites::new(shaping, rand::random(), config.sites.enabled),
        counts,
        counting,
        tasks: TaskTracker::new(),
        runtime: Handle::current(),
        stopping: CancellationToken::new(),
        upkeep_stop: CancellationToken::new(),
        ended: CancellationToken::new(),
        config: shared,
        max_submissions: config.max_submissions,
        counts_quotas: !newcomers.quotas().are_none(),
        segment,
        newcomers,
        reader,
        reclaimer,
        contents,
        router: ArcSwap::from_pointee(router),
        causes: ArcSwap::from_pointee(causes),
        directory,
        decoys,
        committer,
        inline_limit,
        trash,
        store: crate::store::Shared::default(),
        pins: Arc::default(),
        checkpointing: tokio::sync::Mutex::default(),
        renewing: tokio::sync::Mutex::default(),
        folder,
        format,
    });
    front.counts.tell_front(&front);
    front.tasks.spawn(counting::keep(Arc::clone(&front)));
    if let Ok(room) = disk::room(&front.folder, &front.config().disk) {
        front.counts.room(room);
    }
    info!(
        event = "queue_started", path = %front.folder.display(), duration_ms = millis(begun),
        "mail is accepted; the folder is in format {format}"
    );
    let caught_up = catch_up::spawn(catch_up::Start {
        front: Arc::clone(&front),
        options,
        files,
        is_whole,
        begun,
    })?;
    let (live, live_queue) = watch::channel(None);
    let coming = tokio::spawn(bring_to_life(Arc::clone(&front), caught_up, live, begun));
    let queue = LocalQueue {
        front,
        live: live_queue,
    };
    Ok((
        queue.clone(),
        RunningQueue {
            queue,
            committer_end,
            timeline_end,
            coming,
        },
    ))
}

/// Waits for the queue to be level with its journal, then starts all that needs it.
async fn bring_to_life(
    front: Arc<Front>,
    mut caught_up: oneshot::Receiver<catch_up::Outcome>,
    live: watch::Sender<Option<Arc<Core>>>,
    begun: Instant,
) -> Coming {
    let caught_up = loop {
        tokio::select! {
            caught_up = &mut caught_up => break caught_up,
            () = sleep(upkeep::EVERY) => upkeep::look_at_disk(&front).await,
        }
    };
    let Ok(caught_up) = caught_up else {
        // The thread has ended in a panic, unless it was told to stop.
        return match front.stopping.is_cancelled() {
            true => Ok(None),
            false => Err(ServeError::Task("catch-up".to_owned())),
        };
    };
    let CaughtUp { queue, jobs } = caught_up?;
    let (dispatcher, messages) = mpsc::channel(TO_DISPATCHER);
    let sections = sections::load(&queue, &front.reader).await;
    let core = Arc::new(Core::new(front, queue, sections, dispatcher));
    match before_leases(&core).await {
        // What had no room then is done by the next start.
        Err(_) if core.stopping.is_cancelled() => return Ok(None),
        done => done?,
    }
    let (due_reports, reports_due) = mpsc::channel(REPORTS);
    let dispatcher_end = spawn_dispatcher(&core, messages, due_reports)?;
    let mut helpers = JoinSet::new();
    let reports = reports::run(Arc::clone(&core), reports_due);
    helpers.spawn(core.tasks.track_future(reports));
    let upkeep = upkeep::run(Arc::clone(&core));
    helpers.spawn(core.tasks.track_future(upkeep));
    core.counts.tell_core(&core);
    core.standing.send_replace(Standing::Live);
    live.send_replace(Some(Arc::clone(&core)));
    // What changed while it came to life; from now on it is told itself.
    core.renew_terms();
    info!(
        event = "caught_up",
        epoch = core.epoch,
        count = jobs,
        duration_ms = millis(begun),
        "mail is given out"
    );
    Ok(Some(Parts {
        core,
        dispatcher_end,
        helpers,
    }))
}

/// What must be done before anyone may have any mail.
async fn before_leases(core: &Arc<Core>) -> Result<(), ServeError> {
    let held = holds::hold_accepted(core).await;
    held.map_err(|failed| {
        ServeError::Task(format!(
            "hold rules, for mail accepted during a start: {failed}"
        ))
    })?;
    // Before anything moves: what came with the backup is told by its place.
    backup::hold_restored(core).await?;
    if let Err(failed) = upkeep::clear_away(core).await {
        warn!(event = "fault", error = %failed, "segments with little in them stay for now");
    }
    Ok(())
}

fn spawn_dispatcher(
    core: &Arc<Core>,
    messages: mpsc::Receiver<ToDispatcher>,
    reports: mpsc::Sender<postroad_envelope::QueueId>,
) -> Result<oneshot::Receiver<()>, ServeError> {
    let (ended, end) = oneshot::channel();
    let core = Arc::clone(core);
    // Of its own, since it blocks on the disk.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(ServeError::Thread)?;
    let run = move || {
        runtime.block_on(dispatch::run(core, messages, reports));
        let _ = ended.send(());
    };
    thread::Builder::new()
        .name("dispatcher".to_owned())
        .spawn(run)
        .map_err(ServeError::Thread)?;
    Ok(end)
}

impl RunningQueue {
    /// Waits until told to stop, or until the queue cannot go on; then ends everything in order: workers finish what they
    /// hold, what was offered is committed, a last checkpoint is made.
    pub async fn run(self, stop: CancellationToken, grace: Duration) -> Result<(), ServeError> {
        let Self {
            queue,
            mut committer_end,
            timeline_end,
            mut coming,
        } = self;
        let front = queue.front;
        let mut parts = None;
        let mut early = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = &mut committer_end => Some(flatten(ended)),
            came = &mut coming => match joined(came) {
                Ok(came) => {
                    parts = came;
                    None
                }
                Err(failed) => Some(Err(failed)),
            },
        };
        if let (None, Some(parts)) = (&early, &mut parts) {
            early = until_end(parts, &stop, &mut committer_end).await;
        }
        front.stopping.cancel();
        front
            .admission
            .send_replace(Some("the queue is stopping".to_owned()));
        if parts.is_none() && early.is_none() {
            // Unless it is at its very end, catching up is given up; the next start begins where this one did.
            front.committer.hurry();
            match timeout(END_GRACE, &mut coming).await.map(joined) {
                Ok(Ok(came)) => parts = came,
                Ok(Err(failed)) => early = Some(Err(failed)),
                Err(_) => {}
            }
        }
        let outcome = match early {
            Some(ended) => {
                // What was offered is committed, and the journal is closed for whoever opens it next.
                let _ = timeout(END_GRACE, front.committer.stop()).await;
                ended.map(drop)
            }
            None => {
                if let Some(parts) = &parts {
                    end_work(&parts.core, grace).await;
                }
                front.committer.stop().await;
                flatten(committer_end.await).map(drop)
            }
        };
        front.upkeep_stop.cancel();
        front.ended.cancel();
        front.tasks.close();
        if timeout(END_GRACE, front.tasks.wait()).await.is_err() {
            warn!(event = "fault", "tasks of the queue did not end in time");
        }
        counting::end(&front).await;
        front.retired.tell_lost();
        front.timeline.stop();
        if timeout(END_GRACE, timeline_end).await.is_err() {
            warn!(event = "fault", "the timeline did not end in time");
        }
        if let Err(failed) = &outcome {
            damage::suspect_index(&front.folder, failed);
        }
        outcome
    }
}

fn joined(came: Result<Coming, JoinError>) -> Coming {
    came.map_err(|error| ServeError::Task(error.to_string()))?
}

/// None: told to stop.
async fn until_end(
    parts: &mut Parts,
    stop: &CancellationToken,
    committer_end: &mut oneshot::Receiver<Result<Journal, ServeError>>,
) -> Option<Result<Journal, ServeError>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        ended = &mut *committer_end => Some(flatten(ended)),
        _ = &mut parts.dispatcher_end => Some(Err(ServeError::Task("dispatcher".to_owned()))),
        Some(_) = parts.helpers.join_next() => Some(match timeout(END_GRACE, committer_end).await {
            Ok(ended) => flatten(ended),
            Err(_) => Err(ServeError::Task("reports or upkeep".to_owned())),
        }),
    }
}

/// Workers finish what they hold, and a last checkpoint is made.
async fn end_work(core: &Arc<Core>, grace: Duration) {
    let _ = core.dispatcher.send(ToDispatcher::Drain).await;
    // What workers do not finish in time they resume after the restart.
    let _ = timeout(grace, no_leases(core)).await;
    core.committer.hurry();
    core.upkeep_stop.cancel();
    if let Err(failed) = upkeep::checkpoint(core).await {
        warn!(event = "fault", error = %failed, "no last checkpoint; the next start replays more");
    }
}

async fn no_leases(core: &Core) {
    let mut rounds = core.committer.rounds();
    while core.queue.leases() > 0 {
        // Hand-backs need no round, so look now and then.
        let _ = timeout(Duration::from_millis(100), rounds.changed()).await;
    }
}

fn flatten(
    ended: Result<Result<Journal, ServeError>, oneshot::error::RecvError>,
) -> Result<Journal, ServeError> {
    ended.unwrap_or_else(|_| Err(ServeError::Task("committer".to_owned())))
}

/// Blocks.
fn open(config: &Config, folder: &Path) -> Result<Opened, ServeError> {
    let begun = Instant::now();
    let failed = |source: JournalError| ServeError::Open {
        folder: folder.to_owned(),
        source,
    };
    let options = postroad_journal::Options {
        segment_bytes: u32::try_from(config.disk.segment.as_u64()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    let opened = Journal::open_in(folder, FORMATS, options, clock::entropy());
    let (journal, recovery) = opened.map_err(failed)?;
    tell_recovery(&recovery);
    let contents = ContentStore::open(folder, clock::entropy()).map_err(failed)?;
    let files = catch_up::leftovers(&contents, folder);
    // Taken before anyone can submit: what is minted from now on is new.
    let quotas = Arc::new(config.quotas()?);
    let newcomers = Newcomers::new(RetrySchedule::from(config), quotas, clock::now());
    catch_up::learn_tail(folder, &journal.reader(), &newcomers)?;
    Ok(Opened {
        is_whole: recovery.unreadable.is_empty() && recovery.missing.is_empty(),
        journal,
        newcomers: Arc::new(newcomers),
        contents,
        files,
        begun,
        retired: Retired::open(&config.retired, folder),
    })
}

fn queue_options(
    config: &Config,
    folder: &Path,
    quotas: Arc<Quotas>,
    journal: &Journal,
) -> Options {
    Options {
        retry: RetrySchedule::from(config),
        times: lease_times(config),
        fairness: config.fairness(),
        cache_capacity: config.disk.index_cache.as_u64(),
        quotas,
        epochs_ahead: backup::epochs_ahead(folder),
        finished_window: config.remember_finished.into(),
        retire: Retired::wanted(&config.retired),
        format: journal.format(),
        longest_record: journal.longest_payload(),
    }
}

fn tell_recovery(recovery: &Recovery) {
    if let Some(torn) = &recovery.torn {
        info!(
            event = "replay",
            lsn = torn.end.lsn.0,
            records = torn.records,
            "an unfinished write was dropped"
        );
    }
    for segment in recovery.unreadable.iter().chain(&recovery.missing) {
        error!(event = "corruption", segment = %segment, "a segment of the journal is missing or unreadable");
    }
}
