//! The key by which accounts that cannot log in are told of like the others.

use std::{fs, path::Path};

use postroad_directory::DecoyKey;
use tracing::warn;

use crate::small_file;

/// In the folder of the queue: 32 octets of chance, made once.
const KEY_FILE: &str = "DECOYS";

/// Reads the key from the folder, or makes it. Blocks.
///
/// Without the file decoys change with each start, by which they could be told; mail must go on nevertheless.
pub fn key(folder: &Path) -> DecoyKey {
    let path = folder.join(KEY_FILE);
    let read = fs::read(&path)
        .ok()
        .and_then(|octets| octets.try_into().ok());
    DecoyKey::new(read.unwrap_or_else(|| {
        let fresh: [u8; 32] = rand::random();
        if let Err(error) = small_file::replace(&path, &fresh) {
            warn!(event = "fault", path = %path.display(), %error, "the key of decoys cannot be kept; the next start makes another");
        }
        fresh
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_outlives_a_restart_and_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        key(folder.path());
        let path = folder.path().join(KEY_FILE);
        let first = fs::read(&path).unwrap();
        key(folder.path());
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(first.len(), 32);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A folder that cannot be written to costs the key and no start.
        key(Path::new("/nonexistent"));
    }
}
