//! Hold rules on the wire.

use postroad_envelope::Timestamp;
use postroad_proto::{ConvertError, queue::v1};

use super::filter;
use crate::{HoldOrder, HoldRuleDetails, Removal};

impl From<&HoldOrder> for v1::HoldRule {
    fn from(order: &HoldOrder) -> Self {
        Self {
            name: order.name.clone(),
            filter: Some(filter::to_wire(&order.filter)),
            by: order.by.clone(),
            reason: order.reason.clone(),
            also_present: order.also_present,
            dry_run: order.dry_run,
            ..Self::default()
        }
    }
}

impl TryFrom<v1::HoldRule> for HoldOrder {
    type Error = ConvertError;

    fn try_from(wire: v1::HoldRule) -> Result<Self, ConvertError> {
        Ok(Self {
            name: wire.name,
            filter: filter::from_wire(wire.filter.unwrap_or_default())?,
            by: wire.by,
            reason: wire.reason,
            also_present: wire.also_present,
            dry_run: wire.dry_run,
        })
    }
}

impl From<&Removal> for v1::HoldRule {
    fn from(removal: &Removal) -> Self {
        Self {
            name: removal.name.clone(),
            by: removal.by.clone(),
            also_present: removal.release,
            dry_run: removal.dry_run,
            ..Self::default()
        }
    }
}

impl From<v1::HoldRule> for Removal {
    fn from(wire: v1::HoldRule) -> Self {
        Self {
            name: wire.name,
            by: wire.by,
            release: wire.also_present,
            dry_run: wire.dry_run,
        }
    }
}

impl From<&HoldRuleDetails> for v1::HoldRule {
    fn from(rule: &HoldRuleDetails) -> Self {
        Self {
            name: rule.name.clone(),
            filter: Some(filter::to_wire(&rule.filter)),
            by: rule.by.clone(),
            reason: rule.reason.clone(),
            created_at_ms: rule.created_at.as_millis(),
            held: rule.held,
            ..Self::default()
        }
    }
}

impl TryFrom<v1::HoldRule> for HoldRuleDetails {
    type Error = ConvertError;

    fn try_from(wire: v1::HoldRule) -> Result<Self, ConvertError> {
        Ok(Self {
            name: wire.name,
            filter: filter::from_wire(wire.filter.unwrap_or_default())?,
            by: wire.by,
            reason: wire.reason,
            created_at: Timestamp::from_millis(wire.created_at_ms),
            held: wire.held,
        })
    }
}
