use postroad_envelope::{Suppression, Timestamp};

use crate::queue::v1;

/// An entry of the list, as the contract has it.
pub fn suppression_to_wire(one: &Suppression) -> v1::Suppression {
    v1::Suppression {
        address: one.address.clone(),
        tenant: one.tenant.clone(),
        account: one.account.clone(),
        since_ms: one.since.as_millis(),
        until_ms: one.until.map(Timestamp::as_millis),
        reason: one.reason.clone(),
        by: one.by.clone(),
    }
}

/// The same, read.
pub fn suppression_from_wire(wire: v1::Suppression) -> Suppression {
    Suppression {
        address: wire.address,
        tenant: wire.tenant,
        account: wire.account,
        since: Timestamp::from_millis(wire.since_ms),
        until: wire.until_ms.map(Timestamp::from_millis),
        reason: wire.reason,
        by: wire.by,
    }
}
