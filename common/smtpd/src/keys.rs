//! Keys that all listeners have in common, as they stand in the configuration.

use std::time::Duration;

use postroad_daemon::{ConfigError, ConfigFile, Interval};
use postroad_net::Networks;
use serde::{Deserialize, Serialize};

use crate::SmtpdConfig;

/// Shortest and longest that anybody is waited for.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest least time to deliver by.
const LONGEST_LEAST: Duration = Duration::from_secs(86_400);
/// RFC 5321 §4.5.3.2.6: so long clients wait for the reply to the final dot, and then send the mail again.
const CLIENTS_WAIT: Duration = Duration::from_secs(600);

/// `per_connection`: how much one connection may bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerConnection {
    /// Mails, as MAILMAX tells clients (RFC 9422); a refused one counts. The next MAIL is 421.
    pub mails: u32,
    /// Lines that are commands or should be; the next one is 421.
    pub commands: u32,
    /// Mistakes (syntax, order, unknown commands) before 421.
    pub errors: u32,
}

impl Default for PerConnection {
    fn default() -> Self {
        Self {
            mails: 1000,
            commands: 100_000,
            errors: 10,
        }
    }
}

impl PerConnection {
    /// What cannot work of the table `key`.
    pub fn check(&self, key: &str, file: &ConfigFile) -> Vec<ConfigError> {
        let least = [
            ("mails", self.mails, 1, "nobody could send a mail"),
            (
                "commands",
                self.commands,
                10,
                "a mail with its greeting takes as many commands",
            ),
            (
                "errors",
                self.errors,
                1,
                "a conversation would end before its first mistake",
            ),
        ];
        let wrong = least
            .into_iter()
            .filter(|(_, value, least, _)| value < least);
        wrong
            .map(|(name, value, least, why)| {
                let remedy = format!("write {least} or more, or leave it out");
                file.error(&format!("{key}.{name}"), format!("{value}: {why}"), &remedy)
            })
            .collect()
    }

    /// Puts them into force.
    pub fn apply(&self, smtpd: &mut SmtpdConfig) {
        let limits = &mut smtpd.session.limits;
        (limits.mails, limits.commands, limits.errors) = (self.mails, self.commands, self.errors);
    }
}

/// `deliver_by`: whether a client may say by when its mail is to be delivered (RFC 2852).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverByKeys {
    /// DELIVERBY is offered.
    pub offered: bool,
    /// The least time for mail that is to be returned when it is over (min-by-time).
    pub least: Interval,
}

impl Default for DeliverByKeys {
    fn default() -> Self {
        Self {
            offered: true,
            least: Interval::seconds(10),
        }
    }
}

impl DeliverByKeys {
    /// What cannot work of the table `key`.
    pub fn check(&self, key: &str, file: &ConfigFile) -> Option<ConfigError> {
        let is_wrong = self.least.as_duration() > LONGEST_LEAST;
        let problem = format!("{} is longer than hosts keep mail", self.least);
        let remedy = "write a time up to \"1d\", or `offered = false`";
        is_wrong.then(|| file.error(&format!("{key}.least"), problem, remedy))
    }

    /// Puts them into force where every mail rests so long before it is tried.
    pub fn apply(&self, smtpd: &mut SmtpdConfig, rest: Duration) {
        let least = self.least.as_duration().max(rest);
        let whole_seconds = least.as_secs() + u64::from(least.subsec_nanos() > 0);
        smtpd.session.offers.deliver_by = self.offered.then_some(whole_seconds);
    }
}

/// `timeouts`: how long a client is waited for (RFC 5321 §4.5.3.2.7, and what clients wait for by its neighbours).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// The TLS handshake.
    pub tls_handshake: Interval,
    /// EHLO or its kin, after the greeting and again after STARTTLS.
    pub greeting: Interval,
    /// Every other command as a whole, and the taking of replies.
    pub command: Interval,
    /// The first content behind 354.
    pub data_initiation: Interval,
    /// Each block of content after it.
    pub data_block: Interval,
    /// Our own answer to the final dot; then 451, while the client still listens.
    pub final_dot: Interval,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake: Interval::seconds(30),
            greeting: Interval::minutes(5),
            command: Interval::minutes(5),
            data_initiation: Interval::minutes(3),
            data_block: Interval::minutes(3),
            final_dot: Interval::minutes(5),
        }
    }
}

