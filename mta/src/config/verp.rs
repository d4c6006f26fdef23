//! `verp_senders` and `verp_delimiters`: whose mail leaves from an address for each recipient, and comes back to it.

use std::fmt;
use std::str::FromStr;

use postroad_address::{AddressError, Domain, Mailbox};
use postroad_bounce_address::Delimiters;
use serde::{Deserialize, Serialize};

/// `lists.example.net`, or one address: `news@example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SenderText(#[serde(with = "postroad_daemon::text")] pub Senders);

/// Senders, as one word of the configuration names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Senders {
    /// All of a domain.
    Of(Domain),
    /// This one.
    One(Mailbox),
}

impl Senders {
    /// Whether this is one of them.
    pub fn include(&self, sender: &Mailbox) -> bool {
        match self {
            Self::Of(domain) => domain == sender.domain(),
            Self::One(mailbox) => mailbox.folded() == sender.folded(),
        }
    }
}

impl FromStr for Senders {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.contains('@') {
            true => Mailbox::parse(text).map(Self::One),
            false => Domain::parse(text).map(Self::Of),
        }
    }
}

impl fmt::Display for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(domain) => write!(f, "{domain}"),
            Self::One(mailbox) => write!(f, "{mailbox}"),
        }
    }
}

/// The two characters, as they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DelimitersText(#[serde(with = "postroad_daemon::text")] pub Delimiters);

#[cfg(test)]
mod tests {
    use postroad_daemon::ConfigFile;

    use super::*;

    fn read(lines: &str) -> Result<crate::Config, String> {
        let text = format!("[mta.outbound]\n{lines}\n");
        let file = ConfigFile::assemble([("postroad.toml".into(), text)], []).unwrap();
        file.section("mta").map_err(|error| error.to_string())
    }

    #[test]
    fn a_domain_is_all_its_senders_and_an_address_is_one() {
        let lines = "verp_senders = [\"lists.test\", \"News@our.test\"]\nverp_delimiters = \"-=\"";
        let config = read(lines).unwrap().outbound;
        let fits = |text: &str| {
            let sender: Mailbox = text.parse().unwrap();
            config.verp_senders.iter().any(|one| one.0.include(&sender))
        };
        assert!(fits("any@LISTS.test") && fits("news@our.test"));
        assert!(!fits("alice@our.test") && !fits("any@sub.lists.test"));
        assert_eq!(config.verp_delimiters.0.to_string(), "-=");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (lines, told) in [
            ("verp_delimiters = \"+-\"", "cannot stand for the @"),
            ("verp_delimiters = \"a=\"", "'a' cannot divide"),
            ("verp_delimiters = \"=\"", "two different characters"),
            (
                "verp_senders = [\"no domain\"]",
                "mta.outbound.verp_senders",
            ),
        ] {
            let error = read(lines).unwrap_err();
            assert!(error.contains(told) && error.contains(":2"), "{error}");
        }
    }
}
