use postroad_address::Domain;
use postroad_daemon::Interval;
use postroad_envelope::Cause;
use postroad_queue::{RetrySchedule, SpecialRetry};
use serde::{Deserialize, Serialize};

use super::Config;
use crate::ConfigError;

/// `[queued.retry]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// After the first attempt; later intervals double.
    pub first: Interval,
    /// No interval is longer.
    pub max: Interval,
    /// A mail's life, counted from its arrival.
    pub give_up_after: Interval,
    /// Each interval is moved by up to so many hundredths, either way.
    pub jitter_percent: u32,
    /// Other intervals for some destinations and causes; the first that fits is taken. Default: greylisted soon, a full mailbox
    /// later than others.
    pub cases: Vec<RetryCase>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let case = |cause: Cause, first, max| RetryCase {
            causes: vec![cause.to_string()],
            first: Some(first),
            max: Some(max),
            ..RetryCase::default()
        };
        Self {
            first: Interval::minutes(4),
            max: Interval::hours(4),
            give_up_after: Interval::days(5),
            jitter_percent: 10,
            cases: vec![
                case(
                    Cause::Greylisted,
                    Interval::minutes(5),
                    Interval::minutes(20),
                ),
                case(Cause::MailboxFull, Interval::hours(1), Interval::hours(8)),
            ],
        }
    }
}

/// `[[queued.retry.cases]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryCase {
    /// Destinations: domains, `*.example.net` for all below one. Default: all.
    pub domains: Vec<String>,
    /// Causes of the last attempt, such as `greylisted`. Default: all.
    pub causes: Vec<String>,
    /// Instead of `queued.retry.first`.
    pub first: Option<Interval>,
    /// Instead of `queued.retry.max`.
    pub max: Option<Interval>,
    /// Instead of `queued.retry.give_up_after`, if it is shorter, or where no causes are named.
    pub give_up_after: Option<Interval>,
}

impl RetryConfig {
    /// The first case that cannot be followed.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.special().map(drop)
    }

    fn special(&self) -> Result<Vec<SpecialRetry>, ConfigError> {
        self.cases.iter().map(RetryCase::to_special).collect()
    }
}

impl RetryCase {
    fn to_special(&self) -> Result<SpecialRetry, ConfigError> {
        let wrong = |problem: String| ConfigError::RetryCase(problem);
        if self.domains.is_empty() && self.causes.is_empty() {
            let why = "a case names neither `domains` nor `causes`; for all mail write queued.retry.first and so on";
            return Err(wrong(why.to_owned()));
        }
        let domain = |text: &String| {
            let (below, name) = match text.strip_prefix("*.") {
                Some(name) => (true, name),
                None => (false, text.as_str()),
            };
            let domain = Domain::parse(name).map_err(|_| {
                wrong(format!(
                    "{text:?} is no domain; write one such as example.net or *.example.net"
                ))
            })?;
            Ok((below, domain.a_label().to_owned()))
        };
        let cause = |text: &String| {
            text.parse::<Cause>()
                .map_err(|error| wrong(format!("{text:?} is no cause: {error}")))
        };
        Ok(SpecialRetry {
            domains: self.domains.iter().map(domain).collect::<Result<_, _>>()?,
            causes: self.causes.iter().map(cause).collect::<Result<_, _>>()?,
            first: self.first.map(Into::into),
            longest: self.max.map(Into::into),
            give_up: self.give_up_after.map(Into::into),
        })
    }
}

impl From<&Config> for RetrySchedule {
    fn from(config: &Config) -> Self {
        let (retry, tell_after) = (&config.retry, config.dsn.delay_after.as_duration());
        Self {
            first: retry.first.into(),
            longest: retry.max.into(),
            give_up: retry.give_up_after.into(),
            jitter_percent: retry.jitter_percent,
            tell_after: (!tell_after.is_zero()).then_some(tell_after),
            // The configuration was checked.
            special: retry.special().unwrap_or_default(),
            double_bounces: config.dsn.double_bounce_to.is_some(),
        }
    }
}
