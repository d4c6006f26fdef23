use postroad_envelope::Timestamp;
use postroad_proto::queue::v1;

use crate::{SiteDetails, SiteList, SitesQuery};

impl From<SitesQuery> for v1::SitesRequest {
    fn from(query: SitesQuery) -> Self {
        Self {
            name: query.name.unwrap_or_default(),
            limit: query.limit,
        }
    }
}

impl From<v1::SitesRequest> for SitesQuery {
    fn from(wire: v1::SitesRequest) -> Self {
        Self {
            name: Some(wire.name).filter(|name| !name.is_empty()),
            limit: wire.limit,
        }
    }
}

impl From<SiteList> for v1::SitesResponse {
    fn from(list: SiteList) -> Self {
        Self {
            sites: list.sites.into_iter().map(Into::into).collect(),
            total: list.total,
        }
    }
}

impl From<v1::SitesResponse> for SiteList {
    fn from(wire: v1::SitesResponse) -> Self {
        Self {
            sites: wire.sites.into_iter().map(Into::into).collect(),
            total: wire.total,
        }
    }
}

impl From<SiteDetails> for v1::SiteDetails {
    fn from(details: SiteDetails) -> Self {
        Self {
            site: details.site,
            domains: details.domains,
            domain_count: details.domain_count,
            state: details.state,
            until_ms: details.until.map(Timestamp::as_millis),
            in_use: details.in_use,
            connections: details.connections,
            per_minute: details.per_minute,
            limits: details.limits,
            waiting: details.waiting,
            taken: details.taken,
            refused: details.refused,
            reason: details.reason,
            reason_at_ms: details.reason_at.map(Timestamp::as_millis),
        }
    }
}

impl From<v1::SiteDetails> for SiteDetails {
    fn from(wire: v1::SiteDetails) -> Self {
        Self {
            site: wire.site,
            domains: wire.domains,
            domain_count: wire.domain_count,
            state: wire.state,
            until: wire.until_ms.map(Timestamp::from_millis),
            in_use: wire.in_use,
            connections: wire.connections,
            per_minute: wire.per_minute,
            limits: wire.limits,
            waiting: wire.waiting,
            taken: wire.taken,
            refused: wire.refused,
            reason: wire.reason,
            reason_at: wire.reason_at_ms.map(Timestamp::from_millis),
        }
    }
}
