//! Reports of TLS at work (RFC 8460): each connection is counted, in a file for each day in UTC, and on the next day whoever wants
//! to hear of it is told by mail.
//!
//! The file of a day is written every minute and at the end; what a crash loses of it is a minute of counting, never mail.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use postroad_tlsrpt::{Day, Failure, PolicyText};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

mod sending;
mod words;

pub use self::sending::Sending;

/// How often the file is written, and yesterday's looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Files of days are kept so long, for people who look.
const KEEP_DAYS: i32 = 8;
/// A day that could not be told by then is not told.
const TELL_DAYS: i32 = 2;
/// A file that is larger was not written by us.
const MAX_FILE: u64 = 256 << 20;

/// What is counted. Clones share it.
#[derive(Clone)]
pub struct Reports(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    today: Mutex<Today>,
}

struct Today {
    date: Date,
    day: Day,
    changed: bool,
}

/// The date in UTC.
fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

impl Reports {
    /// Goes on with what is counted of today in a folder, which is made when there is something to write; blocks.
    pub fn open(folder: &Path) -> Self {
        let (folder, date) = (folder.join("tlsrpt"), today());
        let day = read(&file_of(&folder, date)).unwrap_or_default();
        Self(Arc::new(Shared {
            folder,
            today: Mutex::new(Today {
                date,
                day,
                changed: false,
            }),
        }))
    }

    /// Counts one connection to a mail host of a domain.
    pub fn count(&self, domain: &str, policy: &PolicyText, failure: Option<Failure>) {
        let mut today = self.today();
        today.day.count(domain, policy, failure);
        today.changed = true;
    }

    /// Keeps the files and sends reports, until `shutdown`.
    pub async fn run(self, sending: Sending, shutdown: CancellationToken) {
        let mut told = BTreeMap::new();
        loop {
            let folder = self.0.folder.clone();
            let days = spawn_blocking(move || earlier_days(&folder, today())).await;
            for date in days.unwrap_or_default() {
                if sending.is_time(date) {
                    self.tell(date, &sending, told.entry(date).or_default())
                        .await;
                }
            }
            told.retain(|date, _| days_since(*date) <= TELL_DAYS);
            let ended = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            self.keep().await;
            if ended {
                return;
            }
        }
    }

    /// Sends the reports of a day that were not sent yet.
    async fn tell(&self, date: Date, sending: &Sending, told: &mut Vec<String>) {
        let file = file_of(&self.0.folder, date);
        let from = file.clone();
        let Ok(Some(day)) = spawn_blocking(move || read(&from)).await else {
            return;
        };
        let mut all = true;
        for domain in day.domains() {
            if told.iter().any(|known| known == domain) {
                continue;
            }
            match sending.tell(domain, date, &day).await {
                true => told.push(domain.to_owned()),
                false => all = false,
            }
        }
        if all || days_since(date) >= TELL_DAYS {
            let done = file.with_extension("sent");
            let _ = spawn_blocking(move || fs::rename(file, done)).await;
        }
    }

    /// Writes what was counted since; over midnight the day before is finished and another begins.
    async fn keep(&self) {
        let (folder, now) = (self.0.folder.clone(), today());
        let (date, day) = {
            let mut today = self.today();
            if !today.changed && today.date == now {
                return;
            }
            let date = std::mem::replace(&mut today.date, now);
            let changed = std::mem::take(&mut today.changed);
            let day = match date == now {
                true => today.day.clone(),
                false => std::mem::take(&mut today.day),
            };
            if !changed {
                return;
            }
            (date, day)
        };
        let told = folder.clone();
        let written = spawn_blocking(move || write(&folder, date, &day)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(
                event = "fault",
                path = %told.display(),
                "what is to be reported of TLS cannot be kept: {error}; let this user write there, or write `enabled = false` into [mta.outbound.tls_reports]"
            );
        }
    }

    fn today(&self) -> MutexGuard<'_, Today> {
        self.0.today.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Days before this one that wait to be told; what is older than anybody looks at is removed. Blocks.
fn earlier_days(folder: &Path, now: Date) -> Vec<Date> {
    let mut days = Vec::new();
    let Ok(files) = fs::read_dir(folder) else {
        return days;
    };
    for file in files.flatten() {
        let path = file.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let Some(date) = stem.and_then(|stem| stem.parse::<Date>().ok()) else {
            continue;
        };
        if days_since(date) > KEEP_DAYS {
            let _ = fs::remove_file(&path);
        } else if date < now && path.extension().is_some_and(|kind| kind == "json") {
            days.push(date);
        }
    }
    days.sort_unstable();
    days
}

fn days_since(date: Date) -> i32 {
    date.until(today()).map_or(i32::MAX, |span| span.get_days())
}

fn file_of(folder: &Path, date: Date) -> PathBuf {
    folder.join(format!("{date}.json"))
}

fn read(file: &Path) -> Option<Day> {
    let small = fs::metadata(file).is_ok_and(|facts| facts.len() <= MAX_FILE);
    let text = small.then(|| fs::read(file).ok()).flatten()?;
    serde_json::from_slice(&text).ok()
}

/// All of it or nothing.
fn write(folder: &Path, date: Date, day: &Day) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (file, new) = (file_of(folder, date), folder.join("new~"));
    fs::write(&new, serde_json::to_vec(day)?)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(new, file)
}
