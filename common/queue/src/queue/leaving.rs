use postroad_envelope::QueueId;
use postroad_journal::Lsn;

use super::Queue;
use crate::{LeavingMail, QueueError};

impl Queue {
    /// Finished mails that are not retired yet, by ascending id behind `after`. None with [`super::Options::retire`] off.
    pub fn leaving(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<LeavingMail>, QueueError> {
        self.index.leaving(after, limit)
    }

    /// Forgets mails that are durable elsewhere, or that nobody wants to keep. Their records are needed no more.
    pub fn forget_leaving(&self, ids: &[QueueId]) -> Result<(), QueueError> {
        ids.iter().try_for_each(|id| self.index.forget_leaving(*id))
    }

    /// Remembers, with the next checkpoint, that whatever finished before this number was retired: a rebuild of the index
    /// must not retire it once more.
    pub fn retired_before(&self, lsn: Lsn) {
        let mut core = self.core();
        core.retired_before = core.retired_before.max(lsn);
    }
}
