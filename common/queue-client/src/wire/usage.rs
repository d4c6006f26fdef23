use postroad_proto::{ConvertError, queue::v1};

use crate::{Usage, UsageQuery, UsageScope};

impl From<UsageScope> for v1::UsageScope {
    fn from(scope: UsageScope) -> Self {
        match scope {
            UsageScope::Tenant => Self::Tenant,
            UsageScope::Account => Self::Account,
            UsageScope::Domain => Self::Domain,
        }
    }
}

/// None: all.
fn scope(wire: v1::UsageScope) -> Option<UsageScope> {
    match wire {
        v1::UsageScope::Unspecified => None,
        v1::UsageScope::Tenant => Some(UsageScope::Tenant),
        v1::UsageScope::Account => Some(UsageScope::Account),
        v1::UsageScope::Domain => Some(UsageScope::Domain),
    }
}

impl From<UsageQuery> for v1::UsageRequest {
    fn from(query: UsageQuery) -> Self {
        Self {
            scope: query
                .scope
                .map_or(v1::UsageScope::Unspecified, Into::into)
                .into(),
            limit: query.limit,
        }
    }
}

impl TryFrom<v1::UsageRequest> for UsageQuery {
    type Error = ConvertError;

    fn try_from(wire: v1::UsageRequest) -> Result<Self, ConvertError> {
        // One of a later contract is not all of them.
        let known = v1::UsageScope::try_from(wire.scope)
            .map_err(|_| ConvertError::new("scope", "is unknown"))?;
        Ok(Self {
            scope: scope(known),
            limit: wire.limit,
        })
    }
}

impl From<&Usage> for v1::Usage {
    fn from(usage: &Usage) -> Self {
        Self {
            scope: v1::UsageScope::from(usage.scope).into(),
            name: usage.name.clone(),
            mails: usage.mails,
            bytes: usage.octets,
            most_mails: usage.most_mails,
            most_bytes: usage.most_octets,
        }
    }
}

impl TryFrom<v1::Usage> for Usage {
    type Error = ConvertError;

    fn try_from(wire: v1::Usage) -> Result<Self, ConvertError> {
        Ok(Self {
            scope: scope(wire.scope()).ok_or_else(|| ConvertError::new("scope", "is missing"))?,
            name: wire.name,
            mails: wire.mails,
            octets: wire.bytes,
            most_mails: wire.most_mails,
            most_octets: wire.most_bytes,
        })
    }
}
