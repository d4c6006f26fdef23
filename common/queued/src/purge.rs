//! Retired mails are forgotten for good: afterwards no octet of them is left in the queue's folder but their ids.
//!
//! ```text
//! checkpoint ─► choose ─► nothing is recycled, everything written lies in sealed segments
//!   ─► content files ─► retired contents ─► timeline ─► journal ─► index made anew ─► retired mails
//! ```
//!
//! The mails that are chosen by go last: a purge that was cut off finds them all again. Each segment is written anew beside
//! the old one and takes its place, so a crash leaves either; after each the disk is left to mail for as long as it took.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use postroad_envelope::{EventKind, Filter, MailState, QueueId};
use postroad_journal::{JournalError, Lsn, Reader, SegmentNumber};
use postroad_queue::record::{BLANKS_RECORDS, mail_of};
use postroad_queue_client::{Changed, Order, QueueError};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    LocalQueue,
    backup::Pin,
    committer::Clean,
    core::{Core, to_client_error},
    renewal,
    retired::Chosen,
    upkeep,
};

/// Longest rest after a piece of work.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// How long the journal may take to prepare a segment.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Mails whose timeline says that they were purged; of more only the log tells.
const NAMED: usize = 1_000;

pub(crate) async fn carry_out(queue: &LocalQueue, mut order: Order) -> Result<Changed, QueueError> {
    check(&order.filter)?;
    order.filter = order.filter.folded();
    let core = queue.core().await?;
    check_format(core.format)?;
    let Some(alone) = core.pins.exclude() else {
        return Err(QueueError::Conflict(
            "a backup is running, which would keep what is purged, or another purge; try again when it has ended".to_owned(),
        ));
    };
    let tasks = core.tasks.clone();
    // Whoever stops waiting does not stop it half-way.
    let purged = tasks.spawn(async move { run(&core, order, alone).await });
    purged
        .await
        .map_err(|error| QueueError::Unavailable(error.to_string()))?
}

fn check(filter: &Filter) -> Result<(), QueueError> {
    let invalid = |why: &str| Err(QueueError::Invalid(why.to_owned()));
    if !matches!(filter.state, None | Some(MailState::Retired)) {
        return invalid("only retired mails are purged");
    }
    let parts = Filter {
        state: None,
        ..filter.clone()
    };
    match parts.is_empty() {
        true => invalid("the filter means no mail; give a part of it, or say that all are meant"),
        false => Ok(()),
    }
}

/// A release that knows no blanked record would read zeros for a mail, call it damaged, and never give up its segment.
fn check_format(format: u32) -> Result<(), QueueError> {
    match format >= BLANKS_RECORDS {
        true => Ok(()),
        false => Err(QueueError::Conflict(format!(
            "the queue's folder is in format {format}, whose releases cannot read what a purge leaves; stop the queue, put it \
             into a later one by `postroad queue upgrade-format`, and purge then"
        ))),
    }
}

async fn run(core: &Arc<Core>, order: Order, _alone: Pin) -> Result<Changed, QueueError> {
    let begun = Instant::now();
    // Whatever has ended is retired, and the index knows it for good.
    upkeep::checkpoint(core).await.map_err(to_client_error)?;
    let last = core.segments().last().map_or(Lsn(0), |one| one.last_lsn);
    let (asking, filter) = (Arc::clone(core), order.filter.clone());
    let (chosen, busy) = blocking(move || choose(&asking, &filter)).await??;
    let changed = Changed {
        mails: count(chosen.ids.len()),
        busy: count(busy.len()),
    };
    if chosen.ids.is_empty() {
        let named = !order.filter.ids.is_empty() && !order.filter.all;
        return match (named, busy.first()) {
            (true, Some(id)) => Err(QueueError::Conflict(format!(
                "{id} is still in the queue: drop it first, then purge it"
            ))),
            (true, None) => Err(QueueError::NotFound),
            (false, _) => Ok(changed),
        };
    }
    if order.dry_run {
        return Ok(changed);
    }
    let chosen = Arc::new(chosen);
    let forgotten = match begin(core).await {
        Ok(()) => forget(core, &chosen, last).await,
        Err(failed) => Err(failed),
    };
    end(core).await;
    forgotten?;
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(
        event = "purged",
        by = order.by,
        reason = order.reason,
        count = changed.mails,
        duration_ms
    );
    tell(core, &order, &chosen.ids);
    Ok(changed)
}

