//! `COUNTERS` in the folder of the queue: written anew as a whole, and read at a start.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use postroad_counters::{Kept, decode, encode};
use tracing::{error, warn};

/// Its name.
pub(super) const NAME: &str = "COUNTERS";

/// Replaces the file; the old one is there until the new one is whole on the disk.
pub(super) fn write(path: &Path, kept: &[Kept]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(encode(kept).as_bytes())?;
    file.sync_data()?;
    fs::rename(&new, path)
}

/// What was kept; nothing, if it cannot be read: mail must go on nevertheless.
pub(super) fn read(path: &Path) -> Vec<Kept> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!(event = "fault", path = %path.display(), %error, "counters cannot be read; they begin anew");
            return Vec::new();
        }
    };
    decode(&text).unwrap_or_else(|error| {
        error!(event = "corruption", path = %path.display(), %error, "counters begin anew");
        Vec::new()
    })
}
