use postroad_proto::{ConvertError, convert, queue::v1};

use crate::{Resend, Resent};

/// Most recipients that may be named.
const MOST: usize = 100;

impl From<&Resend> for v1::ResendRequest {
    fn from(resend: &Resend) -> Self {
        let route = resend.route.as_ref();
        Self {
            queue_id: convert::queue_id_bytes(resend.queue_id),
            recipients: resend.recipients.iter().map(ToString::to_string).collect(),
            route: route.map(|(class, next_hop)| v1::RouteOverride {
                class: v1::RouteClass::from(*class).into(),
                next_hop: next_hop.as_ref().map(ToString::to_string),
            }),
            by: resend.by.clone(),
            reason: resend.reason.clone(),
            dry_run: resend.dry_run,
        }
    }
}

impl TryFrom<v1::ResendRequest> for Resend {
    type Error = ConvertError;

    fn try_from(wire: v1::ResendRequest) -> Result<Self, ConvertError> {
        if wire.recipients.len() > MOST {
            return Err(ConvertError::new("recipients", "are more than 100"));
        }
        let recipients = wire.recipients.iter().map(|to| to.parse());
        let recipients = recipients.collect::<Result<_, _>>();
        let route = wire.route.map(|route| {
            let next_hop = route.next_hop.as_deref().map(str::parse).transpose();
            let next_hop = next_hop.map_err(|error| ConvertError::new("next_hop", error))?;
            Ok::<_, ConvertError>((route.class().try_into()?, next_hop))
        });
        Ok(Self {
            queue_id: convert::queue_id("queue_id", &wire.queue_id)?,
            recipients: recipients.map_err(|error| ConvertError::new("recipients", error))?,
            route: route.transpose()?,
            by: wire.by,
            reason: wire.reason,
            dry_run: wire.dry_run,
        })
    }
}

impl From<Resent> for v1::ResendResponse {
    fn from(resent: Resent) -> Self {
        let id = resent.queue_id.map(convert::queue_id_bytes);
        Self {
            queue_id: id.unwrap_or_default(),
            recipients: resent.recipients,
        }
    }
}

impl TryFrom<v1::ResendResponse> for Resent {
    type Error = ConvertError;

    fn try_from(wire: v1::ResendResponse) -> Result<Self, ConvertError> {
        let id = (!wire.queue_id.is_empty()).then_some(&wire.queue_id);
        Ok(Self {
            queue_id: id.map(|id| convert::queue_id("queue_id", id)).transpose()?,
            recipients: wire.recipients,
        })
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::{QueueId, RouteClass};

    use super::*;

    #[test]
    fn every_part_comes_back_as_it_was() {
        let id = QueueId::from_bytes([7; 16]);
        let full = Resend {
            recipients: vec!["a@b.test".parse().unwrap()],
            route: Some((RouteClass::Lmtp, Some("h.test:24".parse().unwrap()))),
            by: "me".to_owned(),
            reason: "why".to_owned(),
            dry_run: true,
            ..id.into()
        };
        for resend in [full, id.into()] {
            assert_eq!(v1::ResendRequest::from(&resend).try_into(), Ok(resend));
        }
        for queue_id in [Some(id), None] {
            let recipients = vec!["a@b.test".to_owned()];
            let resent = Resent {
                queue_id,
                recipients,
            };
            assert_eq!(
                v1::ResendResponse::from(resent.clone()).try_into(),
                Ok(resent)
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = v1::ResendRequest::from(&Resend::from(QueueId::from_bytes([7; 16])));
        let many = vec!["a@b.test".to_owned(); MOST + 1];
        for recipients in [many, vec!["nobody".to_owned()]] {
            let bad = v1::ResendRequest {
                recipients,
                ..good.clone()
            };
            assert!(Resend::try_from(bad).is_err());
        }
    }
}
