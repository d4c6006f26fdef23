use postroad_address::ReversePath;
use postroad_envelope::{
    BodyKind, DeliverBy, EditPlace, Envelope, HeaderEdit, MAX_FACT, MAX_FACTS, MAX_TAG, MAX_TAGS,
    Origin, Protocol, Ret, Timestamp, TlsFacts,
};

use super::{ConvertError, millis, parsed, queue_id, queue_id_bytes, required};
use crate::queue::v1;

impl From<&Envelope> for v1::Envelope {
    fn from(envelope: &Envelope) -> Self {
        Self {
            queue_id: queue_id_bytes(envelope.queue_id),
            reverse_path: envelope.reverse_path.to_string(),
            recipients: envelope.recipients.iter().map(Into::into).collect(),
            tenant: envelope.tenant.clone(),
            account: envelope.account.clone(),
            tags: envelope.tags.clone(),
            facts: envelope.facts.clone().into_iter().collect(),
            listener: envelope.listener.clone(),
            priority: envelope.priority.into(),
            received_at_ms: envelope.received_at.as_millis(),
            not_before_ms: envelope.not_before.map(Timestamp::as_millis),
            expires_at_ms: envelope.expires_at.map(Timestamp::as_millis),
            deliver_by: envelope.deliver_by.map(|by| v1::DeliverBy {
                at_ms: by.at.as_millis(),
                return_after: by.return_after,
                trace: by.trace,
            }),
            body: body_to_wire(envelope.body).into(),
            smtputf8: envelope.smtputf8,
            requiretls: envelope.requiretls,
            envid: envelope.envid.clone(),
            ret: match envelope.ret {
                None => v1::Ret::Unspecified,
                Some(Ret::Full) => v1::Ret::Full,
                Some(Ret::Headers) => v1::Ret::Hdrs,
            }
            .into(),
            auth: envelope.auth.clone(),
            size: envelope.size,
            verdicts: envelope.verdicts.clone().into_iter().collect(),
            trace_context: envelope.trace_context.clone(),
            hop_count: envelope.hop_count,
            resent_of: envelope.resent_of.map(queue_id_bytes),
            header_edits: envelope.header_edits.iter().map(Into::into).collect(),
            origin: Some((&envelope.origin).into()),
        }
    }
}

impl TryFrom<v1::Envelope> for Envelope {
    type Error = ConvertError;

    fn try_from(wire: v1::Envelope) -> Result<Self, ConvertError> {
        check_bounds(&wire)?;
        let (body, ret) = (wire.body(), wire.ret());
        Ok(Self {
            queue_id: queue_id("queue_id", &wire.queue_id)?,
            reverse_path: ReversePath::parse(&wire.reverse_path)
                .map_err(|error| ConvertError::new("reverse_path", error))?,
            recipients: wire
                .recipients
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            tenant: wire.tenant,
            account: wire.account,
            tags: wire.tags,
            facts: wire.facts.into_iter().collect(),
            listener: wire.listener,
            priority: i8::try_from(wire.priority)
                .ok()
                .filter(|priority| (-9..=9).contains(priority))
                .ok_or_else(|| ConvertError::new("priority", "must be from -9 to 9"))?,
            received_at: Timestamp::from_millis(wire.received_at_ms),
            not_before: millis(wire.not_before_ms),
            expires_at: millis(wire.expires_at_ms),
            deliver_by: wire.deliver_by.map(|by| DeliverBy {
                at: Timestamp::from_millis(by.at_ms),
                return_after: by.return_after,
                trace: by.trace,
            }),
            body: match body {
                v1::Body::Unspecified => BodyKind::SevenBit,
                v1::Body::Body8bitmime => BodyKind::EightBitMime,
                v1::Body::Binarymime => BodyKind::BinaryMime,
            },
            smtputf8: wire.smtputf8,
            requiretls: wire.requiretls,
            envid: wire.envid,
            ret: match ret {
                v1::Ret::Unspecified => None,
                v1::Ret::Full => Some(Ret::Full),
                v1::Ret::Hdrs => Some(Ret::Headers),
            },
            auth: wire.auth,
            size: wire.size,
            verdicts: wire.verdicts.into_iter().collect(),
            trace_context: wire.trace_context,
            hop_count: wire.hop_count,
            resent_of: wire
                .resent_of
                .map(|id| queue_id("resent_of", &id))
                .transpose()?,
            header_edits: wire
                .header_edits
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            origin: required("origin", wire.origin)?.try_into()?,
        })
    }
}

