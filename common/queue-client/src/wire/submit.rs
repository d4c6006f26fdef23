use postroad_address::Mailbox;
use postroad_proto::{ConvertError, convert, queue::v1};

use crate::{Accepted, AdmitRequest, Completion};

impl Completion {
    /// The message, with the checksum of the content that was sent.
    pub fn to_wire(&self, crc32c: u32) -> v1::Completion {
        v1::Completion {
            size: self.size,
            crc32c,
            header_edits: self.header_edits.iter().map(Into::into).collect(),
            verdicts: self.verdicts.clone().into_iter().collect(),
            hop_count: self.hop_count,
            facts: self.facts.clone().into_iter().collect(),
        }
    }
}

impl TryFrom<v1::Completion> for Completion {
    type Error = ConvertError;

    fn try_from(wire: v1::Completion) -> Result<Self, ConvertError> {
        Ok(Self {
            size: wire.size,
            header_edits: wire
                .header_edits
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            verdicts: wire.verdicts.into_iter().collect(),
            hop_count: wire.hop_count,
            facts: wire.facts.into_iter().collect(),
        })
    }
}

impl From<Accepted> for v1::Accepted {
    fn from(accepted: Accepted) -> Self {
        Self {
            queue_id: convert::queue_id_bytes(accepted.queue_id),
            duplicate: accepted.duplicate,
        }
    }
}

impl TryFrom<v1::Accepted> for Accepted {
    type Error = ConvertError;

    fn try_from(wire: v1::Accepted) -> Result<Self, ConvertError> {
        Ok(Self {
            queue_id: convert::queue_id("queue_id", &wire.queue_id)?,
            duplicate: wire.duplicate,
        })
    }
}

impl From<&AdmitRequest> for v1::AdmitRequest {
    fn from(request: &AdmitRequest) -> Self {
        Self {
            tenant: request.tenant.clone(),
            account: request.account.clone(),
            size: request.size,
            recipients: request.recipients.iter().map(Mailbox::to_string).collect(),
        }
    }
}

impl TryFrom<v1::AdmitRequest> for AdmitRequest {
    type Error = ConvertError;

    fn try_from(wire: v1::AdmitRequest) -> Result<Self, ConvertError> {
        let mailbox = |text: &String| {
            text.parse()
                .map_err(|error| ConvertError::new("recipients", error))
        };
        Ok(Self {
            tenant: wire.tenant,
            account: wire.account,
            size: wire.size,
            recipients: wire
                .recipients
                .iter()
                .map(mailbox)
                .collect::<Result<_, ConvertError>>()?,
        })
    }
}
