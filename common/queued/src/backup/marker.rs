//! `RESTORED`: what the first start on a restored folder does before any mail is given out.
//!
//! ```text
//! postroad-restored 1
//! last-record 4711
//! made-at 2026-11-26T12:00:00.000Z
//! hold yes
//! ```
//!
//! Mails up to that record are held, in as many commits as it takes; then the file is removed. After a crash half-way the
//! next start does the rest. Mail that came in later is not touched.

use std::{fs, io, path::Path, sync::Arc};

use postroad_envelope::{Filter, QueueId, Timestamp};
use postroad_journal::Lsn;
use postroad_queue::{Instruction, JobKey, Listing};
use tokio::task::spawn_blocking;
use tracing::info;

use super::manifest::Manifest;
use crate::{ServeError, clock, core::Core, upkeep::instruct};

pub(super) const NAME: &str = "RESTORED";
const FIRST_LINE: &str = "postroad-restored 1";
/// The queue that was copied has gone on and given leases of later epochs; none of them may be valid here.
const EPOCHS_AHEAD: u64 = 1_000_000;
const PAGE: usize = 500;

struct Marker {
    last_record: Lsn,
    made_at: Timestamp,
    hold: bool,
}

pub(super) fn text(manifest: &Manifest, release: bool) -> String {
    let hold = if release { "no" } else { "yes" };
    format!(
        "{FIRST_LINE}\nlast-record {}\nmade-at {}\nhold {hold}\n",
        manifest.last_record.0, manifest.made_at
    )
}

/// How many epochs a start must skip.
pub(crate) fn epochs_ahead(folder: &Path) -> u64 {
    match folder.join(NAME).exists() {
        true => EPOCHS_AHEAD,
        false => 0,
    }
}

/// Does what the marker says, if there is one. To be awaited before the first lease.
pub(crate) async fn hold_restored(core: &Arc<Core>) -> Result<(), ServeError> {
    let looking = Arc::clone(core);
    let Some(marker) = blocking(move || read(&looking.folder)).await? else {
        return Ok(());
    };
    let mut count = 0;
    if marker.hold {
        count = hold_all(core, &marker).await?;
    }
    let done = Arc::clone(core);
    blocking(move || remove(&done.folder)).await?;
    info!(
        event = "admin",
        verb = "restore",
        count,
        lsn = marker.last_record.0,
        "a backup was restored; so many jobs of its mail are held now"
    );
    Ok(())
}

async fn hold_all(core: &Arc<Core>, marker: &Marker) -> Result<usize, ServeError> {
    let why = format!("restored from the backup of {}", marker.made_at);
    let (mut from, mut count, last) = (None, 0, marker.last_record);
    loop {
        let looking = Arc::clone(core);
        let page = spawn_blocking(move || open_jobs(&looking, last, from)).await;
        let (jobs, next) = page.map_err(|error| ServeError::Task(error.to_string()))??;
        let holds = jobs
            .into_iter()
            .map(|job| (job, Instruction::Hold(why.clone())));
        let told = instruct(core, holds.collect()).await;
        count += told
            .map_err(|error| ServeError::Task(format!("restored mail cannot be held: {error}")))?
            .changed
            .len();
        match next {
            Some(next) => from = Some(next),
            None => return Ok(count),
        }
    }
}

type Page = (Vec<JobKey>, Option<QueueId>);

/// Jobs of mails up to a record that are neither ended nor held.
fn open_jobs(
    core: &Core,
    last: Lsn,
    from: Option<QueueId>,
) -> Result<Page, postroad_queue::QueueError> {
    let all = Filter::all();
    let listing = Listing::oldest(&all, from, PAGE);
    let page = core.queue.list(&listing, clock::now(), &|| true)?;
    let old = page
        .mails
        .iter()
        .filter(|mail| mail.mail.location.lsn <= last);
    let open = old.flat_map(|mail| &mail.jobs).filter(|job| {
        let state = &job.state;
        state.is_pending() && state.hold.is_none()
    });
    Ok((open.map(|job| job.state.key).collect(), page.next))
}

fn read(folder: &Path) -> io::Result<Option<Marker>> {
    let text = match fs::read_to_string(folder.join(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let parsed = parse(&text);
    parsed.map(Some).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not say what is to be held",
        )
    })
}

fn parse(text: &str) -> Option<Marker> {
    let mut lines = text.lines();
    lines.next().filter(|first| *first == FIRST_LINE)?;
    let (mut last_record, mut made_at, mut hold) = (None, None, None);
    for (word, value) in lines.filter_map(|line| line.split_once(' ')) {
        match word {
            "last-record" => last_record = value.parse().ok().map(Lsn),
            "made-at" => made_at = value.parse().ok(),
            "hold" => hold = Some(value != "no"),
            _ => {}
        }
    }
    Some(Marker {
        last_record: last_record?,
        made_at: made_at?,
        hold: hold?,
    })
}

/// Durably: else the same mails would be held again after a power cut, though released.
fn remove(folder: &Path) -> io::Result<()> {
    fs::remove_file(folder.join(NAME))?;
    fs::File::open(folder)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ServeError> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| ServeError::Task(error.to_string()))?
        .map_err(|error| ServeError::Disk(format!("{NAME} beside the queue: {error}")))
}
