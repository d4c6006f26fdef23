//! How agents of other hosts are told of accounts.

use postroad_accounts::ServiceTerms;
use postroad_daemon::Interval;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::ConfigError;

/// `[queued.accounts]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// How long an agent may use an answer without asking again. What changes is told at once, so this is for what is
    /// not heard.
    pub max_age: Interval,
    /// Verifiers of passwords that one submission agent may ask for in a minute, and at once after a pause.
    pub verifiers_per_minute: u32,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self {
            max_age: Interval::minutes(10),
            verifiers_per_minute: 600,
        }
    }
}

impl AccountsConfig {
    /// As the service wants them.
    pub(crate) fn terms(&self) -> ServiceTerms {
        ServiceTerms {
            max_age: self.max_age.into(),
            verifiers_per_minute: self.verifiers_per_minute,
        }
    }
}

impl Config {
    /// What of it cannot be followed.
    pub(super) fn check_accounts(&self) -> Result<(), ConfigError> {
        match self.accounts.verifiers_per_minute {
            0 => Err(ConfigError::NoVerifiers),
            _ => Ok(()),
        }
    }
}