/// What is to be forgotten, and which mails that were named live. Blocks.
fn choose(core: &Core, filter: &Filter) -> Result<(Chosen, Vec<QueueId>), QueueError> {
    let failed = |error: postroad_queue::QueueError| to_client_error(error.into());
    let mut chosen = core.retired.choose(filter);
    let only_named = !filter.all && !filter.ids.is_empty() && *filter == named(filter);
    if only_named {
        // One of which the rest of a purge that was cut off is left, or nothing but its timeline.
        for id in &filter.ids {
            let is_known = core.queue.finished(*id).map_err(failed)?.is_some();
            if is_known || !core.timeline.of(*id).is_empty() {
                chosen.ids.insert(*id);
            }
        }
    }
    // An id that was accepted anew once it was forgotten is another mail.
    let mut living = Vec::new();
    for id in chosen.ids.iter().chain(&filter.ids) {
        if core.queue.show(*id).map_err(failed)?.is_some() {
            living.push(*id);
        }
    }
    living.sort_unstable();
    living.dedup();
    chosen.ids.retain(|id| living.binary_search(id).is_err());
    Ok((chosen, living))
}

/// These ids and nothing else.
fn named(filter: &Filter) -> Filter {
    Filter {
        state: filter.state,
        ..Filter::of_ids(filter.ids.clone())
    }
}

/// From here on no file is used again that may hold something old, and what was written is not written to any more.
async fn begin(core: &Arc<Core>) -> Result<(), QueueError> {
    let committer = &core.committer;
    let clean = |step| async move { committer.clean(step).await.map_err(to_client_error) };
    clean(Clean::Begin).await?;
    let sealed = async {
        while !clean(Clean::Seal).await? {
            sleep(LOOK_AGAIN).await;
        }
        Ok::<(), QueueError>(())
    };
    let no_room = || QueueError::Full("no segment of the journal could be prepared".to_owned());
    timeout(PATIENCE, sealed).await.map_err(|_| no_room())??;
    let asked = Arc::clone(core);
    let is_clean = move || asked.timeline.clean(true) && asked.retired.clean(true);
    match blocking(is_clean).await? {
        true => Ok(()),
        false => Err(QueueError::Unavailable(
            "the timeline or the retired mails cannot be written now; the log says why".to_owned(),
        )),
    }
}

async fn end(core: &Arc<Core>) {
    let _ = core.committer.clean(Clean::End).await;
    let asked = Arc::clone(core);
    let ended = blocking(move || asked.timeline.clean(false) & asked.retired.clean(false)).await;
    if !matches!(ended, Ok(true)) {
        warn!(
            event = "fault",
            "after a purge not all segments are recycled as before"
        );
    }
}

async fn forget(core: &Arc<Core>, chosen: &Arc<Chosen>, last: Lsn) -> Result<(), QueueError> {
    // Content files of mails that ended without being kept.
    upkeep::look_at_disk(core.front()).await;
    let (asked, files) = (Arc::clone(core), Arc::clone(chosen));
    let removed = blocking(move || {
        asked.contents.sync()?;
        asked.retired.remove_files(&files)
    });
    removed.await?.map_err(unwritable)?;
    let (contents, mails) = core.retired.logs();
    let mut work = Work::new(core);
    if let Some(log) = contents {
        let (segments, ids) = (sealed(log.reader().as_ref()), Arc::clone(chosen));
        work.segments("contents", segments, move |one| log.blank(one, &ids.ids))
            .await?;
    }
    if let Some(reader) = core.timeline.reader() {
        let (segments, asked, ids) = (sealed(Some(&reader)), Arc::clone(core), Arc::clone(chosen));
        let blank = move |one| asked.timeline.blank(&reader, one, &ids.ids);
        work.segments("timeline", segments, blank).await?;
    }
    let (reader, ids) = (core.reader.clone(), Arc::clone(chosen));
    let blank = move |one| blank_in_journal(&reader, one, &ids.ids, last);
    work.segments("journal", sealed(Some(&core.reader)), blank)
        .await?;
    // sled keeps octets of what was removed until it happens to write over them, so another takes its place.
    let len = renewal::renew_index(core).await.map_err(to_client_error)?;
    let len = len.ok_or_else(stopping)?;
    info!(event = "purging", size = len, "the index was made anew");
    if let Some(log) = mails {
        let (segments, ids) = (sealed(log.reader().as_ref()), Arc::clone(chosen));
        work.segments("mails", segments, move |one| log.blank(one, &ids.ids))
            .await?;
    }
    Ok(())
}

