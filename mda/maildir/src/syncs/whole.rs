//! The file system of the store as a whole: one `syncfs` for all that was written to it.
//!
//! Since Linux 5.8 it reports a write that failed, of any file, once to every descriptor that was open then; so the
//! descriptor is opened with the store and held.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The first kernel whose syncfs tells of failed writes.
const KERNEL: (u32, u32) = (5, 8);
/// In `rests_until`.
const FOR_EVER: u64 = u64::MAX;

/// A kind of file system whose syncfs is known to make names and contents durable, and to fail if it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// And those before it, which have the same number.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs, where each subvolume is a device of its own.
    Btrfs,
    /// In memory, where nothing is durable by any call.
    Tmpfs,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];

    /// As mount(8) calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }

    /// By what statfs(2) says of it.
    fn number(self) -> u64 {
        match self {
            Self::Ext4 => 0xEF53,
            Self::Xfs => 0x5846_5342,
            Self::Btrfs => 0x9123_683E,
            Self::Tmpfs => 0x0102_1994,
        }
    }
}

/// A file system that can be synced as a whole.
#[derive(Debug)]
pub(super) struct Whole {
    root: File,
    /// The number of its device: what lies elsewhere is not synced with it.
    pub device: u64,
    opened: Instant,
    /// In milliseconds since `opened`; until then each file is synced by itself.
    rests_until: AtomicU64,
}

impl Whole {
    /// Of the folder `root`, if the kernel can and it is one of these.
    pub(super) fn of(root: &Path, wanted: &[FileSystem]) -> Option<Self> {
        let release = rustix::system::uname();
        if kernel(release.release().to_str().ok()?)? < KERNEL {
            return None;
        }
        let folder = File::open(root).ok()?;
        // The number is of another width and sign on every platform.
        #[allow(clippy::unnecessary_cast, reason = "as above")]
        let kind = rustix::fs::fstatfs(&folder).ok()?.f_type as u64 & 0xFFFF_FFFF;
        let device = folder.metadata().ok()?.dev();
        let is_wanted = wanted.iter().any(|one| one.number() == kind);
        is_wanted.then(|| Self {
            root: folder,
            device,
            opened: Instant::now(),
            rests_until: AtomicU64::new(0),
        })
    }

    /// Whether it may be asked now.
    pub(super) fn is_ready(&self) -> bool {
        match self.rests_until.load(Ordering::Relaxed) {
            0 => true,
            until => until <= self.now(),
        }
    }

    /// Makes all of it durable that was written before. Too slow, and it rests a while: others write much to the same disk. A
    /// failure is the last one, for what failed may be anybody's file, and single syncs tell whose.
    pub(super) fn sync(&self, slow: Duration, pause: Duration) -> io::Result<()> {
        let began = Instant::now();
        let synced = rustix::fs::syncfs(&self.root).map_err(io::Error::from);
        let took = began.elapsed();
        if let Err(error) = &synced {
            self.rests_until.store(FOR_EVER, Ordering::Relaxed);
            tracing::error!(
                event = "disk_failed",
                %error,
                "the file system of the mail store could not be synced; from now on each file of it is synced by itself"
            );
        } else if took > slow {
            let until = self.now().saturating_add(millis(pause));
            self.rests_until.fetch_max(until, Ordering::Relaxed);
            tracing::debug!(
                duration_ms = millis(took),
                "others write much to the disk of the mail store; each file is synced by itself for a while"
            );
        }
        synced
    }

    fn now(&self) -> u64 {
        millis(self.opened.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(FOR_EVER - 1)
}

/// Of a release such as "6.1.0-13-amd64".
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_by_their_names() {
        assert_eq!(kernel("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(kernel("5.8-rc1"), Some((5, 8)));
        assert!(kernel("5.10.0").unwrap() > KERNEL && kernel("4.19.1").unwrap() < KERNEL);
        assert_eq!(kernel("unknown"), None);
        assert_eq!(kernel(""), None);
    }

    #[test]
    fn only_file_systems_that_are_known() {
        assert!(Whole::of(Path::new("/proc"), &FileSystem::ALL).is_none());
        assert!(Whole::of(Path::new("/nowhere/at/all"), &FileSystem::ALL).is_none());
        if Path::new("/dev/shm").is_dir() {
            assert!(Whole::of(Path::new("/dev/shm"), &[FileSystem::Tmpfs]).is_some());
            assert!(Whole::of(Path::new("/dev/shm"), &[FileSystem::Ext4]).is_none());
        }
    }
}
