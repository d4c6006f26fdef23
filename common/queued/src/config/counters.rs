//! How much agents may count together.

use postroad_counters::Room;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::ConfigError;

/// `[queued.counters]`: beyond these the oldest make room.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CountersConfig {
    /// Counters of each kind: networks with failed log-ins, accounts that send. One takes some 300 octets of memory.
    pub max_counters: usize,
    /// Bans of each kind.
    pub max_bans: usize,
}

impl Default for CountersConfig {
    fn default() -> Self {
        Self {
            max_counters: 100_000,
            max_bans: 10_000,
        }
    }
}

impl CountersConfig {
    pub(crate) fn room(&self) -> Room {
        Room {
            counters: self.max_counters,
            bans: self.max_bans,
        }
    }
}

impl Config {
    /// What of it cannot be followed.
    pub(super) fn check_counters(&self) -> Result<(), ConfigError> {
        for (key, most) in [
            ("max_counters", self.counters.max_counters),
            ("max_bans", self.counters.max_bans),
        ] {
            if most == 0 {
                return Err(ConfigError::NoCounters(key));
            }
        }
        Ok(())
    }
}