/// The bounds that keep an envelope small whatever an agent sends.
fn check_bounds(wire: &v1::Envelope) -> Result<(), ConvertError> {
    if wire.tags.len() > MAX_TAGS || wire.tags.iter().any(|tag| tag.len() > MAX_TAG) {
        return Err(ConvertError::new(
            "tags",
            format!("at most {MAX_TAGS} of {MAX_TAG} octets"),
        ));
    }
    let too_long =
        |(key, value): (&String, &String)| key.len() > MAX_FACT || value.len() > MAX_FACT;
    for (field, map) in [("facts", &wire.facts), ("verdicts", &wire.verdicts)] {
        if map.len() > MAX_FACTS || map.iter().any(too_long) {
            return Err(ConvertError::new(
                field,
                format!("at most {MAX_FACTS} of {MAX_FACT} octets"),
            ));
        }
    }
    Ok(())
}

fn body_to_wire(body: BodyKind) -> v1::Body {
    match body {
        BodyKind::SevenBit => v1::Body::Unspecified,
        BodyKind::EightBitMime => v1::Body::Body8bitmime,
        BodyKind::BinaryMime => v1::Body::Binarymime,
    }
}

impl From<&HeaderEdit> for v1::HeaderEdit {
    fn from(edit: &HeaderEdit) -> Self {
        use v1::header_edit::{Add, Edit, Remove};
        let edit = match edit {
            HeaderEdit::Add { place, field } => Edit::Add(Add {
                at_bottom: *place == EditPlace::Bottom,
                field: field.clone().into(),
            }),
            HeaderEdit::Remove { name, occurrence } => Edit::Remove(Remove {
                name: name.clone(),
                occurrence: *occurrence,
            }),
        };
        Self { edit: Some(edit) }
    }
}

impl TryFrom<v1::HeaderEdit> for HeaderEdit {
    type Error = ConvertError;

    fn try_from(wire: v1::HeaderEdit) -> Result<Self, ConvertError> {
        use v1::header_edit::Edit;
        Ok(match required("edit", wire.edit)? {
            Edit::Add(add) => Self::Add {
                place: if add.at_bottom {
                    EditPlace::Bottom
                } else {
                    EditPlace::Top
                },
                field: add.field.into(),
            },
            Edit::Remove(remove) => Self::Remove {
                name: remove.name,
                occurrence: remove.occurrence,
            },
        })
    }
}

impl From<&Origin> for v1::Origin {
    fn from(origin: &Origin) -> Self {
        Self {
            client: origin.client.map(|client| client.to_string()),
            rdns: origin.rdns.clone(),
            helo: origin.helo.clone(),
            tls: origin.tls.as_ref().map(Into::into),
            account: origin.account.clone(),
            protocol: origin.protocol.to_string(),
            peer: origin.peer.map(|peer| peer.to_string()),
        }
    }
}

impl TryFrom<v1::Origin> for Origin {
    type Error = ConvertError;

    fn try_from(wire: v1::Origin) -> Result<Self, ConvertError> {
        Ok(Self {
            client: wire
                .client
                .map(|client| parsed("client", &client))
                .transpose()?,
            rdns: wire.rdns,
            helo: wire.helo,
            tls: wire.tls.map(Into::into),
            account: wire.account,
            protocol: Protocol::all()
                .find(|protocol| protocol.to_string() == wire.protocol)
                .ok_or_else(|| ConvertError::new("protocol", "is no word of RFC 3848"))?,
            peer: wire.peer.map(|peer| parsed("peer", &peer)).transpose()?,
        })
    }
}

impl From<&TlsFacts> for v1::Tls {
    fn from(tls: &TlsFacts) -> Self {
        Self {
            version: tls.version.clone(),
            cipher: tls.cipher.clone(),
            verified: tls.verified.clone(),
        }
    }
}

impl From<v1::Tls> for TlsFacts {
    fn from(wire: v1::Tls) -> Self {
        Self {
            version: wire.version,
            cipher: wire.cipher,
            verified: wire.verified,
        }
    }
}
