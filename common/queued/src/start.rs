//! From a folder to a running queue, and back.

use std::{
    collections::HashSet,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use postroad_daemon::CommonConfig;
use postroad_directory::DirectoryHandle;
use postroad_journal::{ContentStore, Journal, JournalError, Recovery, Replay};
use postroad_queue::{LeaseTimes, Options, Queue, QueueError, RetrySchedule};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    Config, LocalQueue, ServeError,
    agents::Agents,
    clock, committer,
    core::{Core, Trash},
    disk,
    dispatch::{self, ToDispatcher},
    holds, reports,
    routing::Router,
    sections::Sections,
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
    dispatcher_end: oneshot::Receiver<()>,
    timeline_end: oneshot::Receiver<()>,
    /// Reports and upkeep: without them mail stays that should go.
    helpers: JoinSet<()>,
}

/// What was found on the disk, put in order.
struct Opened {
    journal: Journal,
    queue: Arc<Queue>,
    contents: ContentStore,
    epoch: u64,
}

/// Opens the queue: lock, journal, index, replay, a new epoch. No lease is given before this is done.
pub async fn start(
    config: Config,
    common: &CommonConfig,
    directory: DirectoryHandle,
) -> Result<(LocalQueue, RunningQueue), ServeError> {
    let router = Router::new(&config.routes, config.foreign)?;
    let folder = config.folder(common);
    let opening = (config.clone(), folder.clone());
    let opened = spawn_blocking(move || open(&opening.0, &opening.1)).await;
    let Opened {
        journal,
        queue,
        contents,
        epoch,
    } = opened.map_err(|error| ServeError::Task(error.to_string()))??;

    let inline_limit = INLINE_LIMIT.min(journal.longest_payload() / 4);
    let reader = journal.reader();
    let (known, reading) = (Arc::clone(&queue), reader.clone());
    let sections = spawn_blocking(move || Sections::load(&known, &reading)).await;
    let sections = sections.map_err(|error| ServeError::Task(error.to_string()))?;
    let sections = sections.unwrap_or_else(|error| {
        error!(event = "corruption", error = %error, "hold rules cannot be read; put them anew");
        Sections::default()
    });
    let trash = Arc::new(Trash::default());
    let unwanted = Arc::clone(&trash);
    let (committer, committer_end) = committer::start(journal, Arc::clone(&queue), move |mails| {
        unwanted.add(
            mails
                .iter()
                .filter_map(|mail| mail.file)
                .map(|file| file.nonce),
        );
    })?;
    let (dispatcher, messages) = mpsc::channel(TO_DISPATCHER);
    let disk = (folder.clone(), config.disk.clone());
    let is_short = move || disk::shortage(&disk.0, &disk.1).is_some();
    let (timeline, timeline_end) = Timeline::start(&config.timeline, &folder, is_short);
    let memory = config.max_submission_memory.as_usize() / 1024;
    let core = Arc::new(Core {
        submissions: Arc::new(Semaphore::new(config.max_submissions)),
        memory: Arc::new(Semaphore::new(memory.clamp(1, Semaphore::MAX_PERMITS))),
        admission: watch::channel(disk::shortage(&folder, &config.disk)).0,
        name: format!("queued@{}", common.hostname),
        hostname: common.hostname.clone(),
        timeline,
        agents: Agents::default(),
        tasks: TaskTracker::new(),
        runtime: Handle::current(),
        stopping: CancellationToken::new(),
        upkeep_stop: CancellationToken::new(),
        ended: CancellationToken::new(),
        config,
        queue,
        reader,
        contents,
        router,
        directory,
        sections,
        committer,
        dispatcher,
        inline_limit,
        trash,
        folder,
        epoch,
    });
    holds::load(&core).await;
    let (due_reports, reports_due) = mpsc::channel(REPORTS);
    let dispatcher_end = spawn_dispatcher(&core, messages, due_reports)?;
    let mut helpers = JoinSet::new();
    let reports = reports::run(Arc::clone(&core), reports_due);
    helpers.spawn(core.tasks.track_future(reports));
    let upkeep = upkeep::run(Arc::clone(&core));
    helpers.spawn(core.tasks.track_future(upkeep));
    let queue = LocalQueue { core };
    Ok((
        queue.clone(),
        RunningQueue {
            queue,
            committer_end,
            dispatcher_end,
            timeline_end,
            helpers,
        },
    ))
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
            mut dispatcher_end,
            timeline_end,
            mut helpers,
        } = self;
        let core = queue.core;
        let early = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = &mut committer_end => Some(flatten(ended)),
            _ = &mut dispatcher_end => Some(Err(ServeError::Task("dispatcher".to_owned()))),
            Some(_) = helpers.join_next() => Some(match timeout(END_GRACE, &mut committer_end).await {
                Ok(ended) => flatten(ended),
                Err(_) => Err(ServeError::Task("reports or upkeep".to_owned())),
            }),
        };
        core.stopping.cancel();
        core.admission
            .send_replace(Some("the queue is stopping".to_owned()));
        let outcome = match early {
            Some(ended) => {
                // What was offered is committed, and the journal is closed for whoever opens it next.
                let _ = timeout(END_GRACE, core.committer.stop()).await;
                ended.map(drop)
            }
            None => {
                let _ = core.dispatcher.send(ToDispatcher::Drain).await;
                // What workers do not finish in time they resume after the restart.
                let _ = timeout(grace, no_leases(&core)).await;
                core.upkeep_stop.cancel();
                if let Err(failed) = upkeep::checkpoint(&core).await {
                    warn!(event = "fault", error = %failed, "no last checkpoint; the next start replays more");
                }
                core.committer.stop().await;
                flatten(committer_end.await).map(drop)
            }
        };
        core.upkeep_stop.cancel();
        core.ended.cancel();
        core.tasks.close();
        if timeout(END_GRACE, core.tasks.wait()).await.is_err() {
            warn!(event = "fault", "tasks of the queue did not end in time");
        }
        core.timeline.stop().await;
        if timeout(END_GRACE, timeline_end).await.is_err() {
            warn!(event = "fault", "the timeline did not end in time");
        }
        outcome
    }
}

