//! How the leases of workers are shared out among jobs.

use postroad_address::Domain;
use postroad_daemon::Interval;
use postroad_queue::Fairness;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::ConfigError;

/// With three lanes no share can be larger.
const MOST_MINIMUM_SHARE: u32 = 33;

/// `[queued.priority]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriorityConfig {
    /// One step of priority counts as much as having been due for so long.
    pub aging: Interval,
    /// Hundredths of the leases that urgent, ordinary and bulk mail each get at least while they have jobs; at most 33.
    pub minimum_share: u32,
}

impl Default for PriorityConfig {
    fn default() -> Self {
        Self {
            aging: Interval::minutes(10),
            minimum_share: 10,
        }
    }
}

/// `[queued.destination]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationConfig {
    /// Jobs of class relay or lmtp that all workers together hold at one time for one recipient domain; 0: any number.
    pub max_leases: u32,
}

impl Default for DestinationConfig {
    fn default() -> Self {
        Self { max_leases: 20 }
    }
}

impl Config {
    /// What of it cannot be followed.
    pub(super) fn check_sharing(&self) -> Result<(), ConfigError> {
        if self.priority.minimum_share > MOST_MINIMUM_SHARE {
            return Err(ConfigError::MinimumShare(self.priority.minimum_share));
        }
        Ok(())
    }

    /// How leases are shared out.
    pub(crate) fn fairness(&self) -> Fairness {
        let of_rules = self.routes.iter().rev().filter_map(|rule| {
            let limit = rule.max_leases?;
            Some(rule.domain.iter().map(move |domain| (domain, limit)))
        });
        let limits = of_rules.flatten().filter_map(|(domain, limit)| {
            let domain = Domain::parse(domain).ok()?;
            Some((domain.a_label().to_owned(), limit))
        });
        Fairness {
            aging_step: self.priority.aging.into(),
            minimum_share: self.priority.minimum_share,
            max_leases: self.destination.max_leases,
            // Reversed: of two rules for one domain the first holds.
            max_leases_of: limits.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use postroad_daemon::CommonConfig;

    use super::*;
    use crate::RouteProblem;

    #[test]
    fn the_first_rule_of_a_domain_limits_it() {
        let text = r#"
            destination.max_leases = 7
            [[routes]]
            domain = "Lists.test"
            class = "relay"
            max_leases = 50
            [[routes]]
            domain = "lists.test"
            class = "relay"
            max_leases = 3
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let fairness = config.fairness();
        assert_eq!(fairness.max_leases, 7);
        assert_eq!(
            fairness.max_leases_of,
            [("lists.test".to_owned(), 50)].into()
        );
    }

    #[test]
    fn shares_that_cannot_be_given_are_refused() {
        let refused = |text: &str| {
            let config: Config = toml::from_str(text).unwrap();
            config.check(&CommonConfig::default()).unwrap_err()
        };
        let share = refused("priority.minimum_share = 34");
        assert_eq!(share, ConfigError::MinimumShare(34));
        let any = r#"routes = [{ domain = "*", class = "relay", max_leases = 1 }]"#;
        let problem = RouteProblem::MaxLeases;
        assert_eq!(refused(any), ConfigError::Route { at: 0, problem });
    }
}
