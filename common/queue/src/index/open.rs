//! Opening sled, which may panic on a damaged folder.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use postroad_envelope::Timestamp;

use super::{
    Packed, Trees,
    renewal::{NEW, OLD},
};
use crate::QueueError;

/// Longer than any sound index was seen to take; a million mails take seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the threads of an index closed by this process may hold on to it: on a busy machine, seconds. Whoever comes here
/// holds the folder, so nobody else has it open.
const CLOSING: Duration = Duration::from_secs(60);
/// Of what sled says where segments are not as long as it is told.
const OTHER_SEGMENTS: &str = "change the io buffer size";
/// sled writes a segment at once, from a buffer as large of which it has up to sixteen. What is longer than a quarter of it
/// sled does not make durable: a leaf has at most 16 values of at most 4 KiB.
pub(super) const SEGMENT_SIZE: usize = 1 << 20;

pub struct Opened {
    pub trees: Box<Trees>,
    pub packed: Box<Packed>,
    pub db_file: File,
    pub former: Former,
    pub folder: PathBuf,
    pub cache_capacity: u64,
}

/// What became of the index that was there.
#[derive(Debug, PartialEq, Eq)]
pub enum Former {
    /// It is this one, or there was none.
    Kept,
    /// It was of another release's format, and is gone.
    Outdated,
    /// It could not be opened, and lies here now.
    Quarantined(PathBuf),
}

/// What lies in the folder of the index.
enum Found {
    Sound(Box<Trees>),
    OtherFormat,
    Damaged,
}

/// Opens `folder/index`; one that does not open goes to `folder/quarantine`, one of another format is removed, and an
/// empty one takes its place.
pub fn open(folder: &Path, cache_capacity: u64, now: Timestamp) -> Result<Opened, QueueError> {
    open_within(folder, cache_capacity, now, CLOSING)
}

/// The same; an index that is in use must be let go in this time.
pub(super) fn open_within(
    folder: &Path,
    cache_capacity: u64,
    now: Timestamp,
    closing: Duration,
) -> Result<Opened, QueueError> {
    let index = folder.join("index");
    let io_error = |doing| move |source| QueueError::Io { doing, source };
    fs::create_dir_all(folder).map_err(io_error("create the queue folder"))?;
    refuse_if_in_use(&index.join("db"), closing)?;
    // Of a copy that was cut off.
    for left in [NEW, OLD] {
        remove_if_there(&folder.join(left)).map_err(io_error("remove an unfinished index"))?;
    }
    let mut former = Former::Kept;
    let trees = match guarded(&index, cache_capacity)? {
        Found::Sound(trees) => trees,
        Found::OtherFormat => {
            former = Former::Outdated;
            // Under another name first: half an index must never be taken for one.
            let old = folder.join(OLD);
            remove_if_there(&old).map_err(io_error("remove an old index"))?;
            fs::rename(&index, &old).map_err(io_error("move the old index away"))?;
            sync_folder(folder).map_err(io_error("sync the queue folder"))?;
            remove_if_there(&old).map_err(io_error("remove the old index"))?;
            Trees::open(&index, cache_capacity, SEGMENT_SIZE)?
        }
        Found::Damaged => {
            let aside = folder.join("quarantine");
            fs::create_dir_all(&aside).map_err(io_error("create the quarantine folder"))?;
            let aside = free_name(&aside, now);
            fs::rename(&index, &aside).map_err(io_error("move the index to quarantine"))?;
            sync_folder(folder).map_err(io_error("sync the queue folder"))?;
            former = Former::Quarantined(aside);
            Trees::open(&index, cache_capacity, SEGMENT_SIZE)?
        }
    };
    // An index that was made just now gets its format here.
    trees.is_of_this_format();
    let db_file = File::open(index.join("db")).map_err(io_error("open the index file"))?;
    // The file itself must survive before anything says that it holds something.
    sync_folder(&index).map_err(io_error("sync the index folder"))?;
    sync_folder(folder).map_err(io_error("sync the queue folder"))?;
    Ok(Opened {
        packed: Box::new(Packed::of(&trees.ended)?),
        trees,
        db_file,
        former,
        folder: folder.to_owned(),
        cache_capacity,
    })
}

