//! A start while mail is accepted: the index follows the journal until both are level.
//!
//! ```text
//! thread "catch-up"                                          committer
//! ─────────────────                                          ─────────
//! open the index (or put it aside)                           appends new mail ◆, answers; knows no index
//! replay what the journal held at the start                  …
//! load the schedule                                          …
//! replay what was accepted meanwhile, until little is left   …
//! hand over ───────────────────────────────────────────────► a piece between two rounds, until nothing is left
//!                                                            a new epoch ◆; from now on it applies what it commits
//! ```
//!
//! Records are replayed in their order by whoever owns the queue, so nothing is ever applied before what was committed
//! earlier, and nothing that was accepted meanwhile is kept in memory but its id.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use postroad_journal::{
    ContentNonce, ContentStore, Damage, JournalError, Location, Lsn, Reader, RecordRef,
    SegmentNumber,
};
use postroad_queue::{FinishedMail, Newcomers, OpenReport, Options, Queue, QueueError};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use crate::{ServeError, clock, core::Front, disk, holds, sections, store::damage, suppression};

/// What is read of the end of the journal before mail is accepted: octets at least, in whole segments.
const TAIL: u64 = 32 << 20;
/// Records left to the committing thread at most, unless it accepts faster than this thread replays.
const LITTLE: u64 = 1000;
/// So often the rest is looked at before it is handed over whatever it is.
const PASSES: usize = 20;
/// Records replayed between two rounds of the committing thread.
pub(crate) const PIECE: u64 = 2000;
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// For how many octets more a full disk is waited for, how often it is looked at, and for how long before the index is
/// tried again anyway.
const MORE_ROOM: u64 = 4 << 20;
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Records between two looks at the clock.
const LOOK_EVERY: u64 = 256;

/// How far a start is. Mail is accepted in all of them, as far as there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The index is being opened.
    Opening,
    /// There is no room for it on the disk.
    NoRoom,
    /// So many hundredths of the journal that concern it are read.
    Reading(u8),
    /// The schedule is being made from it.
    Loading,
    /// Mail is given out too.
    Live,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("the queue is opening its index"),
            Self::NoRoom => {
                return f.write_str(
                    "the disk of the queue is full: its index waits for room, and mail waits with it",
                );
            }
            Self::Reading(percent) => write!(f, "the queue is reading its journal ({percent} %)"),
            Self::Loading => f.write_str("the queue is loading its schedule"),
            Self::Live => return f.write_str("the queue is ready"),
        }?;
        f.write_str("; mail is accepted meanwhile, all else must wait")
    }
}

/// What is level with the journal, but for an epoch.
pub(crate) struct Level {
    pub queue: Queue,
    pub jobs: usize,
    /// Mails that ended in the replay.
    pub finished: Vec<FinishedMail>,
}

/// A queue on its way.
pub(crate) struct CatchUp {
    folder: PathBuf,
    queue: Queue,
    reader: Reader,
    next: Lsn,
    records: u64,
    is_whole: bool,
    finished: Vec<FinishedMail>,
    meter: Meter,
    begun: Instant,
}

impl fmt::Debug for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatchUp")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// What a thread needs that brings a queue up.
pub(crate) struct Start {
    pub front: Arc<Front>,
    pub options: Options,
    /// Content files that were there before anything was accepted.
    pub files: Vec<ContentNonce>,
    /// All of the journal could be found.
    pub is_whole: bool,
    pub begun: Instant,
}

/// The queue as others will have it.
pub(crate) struct CaughtUp {
    pub queue: Arc<Queue>,
    pub jobs: usize,
}

impl fmt::Debug for CaughtUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaughtUp")
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

pub(crate) type Outcome = Result<CaughtUp, ServeError>;

/// Starts the thread; the queue comes from the committing thread in the end. An end without an outcome: the queue is
/// stopping.
pub(crate) fn spawn(start: Start) -> Result<oneshot::Receiver<Outcome>, ServeError> {
    let (outcome, caught_up) = oneshot::channel();
    let run = move || {
        let front = Arc::clone(&start.front);
        match bring_up(start) {
            Ok(Some(catch_up)) => front.committer.take_over(catch_up, outcome),
            Ok(None) => {}
            Err(failed) => drop(outcome.send(Err(failed))),
        }
    };
    thread::Builder::new()
        .name("catch-up".to_owned())
        .spawn(run)
        .map_err(ServeError::Thread)?;
    Ok(caught_up)
}

