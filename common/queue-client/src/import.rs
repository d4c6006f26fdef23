//! The words of an import: mails of another queue.

use postroad_envelope::{Envelope, Outcome, RecipientIndex, Timestamp};
use postroad_proto::{ConvertError, queue::v1};

/// A mail of another queue, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedMail {
    /// As it is there: with all recipients, all that was added to it, and the size of its content.
    pub envelope: Envelope,
    /// CRC32C of its content.
    pub crc32c: u32,
    /// Where recipients stand. Those that are not here are as of a new mail.
    pub recipients: Vec<ImportedRecipient>,
    /// Who asks, for the record.
    pub by: String,
    /// Only tell whether it is known.
    pub dry_run: bool,
}

/// Where a recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedRecipient {
    /// Which one.
    pub index: RecipientIndex,
    /// The last outcome; delayed: still to be tried.
    pub outcome: Option<Outcome>,
    /// An operator dropped it: it is never tried.
    pub dropped: bool,
    /// The sender is owed a report on it.
    pub owed: bool,
    /// Attempts made.
    pub attempts: u32,
    /// When it is tried next; none: now.
    pub next_attempt: Option<Timestamp>,
    /// Why it is held, if it is.
    pub hold: Option<String>,
    /// None: as the envelope says.
    pub priority: Option<i8>,
}

impl From<&ImportedMail> for v1::ImportedMail {
    fn from(mail: &ImportedMail) -> Self {
        Self {
            envelope: Some((&mail.envelope).into()),
            crc32c: mail.crc32c,
            recipients: mail.recipients.iter().map(Into::into).collect(),
            by: mail.by.clone(),
            dry_run: mail.dry_run,
        }
    }
}

impl TryFrom<v1::ImportedMail> for ImportedMail {
    type Error = ConvertError;

    fn try_from(wire: v1::ImportedMail) -> Result<Self, ConvertError> {
        let envelope = wire.envelope;
        let envelope = envelope.ok_or_else(|| ConvertError::new("envelope", "is missing"))?;
        let recipients = wire.recipients.into_iter().map(TryInto::try_into);
        Ok(Self {
            envelope: envelope.try_into()?,
            crc32c: wire.crc32c,
            recipients: recipients.collect::<Result<_, _>>()?,
            by: wire.by,
            dry_run: wire.dry_run,
        })
    }
}

impl From<&ImportedRecipient> for v1::ImportedRecipient {
    fn from(recipient: &ImportedRecipient) -> Self {
        Self {
            index: recipient.index.0,
            outcome: recipient.outcome.as_ref().map(Into::into),
            dropped: recipient.dropped,
            owed: recipient.owed,
            attempts: recipient.attempts,
            next_attempt_ms: recipient.next_attempt.map(Timestamp::as_millis),
            hold: recipient.hold.clone(),
            priority: recipient.priority.map(Into::into),
        }
    }
}

impl TryFrom<v1::ImportedRecipient> for ImportedRecipient {
    type Error = ConvertError;

    fn try_from(wire: v1::ImportedRecipient) -> Result<Self, ConvertError> {
        let priority = wire.priority.map(|priority| match i8::try_from(priority) {
            Ok(priority @ -9..=9) => Ok(priority),
            _ => Err(ConvertError::new("priority", "is a number from -9 to 9")),
        });
        Ok(Self {
            index: RecipientIndex(wire.index),
            outcome: wire.outcome.map(TryInto::try_into).transpose()?,
            dropped: wire.dropped,
            owed: wire.owed,
            attempts: wire.attempts,
            next_attempt: wire.next_attempt_ms.map(Timestamp::from_millis),
            hold: wire.hold,
            priority: priority.transpose()?,
        })
    }
}
