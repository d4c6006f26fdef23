//! Tools for what lies in the queue's folder: verify, and what works on a folder whose queue does not run.

pub(crate) mod damage;
mod live;
mod offline;
mod verify;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub(crate) use live::verify as verify_live;
pub(crate) use offline::recovery_problems;
pub use offline::{Offline, OfflineError, Rebuilt};
pub(crate) use verify::{chain, damage_text, miscount_text};

/// What the tools of one running queue share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// One verification at a time.
    verifying: Arc<Semaphore>,
    /// What was met broken.
    pub damaged: damage::Damaged,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            verifying: Arc::new(Semaphore::new(1)),
            damaged: damage::Damaged::default(),
        }
    }
}
