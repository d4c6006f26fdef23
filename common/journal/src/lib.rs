//! The journal of the mail queue: append-only segments, salted and checksummed, and the one place where
//! the queue commits.
//!
//! **Purpose.** A mail is accepted when its record is durable here, and not before. Everything else the
//! queue keeps (its index above all) can be rebuilt from these segments. The journal knows nothing of
//! mail: a record is a kind, a number ([`Lsn`]) and bytes.
//!
//! **Flow.** [`Journal::open`] locks the folder, finds the end of the log and makes it durable;
//! [`Journal::replay`] shows the caller all records from its checkpoint on. One committer thread then calls
//! [`Journal::append_group`]: one write, one `fdatasync`, and its return is the instant of commit. Other
//! threads read through a [`Reader`]. When the oldest segment holds little that lives, the caller appends
//! that anew and calls [`Reclaimer::reclaim_oldest`]. Content too large for a record goes to a file of its
//! own in a [`ContentStore`] before its record is offered.
//!
//! **What can fail.** See [`JournalError`]. After a failed write or sync the journal is poisoned: nothing is
//! ever tried again on that file, the process opens anew and believes what is on disk. Damage to committed
//! records is a value ([`Damage`]) with a copy in `quarantine/`, never an error that stops the queue.
//!
//! The bytes and each case of recovery are in `README.md`.
#![forbid(unsafe_code)]

mod blank;
mod content;
mod copying;
mod error;
mod folder;
mod format;
mod inspect;
mod journal;
mod pool;
mod quarantine;
mod reader;
mod reclaim;
mod record;
mod recovery;
mod walk;

pub use content::{ContentNonce, ContentReader, ContentRef, ContentStore, ContentWriter};
pub use copying::complete_segment;
pub use error::{JournalError, Result};
pub use folder::{Formats, Space, free_space};
pub use inspect::Inspection;
pub use journal::{Journal, Options};
pub use reader::Reader;
pub use reclaim::Reclaimer;
pub use record::{
    Damage, Location, Lsn, Position, RecordDraft, RecordKind, RecordRef, Recovery, Replay,
    SegmentInfo, SegmentNumber, TornTail,
};

use std::sync::Arc;

/// Fills a buffer with random bytes that nobody outside can foresee.
pub type Entropy = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

fn random_u64(entropy: &Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy(&mut bytes);
    u64::from_le_bytes(bytes)
}
