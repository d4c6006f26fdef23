//! What an operator may choose of sites.

use std::sync::Arc;

use crate::{Limits, Manners, Patterns, entry::Key};

/// What an operator may choose.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How sites are treated.
    pub manners: Manners,
    /// Limits of every site.
    pub limits: Limits,
    /// What holds instead for some; the first that fits.
    pub rules: Vec<Rule>,
    /// What replies mean.
    pub patterns: Arc<Patterns>,
}

/// Limits of some sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Of which.
    pub fits: Fits,
    /// Those that are not set are as everywhere.
    pub limits: Limits,
}

/// Which sites are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fits {
    /// A recipient domain (or route), which is then counted by itself, whatever its mail hosts.
    Domain(String),
    /// A mail host, or the domain that its name ends in.
    Host(String),
    /// The very name of a site.
    Site(String),
}

impl Fits {
    fn site(&self, name: &str) -> bool {
        match self {
            Self::Domain(_) => false,
            Self::Host(host) => name.split(',').any(|of_site| is_below(of_site, host)),
            Self::Site(site) => site.eq_ignore_ascii_case(name),
        }
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let rest = host.strip_suffix(domain.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Settings {
    /// What holds for mail to a destination whose hosts are this site, and the number of the rule that says more than all do.
    pub fn terms(&self, destination: &str, site: &str) -> (Option<usize>, Limits) {
        let key = match self.counts_alone(destination) {
            true => Key::Domain(destination.into()),
            false => Key::Site(site.into()),
        };
        (self.rule_of(&key), self.limits_of(&key))
    }

    /// Whether a rule has a destination counted by itself.
    pub(crate) fn counts_alone(&self, destination: &str) -> bool {
        let by_itself = |rule: &Rule| matches!(&rule.fits, Fits::Domain(domain) if domain.eq_ignore_ascii_case(destination));
        self.rules.iter().any(by_itself)
    }

    /// The first rule that fits, by its number.
    fn rule_of(&self, key: &Key) -> Option<usize> {
        let name = key.name();
        let fits = |rule: &Rule| match (key, &rule.fits) {
            (Key::Domain(domain), Fits::Domain(named)) => named.eq_ignore_ascii_case(domain),
            (Key::Site(_), fits) => fits.site(name),
            _ => false,
        };
        self.rules.iter().position(fits)
    }

    /// The limits of what is counted together.
    pub(crate) fn limits_of(&self, key: &Key) -> Limits {
        if matches!(key, Key::Unknown(_)) {
            // One shows the way.
            return Limits {
                connections: Some(1),
                ..Limits::default()
            };
        }
        let own = self.rule_of(key).and_then(|number| self.rules.get(number));
        let own = own.map(|rule| rule.limits).unwrap_or_default();
        let all = self.limits;
        Limits {
            connections: own.connections.or(all.connections),
            messages: own.messages.or(all.messages),
            connects: own.connects.or(all.connects),
        }
    }
}
