//! Whether recipients that failed for good are tried again.

use postroad_daemon::Interval;
use serde::{Deserialize, Serialize};

/// `[queued.suppression]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuppressionConfig {
    /// Whether a recipient of whom a host said that there is no such mailbox is entered by itself. What is on the list counts in
    /// either case.
    pub enabled: bool,
    /// Whose mail to it is not tried then.
    pub scope: SuppressionScope,
    /// How long it stays on the list; `"0s"`: until it is released.
    pub keep: Interval,
    /// Entries there may be, at most 3000; beyond them the oldest make room.
    pub max_entries: usize,
}

impl Default for SuppressionConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            scope: SuppressionScope::default(),
            keep: Interval::days(90),
            max_entries: 3000,
        }
    }
}

/// Whose mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuppressionScope {
    /// All of the tenant's.
    #[default]
    Tenant,
    /// That of the account whose mail it was; where there is none, the tenant's.
    Account,
}
