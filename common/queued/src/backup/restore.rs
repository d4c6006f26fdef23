//! From a backup to a folder that a queue starts on.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use postroad_journal::complete_segment;

use super::{
    manifest::{ListedFile, MANIFEST, Manifest},
    marker,
    writer::new_file,
};

const BUFFER: usize = 256 << 10;
const FORMAT: &str = "FORMAT";
const LOCK: &str = "LOCK";

/// Why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Operator: there is something in the folder.
    #[error("{} is not empty; name a new folder, or one that is empty", .0.display())]
    NotEmpty(PathBuf),
    /// Operator: a queue runs on the folder, or another restore.
    #[error("{} is in use by another process; stop the queue first", .0.display())]
    Locked(PathBuf),
    /// Operator or disk: the list of the backup's files cannot be used.
    #[error("the manifest {} cannot be used: {why}", path.display())]
    Manifest {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Disk: a file is not what the manifest says.
    #[error("{} {why}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Resource: the operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Names the act and the path of a failed call.
pub(super) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io {
        doing,
        path,
        source,
    }
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup holds.
    pub manifest: Manifest,
    /// Whether all its mail will be held.
    pub held: bool,
}

/// Checks every file of the backup, then copies all to the folder `to`, which must not be there or be empty, and syncs it.
/// Until the last step no queue starts on that folder. `progress` is told octets done and octets in all: each is read twice.
pub fn restore(
    from: &Path,
    to: &Path,
    release: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, BackupError> {
    let manifest = read_manifest(from)?;
    let all = manifest.octets().saturating_mul(2);
    let mut done = 0;
    let mut told = |octets: u64| {
        done += octets;
        progress(done, all);
    };
    for listed in &manifest.files {
        check_file(from, listed, &mut io::sink(), &mut told)?;
    }
    let (_lock, owner) = empty_folder(to)?;
    let placed = place(from, to, &manifest, release, &mut told);
    if let Err(error) = placed {
        // Nothing half-way stays: the folder was empty, so all in it is ours.
        let _ = clear(to);
        return Err(error);
    }
    if let Some((uid, gid)) = owner {
        give_to(to, uid, gid)?;
    }
    Ok(Restored {
        manifest,
        held: !release,
    })
}

fn read_manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BackupError::Manifest {
            path: path.clone(),
            why: "it is not there: this is no backup, or one that was not finished".to_owned(),
        },
        _ => at("read", &path)(error),
    })?;
    let text = String::from_utf8_lossy(&text);
    let manifest = Manifest::parse(&text).map_err(|bad| BackupError::Manifest {
        path: path.clone(),
        why: bad.to_string(),
    })?;
    if !manifest.files.iter().any(|file| file.path == FORMAT) {
        return Err(BackupError::Manifest {
            path,
            why: "it lists no FORMAT file".to_owned(),
        });
    }
    Ok(manifest)
}

/// Copies a file, and compares it with what the manifest says.
fn check_file(
    from: &Path,
    listed: &ListedFile,
    to: &mut dyn io::Write,
    told: &mut dyn FnMut(u64),
) -> Result<(), BackupError> {
    let path = from.join(&listed.path);
    let wrong = |why: &str| BackupError::File {
        path: path.clone(),
        why: why.to_owned(),
    };
    let mut file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong("is missing in the backup"),
        _ => at("open", &path)(error),
    })?;
    let (mut len, mut crc, mut buffer) = (0_u64, 0, vec![0; BUFFER]);
    loop {
        let read = file.read(&mut buffer).map_err(at("read", &path))?;
        let Some(octets) = buffer.get(..read).filter(|octets| !octets.is_empty()) else {
            break;
        };
        crc = crc32c::crc32c_append(crc, octets);
        len += u64::try_from(read).unwrap_or(u64::MAX);
        to.write_all(octets).map_err(at("copy", &path))?;
        told(u64::try_from(read).unwrap_or(u64::MAX));
    }
    if len != listed.len {
        return Err(wrong(&format!(
            "has {len} octets, and the manifest says {}",
            listed.len
        )));
    }
    if crc != listed.crc {
        return Err(wrong("is damaged: its checksum is not the manifest's"));
    }
    Ok(())
}