pub(super) fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// An index that someone has open is sound, and not to be moved away under them. One that this process has just closed
/// is let go by sled's threads a moment later.
fn refuse_if_in_use(db: &Path, closing: Duration) -> Result<(), QueueError> {
    const LOOK_AGAIN: Duration = Duration::from_millis(20);
    let Ok(file) = File::open(db) else {
        return Ok(());
    };
    let mut waited = Duration::ZERO;
    while let Err(error) = file.try_lock() {
        if waited >= closing {
            return Err(QueueError::Io {
                doing: "lock the index",
                source: error.into(),
            });
        }
        thread::sleep(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
    Ok(())
}

/// What [`look`] found.
pub enum Looked {
    Opened(super::Index),
    None,
    Broken(String),
}

/// Opens `folder/index` if it is there, and leaves one that does not open where it is.
pub fn look(folder: &Path, cache_capacity: u64) -> Result<Looked, QueueError> {
    let index = folder.join("index");
    if !index.exists() {
        return Ok(Looked::None);
    }
    refuse_if_in_use(&index.join("db"), CLOSING)?;
    let trees = match guarded(&index, cache_capacity)? {
        Found::Sound(trees) => trees,
        Found::OtherFormat => return Ok(Looked::None),
        Found::Damaged => return Ok(Looked::Broken("it is damaged".to_owned())),
    };
    let db_file = File::open(index.join("db")).map_err(|source| QueueError::Io {
        doing: "open the index file",
        source,
    })?;
    Ok(Looked::Opened(super::Index {
        packed: Box::new(Packed::of(&trees.ended)?),
        trees,
        folder: folder.to_owned(),
        cache_capacity,
        db_file: Mutex::new(Arc::new(db_file)),
        retire: false,
        usage: Mutex::default(),
    }))
}

/// Damaged is also what panics or does not come back.
fn guarded(index: &Path, cache_capacity: u64) -> Result<Found, QueueError> {
    let (done, opened) = mpsc::sync_channel(1);
    let path = index.to_owned();
    let open = move || {
        let trees = Trees::open(&path, cache_capacity, SEGMENT_SIZE);
        let found = trees.map(|trees| match trees.is_of_this_format() {
            Some(true) => Found::Sound(trees),
            Some(false) => Found::OtherFormat,
            None => Found::Damaged,
        });
        let _ = done.send(found);
    };
    let opener = thread::Builder::new().name("index-open".to_owned());
    opener.spawn(open).map_err(|source| QueueError::Io {
        doing: "start a thread",
        source,
    })?;
    // A panic drops the sender, which ends the wait too.
    let why = match opened.recv_timeout(PATIENCE) {
        Ok(Ok(Found::Damaged)) => "it has no format".to_owned(),
        Ok(Ok(found)) => return Ok(found),
        // Another release had other segments.
        Ok(Err(sled::Error::Unsupported(why))) if why.contains(OTHER_SEGMENTS) => {
            return Ok(Found::OtherFormat);
        }
        Ok(Err(sled::Error::Io(error))) if is_of_the_disk(&error) => {
            return Err(sled::Error::Io(error).into());
        }
        Ok(Err(error)) => error.to_string(),
        Err(mpsc::RecvTimeoutError::Disconnected) => "a panic".to_owned(),
        Err(mpsc::RecvTimeoutError::Timeout) => "no answer".to_owned(),
    };
    tracing::error!(event = "corruption", error = why, "the index does not open");
    Ok(Found::Damaged)
}

/// Errors that a new index would meet too.
fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | StorageFull
    )
}

fn free_name(aside: &Path, now: Timestamp) -> PathBuf {
    let first = aside.join(format!("index-{}", now.as_millis()));
    let others = (1..).map(|n: u32| aside.join(format!("index-{}-{n}", now.as_millis())));
    std::iter::once(first)
        .chain(others)
        .find(|path| !path.exists())
        .unwrap_or_default()
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
