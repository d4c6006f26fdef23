//! The few ways this crate makes things durable.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::MaildirError;
use crate::error::at;

/// Makes the names inside `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), MaildirError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at("sync folder", folder))
}

/// Makes one folder, 0700; says whether it was missing. Its parent is not yet synced.
pub(crate) fn make_folder(folder: &Path) -> Result<bool, MaildirError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(at("create folder", folder)(error)),
    }
}

/// Makes a folder and all above it that are missing, and syncs the parent of each.
pub(crate) fn make_folders(folder: &Path) -> Result<(), MaildirError> {
    if folder.as_os_str().is_empty() || fs::metadata(folder).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    let parent = folder
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    make_folders(parent)?;
    make_folder(folder)?;
    sync_folder(parent)
}

/// `None` stands for "not there", which is an answer here and no fault.
pub(crate) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