type Owner = Option<(u32, u32)>;

/// Locks the folder as a queue does, so that none starts on it meanwhile. Tells whose it is, if it was there before.
fn empty_folder(to: &Path) -> Result<(File, Owner), BackupError> {
    let owner = fs::metadata(to).ok().map(|is| (is.uid(), is.gid()));
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(to).map_err(at("create", to))?;
    let entries = fs::read_dir(to).map_err(at("read", to))?;
    let (mut lock_is_there, mut others) = (false, false);
    for entry in entries {
        let name = entry.map_err(at("read", to))?.file_name();
        lock_is_there |= name == LOCK;
        others |= name != LOCK;
    }
    let path = to.join(LOCK);
    if lock_is_there {
        let lock = File::open(&path).map_err(at("open", &path))?;
        if matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return Err(BackupError::Locked(to.to_owned()));
        }
    }
    if others || lock_is_there {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let lock = new_file(&path).map_err(at("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok((lock, owner)),
        Err(_) => Err(BackupError::Locked(to.to_owned())),
    }
}

/// FORMAT comes last: segments without it are opened by no queue.
fn place(
    from: &Path,
    to: &Path,
    manifest: &Manifest,
    release: bool,
    told: &mut dyn FnMut(u64),
) -> Result<(), BackupError> {
    let segments = to.join("segments");
    make_folder(&segments)?;
    let (format, others): (Vec<_>, Vec<_>) = manifest
        .files
        .iter()
        .partition(|listed| listed.path == FORMAT);
    for listed in others {
        copy(from, to, listed, told)?;
    }
    let marker = to.join(marker::NAME);
    write_synced(&marker, marker::text(manifest, release).as_bytes())?;
    sync_folders(to)?;
    for listed in format {
        let draft = to.join("FORMAT.new");
        let mut octets = Vec::new();
        check_file(from, listed, &mut octets, told)?;
        write_synced(&draft, &octets)?;
        fs::rename(&draft, to.join(FORMAT)).map_err(at("name", &to.join(FORMAT)))?;
    }
    sync_folder(to)?;
    to.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), sync_folder)
}

fn copy(
    from: &Path,
    to: &Path,
    listed: &ListedFile,
    told: &mut dyn FnMut(u64),
) -> Result<(), BackupError> {
    let path = to.join(&listed.path);
    path.parent().map_or(Ok(()), make_folder)?;
    let mut file = new_file(&path).map_err(at("create", &path))?;
    check_file(from, listed, &mut file, told)?;
    file.sync_all().map_err(at("sync", &path))?;
    if path.extension().is_some_and(|end| end == "seg") {
        complete_segment(&path).map_err(|error| BackupError::File {
            path,
            why: format!("cannot be made a segment again: {error}"),
        })?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), BackupError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(path).map_err(at("create", path))
}

fn write_synced(path: &Path, octets: &[u8]) -> Result<(), BackupError> {
    new_file(path)
        .and_then(|mut file| {
            file.write_all(octets)?;
            file.sync_all()
        })
        .map_err(at("write", path))
}

fn sync_folder(path: &Path) -> Result<(), BackupError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(at("sync", path))
}

/// The folder and all in it, and its name in its parent.
pub(super) fn sync_folders(path: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(path).map_err(at("read", path))? {
        let entry = entry.map_err(at("read", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(path)
}

/// The folder belonged to the user of the queue before, who must be able to write to what root put into it.
fn give_to(path: &Path, uid: u32, gid: u32) -> Result<(), BackupError> {
    let is = fs::symlink_metadata(path).map_err(at("read", path))?;
    if (is.uid(), is.gid()) != (uid, gid) {
        chown(path, Some(uid), Some(gid)).map_err(at("change the owner of", path))?;
    }
    if is.is_dir() {
        for entry in fs::read_dir(path).map_err(at("read", path))? {
            give_to(&entry.map_err(at("read", path))?.path(), uid, gid)?;
        }
    }
    Ok(())
}

/// Empties a folder that was empty when we began.
pub(super) fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(())
}
