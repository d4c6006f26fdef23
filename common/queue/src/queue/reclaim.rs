use bytes::Bytes;
use postroad_envelope::QueueId;
use postroad_journal::{Location, RecordDraft, RecordKind, SegmentNumber};

use super::{
    Queue,
    change::{Change, Prepared},
    replay::change_of,
};
use crate::{
    QueueError,
    record::{self, Snapshot, moved_draft},
};

/// What of a segment still counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveInSegment {
    /// Mails whose record lies there.
    pub mails: Vec<QueueId>,
    /// Blocks of finished ids within the window.
    pub blocks: Vec<Location>,
    /// The newest snapshot.
    pub snapshot: Option<Location>,
}

impl Queue {
    /// What still counts in a segment. Walks all living mails: for tools and tests; a reclaimer asks
    /// [`Queue::prepare_keep`] for each record it reads.
    pub fn live_in_segment(&self, segment: SegmentNumber) -> Result<LiveInSegment, QueueError> {
        let mut live = LiveInSegment::default();
        for mail in self.index.mails(QueueId::from_bytes([0; 16])) {
            let mail = mail?;
            if mail.location.segment == segment {
                live.mails.push(mail.queue_id);
            }
        }
        let blocks = self
            .index
            .blocks()?
            .into_iter()
            .map(|(location, _)| location);
        live.blocks = blocks
            .filter(|location| location.segment == segment)
            .collect();
        live.snapshot = self
            .index
            .snapshot()?
            .filter(|location| location.segment == segment);
        Ok(live)
    }

    /// How to keep one record of the oldest segment when that goes; none if nobody needs it. A mail goes with the newest
    /// states of all its jobs. [`QueueError::Busy`]: one of them is being changed, ask again after that commit. Only
    /// segments that end before the last checkpoint may be reclaimed.
    pub fn prepare_keep(
        &self,
        location: Location,
        kind: RecordKind,
        payload: &Bytes,
    ) -> Result<Option<Prepared>, QueueError> {
        match kind {
            record::MAIL => self.prepare_move(location, payload),
            record::SNAPSHOT if self.index.snapshot()? == Some(location) => {
                Ok(Some(raw(kind, payload, Change::Snapshot)))
            }
            record::FINISHED_BLOCK => {
                let needed = self.index.blocks()?.iter().any(|(at, _)| *at == location);
                let moved = || match change_of(kind, payload)? {
                    Change::Block(block) => Ok(raw(kind, payload, Change::MovedBlock(block))),
                    other => Ok(raw(kind, payload, other)),
                };
                needed.then(moved).transpose()
            }
            record::JOB_STATE
            | record::LEASE_HINTS
            | record::EPOCH
            | record::CHECKPOINT
            | record::SNAPSHOT => Ok(None),
            // Of a later release: kept.
            _ => Ok(Some(raw(kind, payload, Change::Skip))),
        }
    }

    fn prepare_move(
        &self,
        location: Location,
        payload: &Bytes,
    ) -> Result<Option<Prepared>, QueueError> {
        let (head, _) = record::split_head(payload)?;
        let id = head.envelope.queue_id;
        if self.index.mail(id)?.map(|mail| mail.location) != Some(location) {
            return Ok(None);
        }
        let states = self.index.encoded_jobs(id)?;
        if let Some(busy) = states
            .iter()
            .find(|s| self.core().schedule.is_changing(s.key))
        {
            return Err(QueueError::Busy(busy.key));
        }
        let mut facts = super::replay::facts_of(head);
        facts.jobs = Vec::new();
        let mut prepared = Prepared::one(moved_draft(payload.clone())?, Change::Mail(facts));
        for state in states {
            prepared = prepared.and(Prepared::copy(state));
        }
        Ok(Some(prepared))
    }

    /// The ids that finished since the last block of them; none if there are none. To be committed before a segment is given
    /// up: what a rebuild would know of them by may lie there, and the next checkpoint is still to come.
    pub fn prepare_finished(&self) -> Option<Prepared> {
        let finished = std::mem::take(&mut self.core().finished);
        self.blocks_of(finished)
    }

    /// Forgets what the index still knows of a segment that is gone.
    pub fn forget_segment(&self, segment: SegmentNumber) -> Result<(), QueueError> {
        self.index.forget_segment(segment)
    }

    /// The snapshot to append when state that is not a mail has changed.
    pub fn prepare_snapshot(&self, snapshot: &Snapshot) -> Prepared {
        Prepared::one(snapshot.draft(), Change::Snapshot)
    }

    /// Where the newest snapshot lies; read it with [`Snapshot::decode`].
    pub fn snapshot_location(&self) -> Result<Option<Location>, QueueError> {
        self.index.snapshot()
    }
}

fn raw(kind: RecordKind, payload: &Bytes, change: Change) -> Prepared {
    Prepared::one(RecordDraft::new(kind, payload.clone()), change)
}
