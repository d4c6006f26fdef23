use postroad_envelope::{Filter, Timestamp};

/// A standing rule: mail that comes and fits is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRuleDetails {
    /// What it is called.
    pub name: String,
    /// Which mail it holds.
    pub filter: Filter,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was made, or changed.
    pub created_at: Timestamp,
    /// Mails that it holds now.
    pub held: u64,
}

/// A rule that is to be, or that replaces the one of its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HoldOrder {
    /// 1 to 64 letters, digits, dots, hyphens or underscores.
    pub name: String,
    /// Which mail; parts that only mail in the queue has (ids, state, reason, hold rule) are refused.
    pub filter: Filter,
    /// Who asks, as in [`Order::by`](super::Order::by).
    pub by: String,
    /// Why, for the record.
    pub reason: String,
    /// Hold what is in the queue already, too.
    pub also_present: bool,
    /// Change nothing, only say whether it can be, and how many mails that are present it would hold.
    pub dry_run: bool,
}

/// A rule that is to go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// Who asks.
    pub by: String,
    /// Release what it holds.
    pub release: bool,
    /// Change nothing, only count what would be released.
    pub dry_run: bool,
}
