//! The folder of a journal: names, lock, format, space.
use crate::{
    error::{JournalError, Result, failed},
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

/// Which formats of what lies in its records the owner of a journal knows. The journal writes the same in all of them; it
/// keeps the number in FORMAT, so that no release meets what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// The oldest that can be read.
    pub oldest: u32,
    /// The newest; that of a new folder.
    pub newest: u32,
}

impl Default for Formats {
    /// The first, which is all there is.
    fn default() -> Self {
        Self {
            oldest: 1,
            newest: 1,
        }
    }
}

impl Formats {
    /// The number that FORMAT names, if it is known.
    fn read(self, folder: &Path, text: &str) -> Result<u32> {
        let named = text.strip_prefix("postroad-journal ");
        match named.and_then(|number| number.parse::<u32>().ok()) {
            Some(format) if (self.oldest..=self.newest).contains(&format) => Ok(format),
            Some(format) if format > self.newest => Err(JournalError::LaterFormat {
                folder: folder.to_owned(),
                format,
                newest: self.newest,
            }),
            _ => Err(JournalError::Format {
                folder: folder.to_owned(),
                found: text.to_owned(),
            }),
        }
    }
}

fn text_of(format: u32) -> String {
    format!("postroad-journal {format}\n")
}

/// A journal's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Creates what is not there yet and takes the lock, which lasts as long as the file that is returned. Also tells the
    /// format.
    pub(crate) fn open(root: &Path, formats: Formats) -> Result<(Self, File, u32)> {
        make_folder(root)?;
        let lock = lock(root)?;
        let folder = Self {
            root: root.to_owned(),
        };
        make_folder(&folder.quarantine())?;
        let format = folder.check_format(formats)?;
        make_folder(&folder.segments())?;
        Ok((folder, lock, format))
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

    /// The format that FORMAT names; the inner error says that it names none.
    pub(crate) fn format(&self, formats: Formats) -> Result<std::result::Result<u32, String>> {
        let bytes = fs::read(self.root.join("FORMAT")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        match formats.read(&self.root, text.trim()) {
            Ok(format) => Ok(Ok(format)),
            Err(error @ JournalError::LaterFormat { .. }) => Err(error),
            Err(_) => Ok(Err(format!(
                "FORMAT does not say what it should: {:?}",
                text.trim()
            ))),
        }
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

    fn check_format(&self, formats: Formats) -> Result<u32> {
        let path = self.root.join("FORMAT");
        let found = match fs::read_to_string(&path) {
            Ok(found) => found,
            // The file comes before the first segment, so segments without it are not ours to touch.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.segments().exists() => {
                self.write_format(formats.newest)?;
                return Ok(formats.newest);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => "no FORMAT file".to_owned(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        formats.read(&self.root, found.trim())
    }

    /// Durable when it returns; a crash leaves the old one or the new one.
    pub(crate) fn write_format(&self, format: u32) -> Result<()> {
        let (path, text) = (self.root.join("FORMAT"), text_of(format));
        let draft = path.with_extension("new");
        File::create(&draft)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(failed("write", &path))?;
        sync_folder(&self.root)
    }

    /// The lock, for who found no file to lock before.
    pub(crate) fn make_lock(&self) -> Result<File> {
        lock(&self.root)
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
