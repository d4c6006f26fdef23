//! `mta.outbound`: how the two families of addresses of a host are chosen between.

use postroad_daemon::{ConfigError, ConfigFile, Interval};
use serde::{Deserialize, Serialize};

use super::OutboundConfig;

/// RFC 8305 §8: sooner than this, and both are tried for nearly each mail.
const SHORTEST_DELAY: Interval = Interval::millis(10);
/// RFC 8305 §8.
const LONGEST_DELAY: Interval = Interval::seconds(2);
/// What was mended is to be noticed.
const LONGEST_MEMORY: Interval = Interval::hours(1);

/// Which family comes first: `smtp_address_preference` of Postfix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressPreference {
    /// By chance, for each attempt.
    Any,
    /// IPv6.
    Ipv6,
    /// IPv4.
    Ipv4,
}

/// What is wrong with them.
pub fn check(outbound: &OutboundConfig, file: &ConfigFile) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    let mut problem = |key: &str, written: Interval, remedy: &str| {
        let key = format!("mta.outbound.{key}");
        problems.push(file.error(&key, format!("{written} is out of range"), remedy));
    };
    let (delay, memory) = (outbound.fallback_delay, outbound.fallback_memory);
    let sensible = SHORTEST_DELAY..=LONGEST_DELAY;
    if delay.as_millis() > 0 && !sensible.contains(&delay) {
        let remedy =
            "write 10ms to 2s (RFC 8305 has 250ms), or 0s to try one address after the other";
        problem("fallback_delay", delay, remedy);
    }
    if memory > LONGEST_MEMORY {
        let remedy = "write at most 1h, or 0s to remember nothing";
        problem("fallback_memory", memory, remedy);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(lines: &str) -> Vec<String> {
        let text = format!("[mta.outbound]\n{lines}\n");
        let file = ConfigFile::assemble([("postroad.toml".into(), text)], []).unwrap();
        let config: crate::Config = file.section("mta").unwrap();
        let problems = check(&config.outbound, &file).into_iter();
        problems.map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn times_that_make_no_sense_are_named() {
        for well in [
            "",
            "fallback_delay = \"0s\"\nfallback_memory = \"0s\"",
            "fallback_delay = \"10ms\"\nfallback_memory = \"1h\"",
            "fallback_delay = \"2s\"\naddress_preference = \"any\"",
        ] {
            assert_eq!(problems(well), Vec::<String>::new(), "{well}");
        }
        for (wrong, told) in [
            (
                "fallback_delay = \"9ms\"",
                "fallback_delay: 9ms is out of range; write 10ms to 2s",
            ),
            (
                "fallback_delay = \"3s\"",
                "fallback_delay: 3s is out of range",
            ),
            (
                "fallback_memory = \"2h\"",
                "fallback_memory: 2h is out of range; write at most 1h",
            ),
        ] {
            let problems = problems(wrong);
            let [problem] = problems.as_slice() else {
                panic!("{wrong}: {problems:?}");
            };
            assert!(
                problem.starts_with("postroad.toml:2: mta.outbound.") && problem.contains(told),
                "{problem}"
            );
        }
    }
}
