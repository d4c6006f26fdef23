//! The index made anew of what it holds, while mail goes on: sled's file stays as large as it ever was, and keeps octets of
//! what was removed. Upkeep does it where much room is to be won, a purge always.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use postroad_queue::{Queue, QueueError, Renewal};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use crate::{clock, committer::CommitError, core::Core};

/// Octets of index that a living job may take; one made anew has some 1,000.
const FOR_A_JOB: u64 = 16 << 10;
/// One that was made anew is again when it is so many times as large as it was then: ids of finished mails take room too.
const GROWN: u64 = 2;
/// Or when it holds so many times fewer jobs.
const EMPTIED: u64 = 8;
/// Between two of them, also if one failed.
const REST: Duration = Duration::from_secs(60);
/// Longest rest after a piece of work.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// The indexes that upkeep makes anew.
#[derive(Default)]
pub(crate) struct Renewals {
    under_way: Option<JoinHandle<()>>,
    last: Option<Instant>,
    /// What the last one was like.
    made: Size,
}

/// Octets and living jobs.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    len: u64,
    jobs: u64,
}

impl Renewals {
    /// Begins if the index is much too large for what it holds.
    pub fn tend(&mut self, core: &Arc<Core>) -> Result<(), CommitError> {
        if let Some(ended) = self.under_way.take_if(|one| one.is_finished()) {
            drop(ended);
            self.last = Some(Instant::now());
            self.made = Size::of(&core.queue)?;
        }
        let rests = self.last.is_some_and(|last| last.elapsed() < REST);
        let is_short = core.admission.borrow().is_some();
        if self.under_way.is_some() || rests || is_short {
            return Ok(());
        }
        let now = Size::of(&core.queue)?;
        if now.len <= core.config().disk.index_spare.as_u64() || !now.is_too_large(self.made) {
            return Ok(());
        }
        let core = Arc::clone(core);
        self.under_way = Some(core.tasks.clone().spawn(async move {
            let begun = Instant::now();
            match renew_index(&core).await {
                Ok(Some(len)) => {
                    info!(
                        event = "index_renewed",
                        size = len,
                        duration_ms = clock::millis_since(begun),
                        "the index took {} octets and was made anew",
                        now.len
                    );
                }
                Ok(None) => {}
                Err(failed) => {
                    warn!(event = "fault", error = %failed, "the index stays as large as it is");
                }
            }
        }));
        Ok(())
    }
}

impl Size {
    fn of(queue: &Queue) -> Result<Self, QueueError> {
        Ok(Self {
            len: queue.index_len()?,
            jobs: u64::try_from(queue.living_jobs()).unwrap_or(u64::MAX),
        })
    }

    const fn is_too_large(self, made: Self) -> bool {
        let has_changed = self.len / GROWN > made.len || self.jobs < made.jobs / EMPTIED;
        has_changed && self.len / FOR_A_JOB > self.jobs
    }
}

/// Tells the octets of the new one. None: the queue is stopping.
pub(crate) async fn renew_index(core: &Arc<Core>) -> Result<Option<u64>, CommitError> {
    let _only_one = core.renewing.lock().await;
    let copying = Arc::clone(core);
    let copied = spawn_blocking(move || copy_index(&copying)).await;
    let Some(copy) = copied.map_err(|_| CommitError::Ended)?? else {
        return Ok(None);
    };
    let _no_checkpoint = core.checkpointing.lock().await;
    let queue = Arc::clone(&core.queue);
    let put = spawn_blocking(move || {
        queue.end_renewal(copy)?;
        queue.index_len()
    });
    let put = put.await.map_err(|_| CommitError::Ended)?;
    Ok(Some(core.committer.unless_unsynced(put).await?))
}

/// None: the queue is stopping. Blocks.
fn copy_index(core: &Core) -> Result<Option<Renewal>, QueueError> {
    let mut copy = core.queue.begin_renewal()?;
    while !core.stopping.is_cancelled() {
        let begun = Instant::now();
        match core.queue.renew_some(&mut copy) {
            Ok(true) => return Ok(Some(copy)),
            Ok(false) => thread::sleep(begun.elapsed().min(LONGEST_REST)),
            Err(failed) => {
                core.queue.give_up_renewal(copy);
                return Err(failed);
            }
        }
    }
    core.queue.give_up_renewal(copy);
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_too_large_by_what_it_holds_and_by_what_it_was() {
        let size = |mib: u64, jobs| Size {
            len: mib << 20,
            jobs,
        };
        let first = Size::default();
        assert!(size(160, 10_000).is_too_large(first));
        assert!(!size(160, 11_000).is_too_large(first));
        // All that is in it are ids of finished mails.
        let made = size(100, 10);
        assert!(!size(199, 10).is_too_large(made));
        assert!(size(202, 10).is_too_large(made));
        // The mails that were in it have gone.
        let made = size(100, 6000);
        assert!(!size(110, 1000).is_too_large(made));
        assert!(size(110, 700).is_too_large(made));
    }
}
