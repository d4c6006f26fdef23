//! The timeline: what happened to each mail, in segments of their own beside the queue's journal.
//!
//! ```text
//! record ─► inbox of events ─► thread `timeline`: one write for each round, a sync about once a second
//!                 full: dropped and counted          └─► index in memory, followers
//! ```
//!
//! Events are worth less than mail: nobody waits until they are written, a power cut may take the last second of them,
//! and where the disk refuses them the queue goes on without.

mod inbox;
mod index;
mod purge;
mod record;
mod store;
mod telling;
mod watch;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::Duration,
};

use postroad_envelope::{Attempt, Event, QueueId};
use postroad_journal::{Location, Lsn, Reader};
use tokio::sync::{broadcast, oneshot};
use tracing::{error, warn};

use crate::{TimelineConfig, retention::Limits};
use inbox::{Inbox, Request, Taker};
use index::{Index, Key};
use store::Store;

pub(crate) use record::Draft;
use record::{Entry, Named};
pub(crate) use telling::Telling;
pub(crate) use watch::watch;

const FOLDER: &str = "timeline";
/// Octets that wait for the thread; an event counts for 256 at least, so these are no more than 65,536.
const WAITING: usize = 16 << 20;
/// Records read of one mail; of more, the first and the newest.
const RECORDS: usize = 4_000;
/// How long a look-up waits for what was said before it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records a follower may be behind before it reads them from the disk.
const FOLLOWERS: usize = 1_024;

/// One per running queue.
pub(crate) struct Timeline {
    /// None: switched off.
    inbox: Option<Arc<Inbox>>,
    limits: Option<Arc<Mutex<Limits>>>,
    shared: Arc<Shared>,
}

/// What the thread and those who ask share.
pub(crate) struct Shared {
    waiting: AtomicUsize,
    lost: AtomicU64,
    overflowing: AtomicBool,
    stopping: AtomicBool,
    reader: Mutex<Option<Reader>>,
    index: Mutex<Index>,
    written: broadcast::Sender<Arc<Written>>,
}

/// A record, just written.
#[derive(Debug)]
pub(crate) struct Written {
    pub lsn: Lsn,
    pub queue_id: QueueId,
    pub entries: Vec<Entry>,
}

impl Timeline {
    /// Reads its segments; none while they are not open.
    pub fn reader(&self) -> Option<Reader> {
        self.shared.reader().clone()
    }