/// Records behind `last` came after the mails were chosen, so they are of others.
fn blank_in_journal(
    reader: &Reader,
    number: SegmentNumber,
    ids: &HashSet<QueueId>,
    last: Lsn,
) -> Result<u64, JournalError> {
    reader.blank_segment(number, |seen| {
        seen.lsn <= last && mail_of(seen.kind, seen.payload).is_some_and(|id| ids.contains(&id))
    })
}

fn sealed(reader: Option<&Reader>) -> BTreeSet<SegmentNumber> {
    let segments = reader.map(Reader::segments).unwrap_or_default();
    let sealed = segments.iter().filter(|one| one.sealed);
    sealed.map(|one| one.number).collect()
}

/// Segment by segment, with rests in between.
struct Work<'a> {
    core: &'a Arc<Core>,
    told: Instant,
}

impl<'a> Work<'a> {
    fn new(core: &'a Arc<Core>) -> Self {
        let told = Instant::now();
        Self { core, told }
    }

    async fn segments(
        &mut self,
        what: &'static str,
        segments: BTreeSet<SegmentNumber>,
        blank: impl Fn(SegmentNumber) -> Result<u64, JournalError> + Send + Sync + 'static,
    ) -> Result<(), QueueError> {
        let (blank, all) = (Arc::new(blank), segments.len());
        for (done, number) in segments.into_iter().enumerate() {
            go_on(self.core)?;
            let begun = Instant::now();
            let one = Arc::clone(&blank);
            blocking(move || one(number)).await?.map_err(unwritable)?;
            if self.told.elapsed() >= TOLD_EVERY {
                self.told = Instant::now();
                info!(event = "purging", "{} of {all} segments: {what}", done + 1);
            }
            sleep(begun.elapsed().min(LONGEST_REST)).await;
        }
        Ok(())
    }
}

fn go_on(core: &Core) -> Result<(), QueueError> {
    match core.stopping.is_cancelled() {
        true => Err(stopping()),
        false => Ok(()),
    }
}

fn stopping() -> QueueError {
    QueueError::Unavailable(
        "the queue is stopping, and the purge was cut off; repeat it to finish it".to_owned(),
    )
}

fn unwritable(failed: JournalError) -> QueueError {
    error!(
        event = "disk_failed",
        error = &failed as &dyn std::error::Error,
        "a purge was cut off"
    );
    QueueError::Unavailable(format!(
        "the purge was cut off ({failed}); repeat it to finish it"
    ))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueueError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| QueueError::Unavailable(error.to_string()))
}

fn count(mails: usize) -> u64 {
    u64::try_from(mails).unwrap_or(u64::MAX)
}

/// That they were purged, and nothing of what: the reason may name whom it was about, so it stands in the log alone.
fn tell(core: &Core, order: &Order, ids: &HashSet<QueueId>) {
    let who = match order.by.as_str() {
        "" => "an operator",
        by => by,
    };
    for id in ids.iter().take(NAMED) {
        let fields = [("verb", "purge"), ("by", order.by.as_str())];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let text = format!("purge, by {who}");
        core.tell(*id, EventKind::Admin, &[], text, fields);
    }
}