/// None: the queue is stopping.
fn bring_up(start: Start) -> Result<Option<CatchUp>, ServeError> {
    let Start {
        front,
        options,
        files,
        is_whole,
        begun,
    } = start;
    let Some((queue, report)) = open_index(&front, &options)? else {
        return Ok(None);
    };
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
    let mut catch_up = CatchUp {
        meter: Meter::new(&front, report.needs_replay_from),
        folder: front.folder.clone(),
        queue,
        reader: front.reader.clone(),
        next: report.needs_replay_from,
        records: 0,
        is_whole,
        finished: Vec::new(),
        begun,
    };
    let is_stopping = || front.stopping.is_cancelled();
    catch_up.replay(u64::MAX, &is_stopping)?;
    if is_stopping() {
        return Ok(None);
    }
    let sections = sections::newest(&catch_up.queue, &catch_up.reader);
    holds::enforce(&catch_up.queue, &sections);
    suppression::enforce(&catch_up.queue, &sections);
    front.standing.send_replace(Standing::Loading);
    catch_up.queue.load()?;
    sweep(&catch_up.queue, &front.contents, files, catch_up.is_whole)?;
    for _ in 0..PASSES {
        let seen = catch_up.replay(u64::MAX, &is_stopping)?;
        if is_stopping() {
            return Ok(None);
        }
        if seen <= LITTLE {
            break;
        }
    }
    Ok(Some(catch_up))
}

/// Waits for room where there is none: ending would only bring the next start to the same place, and until then nobody
/// would be there to say why no mail is taken. None: the queue is stopping.
fn open_index(front: &Front, options: &Options) -> Result<Option<(Queue, OpenReport)>, QueueError> {
    let mut told = false;
    loop {
        damage::put_suspect_aside(&front.folder);
        let opened = Queue::open(&front.folder, options.clone(), clock::now());
        match opened {
            Err(full) if full.refusal() == Some(io::ErrorKind::StorageFull) => {
                if !room_comes(front, &full, &mut told) {
                    return Ok(None);
                }
            }
            opened => return opened.map(Some),
        }
    }
}

/// Blocks until there is more room than now, or a minute has passed; false: the queue is stopping. A person is told once.
fn room_comes(front: &Front, full: &QueueError, told: &mut bool) -> bool {
    let free = || disk::room(&front.folder, &front.config().disk).map_or(0, |room| room.free);
    let enough = free().saturating_add(MORE_ROOM);
    let until = Instant::now() + LONGEST_WAIT;
    front.standing.send_replace(Standing::NoRoom);
    if !std::mem::replace(told, true) {
        let path = front.folder.display();
        error!(
            event = "disk_full", path = %path, error = full as &dyn std::error::Error,
            "there is no room for the index; no mail is given out until there is"
        );
    }
    while free() < enough && Instant::now() < until {
        if front.stopping.is_cancelled() {
            return false;
        }
        thread::sleep(LOOK_FOR_ROOM);
    }
    front.standing.send_replace(Standing::Opening);
    !front.stopping.is_cancelled()
}

