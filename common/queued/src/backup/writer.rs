//! The receiving side: a new folder, checked against the manifest.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    manifest::{ListedFile, MANIFEST, Manifest, is_sound},
    restore::{BackupError, at, clear, sync_folders},
};

/// A manifest is not longer: some millions of files.
const LONGEST_MANIFEST: usize = 256 << 20;

/// Writes a backup into a folder of its own.
#[derive(Debug)]
pub struct BackupWriter {
    folder: PathBuf,
    current: Option<Current>,
    files: BTreeMap<String, ListedFile>,
    manifest: Vec<u8>,
}

#[derive(Debug)]
struct Current {
    file: File,
    listed: ListedFile,
}

/// A backup that is whole and on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What is in it.
    pub manifest: Manifest,
}

impl BackupWriter {
    /// Creates the folder, which must not be there, or be empty.
    pub fn create(folder: &Path) -> Result<Self, BackupError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(at("create", folder))?;
        let mut entries = fs::read_dir(folder).map_err(at("read", folder))?;
        if entries.next().is_some() {
            return Err(BackupError::NotEmpty(folder.to_owned()));
        }
        Ok(Self {
            folder: folder.to_owned(),
            current: None,
            files: BTreeMap::new(),
            manifest: Vec::new(),
        })
    }

    /// The next octets of a file; files come one after the other.
    pub fn write(&mut self, path: &str, octets: &[u8]) -> Result<(), BackupError> {
        if path == MANIFEST {
            self.end_file()?;
            if self.manifest.len() + octets.len() > LONGEST_MANIFEST {
                return Err(self.bad("it is too long"));
            }
            self.manifest.extend_from_slice(octets);
            return Ok(());
        }
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.listed.path != path)
        {
            self.end_file()?;
            self.begin_file(path)?;
        }
        let Some(Current { file, listed }) = &mut self.current else {
            return Ok(());
        };
        let full = self.folder.join(path);
        file.write_all(octets).map_err(at("write", &full))?;
        listed.crc = crc32c::crc32c_append(listed.crc, octets);
        listed.len += u64::try_from(octets.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Compares everything with the manifest, and makes it durable.
    pub fn finish(mut self) -> Result<Written, BackupError> {
        self.end_file()?;
        let text = std::str::from_utf8(&self.manifest).map_err(|_| self.bad("it is no text"))?;
        let manifest = Manifest::parse(text).map_err(|bad| self.bad(&bad.to_string()))?;
        for listed in &manifest.files {
            if self.files.remove(&listed.path).as_ref() != Some(listed) {
                return Err(BackupError::File {
                    path: self.folder.join(&listed.path),
                    why: "did not arrive as it was sent".to_owned(),
                });
            }
        }
        // Given up by the queue while it was being sent.
        for path in self.files.keys() {
            let full = self.folder.join(path);
            fs::remove_file(&full).map_err(at("remove", &full))?;
        }
        sync_folders(&self.folder)?;
        // Last of all: a folder without it is no backup.
        let path = self.folder.join(MANIFEST);
        new_file(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .map_err(at("write", &path))?;
        sync_folders(&self.folder)?;
        Ok(Written { manifest })
    }

    /// Removes what was written.
    pub fn discard(self) {
        drop(self.current);
        // What cannot be removed has no manifest and is no backup.
        let _ = clear(&self.folder);
    }

    fn begin_file(&mut self, path: &str) -> Result<(), BackupError> {
        let full = self.folder.join(path);
        if !is_sound(path) || self.files.contains_key(path) {
            return Err(BackupError::File {
                path: full,
                why: "is no name for a file of a backup, or came twice".to_owned(),
            });
        }
        if let Some(parent) = full.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(parent).map_err(at("create", parent))?;
        }
        let file = new_file(&full).map_err(at("create", &full))?;
        let listed = ListedFile {
            path: path.to_owned(),
            len: 0,
            crc: 0,
        };
        self.current = Some(Current { file, listed });
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), BackupError> {
        let Some(Current { file, listed }) = self.current.take() else {
            return Ok(());
        };
        let full = self.folder.join(&listed.path);
        file.sync_all().map_err(at("sync", &full))?;
        self.files.insert(listed.path.clone(), listed);
        Ok(())
    }

    fn bad(&self, why: &str) -> BackupError {
        BackupError::Manifest {
            path: self.folder.join(MANIFEST),
            why: why.to_owned(),
        }
    }
}

/// Only its owner reads it.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
