//! Envelope ↔ store.

use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::{
    BodyKind, DeliverBy, EditPlace, Envelope, HeaderEdit, Notify, Origin, OriginalRecipient,
    Protocol, QueueId, Recipient, RecipientIndex, Ret, Timestamp,
};

use super::{
    outcome::{class_from_wire, class_to_wire, next_hop_from_wire, tls_from_wire, tls_to_wire},
    wire,
};
use crate::{QueueError, error::unreadable};

const WHAT: &str = "envelope";

pub(super) fn queue_id(bytes: &[u8]) -> Result<QueueId, QueueError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| unreadable("queue id", "not 16 octets"))?;
    Ok(QueueId::from_bytes(bytes))
}

pub fn to_wire(envelope: Envelope) -> wire::Envelope {
    wire::Envelope {
        queue_id: envelope.queue_id.to_bytes().to_vec(),
        reverse_path: envelope.reverse_path.to_string(),
        recipients: envelope
            .recipients
            .into_iter()
            .map(recipient_to_wire)
            .collect(),
        tenant: envelope.tenant,
        account: envelope.account,
        tags: envelope.tags,
        facts: envelope.facts,
        listener: envelope.listener,
        priority: envelope.priority.into(),
        received_at: envelope.received_at.as_millis(),
        not_before: envelope.not_before.map(Timestamp::as_millis),
        expires_at: envelope.expires_at.map(Timestamp::as_millis),
        deliver_by: envelope.deliver_by.map(Into::into),
        body: match envelope.body {
            BodyKind::SevenBit => 0,
            BodyKind::EightBitMime => 1,
            BodyKind::BinaryMime => 2,
        },
        smtputf8: envelope.smtputf8,
        requiretls: envelope.requiretls,
        envid: envelope.envid,
        ret: match envelope.ret {
            None => 0,
            Some(Ret::Full) => 1,
            Some(Ret::Headers) => 2,
        },
        auth: envelope.auth,
        size: envelope.size,
        verdicts: envelope.verdicts,
        trace_context: envelope.trace_context,
        hop_count: envelope.hop_count,
        resent_of: envelope.resent_of.map(|id| id.to_bytes().to_vec()),
        header_edits: envelope
            .header_edits
            .into_iter()
            .map(edit_to_wire)
            .collect(),
        origin: Some(origin_to_wire(envelope.origin)),
    }
}

pub fn from_wire(envelope: wire::Envelope) -> Result<Envelope, QueueError> {
    Ok(Envelope {
        queue_id: queue_id(&envelope.queue_id)?,
        reverse_path: ReversePath::parse(&envelope.reverse_path)
            .map_err(|e| unreadable(WHAT, e))?,
        recipients: envelope
            .recipients
            .into_iter()
            .map(recipient_from_wire)
            .collect::<Result<_, _>>()?,
        tenant: envelope.tenant,
        account: envelope.account,
        tags: envelope.tags,
        facts: envelope.facts,
        listener: envelope.listener,
        priority: priority(envelope.priority)?,
        received_at: Timestamp::from_millis(envelope.received_at),
        not_before: envelope.not_before.map(Timestamp::from_millis),
        expires_at: envelope.expires_at.map(Timestamp::from_millis),
        deliver_by: envelope.deliver_by.map(Into::into),
        body: match envelope.body {
            0 => BodyKind::SevenBit,
            1 => BodyKind::EightBitMime,
            2 => BodyKind::BinaryMime,
            other => return Err(unreadable(WHAT, format!("body {other}"))),
        },
        smtputf8: envelope.smtputf8,
        requiretls: envelope.requiretls,
        envid: envelope.envid,
        ret: match envelope.ret {
            0 => None,
            1 => Some(Ret::Full),
            2 => Some(Ret::Headers),
            other => return Err(unreadable(WHAT, format!("ret {other}"))),
        },
        auth: envelope.auth,
        size: envelope.size,
        verdicts: envelope.verdicts,
        trace_context: envelope.trace_context,
        hop_count: envelope.hop_count,
        resent_of: envelope.resent_of.as_deref().map(queue_id).transpose()?,
        header_edits: envelope
            .header_edits
            .into_iter()
            .map(edit_from_wire)
            .collect::<Result<_, _>>()?,
        origin: origin_from_wire(envelope.origin.unwrap_or_default())?,
    })
}

pub(super) fn priority(value: i32) -> Result<i8, QueueError> {
    i8::try_from(value).map_err(|e| unreadable("priority", e))
}

fn mailbox(text: &str) -> Result<Mailbox, QueueError> {
    Mailbox::parse(text).map_err(|e| unreadable("address", e))
}

fn recipient_to_wire(recipient: Recipient) -> wire::Recipient {
    let (class, next_hop) = match &recipient.route_override {
        None => (0, None),
        Some((class, next_hop)) => (class_to_wire(*class), next_hop.as_ref().map(Into::into)),
    };
    wire::Recipient {
        index: recipient.index.0,
        address: recipient.address.to_string(),
        original: recipient.original.as_ref().map(ToString::to_string),
        notify: notify_to_wire(recipient.notify),
        orcpt: recipient.orcpt.map(|orcpt| wire::OriginalRecipient {
            address_type: orcpt.address_type,
            address: orcpt.address,
        }),
        override_class: class,
        override_next_hop: next_hop,
        target_folder: recipient.target_folder,
    }
}

