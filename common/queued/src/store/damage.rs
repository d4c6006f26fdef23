//! What is done about broken files while the queue runs: nothing broken is delivered, a person is told, all else goes on.
//!
//! A mail whose record or content file is damaged is held with the reason, so that it is seen in the list. An index that
//! fails ends the queue, and a mark makes the next start put it aside and build another.

use std::{
    collections::HashSet,
    fs, io,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use postroad_envelope::QueueId;
use postroad_journal::{
    ContentNonce, ContentReader, ContentRef, Damage, JournalError, Replay, SegmentNumber,
};
use postroad_queue::{Instruction, JobKey, MailPlace};
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use crate::{
    ServeError,
    committer::CommitError,
    core::{Core, ReadError},
    upkeep::instruct,
};

/// The mark of an index that failed, in the queue's folder.
const MARK: &str = "index-failed";
/// Names of broken content files that are remembered; beyond them each is read again before it is refused.
const MOST: usize = 10_000;

/// What this process has met broken.
#[derive(Debug, Default)]
pub(crate) struct Damaged {
    contents: Mutex<HashSet<ContentNonce>>,
    /// Some segment that is still there has unreadable records.
    segments: AtomicBool,
}

impl Damaged {
    /// Refuses content that was found broken before.
    pub fn check(&self, file: &ContentRef) -> Result<(), ReadError> {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        match contents.contains(&file.nonce) {
            true => Err(ReadError::DamagedContent(file.nonce)),
            false => Ok(()),
        }
    }

    fn add(&self, file: &ContentRef) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        if contents.len() < MOST {
            contents.insert(file.nonce);
        }
    }
}

/// A content file, once all of it was read and is what was written: not an octet of a broken one is given out. Its mail is
/// held when it is leased again. Blocks.
pub(crate) fn whole(
    core: &Core,
    queue_id: QueueId,
    file: &ContentRef,
) -> Result<ContentReader, ReadError> {
    core.store.damaged.check(file)?;
    let reader = core.contents.reader(file).and_then(|reader| {
        reader.verify()?;
        Ok(reader)
    });
    reader.map_err(|failed| match failed {
        JournalError::DamagedContent(path) => {
            core.store.damaged.add(file);
            error!(
                event = "corruption", %queue_id, path = %path.display(),
                "the content of a mail is damaged; it is not delivered, and held: put the file back from a backup and release the mail, or fail it"
            );
            ReadError::DamagedContent(file.nonce)
        }
        other => other.into(),
    })
}

/// Whether the place of a mail went with its segment: what lay there could not be read when the segment was given up.
/// Blocks.
pub(crate) fn is_lost(core: &Core, mail: &MailPlace) -> bool {
    let oldest = core.segments().first().map(|segment| segment.number);
    let now = core.queue.show(mail.queue_id);
    let same = matches!(now, Ok(Some(now)) if now.mail.location == mail.location);
    same && oldest.is_some_and(|oldest| mail.location.segment < oldest)
}

/// Tells of damage that a reading met, once for each range.
pub(crate) fn tell(core: &Core, replay: &Replay) {
    if !replay.damage.is_empty() {
        core.store.damaged.segments.store(true, Ordering::Relaxed);
    }
    for damage in replay.damage.iter().filter(|damage| damage.fresh) {
        tell_range("the journal", damage);
    }
}

pub(super) fn tell_range(of: &str, damage: &Damage) {
    error!(
        event = "corruption", segment = %damage.segment,
        path = damage.copy.as_ref().map(|path| tracing::field::display(path.display())),
        "octets {} to {} of {of} are damaged; a copy is in quarantine, all other records go on", damage.start, damage.end
    );
}

/// Before a segment with damage goes: mails whose record could not be copied forward are named and held.
pub(crate) async fn let_go(
    core: &std::sync::Arc<Core>,
    segment: SegmentNumber,
) -> Result<(), CommitError> {
    if !core.store.damaged.segments.load(Ordering::Relaxed) {
        return Ok(());
    }
    let reading = std::sync::Arc::clone(core);
    let lost = spawn_blocking(move || -> Result<Vec<JobKey>, postroad_queue::QueueError> {
        let mails = reading.queue.live_in_segment(segment)?.mails;
        let mut jobs = Vec::new();
        for queue_id in mails {
            error!(
                event = "corruption", %queue_id, segment = %segment,
                "the record of a mail is damaged; the mail is held: restore it from a backup, or fail it"
            );
            jobs.extend(reading.queue.jobs_of(queue_id)?);
        }
        Ok(jobs)
    });
    let lost = lost.await.map_err(|_| CommitError::Ended)??;
    let hold = Instruction::Hold("its record in the journal is damaged".to_owned());
    for some in lost.chunks(500) {
        let some = some.iter().map(|job| (*job, hold.clone())).collect();
        instruct(core, some).await?;
    }
    Ok(())
}

/// After an end that an index may have caused: the next start puts it aside. Where the disk refuses, a new index would meet
/// the same.
pub(crate) fn suspect_index(folder: &Path, ended: &ServeError) {
    let is_suspect = match ended {
        ServeError::Index(error) => !is_of_the_disk(error),
        ServeError::IndexUnsynced(_) | ServeError::Task(_) => true,
        _ => false,
    };
    if !is_suspect {
        return;
    }
    match fs::write(folder.join(MARK), format!("{ended}\n")) {
        Ok(()) => error!(
            event = "corruption", path = %folder.join("index").display(), error = %ended,
            "the index may be damaged; the next start puts it aside and builds another from the journal"
        ),
        Err(error) => warn!(event = "fault", error = %error, "a mark cannot be written"),
    }
}

fn is_of_the_disk(error: &postroad_queue::QueueError) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                PermissionDenied | ReadOnlyFilesystem | StorageFull | NotFound
            );
        }
        source = cause.source();
    }
    matches!(error, postroad_queue::QueueError::Io { .. })
}

/// At a start, before the index is opened: puts aside one that failed in the life before. Blocks.
pub(crate) fn put_suspect_aside(folder: &Path) {
    let mark = folder.join(MARK);
    if !mark.exists() {
        return;
    }
    let aside = super::offline::put_index_aside(folder);
    match aside {
        Ok(aside) => {
            error!(
                event = "corruption",
                path = aside
                    .as_ref()
                    .map(|aside| tracing::field::display(aside.display())),
                "the index failed in the life before; it was put aside and is built anew from the journal"
            );
            // Should it stay, another index is built once more, and nothing is lost.
            let _ = fs::remove_file(&mark);
        }
        Err(error) => warn!(event = "fault", error = %error, "the index cannot be put aside"),
    }
}
