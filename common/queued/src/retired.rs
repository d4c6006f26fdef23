//! Mails after their end: what is known of each, and the content of some, in segments of their own beside the journal.
//!
//! ```text
//! last settlement ◆ ─► index: `leaving` ── upkeep, before each checkpoint ─► content: record or file ─► retired mail ─► forgotten
//! ```
//!
//! The index keeps what it takes until that is done, and no segment of the journal goes before; so a mail is retired at
//! least once, and one that a crash makes come twice is written once. Nobody waits for it. Where the disk refuses it,
//! finished mails go without.

mod files;
mod log;
mod purge;
mod store;
mod view;
mod write;

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use postroad_envelope::{Ending, QueueId, QueueIdPrefix, Timestamp};
use postroad_journal::{ContentReader, ContentStore, Location, SegmentNumber};
use postroad_queue::{LeavingMail, QueueError, RetiredContent, RetiredMail, record::split_content};
use postroad_queue_client::QueueError as ClientError;
use tracing::{error, warn};

use crate::{KeptContent, RetiredConfig, clock, core::Core, retention::Limits};
use files::Files;
use log::Log;
use store::Store;

pub(crate) use purge::Chosen;
pub(crate) use view::{details, list};

const FOLDER: &str = "retired";
const MAILS: &str = "mails";
const CONTENTS: &str = "contents";
/// Finished mails looked at in one go.
const AT_ONCE: usize = 1_000;
/// How far clocks may have been set back between the end of a mail and a crash.
const SLACK: Duration = Duration::from_secs(60);

/// One per running queue.
pub(crate) struct Retired {
    /// None: nothing is kept.
    kept: Option<Kept>,
    /// Held by whoever retires: what waits for it is never taken up twice.
    turn: Mutex<()>,
}

struct Kept {
    much: Mutex<HowMuch>,
    mails: Arc<Log>,
    contents: Option<Arc<Log>>,
    files: Option<ContentStore>,
    writer: Mutex<Writer>,
    lost: AtomicU64,
    lost_contents: AtomicU64,
}

/// How much is kept, and of whom.
#[derive(Clone, Copy)]
struct HowMuch {
    keep: Duration,
    content_keep: Duration,
    content: KeptContent,
    content_size: u64,
}

impl HowMuch {
    fn of(config: &RetiredConfig) -> Self {
        let keep = config.keep.as_duration();
        Self {
            keep,
            content_keep: config.content_keep.as_duration().min(keep),
            content: config.content,
            content_size: config.content_max_size.as_u64(),
        }
    }
}

struct Writer {
    mails: Store,
    contents: Option<(Store, Files)>,
    /// Mails of the run before may have been retired already.
    first: bool,
    told: bool,
    told_of_contents: bool,
}

/// A content that was kept.
pub(crate) enum KeptBytes {
    Record(Bytes),
    File(ContentReader),
}

impl Retired {
    /// Whether anything is kept.
    pub fn wanted(config: &RetiredConfig) -> bool {
        Limits::of(config.keep, config.max_size).is_some()
    }

    /// Opens what lies below the folder of the queue; removes what is not to be kept any more. Blocks.
    pub fn open(config: &RetiredConfig, queue: &Path) -> Self {
        let folder = queue.join(FOLDER);
        let Some(limits) = Limits::of(config.keep, config.max_size) else {
            remove(&folder);
            return Self {
                kept: None,
                turn: Mutex::default(),
            };
        };
        let keep = HowMuch::of(config).content_keep;
        let contents = content_limits(config).and_then(|limits| {
            let files = Files::open(&folder);
            let files = files.inspect_err(|error| {
                error!(
                    event = "disk_failed",
                    error = error as &dyn std::error::Error,
                    "contents of finished mails are not kept"
                );
            });
            let limits = Limits { keep, ..limits };
            Some((Store::open(folder.join(CONTENTS), limits), files.ok()?))
        });
        if contents.is_none() {
            remove(&folder.join(CONTENTS));
            remove(&folder.join("content"));
        }
        let mails = Store::open(folder.join(MAILS), limits);
        Self {
            kept: Some(Kept {
                much: Mutex::new(HowMuch::of(config)),
                mails: Arc::clone(&mails.log),
                files: contents.as_ref().map(|(_, files)| files.store.clone()),
                contents: contents.as_ref().map(|(store, _)| Arc::clone(&store.log)),
                writer: Mutex::new(Writer {
                    mails,
                    contents,
                    first: true,
                    told: false,
                    told_of_contents: false,
                }),
                lost: AtomicU64::new(0),
                lost_contents: AtomicU64::new(0),
            }),
            turn: Mutex::default(),
        }
    }

