use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::{IpNet, Ipv6Net};
use postroad_address::Mailbox;

/// Octets of a subject: the longest address there is (RFC 5321 §4.5.3.1), with some room for international ones.
const LONGEST: usize = 512;

/// What is counted. A closed list: each kind belongs to one agent, and has its own room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Failed log-ins, by the client's network.
    AuthFailed,
    /// Failed log-ins, by the name that was tried, whether there is such an account or not.
    Guessed,
    /// Log-ins, by account and the client's network: where its owner is at home.
    Home,
    /// Recipients of mail, by the account that sent it.
    Sent,
    /// Mails, by the account that sent them.
    SentMails,
    /// Octets of mail, by the account that sent it.
    SentBytes,
    /// What a client at port 25 did that it should not, by its network.
    Client,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::AuthFailed,
        Self::Guessed,
        Self::Home,
        Self::Sent,
        Self::SentMails,
        Self::SentBytes,
        Self::Client,
    ];

    /// The word in keys, logs, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthFailed => "auth_failed",
            Self::Guessed => "guessed",
            Self::Home => "home",
            Self::Sent => "sent",
            Self::SentMails => "sent_mails",
            Self::SentBytes => "sent_bytes",
            Self::Client => "client",
        }
    }

    /// Whether what is counted outlives a restart: a limit by day would be none otherwise, and nobody at home.
    pub const fn is_kept(self) -> bool {
        matches!(
            self,
            Self::Sent | Self::SentMails | Self::SentBytes | Self::Home
        )
    }

    /// The subject in the one form in which it is counted.
    fn subject(self, text: &str) -> Result<String, KeyError> {
        if text.len() > LONGEST || text.chars().any(char::is_control) {
            return Err(KeyError::Subject(self.wants()));
        }
        let read = match self {
            Self::AuthFailed | Self::Client => {
                network(text).map(|network| network.trunc().to_string())
            }
            Self::Sent | Self::SentMails | Self::SentBytes | Self::Guessed => {
                Mailbox::parse(text).ok().map(|account| folded(&account))
            }
            Self::Home => home(text),
        };
        read.ok_or(KeyError::Subject(self.wants()))
    }

    const fn wants(self) -> &'static str {
        match self {
            Self::AuthFailed | Self::Client => "a network, such as 192.0.2.7/32",
            Self::Sent | Self::SentMails | Self::SentBytes | Self::Guessed => {
                "the address of an account"
            }
            Self::Home => "an account and a network, such as alice@example.org/192.0.2.7/32",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or(KeyError::Kind)
    }
}

/// What is counted of whom. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    kind: Kind,
    subject: Arc<str>,
}

impl Key {
    /// Of whoever this is: a network or an account, as the kind has it.
    pub fn new(kind: Kind, subject: &str) -> Result<Self, KeyError> {
        let subject = kind.subject(subject)?.into();
        Ok(Self { kind, subject })
    }

    /// Of a client: its IPv4 address, or so many bits of its IPv6 address.
    pub fn of_client(kind: Kind, client: IpAddr, ipv6_prefix: u8) -> Result<Self, KeyError> {
        Self::new(kind, &network_of(client, ipv6_prefix).to_string())
    }

    /// Of an account where a client is, in the same way.
    pub fn home(account: &str, client: IpAddr, ipv6_prefix: u8) -> Result<Self, KeyError> {
        let network = network_of(client, ipv6_prefix);
        Self::new(Kind::Home, &format!("{account}/{network}"))
    }

    /// What is counted.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Of whom.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.subject)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kind, subject) = text.split_once('/').ok_or(KeyError::Form)?;
        Self::new(kind.parse()?, subject)
    }
}

/// No domain has a slash in it, and a local part may.
fn home(text: &str) -> Option<String> {
    let (_, behind) = text.rsplit_once('@')?;
    let (domain, network_text) = behind.split_once('/')?;
    let account = text.get(..text.len() - behind.len() + domain.len())?;
    let account = Mailbox::parse(account).ok()?;
    let network = network(network_text)?.trunc();
    Some(format!("{}/{network}", folded(&account)))
}

