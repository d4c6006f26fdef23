//! `[queued.sites]`: what sites of mail hosts take.

use std::{sync::Arc, time::Duration};

use postroad_daemon::Interval;
use postroad_shaping::{Fits, Limits, Manners, Pattern, Patterns, Rate, Rule, Settings, Treatment};
use serde::{Deserialize, Serialize};

use super::{Config, optional_text};
use crate::ConfigError;

/// Patterns that may be written.
const MOST_PATTERNS: usize = 200;
/// Nobody is left alone for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// `[queued.sites]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SitesConfig {
    /// Whether mail waits until its site takes it, by all below and by what is learned. Else that is only shown.
    pub enabled: bool,
    /// Whether it is learned from the answers of a site how many connections and mails it takes.
    pub adaptive: bool,
    /// Mails on their way at once to a site of which nothing is known yet; more follow as it takes them.
    pub first_connections: u32,
    /// Mails on their way to one site at once, each on a connection of its own; 0: any number.
    pub connections: u32,
    /// Mails for one site in a time, such as `"100/1m"`. Default: any number.
    #[serde(with = "optional_text")]
    pub messages_per: Option<Rate>,
    /// Connections to one site in a time, such as `"30/1m"`. Default: any number.
    #[serde(with = "optional_text")]
    pub connections_per: Option<Rate>,
    /// How long a site that cannot be reached is left alone before one mail tries it again; each time in vain doubles it.
    pub probe_first: Interval,
    /// It is never left alone for longer.
    pub probe_longest: Interval,
    /// What holds instead for some sites; the first that fits is taken.
    pub limits: Vec<SiteLimits>,
    /// What is done about replies by their words, before what is known without configuration; the first that fits is taken.
    pub patterns: Vec<ReplyPattern>,
}

impl Default for SitesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            adaptive: true,
            first_connections: 3,
            connections: 20,
            messages_per: None,
            connections_per: None,
            probe_first: Interval::seconds(15),
            probe_longest: Interval::minutes(15),
            limits: Vec::new(),
            patterns: Vec::new(),
        }
    }
}

/// `[[queued.sites.limits]]`: names one of `mx`, `domain` and `site`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteLimits {
    /// A mail host, or the domain that the names of its hosts end in: `google.com`.
    #[serde(default)]
    pub mx: Option<String>,
    /// A recipient domain, which is then counted by itself, whatever its hosts.
    #[serde(default)]
    pub domain: Option<String>,
    /// The name of a site, as `postroad queue sites` shows it.
    #[serde(default)]
    pub site: Option<String>,
    /// As in `queued.sites`.
    #[serde(default)]
    pub connections: Option<u32>,
    /// As in `queued.sites`.
    #[serde(default, with = "optional_text")]
    pub messages_per: Option<Rate>,
    /// As in `queued.sites`.
    #[serde(default, with = "optional_text")]
    pub connections_per: Option<Rate>,
}

/// `[[queued.sites.patterns]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyPattern {
    /// A regular expression for the reply in one line, `421 4.7.0 text`; upper and lower case are alike.
    pub reply: String,
    /// The site is left alone for so long.
    #[serde(default)]
    pub pause: Option<Interval>,
    /// What it says instead: `slower` (too many mails in a time), `fewer_connections` or `ignore` (nothing about the site).
    #[serde(default)]
    pub means: Option<Meaning>,
}

/// What a reply may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Too many mails in a time.
    Slower,
    /// Too many connections at once.
    FewerConnections,
    /// Nothing about the site.
    Ignore,
}

impl Config {
    /// How sites are treated; or what of it cannot be followed.
    pub(crate) fn shaping(&self) -> Result<Settings, ConfigError> {
        let sites = &self.sites;
        let refused = |key, problem: String| ConfigError::Sites { key, problem };
        if sites.first_connections == 0 {
            let problem = "is 0, and nothing could be sent; write at least 1".to_owned();
            return Err(refused("first_connections", problem));
        }
        if sites.probe_first.as_duration().is_zero() || sites.probe_first > sites.probe_longest {
            let problem = "must be more than 0 and at most probe_longest".to_owned();
            return Err(refused("probe_first", problem));
        }
        let rules = sites.limits.iter().map(SiteLimits::rule);
        let rules: Result<_, String> = rules.collect();
        if sites.patterns.len() > MOST_PATTERNS {
            let problem = format!("has more than {MOST_PATTERNS} entries; join some");
            return Err(refused("patterns", problem));
        }
        let patterns = sites.patterns.iter().map(ReplyPattern::pattern);
        let patterns: Result<_, String> = patterns.collect();
        Ok(Settings {
            manners: Manners {
                adaptive: sites.adaptive,
                first_connections: sites.first_connections,
                probe_first: sites.probe_first.into(),
                probe_longest: sites.probe_longest.into(),
            },
            limits: Limits {
                connections: Some(sites.connections).filter(|most| *most > 0),
                messages: sites.messages_per,
                connects: sites.connections_per,
            },
            rules: rules.map_err(|problem| refused("limits", problem))?,
            patterns: Arc::new(Patterns::new(
                patterns.map_err(|problem| refused("patterns", problem))?,
            )),
        })
    }
}