impl CatchUp {
    /// Replays what the journal has now, `most` records at most; tells how many.
    pub fn replay(&mut self, most: u64, is_stopping: &dyn Fn() -> bool) -> Result<u64, ServeError> {
        let (mut seen, mut refused) = (0_u64, None);
        let (queue, meter, finished) = (&self.queue, &mut self.meter, &mut self.finished);
        let records = self.records;
        let replayed = self.reader.replay(self.next, |record| {
            seen += 1;
            let outcome = replay_one(queue, record);
            match outcome {
                Ok(ended) => finished.extend(ended.filter(|mail| mail.file.is_some())),
                Err(error) => {
                    refused = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if seen.is_multiple_of(LOOK_EVERY) {
                meter.look(record.location, records + seen);
                if is_stopping() {
                    return ControlFlow::Break(());
                }
            }
            if seen >= most {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let replayed = replayed.map_err(unreadable(&self.folder))?;
        if let Some(error) = refused {
            return Err(error.into());
        }
        self.records += seen;
        if let Some(last) = replayed.last {
            self.next = last.next();
        }
        self.is_whole &= replayed.damage.is_empty();
        tell_damage(&replayed.damage);
        Ok(seen)
    }

    /// All there is was replayed.
    pub fn finish(self) -> Result<Level, ServeError> {
        let jobs = self.queue.finish_replay(clock::now())?;
        info!(
            event = "replay",
            records = self.records,
            duration_ms = millis(self.begun)
        );
        Ok(Level {
            queue: self.queue,
            jobs,
            finished: self.finished,
        })
    }
}

/// A record that cannot be read is passed over; where the index refuses one nothing may go on, for the next checkpoint
/// would say that it holds all of them.
fn replay_one(queue: &Queue, record: RecordRef<'_>) -> Result<Option<FinishedMail>, QueueError> {
    match queue.replay(record) {
        Err(unreadable @ QueueError::Unreadable { .. }) => {
            error!(
                event = "corruption", lsn = record.lsn.0, segment = %record.location.segment,
                error = %unreadable, "a record cannot be read and is passed over"
            );
            Ok(None)
        }
        replayed => replayed,
    }
}

/// How much of the journal is read, told now and then.
struct Meter {
    standing: watch::Sender<Standing>,
    /// Octets before each segment.
    before: BTreeMap<SegmentNumber, u64>,
    total: u64,
    told: Instant,
}

impl Meter {
    fn new(front: &Front, from: Lsn) -> Self {
        let (mut before, mut total) = (BTreeMap::new(), 0);
        for segment in front.reader.segments() {
            if segment.last_lsn >= from {
                before.insert(segment.number, total);
                total += u64::from(segment.bytes_used);
            }
        }
        Self {
            standing: front.standing.clone(),
            before,
            total,
            told: Instant::now(),
        }
    }

    fn look(&mut self, at: Location, records: u64) {
        // What was not there at the start is not counted.
        let Some(before) = self.before.get(&at.segment) else {
            return;
        };
        let read = before + u64::from(at.offset);
        let percent = (read * 100 / self.total.max(1)).min(99);
        let reading = Standing::Reading(u8::try_from(percent).unwrap_or(99));
        self.standing.send_if_modified(|now| {
            let changed = *now != reading && *now != Standing::Loading;
            if changed {
                *now = reading;
            }
            changed
        });
        if self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            info!(event = "replay", records, "{percent} % of the journal read");
        }
    }
}

/// Reads the end of the journal, so that most repeated submissions are known before there is an index.
pub(crate) fn learn_tail(
    folder: &Path,
    reader: &Reader,
    newcomers: &Newcomers,
) -> Result<(), ServeError> {
    let segments = reader.segments();
    let (mut first, mut octets) = (None, 0);
    for segment in segments.iter().rev() {
        if octets >= TAIL {
            break;
        }
        octets += u64::from(segment.bytes_used);
        first = Some(segment.first_lsn);
    }
    let Some(first) = first else {
        newcomers.learnt_since(Default::default());
        return Ok(());
    };
    let mut since = None;
    let read = reader.replay(first, |record| {
        let made_at = newcomers.learn(record);
        since = since.or(made_at);
        ControlFlow::Continue(())
    });
    let read = read.map_err(unreadable(folder))?;
    tell_damage(&read.damage);
    if segments
        .first()
        .is_some_and(|oldest| oldest.first_lsn == first)
    {
        since = Some(Default::default());
    }
    if let Some(since) = since.filter(|_| read.damage.is_empty()) {
        newcomers.learnt_since(since);
    }
    Ok(())
}

fn unreadable(folder: &Path) -> impl FnOnce(JournalError) -> ServeError + '_ {
    |source| ServeError::Open {
        folder: folder.to_owned(),
        source,
    }
}

fn tell_damage(damage: &[Damage]) {
    for damage in damage.iter().filter(|damage| damage.fresh) {
        error!(
            event = "corruption", segment = %damage.segment,
            path = damage.copy.as_ref().map(|path| tracing::field::display(path.display())),
            "octets {} to {} are damaged; a copy is in quarantine", damage.start, damage.end
        );
    }
}

/// Content files that no mail names: of submissions that were cut off, or of mails finished just before the end. If part
/// of the journal is damaged, some may be all that is left of a mail: then a person decides. Only files that were there
/// before mail was accepted are looked at.
fn sweep(
    queue: &Queue,
    contents: &ContentStore,
    found: Vec<ContentNonce>,
    journal_is_whole: bool,
) -> Result<(), ServeError> {
    if found.is_empty() {
        return Ok(());
    }
    let wanted: HashSet<_> = queue
        .content_files()
        .map(|file| file.map(|file| file.nonce))
        .collect::<Result<_, _>>()?;
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

pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Content files that are there before anything is accepted.
pub(crate) fn leftovers(contents: &ContentStore, folder: &Path) -> Vec<ContentNonce> {
    contents.list().unwrap_or_else(|error| {
        warn!(event = "fault", error = %error, path = %folder.display(), "content files cannot be listed");
        Vec::new()
    })
}
