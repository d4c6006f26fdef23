//! The record of a mail: `varint length of the head | head | content octets, unless they lie in a file`.

use bytes::{Buf, Bytes};
use postroad_envelope::Envelope;
use postroad_journal::{ContentNonce, ContentRef, RecordDraft};
use prost::{Message, encoding::decode_varint};

use super::{EncodedState, MAIL, envelope, state, wire};
use crate::{Digest, JobState, QueueError, error::unreadable};

const WHAT: &str = "mail";
/// The field of a head with the first states of the mail's jobs.
const JOBS: u32 = 4;

/// The content of a mail and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In the record itself.
    Inline(Bytes),
    /// In a file of its own, written and synced before the record.
    File(ContentRef),
}

impl Content {
    /// Octets of content.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Self::File(file) => file.len,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// CRC32C over all of it.
    pub fn crc32c(&self) -> u32 {
        match self {
            Self::Inline(bytes) => crc32c::crc32c(bytes),
            Self::File(file) => file.crc,
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<ContentRef> {
        match self {
            Self::Inline(_) => None,
            Self::File(file) => Some(*file),
        }
    }
}

/// A mail as accepted. Nothing in it ever changes; what becomes of it is told by [`JobState`]s.
#[derive(Debug, Clone, PartialEq)]
pub struct MailRecord {
    /// Who sent it to whom.
    pub envelope: Envelope,
    /// What it says.
    pub content: Content,
    /// What it is known by.
    pub digest: Digest,
    /// Its jobs as accepted; empty if the record was copied forward, since their newest states follow it then.
    pub jobs: Vec<JobState>,
}

/// A [`MailRecord`] without its content.
pub struct MailHead {
    pub envelope: Envelope,
    pub file: Option<ContentRef>,
    pub digest: Digest,
    pub jobs: Vec<EncodedState>,
}

impl MailRecord {
    /// The record to append; the content is not copied.
    pub fn draft(&self) -> RecordDraft {
        let jobs = self.jobs.iter().cloned().map(EncodedState::from);
        let jobs: Vec<_> = jobs.collect();
        let (envelope, content) = (self.envelope.clone(), self.content.clone());
        draft(envelope, content, self.digest, &jobs)
    }

    /// Reads a payload; the content shares its memory.
    pub fn decode(payload: Bytes) -> Result<Self, QueueError> {
        let (head, content_at) = split_head(&payload)?;
        Ok(Self::of(head, payload, content_at))
    }

    /// The same without its jobs, whose newest states the index knows.
    pub fn decode_mail(payload: Bytes) -> Result<Self, QueueError> {
        let (mut head, content_at) = wire_head(&payload)?;
        head.jobs.clear();
        Ok(Self::of(head_from_wire(head)?, payload, content_at))
    }

    fn of(head: MailHead, payload: Bytes, content_at: usize) -> Self {
        let content = match head.file {
            Some(file) => Content::File(file),
            None => Content::Inline(payload.slice(content_at..)),
        };
        Self {
            envelope: head.envelope,
            content,
            digest: head.digest,
            jobs: head
                .jobs
                .into_iter()
                .map(EncodedState::into_state)
                .collect(),
        }
    }
}

/// [`MailRecord::draft`] of jobs that are encoded already.
pub fn draft(
    envelope: Envelope,
    content: Content,
    digest: Digest,
    jobs: &[EncodedState],
) -> RecordDraft {
    let head = wire::MailHead {
        envelope: Some(envelope::to_wire(envelope)),
        file: content.file().map(file_to_wire),
        digest: Some(state::digest_to_wire(digest)),
        jobs: jobs.iter().map(|job| job.octets().clone()).collect(),
    };
    let draft = RecordDraft::new(MAIL, head.encode_length_delimited_to_vec());
    match content {
        Content::Inline(bytes) => draft.with_part(bytes),
        Content::File(_) => draft,
    }
}

/// Reads the head of a payload; also tells where in it the content begins.
pub fn split_head(payload: &[u8]) -> Result<(MailHead, usize), QueueError> {
    let (head, content_at) = wire_head(payload)?;
    Ok((head_from_wire(head)?, content_at))
}

fn wire_head(payload: &[u8]) -> Result<(wire::MailHead, usize), QueueError> {
    let (head, content_at) = head_bytes(payload)?;
    let head = wire::MailHead::decode(head).map_err(|e| unreadable(WHAT, e))?;
    Ok((head, content_at))
}

fn head_from_wire(head: wire::MailHead) -> Result<MailHead, QueueError> {
    let envelope = head
        .envelope
        .ok_or_else(|| unreadable(WHAT, "no envelope"))?;
    Ok(MailHead {
        envelope: envelope::from_wire(envelope)?,
        file: head.file.as_ref().map(file_from_wire).transpose()?,
        digest: state::digest_from_wire(head.digest),
        jobs: head
            .jobs
            .into_iter()
            .map(EncodedState::decode)
            .collect::<Result<_, _>>()?,
    })
}

/// The record to append when a mail is copied forward: the same, unknown fields included, without the first states of its
/// jobs.
pub fn moved_draft(payload: Bytes) -> Result<RecordDraft, QueueError> {
    let (head, content_at) = head_bytes(&payload)?;
    let kept = super::unknown::fields_outside(head, JOBS..=JOBS);
    let mut prefix = Vec::with_capacity(kept.len() + 4);
    prost::encode_length_delimiter(kept.len(), &mut prefix).map_err(|e| unreadable(WHAT, e))?;
    prefix.extend_from_slice(&kept);
    Ok(RecordDraft::new(MAIL, prefix).with_part(payload.slice(content_at..)))
}

/// The head of a payload without the first states of the mail's jobs.
pub fn head_without_jobs(payload: &[u8]) -> Result<Vec<u8>, QueueError> {
    let (head, _) = head_bytes(payload)?;
    Ok(super::unknown::fields_outside(head, JOBS..=JOBS).into())
}

/// Where behind a head with its length the content begins.
pub fn content_start(payload: &[u8]) -> Result<usize, QueueError> {
    Ok(head_bytes(payload)?.1)
}

fn head_bytes(payload: &[u8]) -> Result<(&[u8], usize), QueueError> {
    let mut rest = payload;
    let len = decode_varint(&mut rest).map_err(|e| unreadable(WHAT, e))?;
    let head = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let head = head.ok_or_else(|| unreadable(WHAT, "head longer than the record"))?;
    Ok((head, payload.len() - rest.remaining() + head.len()))
}

pub fn file_to_wire(file: ContentRef) -> wire::ContentFile {
    wire::ContentFile {
        nonce: file.nonce.0.to_vec(),
        len: file.len,
        crc32c: file.crc,
    }
}

pub fn file_from_wire(file: &wire::ContentFile) -> Result<ContentRef, QueueError> {
    let nonce = file.nonce.as_slice().try_into();
    let nonce = nonce.map_err(|_| unreadable("name of a content file", "not 16 octets"))?;
    Ok(ContentRef {
        nonce: ContentNonce(nonce),
        len: file.len,
        crc: file.crc32c,
    })
}
