//! The small records: leases, epochs, checkpoints, snapshots, finished ids.

use std::collections::BTreeMap;

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::{Lsn, RecordDraft, RecordKind};
use prost::Message;

use super::{CHECKPOINT, EPOCH, FINISHED_BLOCK, LEASE_HINTS, SNAPSHOT, envelope, state, wire};
use crate::{Digest, Fence, JobKey, QueueError, Revision, error::unreadable};

/// A lease that was granted, so that its holder may resume it after a restart. Never waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHint {
    /// The job.
    pub job: JobKey,
    /// Its revision then.
    pub revision: Revision,
    /// Name of the agent that holds it.
    pub agent: String,
    /// The fence it was given under.
    pub fence: Fence,
    /// When it ends.
    pub deadline: Timestamp,
}

/// Several of them in one record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseHints(pub Vec<LeaseHint>);

/// What a rebuild needs and no other record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The epoch it was written in.
    pub epoch: u64,
    /// When.
    pub at: Timestamp,
    /// Every living lease.
    pub leases: Vec<LeaseHint>,
    /// What finished before this number was retired.
    pub retired_before: Lsn,
    /// How many jobs live; none in format 1.
    pub living_jobs: Option<u64>,
}

/// State that is not a mail, by the name of its owner; opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(pub BTreeMap<String, Vec<u8>>);

/// A mail that is all done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its id.
    pub queue_id: QueueId,
    /// Since when.
    pub at: Timestamp,
    /// What it was.
    pub digest: Digest,
}

/// Ids that finished since the block before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FinishedBlock(pub Vec<Finished>);

fn draft(kind: RecordKind, message: &impl Message) -> RecordDraft {
    RecordDraft::new(kind, message.encode_to_vec())
}

fn read<M: Message + Default>(what: &'static str, payload: &[u8]) -> Result<M, QueueError> {
    M::decode(payload).map_err(|e| unreadable(what, e))
}

pub fn encode_epoch(epoch: u64) -> RecordDraft {
    draft(EPOCH, &wire::Epoch { epoch })
}

pub fn decode_epoch(payload: &[u8]) -> Result<u64, QueueError> {
    Ok(read::<wire::Epoch>("epoch", payload)?.epoch)
}

impl LeaseHints {
    /// The record to append, unsynced, with the next write.
    pub fn draft(&self) -> RecordDraft {
        draft(
            LEASE_HINTS,
            &wire::LeaseHints {
                hints: self.0.iter().map(hint_to_wire).collect(),
            },
        )
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, QueueError> {
        let message: wire::LeaseHints = read("lease hint", payload)?;
        Ok(Self(
            message
                .hints
                .iter()
                .map(hint_from_wire)
                .collect::<Result<_, _>>()?,
        ))
    }
}

impl Checkpoint {
    /// The record to append.
    pub fn draft(&self) -> RecordDraft {
        let leases = self.leases.iter().map(hint_to_wire).collect();
        let (epoch, at) = (self.epoch, self.at.as_millis());
        let (retired_before, living_jobs) = (self.retired_before.0, self.living_jobs);
        draft(
            CHECKPOINT,
            &wire::Checkpoint {
                epoch,
                at,
                leases,
                retired_before,
                living_jobs,
            },
        )
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, QueueError> {
        let message: wire::Checkpoint = read("checkpoint", payload)?;
        Ok(Self {
            epoch: message.epoch,
            at: Timestamp::from_millis(message.at),
            leases: message
                .leases
                .iter()
                .map(hint_from_wire)
                .collect::<Result<_, _>>()?,
            retired_before: Lsn(message.retired_before),
            living_jobs: message.living_jobs,
        })
    }
}

impl Snapshot {
    /// The record to append.
    pub fn draft(&self) -> RecordDraft {
        draft(
            SNAPSHOT,
            &wire::Snapshot {
                sections: self.0.clone(),
            },
        )
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, QueueError> {
        Ok(Self(read::<wire::Snapshot>("snapshot", payload)?.sections))
    }
}

impl FinishedBlock {
    /// The record to append.
    pub fn draft(&self) -> RecordDraft {
        draft(
            FINISHED_BLOCK,
            &wire::FinishedBlock {
                finished: self.0.iter().map(finished_to_wire).collect(),
            },
        )
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, QueueError> {
        let message: wire::FinishedBlock = read("block of finished ids", payload)?;
        Ok(Self(
            message
                .finished
                .iter()
                .map(finished_from_wire)
                .collect::<Result<_, _>>()?,
        ))
    }
}

fn hint_to_wire(hint: &LeaseHint) -> wire::LeaseHint {
    wire::LeaseHint {
        queue_id: hint.job.queue_id.to_bytes().to_vec(),
        number: hint.job.number,
        revision: hint.revision.0,
        agent: hint.agent.clone(),
        epoch: hint.fence.epoch,
        counter: hint.fence.counter,
        deadline: hint.deadline.as_millis(),
    }
}

fn hint_from_wire(hint: &wire::LeaseHint) -> Result<LeaseHint, QueueError> {
    Ok(LeaseHint {
        job: JobKey {
            queue_id: envelope::queue_id(&hint.queue_id)?,
            number: hint.number,
        },
        revision: Revision(hint.revision),
        agent: hint.agent.clone(),
        fence: Fence {
            epoch: hint.epoch,
            counter: hint.counter,
        },
        deadline: Timestamp::from_millis(hint.deadline),
    })
}

fn finished_to_wire(finished: &Finished) -> wire::Finished {
    wire::Finished {
        queue_id: finished.queue_id.to_bytes().to_vec(),
        at: finished.at.as_millis(),
        digest: Some(state::digest_to_wire(finished.digest)),
    }
}

fn finished_from_wire(finished: &wire::Finished) -> Result<Finished, QueueError> {
    Ok(Finished {
        queue_id: envelope::queue_id(&finished.queue_id)?,
        at: Timestamp::from_millis(finished.at),
        digest: state::digest_from_wire(finished.digest),
    })
}
