//! What the queue writes into its journal: the formats of the store, see [`FORMATS`].

mod envelope;
mod mail;
mod marks;
mod outcome;
mod retired;
mod state;
mod unknown;
pub(crate) mod wire;

pub use mail::{Content, MailRecord};
pub(crate) use mail::{MailHead, draft, file_from_wire, file_to_wire, moved_draft, split_head};
pub use marks::{Checkpoint, Finished, FinishedBlock, LeaseHint, LeaseHints, Snapshot};
pub(crate) use outcome::cut;
use postroad_journal::{Formats, RecordKind};
pub use retired::{
    RETIRED, RETIRED_CONTENT, RetiredContent, RetiredMail, content_draft, ending_of, retired_key,
    split_content,
};
pub use state::{EncodedState, MAX_STATE, decode as decode_state, encode as encode_state};
pub(crate) use state::{
    digest_from_wire, digest_to_wire, facts as facts_of_state, is_open, reason as reason_of_state,
};

use crate::{JobState, QueueError};

/// The formats of a queue's folder that this release knows. It writes whatever the folder is in, so that the release before
/// can go on with it until someone puts it into the next one.
///
/// | format | what is new |
/// |---|---|
/// | 1 | |
/// | 2 | a [`Checkpoint`] tells how many jobs live; records may be blanked |
pub const FORMATS: Formats = Formats {
    oldest: 1,
    newest: 2,
};
/// From this one on a checkpoint tells how many jobs live.
pub(crate) const COUNTS_JOBS: u32 = 2;

/// From this one on a purge may leave blanked records in the journal.
pub const BLANKS_RECORDS: u32 = 2;

/// A mail: envelope, content, and its jobs as accepted.
pub const MAIL: RecordKind = RecordKind(1);
/// The absolute state of one job.
pub const JOB_STATE: RecordKind = RecordKind(2);
/// Leases granted since the last record of this kind.
pub const LEASE_HINTS: RecordKind = RecordKind(3);
/// A start of the queue.
pub const EPOCH: RecordKind = RecordKind(4);
/// A checkpoint: epoch and living leases.
pub const CHECKPOINT: RecordKind = RecordKind(5);
/// State that is not a mail: rules, lists, quotas.
pub const SNAPSHOT: RecordKind = RecordKind(6);
/// Ids that finished.
pub const FINISHED_BLOCK: RecordKind = RecordKind(7);

/// A record, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// See [`MAIL`].
    Mail(Box<MailRecord>),
    /// See [`JOB_STATE`].
    JobState(Box<JobState>),
    /// See [`LEASE_HINTS`].
    LeaseHints(LeaseHints),
    /// See [`EPOCH`].
    Epoch(u64),
    /// See [`CHECKPOINT`].
    Checkpoint(Checkpoint),
    /// See [`SNAPSHOT`].
    Snapshot(Snapshot),
    /// See [`FINISHED_BLOCK`].
    FinishedBlock(FinishedBlock),
    /// Of a later release: skipped and kept.
    Unknown(RecordKind),
}

impl Record {
    /// Reads a payload. The content of a mail is copied; to share it use [`MailRecord::decode`].
    pub fn decode(kind: RecordKind, payload: &[u8]) -> Result<Self, QueueError> {
        Ok(match kind {
            MAIL => Self::Mail(Box::new(MailRecord::decode(
                bytes::Bytes::copy_from_slice(payload),
            )?)),
            JOB_STATE => Self::JobState(Box::new(state::decode(payload)?)),
            LEASE_HINTS => Self::LeaseHints(LeaseHints::decode(payload)?),
            EPOCH => Self::Epoch(marks::decode_epoch(payload)?),
            CHECKPOINT => Self::Checkpoint(Checkpoint::decode(payload)?),
            SNAPSHOT => Self::Snapshot(Snapshot::decode(payload)?),
            FINISHED_BLOCK => Self::FinishedBlock(FinishedBlock::decode(payload)?),
            other => Self::Unknown(other),
        })
    }
}

pub(crate) use marks::encode_epoch;

#[cfg(test)]
mod tests;

/// Which mail a record of the journal tells of with more than its id; none of records that do not, or cannot be read.
pub fn mail_of(kind: RecordKind, payload: &[u8]) -> Option<postroad_envelope::QueueId> {
    match kind {
        MAIL => Some(split_head(payload).ok()?.0.envelope.queue_id),
        JOB_STATE => Some(decode_state(payload).ok()?.key.queue_id),
        _ => None,
    }
}
