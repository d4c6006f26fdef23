//! Backups of a queue that runs, and what becomes a queue again.
//!
//! ```text
//! running queue ── stream of pieces ─► BackupWriter: a folder with MANIFEST
//!                                         └─► restore: a queue's folder with RESTORED ─► its first start holds the mail
//! ```
//!
//! A backup is the beginning of the log: the segments up to where the journal ended at one moment, and the content files
//! that the mails in it name. The index is not in it; the first start makes it anew.

mod manifest;
mod marker;
mod pins;
mod restore;
mod send;
mod writer;

pub use manifest::{BadManifest, ListedFile, MANIFEST, Manifest};
pub(crate) use marker::{epochs_ahead, hold_restored};
pub(crate) use pins::{Pin, Pins};
pub use restore::{BackupError, Restored, restore};
pub(crate) use send::send;
pub use writer::{BackupWriter, Written};
