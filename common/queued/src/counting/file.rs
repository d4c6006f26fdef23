//! `COUNTERS` in the folder of the queue: written anew as a whole, and read at a start.

use std::{fs, io, path::Path};

use postroad_counters::{Kept, decode, encode};
use tracing::{error, warn};

use crate::small_file;

/// Its name.
pub(super) const NAME: &str = "COUNTERS";

/// Replaces the file; the old one is there until the new one is whole on the disk.
pub(super) fn write(path: &Path, kept: &[Kept]) -> io::Result<()> {
    small_file::replace(path, encode(kept).as_bytes())
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