    /// Begins to keep events below the folder of the queue. The receiver hears when the folder is free again.
    pub fn start(
        config: &TimelineConfig,
        folder: &Path,
        is_short: impl Fn() -> bool + Send + 'static,
    ) -> (Self, oneshot::Receiver<()>) {
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            overflowing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            reader: Mutex::default(),
            index: Mutex::default(),
            written: broadcast::channel(FOLLOWERS).0,
        });
        let (ended, end) = oneshot::channel();
        let folder = folder.join(FOLDER);
        let Some(limits) = Limits::of(config.keep, config.max_size) else {
            if folder.exists()
                && let Err(error) = std::fs::remove_dir_all(&folder)
            {
                warn!(event = "fault", path = %folder.display(), error = %error, "the old timeline stays");
            }
            return (
                Self {
                    inbox: None,
                    limits: None,
                    shared,
                },
                end,
            );
        };
        let limits = Arc::new(Mutex::new(limits));
        let inbox = Arc::new(Inbox::default());
        let store = Store {
            shared: Arc::clone(&shared),
            folder,
            limits: Arc::clone(&limits),
            is_short: Box::new(is_short),
        };
        let taker = Taker(Arc::clone(&inbox));
        let run = move || {
            store.run(&taker.0);
            let _ = ended.send(());
        };
        let spawned = thread::Builder::new()
            .name("timeline".to_owned())
            .spawn(run);
        if let Err(error) = &spawned {
            error!(event = "fault", error = %error, "there is no timeline");
        }
        let inbox = spawned.is_ok().then_some(inbox);
        let limits = Some(limits);
        (
            Self {
                inbox,
                limits,
                shared,
            },
            end,
        )
    }

    /// Whether these limits can be had without a new start: what is off stays off until then, what is on stays on.
    pub fn can_become(&self, config: &TimelineConfig) -> bool {
        self.limits.is_some() == Limits::of(config.keep, config.max_size).is_some()
    }

    /// Keeps as much from now on, if it can.
    pub fn renew(&self, config: &TimelineConfig) {
        if let Some(limits) = &self.limits {
            let mut limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
            *limits = limits
                .renewed(config.keep, config.max_size)
                .unwrap_or(*limits);
        }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.inbox.is_some()
    }

    /// Never waits: what finds no room is lost, and counted. Where nothing is kept the entries are not asked for.
    pub fn record(&self, entries: impl IntoIterator<Item = impl Into<Draft>>) {
        let Some(inbox) = &self.inbox else { return };
        let entries: Vec<Draft> = entries.into_iter().map(Into::into).collect();
        if entries.is_empty() {
            return;
        }
        let (count, octets) = (entries.len(), entries.iter().map(Draft::octets).sum());
        let shared = &self.shared;
        let before = shared.waiting.fetch_add(octets, Ordering::Relaxed);
        let taken = before.saturating_add(octets) <= WAITING && inbox.leave(entries).is_ok();
        if !taken {
            shared.waiting.fetch_sub(octets, Ordering::Relaxed);
            shared.lose(count);
            if !shared.overflowing.swap(true, Ordering::Relaxed) {
                warn!(
                    event = "fault",
                    "more events come than the timeline can take; some are lost"
                );
            }
        }
    }

    /// The events of a mail, oldest first. Blocks.
    pub fn of(&self, queue_id: QueueId) -> Vec<Event> {
        let entries = self.entries(queue_id);
        let mut events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
        events.sort_by_key(|event| event.at);
        events
    }

    /// The attempts to deliver a mail, oldest first. Blocks.
    pub fn attempts(&self, queue_id: QueueId) -> Vec<Attempt> {
        let entries = self.entries(queue_id).into_iter();
        entries.filter_map(|entry| entry.attempt).collect()
    }

    /// The newest mails with this Message-ID or recipient, at most `limit`, oldest first. Blocks.
    pub fn search(&self, text: &str, limit: usize) -> Vec<QueueId> {
        self.newest_named(&Named::by(text), limit)
    }

    fn newest_named(&self, named: &Named, limit: usize) -> Vec<QueueId> {
        self.flush();
        let keys = [
            Key::of_message_id(&named.message_id),
            Key::of_recipient(&named.address),
        ];
        let places: BTreeSet<(Lsn, Location)> = keys
            .into_iter()
            .flat_map(|key| self.find(key))
            .map(|place| (place.lsn, place))
            .collect();
        let mut found = Vec::new();
        for (_, place) in places.iter().rev() {
            let Some(record) = self.shared.read(place) else {
                continue;
            };
            let is_meant = record.entries.iter().any(|entry| named.is_meant(entry));
            if is_meant && !found.contains(&record.queue_id) {
                found.push(record.queue_id);
            }
            if found.len() >= limit {
                break;
            }
        }
        found.reverse();
        found
    }

    /// Writes what waits and frees the folder.
    pub fn stop(&self) {
        let count = self.shared.lost.load(Ordering::Relaxed);
        if count > 0 {
            warn!(
                event = "fault",
                count, "events were lost for want of room or of a disk"
            );
        }
        if let Some(inbox) = &self.inbox {
            inbox.ask(Request::Stop);
        }
    }

    fn entries(&self, queue_id: QueueId) -> Vec<Entry> {
        self.flush();
        let mut places = self.find(Key::of_id(queue_id));
        if places.len() > RECORDS {
            let newest = places.len() - RECORDS * 3 / 4;
            places.drain(RECORDS / 4..newest);
        }
        let records = places.iter().filter_map(|place| self.shared.read(place));
        records
            .filter(|record| record.queue_id == queue_id)
            .flat_map(|record| record.entries)
            .collect()
    }

    fn find(&self, key: Key) -> Vec<Location> {
        let reader = self.shared.reader().clone();
        if let Some(reader) = reader {
            self.shared.index_all(&reader);
        }
        self.shared.index().find(key)
    }

    /// Waits until what was recorded before can be read. Blocks.
    pub fn flush(&self) {
        let Some(inbox) = &self.inbox else { return };
        let (asked, answer) = sync_channel(1);
        if inbox.ask(Request::Flush(asked)) {
            // An answer that does not come in time costs the newest events only.
            let _ = answer.recv_timeout(PATIENCE);
        }
    }
}

