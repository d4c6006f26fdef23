//! What tenants, accounts and recipient domains have.

use postroad_queue::Scope;
use postroad_queue_client::{QueueError, Usage, UsageQuery, UsageScope};

use super::view::limited;
use crate::core::{Core, to_client_error};

const DEFAULT: usize = 100;
const LONGEST: usize = 10_000;

pub(super) fn usage(core: &Core, query: UsageQuery) -> Result<Vec<Usage>, QueueError> {
    let limit = limited(query.limit, DEFAULT, LONGEST);
    let wanted = |scope: &Scope| query.scope.is_none_or(|it| it == scope_of(*scope));
    let scopes: Vec<Scope> = Scope::ALL.into_iter().filter(wanted).collect();
    let counted = core.queue.usage(&scopes);
    let mut usages = Vec::new();
    for (scope, fullest) in counted.map_err(|error| to_client_error(error.into()))? {
        let fullest = fullest.into_iter().take(limit);
        usages.extend(fullest.map(|(name, used, quota)| Usage {
            scope: scope_of(scope),
            name,
            mails: used.mails,
            octets: used.octets,
            most_mails: (quota.mails != 0).then_some(quota.mails),
            most_octets: (quota.octets != 0).then_some(quota.octets),
        }));
    }
    Ok(usages)
}

const fn scope_of(scope: Scope) -> UsageScope {
    match scope {
        Scope::Tenant => UsageScope::Tenant,
        Scope::Account => UsageScope::Account,
        Scope::Domain => UsageScope::Domain,
    }
}
