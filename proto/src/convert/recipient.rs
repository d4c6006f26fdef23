use postroad_address::Mailbox;
use postroad_envelope::{
    MAX_NEXT_HOPS, NextHop, Notify, OriginalRecipient, Recipient, RecipientIndex, Route,
    RouteClass, SourceName, StoreName, WeightedHop,
};

use super::{ConvertError, parsed};
use crate::queue::v1;

impl From<&Recipient> for v1::Recipient {
    fn from(recipient: &Recipient) -> Self {
        Self {
            index: recipient.index.0,
            address: recipient.address.to_string(),
            original: recipient.original.as_ref().map(Mailbox::to_string),
            notify: Some(recipient.notify.into()),
            orcpt: recipient.orcpt.as_ref().map(|orcpt| v1::OriginalRecipient {
                address_type: orcpt.address_type.clone(),
                address: orcpt.address.clone(),
            }),
            route_override: recipient.route_override.as_ref().map(|(class, next_hop)| {
                v1::RouteOverride {
                    class: v1::RouteClass::from(*class).into(),
                    next_hop: next_hop.as_ref().map(NextHop::to_string),
                }
            }),
            target_folder: recipient.target_folder.clone(),
        }
    }
}

impl TryFrom<v1::Recipient> for Recipient {
    type Error = ConvertError;

    fn try_from(wire: v1::Recipient) -> Result<Self, ConvertError> {
        Ok(Self {
            index: RecipientIndex(wire.index),
            address: parsed("address", &wire.address)?,
            original: wire
                .original
                .map(|address| parsed("original", &address))
                .transpose()?,
            notify: wire.notify.map_or_else(Notify::default, Into::into),
            orcpt: wire.orcpt.map(|orcpt| OriginalRecipient {
                address_type: orcpt.address_type,
                address: orcpt.address,
            }),
            route_override: wire
                .route_override
                .map(|over| {
                    let class = RouteClass::try_from(over.class())?;
                    let next_hop = over
                        .next_hop
                        .map(|hop| parsed("next_hop", &hop))
                        .transpose()?;
                    Ok::<_, ConvertError>((class, next_hop))
                })
                .transpose()?,
            target_folder: wire.target_folder,
        })
    }
}

impl From<Notify> for v1::Notify {
    fn from(notify: Notify) -> Self {
        match notify {
            // As releases wrote it that did not tell it from `NOTIFY=FAILURE,DELAY`.
            Notify::Unsaid => Self {
                failure: true,
                delay: true,
                ..Self::default()
            },
            Notify::Never => Self {
                never: true,
                said: true,
                ..Self::default()
            },
            Notify::On {
                success,
                failure,
                delay,
            } => Self {
                never: false,
                success,
                failure,
                delay,
                said: true,
            },
        }
    }
}

impl From<v1::Notify> for Notify {
    fn from(wire: v1::Notify) -> Self {
        match wire {
            v1::Notify { never: true, .. } => Self::Never,
            v1::Notify {
                said: false,
                success: false,
                failure: true,
                delay: true,
                ..
            } => Self::Unsaid,
            _ => Self::On {
                success: wire.success,
                failure: wire.failure,
                delay: wire.delay,
            },
        }
    }
}

impl From<RouteClass> for v1::RouteClass {
    fn from(class: RouteClass) -> Self {
        match class {
            RouteClass::Local => Self::Local,
            RouteClass::Relay => Self::Relay,
            RouteClass::Lmtp => Self::Lmtp,
            RouteClass::Hold => Self::Hold,
            RouteClass::Discard => Self::Discard,
        }
    }
}

impl TryFrom<v1::RouteClass> for RouteClass {
    type Error = ConvertError;

    fn try_from(wire: v1::RouteClass) -> Result<Self, ConvertError> {
        Ok(match wire {
            v1::RouteClass::Unspecified => return Err(ConvertError::new("class", "is missing")),
            v1::RouteClass::Local => Self::Local,
            v1::RouteClass::Relay => Self::Relay,
            v1::RouteClass::Lmtp => Self::Lmtp,
            v1::RouteClass::Hold => Self::Hold,
            v1::RouteClass::Discard => Self::Discard,
        })
    }
}

impl From<&Route> for v1::Route {
    fn from(route: &Route) -> Self {
        Self {
            class: v1::RouteClass::from(route.class).into(),
            destination: route.destination.clone(),
            next_hop: route.next_hop.as_ref().map(NextHop::to_string),
            rule: route.rule.clone(),
            store: route.store.named().map(str::to_owned),
            next_hops: route.next_hops.iter().map(Into::into).collect(),
            source: route.source.as_ref().map(SourceName::to_string),
        }
    }
}

impl From<&WeightedHop> for v1::NextHop {
    fn from(hop: &WeightedHop) -> Self {
        Self {
            hop: hop.hop.to_string(),
            weight: hop.weight.into(),
            preference: hop.preference.into(),
        }
    }
}

impl TryFrom<v1::NextHop> for WeightedHop {
    type Error = ConvertError;

    fn try_from(wire: v1::NextHop) -> Result<Self, ConvertError> {
        let small = |field, number: u32| {
            u16::try_from(number).map_err(|error| ConvertError::new(field, error))
        };
        Ok(Self {
            hop: parsed("hop", &wire.hop)?,
            weight: small("weight", wire.weight)?,
            preference: small("preference", wire.preference)?,
        })
    }
}

impl TryFrom<v1::Route> for Route {
    type Error = ConvertError;

    fn try_from(wire: v1::Route) -> Result<Self, ConvertError> {
        if wire.next_hops.len() > MAX_NEXT_HOPS {
            return Err(ConvertError::new("next_hops", "are too many"));
        }
        let next_hops = wire.next_hops.iter().cloned();
        Ok(Self {
            next_hops: next_hops.map(TryInto::try_into).collect::<Result<_, _>>()?,
            source: wire
                .source
                .as_deref()
                .map(|name| parsed("source", name))
                .transpose()?,
            class: wire.class().try_into()?,
            destination: wire.destination,
            next_hop: wire
                .next_hop
                .map(|hop| parsed("next_hop", &hop))
                .transpose()?,
            rule: wire.rule,
            store: wire
                .store
                .map_or(Ok(StoreName::default()), |name| parsed("store", &name))?,
        })
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
            assert_eq!(Notify::from(v1::Notify::from(notify)), notify);
        }
        let old = |failure, delay| v1::Notify {
            failure,
            delay,
            ..v1::Notify::default()
        };
        assert_eq!(Notify::from(old(true, true)), Notify::Unsaid);
        assert_eq!(Notify::from(old(true, false)), on(false, true, false));
    }
}
