//! The folder of a journal: names, lock, format, space.
use crate::{
    error::{JournalError, Result, failed},
    format::VERSION,
    record::SegmentNumber,
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What we may still use.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// Room on the disk that holds `path`.
pub fn free_space(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync folder", path))
}

/// Creates a folder durably if it is not there, and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    above.map_or(Ok(()), make_folder)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create folder", path)(error));
        }
        _ => {}
    }
    sync_folder(above.unwrap_or(Path::new(".")))
}

/// A journal's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Creates what is not there yet and takes the lock, which lasts as long as the file that is returned.
    pub(crate) fn open(root: &Path) -> Result<(Self, File)> {
        make_folder(root)?;
        let lock = lock(root)?;
        let folder = Self {
            root: root.to_owned(),
        };
        make_folder(&folder.quarantine())?;
        folder.check_format()?;
        make_folder(&folder.segments())?;
        Ok((folder, lock))
    }

    /// A folder that is there already. Takes the lock, creates and changes nothing.
    pub(crate) fn look(root: &Path) -> Result<(Self, Option<File>)> {
        let folder = Self {
            root: root.to_owned(),
        };
        if !folder.segments().is_dir() {
            return Err(JournalError::Format {
                folder: folder.root,
                found: "no folder segments/".to_owned(),
            });
        }
        let lock = look_lock(root)?;
        Ok((folder, lock))
    }

    /// A folder that this process has open elsewhere.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What FORMAT says, as far as it can be read.
    pub(crate) fn format(&self) -> String {
        let bytes = fs::read(self.root.join("FORMAT")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(crate) fn segment(&self, number: SegmentNumber) -> PathBuf {
        self.segments().join(format!("{number}.seg"))
    }

    fn check_format(&self) -> Result<()> {
        let path = self.root.join("FORMAT");
        let wanted = format!("postroad-journal {VERSION}\n");
        let found = match fs::read_to_string(&path) {
            Ok(found) => found,
            // The file comes before the first segment, so segments without it are not ours to touch.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.segments().exists() => {
                return self.write_format(&path, &wanted);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => "no FORMAT file".to_owned(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        if found == wanted {
            return Ok(());
        }
        Err(JournalError::Format {
            folder: self.root.clone(),
            found: found.trim().to_owned(),
        })
    }

    fn write_format(&self, path: &Path, text: &str) -> Result<()> {
        let draft = path.with_extension("new");
        File::create(&draft)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&draft, path))
            .map_err(failed("write", path))?;
        sync_folder(&self.root)
    }
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("LOCK");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    try_lock(root, &path, &file)?;
    file.set_len(0)
        .and_then(|()| file.write_all(format!("process {}\n", std::process::id()).as_bytes()))
        .map_err(failed("write", &path))?;
    Ok(file)
}

/// The lock of a folder that may lie on a disk nobody can write to. None: there is no lock file, so nobody has it open.
fn look_lock(root: &Path) -> Result<Option<File>> {
    let path = root.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    try_lock(root, &path, &file)?;
    Ok(Some(file))
}

fn try_lock(root: &Path, path: &Path, mut file: &File) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder's name is a courtesy; that there is one is what matters.
            let _ = Read::by_ref(&mut file)
                .take(256)
                .read_to_string(&mut holder);
            Err(JournalError::Locked {
                folder: root.to_owned(),
                holder: holder.trim().to_owned(),
            })
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_and_not_more_than_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let space = free_space(folder.path()).unwrap();
        assert!(0 < space.free && space.free <= space.total);
        assert!(free_space(&folder.path().join("missing")).is_err());
    }
}