    /// Whether so much can be kept without a new start: what is off stays off until then, what is on stays on.
    pub fn can_become(&self, config: &RetiredConfig) -> bool {
        let Some(kept) = &self.kept else {
            return !Self::wanted(config);
        };
        Self::wanted(config) && kept.contents.is_some() == content_limits(config).is_some()
    }

    /// Keeps as much from now on, if it can.
    pub fn renew(&self, config: &RetiredConfig) {
        let Some(kept) = self.kept.as_ref().filter(|_| self.can_become(config)) else {
            return;
        };
        let much = HowMuch::of(config);
        let mut writer = kept.writer();
        writer.mails.renew(config.keep, config.max_size);
        if let Some((contents, _)) = &mut writer.contents {
            let keep = config.content_keep.min(config.keep);
            contents.renew(keep, config.content_max_size);
        }
        *kept.much.lock().unwrap_or_else(PoisonError::into_inner) = much;
    }

    /// Retires every finished mail that waits for it; durable when this returns, or lost where it cannot be. Blocks.
    pub fn retire(&self, core: &Core) -> Result<(), QueueError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = None;
        loop {
            let page = core.queue.leaving(after, AT_ONCE)?;
            let Some(last) = page.last() else {
                if let Some(kept) = &self.kept {
                    kept.writer().first = false;
                }
                return Ok(());
            };
            after = Some(last.mail.queue_id);
            match &self.kept {
                Some(kept) => kept.retire(core, page)?,
                None => {
                    for mail in &page {
                        core.trash.add(mail.mail.file.map(|file| file.nonce));
                    }
                    core.queue.forget_leaving(&ids(&page))?;
                }
            }
        }
    }

    /// Gives up what is too old or too much. Blocks.
    pub fn tend(&self, now: Timestamp, is_short: bool) {
        if let Some(kept) = &self.kept {
            kept.writer().tend(kept, now, is_short);
        }
    }

    /// A retired mail that is still to be seen. Blocks.
    pub fn find(&self, id: QueueId) -> Option<RetiredMail> {
        let kept = self.kept.as_ref()?;
        let place = kept.mails.find(id)?;
        kept.read(&place)
    }

    /// As [`Retired::find`], also of a mail that ended a moment ago and waits to be retired. Blocks.
    pub fn find_ended(&self, core: &Core, id: QueueId) -> Result<Option<RetiredMail>, QueueError> {
        if let Some(mail) = self.find(id) {
            return Ok(Some(mail));
        }
        if core.queue.finished(id)?.is_none() {
            return Ok(None);
        }
        self.retire(core)?;
        Ok(self.find(id))
    }

    /// Retired mails whose ids begin so. Blocks.
    pub fn find_prefix(&self, prefix: &QueueIdPrefix, limit: usize) -> Vec<QueueId> {
        let kept = self.kept.as_ref();
        kept.map(|kept| kept.mails.find_prefix(prefix, limit))
            .unwrap_or_default()
    }

    /// The content of a retired mail, if it was kept and has not gone. Blocks.
    pub fn content(&self, mail: &RetiredMail) -> Option<KeptBytes> {
        let kept = self.kept.as_ref()?;
        if kept.content_is_over(mail) {
            return None;
        }
        match mail.content {
            RetiredContent::None => None,
            RetiredContent::Record(place) => {
                let payload = kept.contents.as_ref()?.read(&place)?;
                split_content(&payload).ok().map(KeptBytes::Record)
            }
            RetiredContent::File(file) => {
                let reader = kept.files.as_ref()?.reader(&file);
                reader.ok().map(KeptBytes::File)
            }
        }
    }

    /// Why there is no content.
    pub fn no_content(&self, mail: &RetiredMail) -> ClientError {
        let id = mail.envelope.queue_id;
        let content = self.kept.as_ref().map(|kept| kept.much().content);
        ClientError::Conflict(match (mail.content, content) {
            (RetiredContent::None, Some(KeptContent::Failed))
                if mail.ending == Ending::Delivered =>
            {
                format!(
                    "the content of {id} was not kept: of delivered mail it is only with queued.retired.content = \"all\""
                )
            }
            (RetiredContent::None, _) => {
                format!("the content of {id} was not kept (queued.retired.content)")
            }
            _ => format!(
                "the content of {id} is gone: its time is over, or newer ones needed the room (queued.retired.content_keep, content_max_size)"
            ),
        })
    }

    /// Says, at the end, how much is missing.
    pub fn tell_lost(&self) {
        let kept = self.kept.as_ref();
        let count = kept.map_or(0, |kept| kept.lost.load(Ordering::Relaxed));
        if count > 0 {
            warn!(
                event = "fault",
                count, "finished mails were not retired; they are gone"
            );
        }
        let count = kept.map_or(0, |kept| kept.lost_contents.load(Ordering::Relaxed));
        if count > 0 {
            warn!(
                event = "fault",
                count, "contents of finished mails could not be kept"
            );
        }
    }
}

