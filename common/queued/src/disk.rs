//! The reserve: below it no new mail is taken, so that settlements and the index never meet a full disk.

use std::path::Path;

use postroad_journal::free_space;

use crate::DiskConfig;

/// Why no mail can be taken now, if so.
pub(crate) fn shortage(folder: &Path, config: &DiskConfig) -> Option<String> {
    if config.reserve_percent == 0 && config.reserve.as_u64() == 0 {
        return None;
    }
    let space = match free_space(folder) {
        Ok(space) => space,
        Err(error) => return Some(format!("free space cannot be told: {error}")),
    };
    let part = space.total / 100 * u64::from(config.reserve_percent);
    let reserve = part.max(config.reserve.as_u64());
    (space.free < reserve).then(|| {
        format!(
            "{} octets are free, fewer than the reserve of {reserve}",
            space.free
        )
    })
}