const NEVER: u32 = 1;
const SUCCESS: u32 = 2;
const FAILURE: u32 = 4;
const DELAY: u32 = 8;
/// The client gave FAILURE and DELAY. Without it the two mean that it gave nothing, which older releases did not tell apart.
const SAID: u32 = 16;

fn notify_to_wire(notify: Notify) -> u32 {
    match notify {
        Notify::Unsaid => FAILURE | DELAY,
        Notify::Never => NEVER,
        Notify::On {
            success,
            failure,
            delay,
        } => {
            let cases = [(success, SUCCESS), (failure, FAILURE), (delay, DELAY)];
            let bits = cases.iter().filter(|(on, _)| *on).map(|(_, bit)| bit);
            bits.fold(SAID, |all, bit| all | bit)
        }
    }
}

const fn notify_from_wire(bits: u32) -> Notify {
    if bits & NEVER != 0 {
        return Notify::Never;
    }
    if bits == FAILURE | DELAY {
        return Notify::Unsaid;
    }
    Notify::On {
        success: bits & SUCCESS != 0,
        failure: bits & FAILURE != 0,
        delay: bits & DELAY != 0,
    }
}

fn recipient_from_wire(recipient: wire::Recipient) -> Result<Recipient, QueueError> {
    Ok(Recipient {
        index: RecipientIndex(recipient.index),
        address: mailbox(&recipient.address)?,
        original: recipient.original.as_deref().map(mailbox).transpose()?,
        notify: notify_from_wire(recipient.notify),
        orcpt: recipient.orcpt.map(|orcpt| OriginalRecipient {
            address_type: orcpt.address_type,
            address: orcpt.address,
        }),
        route_override: match recipient.override_class {
            0 => None,
            class => Some((
                class_from_wire(class)?,
                recipient
                    .override_next_hop
                    .map(next_hop_from_wire)
                    .transpose()?,
            )),
        },
        target_folder: recipient.target_folder,
    })
}

fn edit_to_wire(edit: HeaderEdit) -> wire::HeaderEdit {
    match edit {
        HeaderEdit::Add { place, field } => wire::HeaderEdit {
            action: match place {
                EditPlace::Top => 1,
                EditPlace::Bottom => 2,
            },
            field,
            ..Default::default()
        },
        HeaderEdit::Remove { name, occurrence } => wire::HeaderEdit {
            action: 3,
            name,
            occurrence,
            ..Default::default()
        },
    }
}

fn edit_from_wire(edit: wire::HeaderEdit) -> Result<HeaderEdit, QueueError> {
    Ok(match edit.action {
        1 => HeaderEdit::Add {
            place: EditPlace::Top,
            field: edit.field,
        },
        2 => HeaderEdit::Add {
            place: EditPlace::Bottom,
            field: edit.field,
        },
        3 => HeaderEdit::Remove {
            name: edit.name,
            occurrence: edit.occurrence,
        },
        other => return Err(unreadable(WHAT, format!("header edit {other}"))),
    })
}

fn origin_to_wire(origin: Origin) -> wire::Origin {
    wire::Origin {
        client: origin.client.map(|client| client.to_string()),
        rdns: origin.rdns,
        helo: origin.helo,
        tls: origin.tls.as_ref().map(tls_to_wire),
        account: origin.account,
        protocol: origin.protocol.to_string(),
        peer: origin.peer.map(|peer| peer.to_string()),
    }
}

fn origin_from_wire(origin: wire::Origin) -> Result<Origin, QueueError> {
    let protocol = match origin.protocol.as_str() {
        "" => Protocol::Internal,
        word => Protocol::all()
            .find(|protocol| protocol.to_string() == word)
            .ok_or_else(|| unreadable(WHAT, "unknown protocol"))?,
    };
    let address = |text: Option<String>| {
        text.map(|text| text.parse().map_err(|e| unreadable(WHAT, e)))
            .transpose()
    };
    Ok(Origin {
        client: address(origin.client)?,
        rdns: origin.rdns,
        helo: origin.helo,
        tls: origin.tls.map(tls_from_wire),
        account: origin.account,
        protocol,
        peer: address(origin.peer)?,
    })
}

impl From<DeliverBy> for wire::DeliverBy {
    fn from(by: DeliverBy) -> Self {
        Self {
            at: by.at.as_millis(),
            return_after: by.return_after,
            trace: by.trace,
        }
    }
}

impl From<wire::DeliverBy> for DeliverBy {
    fn from(by: wire::DeliverBy) -> Self {
        Self {
            at: Timestamp::from_millis(by.at),
            return_after: by.return_after,
            trace: by.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_from_what_was_not_also_by_releases_that_did_not() {
        let on = |success, failure, delay| Notify::On {
            success,
            failure,
            delay,
        };
        let all = [
            on(false, true, true),
            on(true, true, true),
            on(true, false, false),
        ];
        for notify in all
            .into_iter()
            .chain([Notify::Unsaid, Notify::Never, on(false, false, true)])
        {
            assert_eq!(notify_from_wire(notify_to_wire(notify)), notify);
        }
        // Bits 0 to 3 as the first release wrote and reads them.
        assert_eq!(notify_to_wire(Notify::Unsaid), 0b1100);
        assert_eq!(notify_to_wire(on(false, true, true)) & 0b1111, 0b1100);
        assert_eq!(notify_from_wire(0b1100), Notify::Unsaid);
        assert_eq!(notify_from_wire(0b0100), on(false, true, false));
    }
}