/// None: no content is kept.
fn content_limits(config: &RetiredConfig) -> Option<Limits> {
    Limits::of(config.content_keep, config.content_max_size)
        .filter(|_| config.content != KeptContent::None)
}

fn remove(folder: &Path) {
    if folder.exists()
        && let Err(error) = std::fs::remove_dir_all(folder)
    {
        warn!(event = "fault", path = %folder.display(), error = %error, "retired mails that are not to be kept stay");
    }
}

fn ids(page: &[LeavingMail]) -> Vec<QueueId> {
    page.iter().map(|mail| mail.mail.queue_id).collect()
}

impl Kept {
    /// Which of these were retired by a run that ended before it could say so.
    fn retired_since(&self, page: &[LeavingMail]) -> HashSet<QueueId> {
        let oldest = page.iter().map(|mail| mail.at).min().unwrap_or_default();
        let mut known = HashSet::new();
        for segment in self.mails.segments() {
            let mut newest = Timestamp::default();
            self.mails.each(segment.number, |_, id, at| {
                newest = newest.max(at);
                known.insert(id);
                std::ops::ControlFlow::Continue(())
            });
            let is_empty = segment.last_lsn < segment.first_lsn;
            if !is_empty && oldest.since(newest) > SLACK {
                break;
            }
        }
        known
    }

    /// The mail at a place, unless its time is over.
    fn read(&self, place: &Location) -> Option<RetiredMail> {
        let payload = self.mails.read(place)?;
        self.decode(&payload, place.segment)
            .filter(|mail| !self.is_over(mail))
    }

    fn decode(&self, payload: &[u8], segment: SegmentNumber) -> Option<RetiredMail> {
        let mail = RetiredMail::decode(payload).inspect_err(|error| {
            error!(event = "corruption", %segment, error = %error, "a retired mail cannot be read");
        });
        mail.ok()
    }

    fn content_is_over(&self, mail: &RetiredMail) -> bool {
        clock::now().since(mail.retired_at) > self.much().content_keep
    }

    fn is_over(&self, mail: &RetiredMail) -> bool {
        clock::now().since(mail.retired_at) > self.much().keep
    }

    fn much(&self) -> HowMuch {
        *self.much.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic under it leaves the segments usable.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn tend(&mut self, kept: &Kept, now: Timestamp, is_short: bool) {
        self.mails.tend(now, is_short);
        let Some((store, files)) = &mut self.contents else {
            return;
        };
        store.tend(now, is_short);
        let much = kept.much();
        files.give_up_older(now, much.content_keep);
        while store.octets().saturating_add(files.octets()) > much.content_size {
            match (store.oldest(), files.oldest()) {
                (Some(record), Some(file)) if file <= record => files.give_up_oldest(),
                (Some(_), _) => {
                    if !store.give_up_oldest() {
                        break;
                    }
                }
                (None, Some(_)) => files.give_up_oldest(),
                (None, None) => break,
            }
        }
    }
}
