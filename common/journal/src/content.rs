//! Content too large for a record: a file of its own, durable before the record that names it is offered.
//!
//! Whoever receives the content writes it, so many large mails are synced side by side and the committer
//! stays short. A file that no record names is an orphan: the sweep at start removes it.
use crate::{
    Entropy,
    error::{JournalError, Result, failed},
    folder::{make_folder, sync_folder},
};
use bytes::Bytes;
use crc32c::crc32c_append;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

const CHUNK: u32 = 256 << 10;

/// The name of a content file: random, and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentNonce(pub [u8; 16]);

impl fmt::Display for ContentNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What a record says of its content file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentRef {
    /// Which file.
    pub nonce: ContentNonce,
    /// Its length.
    pub len: u64,
    /// CRC32C of all of it.
    pub crc: u32,
}

/// The folder of content files. Cheap to clone; every method may be called from any thread.
#[derive(Clone)]
pub struct ContentStore {
    folder: PathBuf,
    entropy: Entropy,
}

impl fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentStore")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl ContentStore {
    /// Opens or creates `content/` in a queue folder.
    pub fn open(queue: &Path, entropy: Entropy) -> Result<Self> {
        let folder = queue.join("content");
        make_folder(queue)?;
        make_folder(&folder)?;
        Ok(Self { folder, entropy })
    }

    /// The files of a queue folder that is only looked at: nothing is created.
    pub fn look(queue: &Path) -> Self {
        Self {
            folder: queue.join("content"),
            entropy: std::sync::Arc::new(|_| {}),
        }
    }

    /// Begins a new file under a fresh name.
    pub fn create(&self) -> Result<ContentWriter> {
        let mut nonce = [0; 16];
        (self.entropy)(&mut nonce);
        let nonce = ContentNonce(nonce);
        let path = self.path(nonce);
        // `create_new` (O_EXCL): should the name be taken after all, the mail that has it stays whole.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(failed("create", &path))?;
        let unfinished = Unfinished { path, keep: false };
        Ok(ContentWriter {
            file,
            unfinished,
            folder: self.folder.clone(),
            so_far: ContentRef {
                nonce,
                len: 0,
                crc: 0,
            },
        })
    }

    /// Opens a file for reading. `Gone` if it was removed, `DamagedContent` if its length is another.
    pub fn reader(&self, content: &ContentRef) -> Result<ContentReader> {
        let path = self.path(content.nonce);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Gone);
            }
            Err(error) => return Err(failed("open", &path)(error)),
        };
        if file.metadata().map_err(failed("read", &path))?.len() != content.len {
            return Err(JournalError::DamagedContent(path));
        }
        Ok(ContentReader {
            file,
            path,
            content: *content,
        })
    }

    /// Removes a file; no error if it is gone already. Not synced: after a power cut the sweep at start
    /// meets it again.
    pub fn remove(&self, nonce: ContentNonce) -> Result<()> {
        let path = self.path(nonce);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes removals durable.
    pub fn sync(&self) -> Result<()> {
        sync_folder(&self.folder)
    }

    /// Moves a file to `quarantine/`, for a person to look at.
    pub fn set_aside(&self, nonce: ContentNonce) -> Result<()> {
        let aside = self.folder.with_file_name("quarantine");
        make_folder(&aside)?;
        let path = self.path(nonce);
        let moved = fs::rename(&path, aside.join(format!("content-{nonce}")));
        moved.map_err(failed("set aside", &path))
    }

    /// Takes a file over from another folder on the same disk, under the same name; durable when this returns. No error if
    /// that was done before. `since` becomes its time.
    pub fn adopt(&self, from: &Self, nonce: ContentNonce, since: SystemTime) -> Result<()> {
        let (old, new) = (from.path(nonce), self.path(nonce));
        match fs::rename(&old, &new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && new.exists() => {}
            outcome => outcome.map_err(failed("move", &old))?,
        }
        let file = File::open(&new).map_err(failed("open", &new))?;
        file.set_modified(since).map_err(failed("date", &new))?;
        sync_folder(&self.folder)?;
        sync_folder(&from.folder)
    }

    /// All files with their lengths and times.
    pub fn ages(&self) -> Result<Vec<(ContentNonce, u64, SystemTime)>> {
        let mut found = Vec::new();
        for nonce in self.list()? {
            let path = self.path(nonce);
            let facts = path.metadata().map_err(failed("read", &path))?;
            let time = facts.modified().map_err(failed("read", &path))?;
            found.push((nonce, facts.len(), time));
        }
        Ok(found)
    }

    /// All files, finished or not: for the sweep at start, before anyone writes.
    pub fn list(&self) -> Result<Vec<ContentNonce>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("read folder", &self.folder))? {
            let name = entry
                .map_err(failed("read folder", &self.folder))?
                .file_name();
            let name = name.to_str().filter(|name| name.len() == 32);
            let nonce = name.and_then(|name| u128::from_str_radix(name, 16).ok());
            found.extend(nonce.map(|nonce| ContentNonce(nonce.to_be_bytes())));
        }
        Ok(found)
    }

    fn path(&self, nonce: ContentNonce) -> PathBuf {
        self.folder.join(nonce.to_string())
    }
}