async fn no_leases(core: &Core) {
    let mut rounds = core.committer.rounds();
    while core.queue.stats().by_phase.contains_key("leased") {
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
    let (mut journal, recovery) =
        Journal::open(folder, options, clock::entropy()).map_err(failed)?;
    tell_recovery(&recovery);
    let contents = ContentStore::open(folder, clock::entropy()).map_err(failed)?;
    let (queue, report) = Queue::open(folder, queue_options(config), clock::now())?;
    if let Some(path) = &report.rebuilt {
        error!(
            event = "corruption", path = %path.display(),
            "the index could not be opened; it was put aside and is built anew from the journal"
        );
    }
    if report.outdated {
        info!(
            event = "index_outdated",
            "the index was of another release's format; it is built anew from the journal"
        );
    }
    let replayed = replay(&journal, &queue, report.needs_replay_from, &failed)?;
    let jobs = queue.finish_replay(clock::now())?;
    info!(
        event = "replay",
        records = replayed.records,
        duration_ms = millis(begun)
    );
    let is_whole =
        replayed.damage.is_empty() && recovery.unreadable.is_empty() && recovery.missing.is_empty();
    sweep(&queue, &contents, is_whole)?;

    let epoch = queue.prepare_epoch()?;
    let locations = journal.append_group(epoch.records()).map_err(failed)?;
    queue.apply(epoch, &locations)?;
    let epoch = queue.epoch();
    info!(event = "queue_started", path = %folder.display(), epoch, count = jobs, duration_ms = millis(begun));
    Ok(Opened {
        journal,
        queue: Arc::new(queue),
        contents,
        epoch,
    })
}

fn queue_options(config: &Config) -> Options {
    Options {
        retry: RetrySchedule::from(&config.retry),
        times: LeaseTimes {
            duration: config.lease.duration.into(),
            drop_grace: config.lease.stream_grace.into(),
            resume_grace: config.lease.resume_grace.into(),
            report_gather: config.dsn.gather.into(),
        },
        fairness: config.fairness(),
        cache_capacity: config.disk.index_cache.as_u64(),
        finished_window: config.remember_finished.into(),
    }
}

/// A record that cannot be read is passed over; where the index refuses one nothing may go on, for the next checkpoint
/// would say that it holds all of them.
fn replay(
    journal: &Journal,
    queue: &Queue,
    from: postroad_journal::Lsn,
    failed: &impl Fn(JournalError) -> ServeError,
) -> Result<Replay, ServeError> {
    let mut refused = None;
    let replayed = journal.replay(from, |record| match queue.replay(record) {
        Ok(_) => ControlFlow::Continue(()),
        Err(unreadable @ QueueError::Unreadable { .. }) => {
            error!(
                event = "corruption", lsn = record.lsn.0, segment = %record.location.segment,
                error = %unreadable, "a record cannot be read and is passed over"
            );
            ControlFlow::Continue(())
        }
        Err(error) => {
            refused = Some(error);
            ControlFlow::Break(())
        }
    });
    let replayed = replayed.map_err(failed)?;
    if let Some(error) = refused {
        return Err(error.into());
    }
    for damage in replayed.damage.iter().filter(|damage| damage.fresh) {
        error!(
            event = "corruption", segment = %damage.segment,
            path = damage.copy.as_ref().map(|path| tracing::field::display(path.display())),
            "octets {} to {} are damaged; a copy is in quarantine", damage.start, damage.end
        );
    }
    Ok(replayed)
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

/// Content files that no mail names: of submissions that were cut off, or of mails finished just before the end. If part
/// of the journal is damaged, some may be all that is left of a mail: then a person decides.
fn sweep(queue: &Queue, contents: &ContentStore, journal_is_whole: bool) -> Result<(), ServeError> {
    let wanted: HashSet<_> = queue
        .content_files()
        .map(|file| file.map(|file| file.nonce))
        .collect::<Result<_, _>>()?;
    let found = match contents.list() {
        Ok(found) => found,
        Err(error) => {
            warn!(event = "fault", error = %error, "content files cannot be listed");
            return Ok(());
        }
    };
    for nonce in found.into_iter().filter(|nonce| !wanted.contains(nonce)) {
        let gone = match journal_is_whole {
            true => contents.remove(nonce),
            false => contents.set_aside(nonce),
        };
        if let Err(error) = gone {
            warn!(event = "fault", error = %error, "a content file that nobody needs stays");
        }
    }
    Ok(())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
