use std::sync::Arc;

use postroad_envelope::Filter;
use postroad_queue_client::{SiteDetails, SiteList, SitesQuery};
use postroad_shaping::{Limits, SiteView, State};

use crate::core::Core;

/// Domains of a site that are named.
const DOMAINS: usize = 10;
const AS_A_RULE: usize = 1_000;
const MOST: usize = 10_000;

/// A folded filter; if it names a site, with the destinations that this is known to be behind now.
pub(super) fn found(core: &Core, filter: Filter) -> Filter {
    let destinations = filter.site.as_deref().map(|site| {
        let destinations = core.sites.destinations_of(site);
        Arc::new(destinations)
    });
    Filter {
        destinations,
        ..filter
    }
}

pub(super) fn list(core: &Core, query: &SitesQuery) -> SiteList {
    let limit = match usize::try_from(query.limit).unwrap_or(MOST) {
        0 => AS_A_RULE,
        limit => limit.min(MOST),
    };
    let mut views = core.sites.view(DOMAINS);
    if let Some(name) = &query.name {
        let site = core.sites.of(name);
        let meant = |view: &SiteView| {
            Some(&view.site) == site.as_ref() || view.site.eq_ignore_ascii_case(name)
        };
        views.retain(meant);
    }
    let total = u64::try_from(views.len()).unwrap_or(u64::MAX);
    views.sort_by_key(|view| matches!(view.state, State::Open | State::New));
    SiteList {
        sites: views.into_iter().take(limit).map(details).collect(),
        total,
    }
}

fn details(view: SiteView) -> SiteDetails {
    let (reason_at, reason) = match view.reason {
        Some((at, reason)) => (Some(at), reason),
        None => (None, String::new()),
    };
    SiteDetails {
        site: view.site.to_string(),
        domains: view.domains.iter().map(ToString::to_string).collect(),
        domain_count: u64::try_from(view.domain_count).unwrap_or(u64::MAX),
        state: view.state.word().to_owned(),
        until: view.state.until(),
        in_use: view.in_use,
        connections: view.connections,
        per_minute: view.per_minute,
        limits: limits(view.limits),
        waiting: u64::try_from(view.waiting).unwrap_or(u64::MAX),
        taken: view.lately.0,
        refused: view.lately.1,
        reason,
        reason_at,
    }
}

fn limits(limits: Limits) -> String {
    let parts = [
        limits.connections.map(|most| format!("connections {most}")),
        limits.messages.map(|rate| format!("messages {rate}")),
        limits.connects.map(|rate| format!("connects {rate}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}