/// A content file being written. Dropped before `finish`, it removes the file.
#[derive(Debug)]
pub struct ContentWriter {
    file: File,
    unfinished: Unfinished,
    folder: PathBuf,
    so_far: ContentRef,
}

impl ContentWriter {
    /// Appends a chunk.
    pub fn write(&mut self, chunk: &[u8]) -> Result<()> {
        self.file
            .write_all(chunk)
            .map_err(failed("write", &self.unfinished.path))?;
        self.so_far.crc = crc32c_append(self.so_far.crc, chunk);
        self.so_far.len += chunk.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.so_far.len
    }

    /// Syncs file and folder. Only what this returns may be named in a record.
    pub fn finish(mut self) -> Result<ContentRef> {
        self.file
            .sync_all()
            .map_err(failed("sync", &self.unfinished.path))?;
        sync_folder(&self.folder)?;
        self.unfinished.keep = true;
        Ok(self.so_far)
    }
}

#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    keep: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.keep {
            // Should it fail, the sweep at start finds the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a content file. Once open, it stays readable even when the file is removed.
#[derive(Debug)]
pub struct ContentReader {
    file: File,
    path: PathBuf,
    content: ContentRef,
}

impl ContentReader {
    /// What is being read.
    pub fn content(&self) -> &ContentRef {
        &self.content
    }

    /// A part of the content, cut to what there is. Parts are not checked; `verify` checks the whole.
    pub fn read_range(&self, range: Range<u64>) -> Result<Bytes> {
        let end = range.end.min(self.content.len);
        let len = end.saturating_sub(range.start);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = range.start.saturating_add(bytes.len() as u64);
            // Into memory that nobody fills with zeros first: at 5 MiB that was 2 % of all processor time.
            match pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(JournalError::DamagedContent(self.path.clone())),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed("read", &self.path)(error.into())),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    /// Reads all of it and compares the checksum.
    pub fn verify(&self) -> Result<()> {
        let (mut crc, mut at) = (0, 0);
        while at < self.content.len {
            let chunk = self.read_range(at..at.saturating_add(CHUNK.into()))?;
            crc = crc32c_append(crc, &chunk);
            at += chunk.len() as u64;
        }
        if crc == self.content.crc {
            Ok(())
        } else {
            Err(JournalError::DamagedContent(self.path.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    };

    fn store(folder: &Path) -> ContentStore {
        let next = AtomicU8::new(1);
        let entropy: Entropy =
            Arc::new(move |bytes| bytes.fill(next.fetch_add(1, Ordering::Relaxed)));
        ContentStore::open(folder, entropy).unwrap()
    }

    #[test]
    fn content_comes_back_in_ranges_and_removed_content_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut writer = store.create().unwrap();
        writer.write(b"hello ").unwrap();
        writer.write(b"world").unwrap();
        let content = writer.finish().unwrap();
        assert_eq!(
            (content.len, content.crc),
            (11, crc32c::crc32c(b"hello world"))
        );
        assert_eq!(store.list().unwrap(), [content.nonce]);
        let reader = store.reader(&content).unwrap();
        reader.verify().unwrap();
        assert_eq!(reader.read_range(6..99).unwrap(), "world");
        assert_eq!(reader.read_range(20..30).unwrap(), "");
        store.remove(content.nonce).unwrap();
        store.remove(content.nonce).unwrap();
        assert_eq!(
            reader.read_range(0..5).unwrap(),
            "hello",
            "an open reader keeps the file"
        );
        assert!(matches!(store.reader(&content), Err(JournalError::Gone)));
    }

    #[test]
    fn what_is_set_aside_is_kept_for_a_person() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut writer = store.create().unwrap();
        writer.write(b"orphan").unwrap();
        let nonce = writer.finish().unwrap().nonce;
        store.set_aside(nonce).unwrap();
        assert_eq!(store.list().unwrap(), []);
        let kept = folder.path().join(format!("quarantine/content-{nonce}"));
        assert_eq!(fs::read(kept).unwrap(), b"orphan");
    }

    #[test]
    fn an_unfinished_file_goes_with_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut writer = store.create().unwrap();
        writer.write(b"half").unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        drop(writer);
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn a_name_that_is_taken_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            ContentStore::open(folder.path(), Arc::new(|bytes: &mut [u8]| bytes.fill(7))).unwrap();
        let mut first = store.create().unwrap();
        first.write(b"first").unwrap();
        let content = first.finish().unwrap();
        assert!(store.create().is_err());
        store.reader(&content).unwrap().verify().unwrap();
    }

    #[test]
    fn another_length_or_another_byte_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let mut writer = store.create().unwrap();
        writer.write(b"hello").unwrap();
        let content = writer.finish().unwrap();
        let path = folder
            .path()
            .join("content")
            .join(content.nonce.to_string());
        fs::write(&path, b"hallo").unwrap();
        assert!(matches!(
            store.reader(&content).unwrap().verify(),
            Err(JournalError::DamagedContent(_))
        ));
        let reader = store.reader(&content).unwrap();
        fs::write(&path, b"hell").unwrap();
        assert_eq!(reader.read_range(1..4).unwrap(), "ell");
        assert!(matches!(
            reader.read_range(0..5),
            Err(JournalError::DamagedContent(_))
        ));
        assert!(matches!(
            store.reader(&content),
            Err(JournalError::DamagedContent(_))
        ));
    }
}
