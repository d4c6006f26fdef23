//! What is to be forgotten for good.

use std::{
    collections::HashSet,
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use postroad_envelope::QueueId;
use postroad_journal::{JournalError, Reader, SegmentNumber};

use super::{Timeline, inbox::Request, record};

/// How long the thread may take: it may have to prepare a segment.
const PATIENCE: Duration = Duration::from_secs(60);

impl Timeline {
    /// A purge begins, or has ended; false: the segments cannot be written now. Blocks.
    pub fn clean(&self, begins: bool) -> bool {
        let Some(inbox) = &self.inbox else {
            return true;
        };
        let (asked, answer): (SyncSender<bool>, _) = sync_channel(1);
        inbox.ask(Request::Clean(begins, asked)) && answer.recv_timeout(PATIENCE).unwrap_or(false)
    }

    /// Forgets what happened to these mails, as far as it lies in one sealed segment. Durable when this returns. Blocks.
    pub fn blank(
        &self,
        reader: &Reader,
        number: SegmentNumber,
        ids: &HashSet<QueueId>,
    ) -> Result<u64, JournalError> {
        let blanked = reader.blank_segment(number, |seen| {
            let told = (seen.kind == record::EVENTS).then(|| record::decode(seen.payload));
            told.flatten()
                .is_some_and(|told| ids.contains(&told.queue_id))
        })?;
        if blanked > 0 {
            // Whoever looks meanwhile reads the segment, too.
            self.shared.index().forget(number);
            self.shared.index_segment(reader, number);
        }
        Ok(blanked)
    }
}
