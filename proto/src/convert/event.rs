use postroad_envelope::{Event, EventKind, RecipientIndex, Timestamp};

use super::{ConvertError, queue_id, queue_id_bytes};
use crate::queue::v1;

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        Self {
            queue_id: queue_id_bytes(event.queue_id),
            at_ms: event.at.as_millis(),
            agent: event.agent,
            kind: event_kind(event.kind).into(),
            recipients: event.recipients.iter().map(|index| index.0).collect(),
            text: event.text,
            fields: event.fields.into_iter().collect(),
        }
    }
}

impl TryFrom<v1::Event> for Event {
    type Error = ConvertError;

    fn try_from(wire: v1::Event) -> Result<Self, ConvertError> {
        let kind = event_kind_from_wire(wire.kind())?;
        Ok(Self {
            queue_id: queue_id("queue_id", &wire.queue_id)?,
            at: Timestamp::from_millis(wire.at_ms),
            agent: wire.agent,
            kind,
            recipients: wire.recipients.into_iter().map(RecipientIndex).collect(),
            text: wire.text,
            fields: wire.fields.into_iter().collect(),
        })
    }
}

/// The kind of an event, read.
pub fn event_kind_from_wire(kind: v1::EventKind) -> Result<EventKind, ConvertError> {
    EventKind::ALL
        .into_iter()
        .find(|&known| event_kind(known) == kind)
        .ok_or_else(|| ConvertError::new("kind", "is missing or not known"))
}

/// The kind of an event, as on the wire.
pub fn event_kind(kind: EventKind) -> v1::EventKind {
    match kind {
        EventKind::Accepted => v1::EventKind::Accepted,
        EventKind::Verdict => v1::EventKind::Verdict,
        EventKind::Routed => v1::EventKind::Routed,
        EventKind::Leased => v1::EventKind::Leased,
        EventKind::Attempt => v1::EventKind::Attempt,
        EventKind::Settled => v1::EventKind::Settled,
        EventKind::Delivered => v1::EventKind::Delivered,
        EventKind::DsnSent => v1::EventKind::DsnSent,
        EventKind::Admin => v1::EventKind::Admin,
        EventKind::Late => v1::EventKind::Late,
        EventKind::Held => v1::EventKind::Held,
        EventKind::Resent => v1::EventKind::Resent,
        EventKind::Withdrawn => v1::EventKind::Withdrawn,
        // Kinds are added in both crates at once; one that is not is not sent.
        _ => v1::EventKind::Unspecified,
    }
}
