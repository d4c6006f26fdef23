//! Mails after their end, in segments of their own: format `retired v1`. One kind of segments holds what is known of each
//! mail, another the contents of those whose content is kept.

use std::ops::Deref;

use bytes::Bytes;
use postroad_envelope::{Ending, Envelope, Outcome, QueueId, Timestamp};
use postroad_journal::{ContentRef, Location, Lsn, RecordDraft, RecordKind, SegmentNumber};
use prost::{Message, encoding::decode_varint};

use super::{
    EncodedState, envelope,
    mail::{content_start, file_from_wire, file_to_wire, head_without_jobs},
    state, wire,
};
use crate::{Digest, JobState, Progress, QueueError, error::unreadable};

/// A retired mail without its content.
pub const RETIRED: RecordKind = RecordKind(1);
/// The content of one: `varint length of the key | key | content`.
pub const RETIRED_CONTENT: RecordKind = RecordKind(2);

const WHAT: &str = "retired mail";

/// What the last states of all its jobs make of a mail.
pub fn ending_of<S: Deref<Target = JobState>>(jobs: &[S]) -> Ending {
    let (mut got, mut failed, mut dropped) = (false, false, false);
    for recipient in jobs.iter().flat_map(|job| &job.recipients) {
        match &recipient.progress {
            Progress::Done(Outcome::Failed(_)) => failed = true,
            Progress::Done(_) => got = true,
            Progress::Dropped | Progress::Pending(_) => dropped = true,
        }
    }
    match (got, failed, dropped) {
        (true, false, false) | (false, false, false) => Ending::Delivered,
        (true, ..) => Ending::Partly,
        (false, true, _) => Ending::Failed,
        (false, false, true) => Ending::Dropped,
    }
}

const fn ending_to_wire(ending: Ending) -> u32 {
    match ending {
        Ending::Delivered => 1,
        Ending::Failed => 2,
        Ending::Dropped => 3,
        Ending::Partly => 4,
    }
}

/// Where the content of a retired mail is, as long as that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetiredContent {
    /// It was not kept.
    None,
    /// A record among the retired contents.
    Record(Location),
    /// A file among the retired ones.
    File(ContentRef),
}

/// A mail after its end.
#[derive(Debug, Clone, PartialEq)]
pub struct RetiredMail {
    /// When it ended.
    pub retired_at: Timestamp,
    /// How.
    pub ending: Ending,
    /// Who sent it to whom.
    pub envelope: Envelope,
    /// What it was known by.
    pub digest: Digest,
    /// The last state of each of its jobs.
    pub jobs: Vec<JobState>,
    /// Where its content is.
    pub content: RetiredContent,
}

impl RetiredMail {
    /// The record to append, made of the mail's own record: the envelope goes over as it lies there.
    pub fn draft(
        id: QueueId,
        retired_at: Timestamp,
        payload: &[u8],
        jobs: &[EncodedState],
        content: RetiredContent,
    ) -> Result<RecordDraft, QueueError> {
        let (record, file) = match content {
            RetiredContent::None => (None, None),
            RetiredContent::Record(place) => (Some(location_to_wire(place)), None),
            RetiredContent::File(file) => (None, Some(file_to_wire(file))),
        };
        let retired = wire::Retired {
            queue_id: id.to_bytes().to_vec(),
            retired_at: retired_at.as_millis(),
            ending: ending_to_wire(ending_of(jobs)),
            head: head_without_jobs(payload)?,
            jobs: jobs.iter().map(|job| job.octets().clone()).collect(),
            content: record,
            file,
        };
        Ok(RecordDraft::new(RETIRED, retired.encode_to_vec()))
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, QueueError> {
        let retired = wire::Retired::decode(payload).map_err(|e| unreadable(WHAT, e))?;
        let head =
            wire::MailHead::decode(retired.head.as_slice()).map_err(|e| unreadable(WHAT, e))?;
        let envelope = head
            .envelope
            .ok_or_else(|| unreadable(WHAT, "no envelope"))?;
        let jobs = retired.jobs.iter().map(|job| state::decode(job));
        let jobs: Vec<JobState> = jobs.collect::<Result<_, _>>()?;
        Ok(Self {
            retired_at: Timestamp::from_millis(retired.retired_at),
            ending: match retired.ending {
                1 => Ending::Delivered,
                2 => Ending::Failed,
                3 => Ending::Dropped,
                4 => Ending::Partly,
                other => return Err(unreadable(WHAT, format!("ending {other}"))),
            },
            envelope: envelope::from_wire(envelope)?,
            digest: state::digest_from_wire(head.digest),
            jobs,
            content: match (retired.content, retired.file) {
                (Some(place), _) => RetiredContent::Record(location_from_wire(place)),
                (None, Some(file)) => RetiredContent::File(file_from_wire(&file)?),
                (None, None) => RetiredContent::None,
            },
        })
    }
}

/// The record of a content; the content is not copied.
pub fn content_draft(id: QueueId, retired_at: Timestamp, content: Bytes) -> RecordDraft {
    let key = wire::RetiredKey {
        queue_id: id.to_bytes().to_vec(),
        retired_at: retired_at.as_millis(),
    };
    RecordDraft::new(RETIRED_CONTENT, key.encode_length_delimited_to_vec()).with_part(content)
}

/// The content in a record of it.
pub fn split_content(payload: &Bytes) -> Result<Bytes, QueueError> {
    Ok(payload.slice(content_start(payload)?..))
}

/// Whose record this is, and when it was retired; without reading the rest. None if it is not a record of a retired mail or
/// content.
pub fn retired_key(kind: RecordKind, payload: &[u8]) -> Option<(QueueId, Timestamp)> {
    let key = match kind {
        RETIRED => payload,
        RETIRED_CONTENT => {
            let mut rest = payload;
            let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            rest.get(..len)?
        }
        _ => return None,
    };
    let key = wire::RetiredKey::decode(key).ok()?;
    let id = QueueId::from_bytes(key.queue_id.as_slice().try_into().ok()?);
    Some((id, Timestamp::from_millis(key.retired_at)))
}

const fn location_to_wire(location: Location) -> wire::Location {
    wire::Location {
        segment: location.segment.0,
        offset: location.offset,
        len: location.len,
        lsn: location.lsn.0,
    }
}

const fn location_from_wire(place: wire::Location) -> Location {
    Location {
        segment: SegmentNumber(place.segment),
        offset: place.offset,
        len: place.len,
        lsn: Lsn(place.lsn),
    }
}
