//! The reserve: below it no new mail is taken, so that settlements and the index never meet a full disk.

use std::{io, path::Path};

use postroad_journal::free_space;

use crate::DiskConfig;

/// How much room there is, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub free: u64,
    /// Below this no new mail is taken.
    pub reserve: u64,
}

/// Looks.
pub(crate) fn room(folder: &Path, config: &DiskConfig) -> io::Result<Room> {
    let space = free_space(folder)?;
    let part = space.total / 100 * u64::from(config.reserve_percent);
    Ok(Room {
        free: space.free,
        reserve: part.max(config.reserve.as_u64()),
    })
}

/// Why no mail can be taken now, if so.
pub(crate) fn shortage(folder: &Path, config: &DiskConfig) -> Option<String> {
    shortage_of(&room(folder, config), config)
}

/// The same of a look that was taken.
pub(crate) fn shortage_of(room: &io::Result<Room>, config: &DiskConfig) -> Option<String> {
    if config.reserve_percent == 0 && config.reserve.as_u64() == 0 {
        return None;
    }
    match room {
        Ok(Room { free, reserve }) if free < reserve => Some(format!(
            "{free} octets are free, fewer than the reserve of {reserve}"
        )),
        Ok(_) => None,
        Err(error) => Some(format!("free space cannot be told: {error}")),
    }
}