impl Timeouts {
    /// What cannot work of the table `key`.
    pub fn check(&self, key: &str, file: &ConfigFile) -> Vec<ConfigError> {
        let all = [
            ("tls_handshake", self.tls_handshake),
            ("greeting", self.greeting),
            ("command", self.command),
            ("data_initiation", self.data_initiation),
            ("data_block", self.data_block),
            ("final_dot", self.final_dot),
        ];
        let mut problems = Vec::new();
        for (name, value) in all {
            let key = format!("{key}.{name}");
            if !(SHORTEST..=LONGEST).contains(&value.as_duration()) {
                let problem = format!("{value} is no time to wait for a client");
                let remedy = "write a time from \"1s\" to \"1h\"; RFC 5321 §4.5.3.2 wants minutes";
                problems.push(file.error(&key, problem, remedy));
            } else if name == "final_dot" && value.as_duration() >= CLIENTS_WAIT {
                let problem =
                    format!("after {value} the client is gone, and sends the mail once more");
                let remedy =
                    "write less than \"10m\", which is how long clients wait (RFC 5321 §4.5.3.2.6)";
                problems.push(file.error(&key, problem, remedy));
            }
        }
        problems
    }

    /// Puts them into force.
    pub fn apply(&self, smtpd: &mut SmtpdConfig) {
        let timeouts = &mut smtpd.timeouts;
        timeouts.handshake = self.tls_handshake.into();
        timeouts.greeting = self.greeting.into();
        timeouts.command = self.command.into();
        timeouts.initiation = self.data_initiation.into();
        timeouts.data = self.data_block.into();
        timeouts.commit = self.final_dot.into();
    }
}

/// Longest that a greeting is held back: mail programs and hosts do not wait much longer.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What cannot work of a listener's keys `greeting_delay`, `max_recipients` and its lists of networks; each as the problem of a key and
/// its remedy.
pub fn listener_faults(
    greeting_delay: Option<Interval>,
    max_recipients: Option<usize>,
    networks: &[(&'static str, Option<&Networks>)],
) -> Vec<(&'static str, String, &'static str)> {
    let mut faults = Vec::new();
    if let Some(delay) = greeting_delay.filter(|delay| delay.as_duration() > LONGEST_DELAY) {
        faults.push((
            "greeting_delay",
            format!("{delay} is more than clients wait"),
            "write a time up to \"1m\"",
        ));
    }
    if let Some(most) = max_recipients.filter(|most| *most < 100) {
        faults.push((
            "max_recipients",
            format!("{most} is fewer than RFC 5321 §4.5.3.1.8 demands"),
            "write 100 or more",
        ));
    }
    for (key, networks) in networks {
        let everyone = networks.is_some_and(Networks::names_everyone);
        if let Some((problem, remedy)) = whom(key).filter(|_| everyone) {
            faults.push((key, problem.to_owned(), remedy));
        }
    }
    faults
}

/// What comes of it if such a list names everybody.
fn whom(key: &str) -> Option<(&'static str, &'static str)> {
    match key {
        "proxy_networks" => Some((
            "anybody could claim to be any client",
            "name the addresses of your balancers alone, such as \"192.0.2.7\"",
        )),
        "xforward_networks" => Some((
            "anybody could claim to pass on the mail of any client",
            "name the addresses of the mail systems in front alone, such as \"192.0.2.8\"",
        )),
        "xclient_networks" => Some((
            "anybody could be any client, and who that proved to be",
            "name the addresses of the proxies in front alone, such as \"192.0.2.9\"",
        )),
        _ => None,
    }
}