/// Nobody records any more: the thread writes what waits, and frees the folder.
impl Drop for Timeline {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            inbox.ask(Request::Stop);
        }
    }
}

impl Shared {
    fn lose(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn written_out(&self, octets: usize) {
        let before = self.waiting.fetch_sub(octets, Ordering::Relaxed);
        if before.saturating_sub(octets) < WAITING / 2 {
            self.overflowing.store(false, Ordering::Relaxed);
        }
    }

    fn reader(&self) -> MutexGuard<'_, Option<Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::{EventKind, Timestamp};

    use super::*;

    fn event(text: &str) -> Event {
        let at = Timestamp::from_millis(1_700_000_000_000);
        Event {
            queue_id: QueueId::mint(at, [3; 10]),
            at,
            agent: "mta@here".to_owned(),
            kind: EventKind::Attempt,
            recipients: Vec::new(),
            text: text.to_owned(),
            fields: Default::default(),
        }
    }

    fn lost(timeline: &Timeline) -> u64 {
        timeline.shared.lost.load(Ordering::Relaxed)
    }

    #[test]
    fn where_nothing_is_kept_nothing_is_asked_for() {
        let config = TimelineConfig {
            keep: "0s".parse().unwrap(),
            ..TimelineConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let (timeline, _) = Timeline::start(&config, folder.path(), || false);
        assert!(!timeline.is_on());
        let mut asked = false;
        timeline.record(std::iter::once_with(|| {
            asked = true;
            event("of nothing")
        }));
        assert!(!asked);
        let on = TimelineConfig::default();
        let (timeline, _) = Timeline::start(&on, folder.path(), || false);
        timeline.record(std::iter::once_with(|| {
            asked = true;
            event("kept")
        }));
        assert!(asked);
    }

    #[test]
    fn a_full_inbox_drops_and_counts_and_never_blocks() {
        let inbox = Arc::new(Inbox::default());
        let (written, _) = broadcast::channel(1);
        let timeline = Timeline {
            limits: None,
            inbox: Some(Arc::clone(&inbox)),
            shared: Arc::new(Shared {
                waiting: AtomicUsize::new(0),
                lost: AtomicU64::new(0),
                overflowing: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                reader: Mutex::default(),
                index: Mutex::default(),
                written,
            }),
        };
        timeline.record([event(&"x".repeat(WAITING / 2))]);
        assert_eq!(lost(&timeline), 0);
        timeline.record([event(&"x".repeat(WAITING / 2)), event("lost, too")]);
        assert_eq!(lost(&timeline), 2);
        assert!(timeline.shared.overflowing.load(Ordering::Relaxed));
        timeline.record([event("fits")]);
        assert_eq!(lost(&timeline), 2);
        let waiting = timeline.shared.waiting.load(Ordering::Relaxed);
        timeline.shared.written_out(waiting);
        assert!(!timeline.shared.overflowing.load(Ordering::Relaxed));
        inbox.close();
        timeline.record([event("nobody comes for it")]);
        assert_eq!(lost(&timeline), 3);
    }
    #[test]
    fn its_folder_is_free_once_nobody_has_it() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let (timeline, end) =
                Timeline::start(&TimelineConfig::default(), folder.path(), || false);
            timeline.record([event("kept")]);
            drop(timeline);
            assert!(end.blocking_recv().is_ok());
        }
    }
}