/// With its quotes, if it needs them: it is read again.
fn folded(account: &Mailbox) -> String {
    let local_part = account.local_part().to_string().to_lowercase();
    format!("{local_part}@{}", account.domain().a_label())
}

fn network_of(client: IpAddr, ipv6_prefix: u8) -> IpNet {
    match client.to_canonical() {
        IpAddr::V4(address) => IpNet::from(IpAddr::V4(address)),
        IpAddr::V6(address) => Ipv6Net::new(address, ipv6_prefix.min(128))
            .map_or_else(|_| IpNet::from(client), IpNet::from),
    }
}

/// An address alone is a network of one.
fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok();
    text.parse()
        .ok()
        .or_else(|| address().map(|address| IpNet::from(address.to_canonical())))
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no `/` in it.
    #[error("is no key; write a kind, `/`, and whom it is about")]
    Form,
    /// Nothing of that name is counted.
    #[error(
        "begins with no kind of counter; kinds are auth_failed, guessed, home, sent, sent_mails, sent_bytes and client"
    )]
    Kind,
    /// Its kind is about something else, which the text says.
    #[error("must be about {0}")]
    Subject(&'static str),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subject_is_counted_in_one_form() {
        for (written, told) in [
            ("auth_failed/192.0.2.7", "auth_failed/192.0.2.7/32"),
            ("auth_failed/192.0.2.7/24", "auth_failed/192.0.2.0/24"),
            ("client/2001:db8::5/64", "client/2001:db8::/64"),
            ("client/::ffff:192.0.2.7", "client/192.0.2.7/32"),
            ("sent/Alice@Demo.TEST", "sent/alice@demo.test"),
            ("sent_bytes/Alice@Demo.TEST", "sent_bytes/alice@demo.test"),
            ("guessed/Alice@Demo.TEST", "guessed/alice@demo.test"),
            (
                "home/A/b@Demo.TEST/192.0.2.7",
                "home/a/b@demo.test/192.0.2.7/32",
            ),
            (
                "home/alice@demo.test/2001:db8::7/64",
                "home/alice@demo.test/2001:db8::/64",
            ),
        ] {
            let key: Key = written.parse().unwrap();
            assert_eq!(key.to_string(), told);
            assert_eq!(told.parse::<Key>().unwrap(), key);
        }
    }

    #[test]
    fn a_client_is_its_address_or_the_network_it_has() {
        let key = |client: &str, prefix| {
            let key = Key::of_client(Kind::AuthFailed, client.parse().unwrap(), prefix);
            key.unwrap().subject().to_owned()
        };
        assert_eq!(key("192.0.2.7", 64), "192.0.2.7/32");
        assert_eq!(key("::ffff:192.0.2.7", 64), "192.0.2.7/32");
        assert_eq!(key("2001:db8::1:2:3", 64), "2001:db8::/64");
        assert_eq!(key("2001:db8::1", 200), "2001:db8::1/128");
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        for (text, error) in [
            ("", KeyError::Form),
            ("sent", KeyError::Form),
            ("wrong/192.0.2.7", KeyError::Kind),
            ("sent/192.0.2.7", KeyError::Subject(Kind::Sent.wants())),
            (
                "auth_failed/alice@demo.test",
                KeyError::Subject(Kind::AuthFailed.wants()),
            ),
            ("client/", KeyError::Subject(Kind::Client.wants())),
            (
                "home/alice@demo.test",
                KeyError::Subject(Kind::Home.wants()),
            ),
            ("home/192.0.2.7/32", KeyError::Subject(Kind::Home.wants())),
        ] {
            assert_eq!(text.parse::<Key>(), Err(error), "{text}");
        }
        let long = format!("sent/{}@demo.test", "a".repeat(LONGEST));
        assert!(long.parse::<Key>().is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_a_key_is_the_same_key_again(text in "(auth_failed|guessed|home|sent|sent_mails|sent_bytes|client)/(a@b/)?\\PC{0,40}") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
            }
        }
    }
}