impl SiteLimits {
    fn rule(&self) -> Result<Rule, String> {
        let fits = match (&self.mx, &self.domain, &self.site) {
            (Some(mx), None, None) => Fits::Host(mx.clone()),
            (None, Some(domain), None) => Fits::Domain(domain.clone()),
            (None, None, Some(site)) => Fits::Site(site.clone()),
            _ => return Err("has an entry that must name one of mx, domain and site".to_owned()),
        };
        if self.connections == Some(0) {
            return Err(format!(
                "allows {:?} no connections, and nothing could be sent; write at least 1, or hold its mail with a rule of `postroad queue hold`",
                self.name()
            ));
        }
        let limits = Limits {
            connections: self.connections,
            messages: self.messages_per,
            connects: self.connections_per,
        };
        if limits == Limits::default() {
            return Err(format!(
                "has an entry for {:?} without a limit; write connections, messages_per or connections_per",
                self.name()
            ));
        }
        Ok(Rule { fits, limits })
    }

    fn name(&self) -> &str {
        let names = [&self.mx, &self.domain, &self.site];
        let name = names.into_iter().flatten().next();
        name.map_or("", String::as_str)
    }
}

impl ReplyPattern {
    fn pattern(&self) -> Result<Pattern, String> {
        let treatment = match (self.pause, self.means) {
            (Some(pause), None) => {
                let pause = pause.as_duration();
                if pause.is_zero() || pause > LONGEST_PAUSE {
                    return Err(format!(
                        "pauses for {:?}: write more than 0 and at most a day",
                        self.reply
                    ));
                }
                Treatment::Pause(pause)
            }
            (None, Some(Meaning::Slower)) => Treatment::Slower,
            (None, Some(Meaning::FewerConnections)) => Treatment::FewerConnections,
            (None, Some(Meaning::Ignore)) => Treatment::Ignore,
            _ => {
                return Err(format!("needs either pause or means for {:?}", self.reply));
            }
        };
        Pattern::new(&self.reply, treatment).map_err(|error| {
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            format!(
                "has {:?}, which is no regular expression: {last}",
                self.reply
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use postroad_daemon::CommonConfig;

    use super::*;

    #[test]
    fn limits_and_patterns_are_read() {
        let text = r#"
            [sites]
            messages_per = "100/1m"
            [[sites.limits]]
            mx = "google.com"
            connections = 5
            [[sites.limits]]
            domain = "lists.test"
            messages_per = "10/1s"
            [[sites.patterns]]
            reply = "^421 .*come later"
            pause = "15m"
            [[sites.patterns]]
            reply = "too fast"
            means = "slower"
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let settings = config.shaping().unwrap();
        assert_eq!(settings.limits.messages, "100/1m".parse().ok());
        assert_eq!(settings.limits.connections, Some(20));
        assert_eq!(settings.rules.len(), 2);
        assert_eq!(
            settings.rules[1].fits,
            Fits::Domain("lists.test".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for text in [
            "first_connections = 0",
            "probe_first = \"1h\"",
            "limits = [{ connections = 1 }]",
            "limits = [{ mx = \"a.test\", domain = \"b.test\", connections = 1 }]",
            "limits = [{ mx = \"a.test\" }]",
            "limits = [{ mx = \"a.test\", connections = 0 }]",
            "patterns = [{ reply = \"(\", pause = \"1m\" }]",
            "patterns = [{ reply = \"x\" }]",
            "patterns = [{ reply = \"x\", pause = \"2d\" }]",
        ] {
            let config: Config = toml::from_str(&format!("[sites]\n{text}")).unwrap();
            let error = config.check(&CommonConfig::default()).unwrap_err();
            assert!(error.key().starts_with("queued.sites."), "{text}: {error}");
        }
        let none: Result<Config, _> = toml::from_str("[sites]\nmessages_per = \"100\"");
        assert!(none.is_err());
    }
}
