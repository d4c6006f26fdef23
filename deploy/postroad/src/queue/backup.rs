//! `postroad queue backup` and `restore`: a copy of the queue while it runs, and a queue made of one.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use postroad_queue_client::QueueAdmin as _;
use postroad_queued::backup::{BackupError, BackupWriter, Manifest, restore as copy_back};
use serde_json::json;

use super::Admin;
use crate::cli::RestoreArguments;
use crate::fault::Fault;
use crate::terminal::Terminal;

/// Between two words about how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(2);
const MIB: u64 = 1 << 20;

impl From<BackupError> for Fault {
    fn from(error: BackupError) -> Self {
        Self::not_done(error)
    }
}

/// `postroad queue backup DIR`.
pub async fn backup(
    admin: &Admin,
    folder: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    admin.only()?;
    let mut writer = BackupWriter::create(folder)?;
    let manifest = match receive(admin, &mut writer, terminal).await {
        Ok(()) => writer.finish()?.manifest,
        Err(fault) => {
            writer.discard();
            return Err(Fault::NotDone(format!("no backup was made: {fault}")));
        }
    };
    for problem in &manifest.problems {
        terminal.say(format_args!("not whole in the queue itself: {problem}"));
    }
    if terminal.wants_json() {
        let mut object = facts(&manifest);
        object["folder"] = folder.display().to_string().into();
        terminal.object(object);
    } else {
        terminal.line(format_args!(
            "{} in {} octets of {} are in {}, checked and on the disk",
            mails(&manifest),
            manifest.octets(),
            files(&manifest),
            folder.display()
        ));
    }
    Ok(())
}

async fn receive(
    admin: &Admin,
    writer: &mut BackupWriter,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let mut pieces = admin.backup().await?;
    let (mut done, mut progress) = (0, Progress::new("copied"));
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        done += u64::try_from(piece.octets.len()).unwrap_or(u64::MAX);
        writer.write(&piece.path, &piece.octets)?;
        progress.tell(done, piece.total, terminal);
    }
    Ok(())
}

/// `postroad queue restore DIR --to FOLDER`. Needs no configuration and no running queue.
pub fn restore(arguments: &RestoreArguments, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    let RestoreArguments { from, to, release } = arguments;
    let mut progress = Progress::new("checked and copied");
    let mut told = |done, total| progress.tell(done, total, terminal);
    let restored = copy_back(from, to, *release, &mut told)?;
    let manifest = &restored.manifest;
    if terminal.wants_json() {
        let mut object = facts(manifest);
        object["folder"] = to.display().to_string().into();
        object["held"] = restored.held.into();
        terminal.object(object);
        return Ok(());
    }
    terminal.line(format_args!(
        "{} of {} were checked and are in {}",
        mails(manifest),
        manifest.made_at,
        to.display()
    ));
    let next = if restored.held {
        "The next start of the queue on this folder makes its index anew and holds all this mail: what was delivered \
         after the backup would be delivered again. Look with `postroad queue list --state held`; when you are sure, \
         `postroad queue release --all`."
    } else {
        "The next start of the queue on this folder makes its index anew and delivers this mail, also what was delivered \
         after the backup."
    };
    terminal.say(next);
    Ok(())
}

fn facts(manifest: &Manifest) -> serde_json::Value {
    json!({
        "made_at": manifest.made_at.to_string(),
        "mails": manifest.mails,
        "octets": manifest.octets(),
        "files": manifest.files.len(),
        "problems": manifest.problems,
    })
}

fn mails(manifest: &Manifest) -> String {
    count(manifest.mails, "mail")
}

fn files(manifest: &Manifest) -> String {
    count(
        u64::try_from(manifest.files.len()).unwrap_or(u64::MAX),
        "file",
    )
}

fn count(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// Says now and then how far long work is.
struct Progress {
    what: &'static str,
    told: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        let told = Instant::now();
        Self { what, told }
    }

    fn tell(&mut self, done: u64, total: u64, terminal: &mut Terminal<'_>) {
        if self.told.elapsed() < TOLD_EVERY {
            return;
        }
        self.told = Instant::now();
        let percent = done
            .saturating_mul(100)
            .checked_div(total)
            .unwrap_or(100)
            .min(100);
        terminal.say(format_args!(
            "{} of {} MiB {} ({percent} %)",
            done / MIB,
            total / MIB,
            self.what
        ));
    }
}
