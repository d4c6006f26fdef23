//! Passwords made here, each for one program or device of an account: `app-PPPPPPPP-SSSSSSSSSSSSSSSSSSSSSSSSSS`.
//!
//! The first letters are public and say which one it is; the rest is 130 bits of chance. Nobody guesses that, so a quick hash under
//! a key of its own is enough to keep of it, where the password of a person needs a slow one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use postroad_address::Mailbox;
use postroad_envelope::Timestamp;
use ring::hmac;

use crate::{DecoyKey, Directory};

/// None of which looks like another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const MARK: &str = "app-";
const PREFIX: usize = 8;
const SECRET: usize = 26;
/// Octets of a key.
const KEY: usize = 16;
/// Octets of a hash.
const HASH: usize = 32;

/// So many letters, 5 bits each: what people may have to type.
pub fn letters(bits: u128, count: usize) -> String {
    let letter = |place: usize| {
        let index = usize::try_from((bits >> (place * 5)) & 31).unwrap_or_default();
        char::from(ALPHABET.get(index).copied().unwrap_or(b'a'))
    };
    (0..count.min(25)).map(letter).collect()
}

/// A password that begins like this, as it is shown once.
pub(crate) fn password(prefix: &str, chance: [u128; 2]) -> String {
    let [one, other] = chance;
    let half = SECRET / 2;
    format!(
        "{MARK}{prefix}-{}{}",
        letters(one, half),
        letters(other, SECRET - half)
    )
}

/// The public part of a new one.
pub(crate) fn prefix(chance: u64) -> String {
    letters(chance.into(), PREFIX)
}

pub(crate) fn is_prefix(text: &str) -> bool {
    text.len() == PREFIX && are_letters(text)
}

fn are_letters(text: &str) -> bool {
    text.bytes().all(|octet| ALPHABET.contains(&octet))
}

/// Which of the passwords made here this one would be; none: it is a person's.
pub fn app_prefix(password: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(password).ok()?;
    let (prefix, secret) = text.strip_prefix(MARK)?.split_once('-')?;
    (is_prefix(prefix) && secret.len() == SECRET && are_letters(secret)).then_some(prefix)
}

/// For which protocol a password is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Sending (RFC 6409).
    Submission,
    /// Reading by IMAP.
    Imap,
    /// Reading by POP3.
    Pop3,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Submission, Self::Imap, Self::Pop3];

    /// As files and the contract have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "submission",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or("a scope is submission, imap or pop3")
    }
}

/// What is kept of a secret: `APP$key$hash`, a random key and HMAC-SHA-256 of the whole password under it, both in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct AppVerifier {
    key: [u8; KEY],
    hash: [u8; HASH],
}

impl AppVerifier {
    /// Of a password, with 16 octets of chance.
    pub fn new(password: &str, key: [u8; KEY]) -> Self {
        let made = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &key),
            password.as_bytes(),
        );
        let mut hash = [0; HASH];
        for (to, from) in hash.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        Self { key, hash }
    }

    /// Whether this is the password. Takes microseconds, and the same time for all.
    pub fn verify(&self, password: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        hmac::verify(&key, password, &self.hash).is_ok()
    }

    /// The text form. Whoever asks keeps it out of logs.
    pub fn to_text(&self) -> String {
        let (key, hash) = (STANDARD.encode(self.key), STANDARD.encode(self.hash));
        format!("APP${key}${hash}")
    }
}

impl fmt::Debug for AppVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppVerifier(…)")
    }
}

impl FromStr for AppVerifier {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "the verifier of an app password is APP$key$hash, both in base64";
        let parts = text
            .strip_prefix("APP$")
            .and_then(|text| text.split_once('$'));
        let (key, hash) = parts.ok_or(FORM)?;
        let octets = |text| STANDARD.decode(text).map_err(|_| FORM);
        Ok(Self {
            key: octets(key)?.try_into().map_err(|_| FORM)?,
            hash: octets(hash)?.try_into().map_err(|_| FORM)?,
        })
    }
}

/// What such a password is called, and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppPassword {
    /// For people: the program or device.
    pub name: String,
    /// Protocols; none: all.
    pub scopes: Vec<Scope>,
    /// Where from; none: everywhere.
    pub networks: Vec<IpNet>,
    /// Not good any more from then on.
    pub expires: Option<Timestamp>,
}

/// For what, from where and when somebody logs in.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// The protocol.
    pub scope: Scope,
    /// The client; none: it has no address.
    pub client: Option<IpAddr>,
    /// Now.
    pub now: Timestamp,
}

impl AppPassword {
    /// Why it does not open this, for the operator.
    pub fn refuses(&self, purpose: &Purpose) -> Option<String> {
        if let Some(expires) = self.expires
            && expires <= purpose.now
        {
            return Some(format!("it was good until {expires}"));
        }
        if !self.scopes.is_empty() && !self.scopes.contains(&purpose.scope) {
            return Some(format!("it is not for {}", purpose.scope));
        }
        let is_within = |client: IpAddr| {
            let client = client.to_canonical();
            self.networks
                .iter()
                .any(|network| network.contains(&client))
        };
        if !self.networks.is_empty() && !purpose.client.is_some_and(is_within) {
            return Some("it is not for this network".to_owned());
        }
        None
    }
}

/// One that an account has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAppPassword {
    /// Which it is: no other of the account has this.
    pub prefix: String,
    /// What is kept of it.
    pub verifier: AppVerifier,
    /// Its terms.
    pub terms: AppPassword,
}

impl Directory {
    /// What checks the app password with this prefix, and what that is good for. If the account has none such, is unknown or disabled: what
    /// nothing fits, for the same work.
    pub fn app_verifier(
        &self,
        account: &str,
        prefix: &str,
        key: &DecoyKey,
    ) -> (AppVerifier, Option<AppPassword>) {
        let folded =
            Mailbox::parse(account).map_or_else(|_| account.to_lowercase(), |name| name.folded());
        let decoy = decoy(&folded, prefix, key);
        let account = self.accounts.get(&folded);
        let account = account.filter(|account| !account.disabled);
        let kept = account.and_then(|account| {
            let mut all = account.app_passwords.iter();
            all.find(|kept| kept.prefix == prefix)
        });
        match kept {
            Some(kept) => (kept.verifier.clone(), Some(kept.terms.clone())),
            None => (decoy, None),
        }
    }
}

fn decoy(account: &str, prefix: &str, key: &DecoyKey) -> AppVerifier {
    let octets = key.octets_for(b"app", &format!("{account}\0{prefix}"));
    let (mut decoy, (key, hash)) = (
        AppVerifier {
            key: [0; KEY],
            hash: [0; HASH],
        },
        octets.split_at(KEY),
    );
    decoy
        .key
        .iter_mut()
        .zip(key)
        .for_each(|(to, from)| *to = *from);
    decoy
        .hash
        .iter_mut()
        .zip(hash)
        .for_each(|(to, from)| *to = *from);
    decoy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_password_is_known_by_its_look() {
        let prefix = prefix(u64::MAX);
        let made = password(&prefix, [1, u128::MAX]);
        assert_eq!(made.len(), 39, "{made}");
        assert_eq!(app_prefix(made.as_bytes()), Some(prefix.as_str()));
        for other in [
            "",
            "app-",
            "correct horse battery staple",
            &made[..38],
            &format!("{made}a"),
            &made.to_uppercase(),
            &made.replacen('-', "_", 2),
            "app-aaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "app-aaaaaaa1-aaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(app_prefix(other.as_bytes()), None, "{other}");
        }
        assert_eq!(app_prefix(b"app-\xff"), None);
    }

    #[test]
    fn what_is_kept_fits_that_password_alone_and_survives_its_text() {
        let made = password("abcdefgh", [7, 9]);
        let kept = AppVerifier::new(&made, [3; KEY]);
        assert_eq!(kept.to_text().parse(), Ok(kept.clone()));
        assert!(kept.verify(made.as_bytes()));
        let other = password("abcdefgh", [7, 8]);
        assert!(!kept.verify(other.as_bytes()) && !kept.verify(b""));
        assert!(!format!("{kept:?}").contains("APP"));
        for bad in [
            "",
            "APP$",
            "APP$AA==$AA==",
            "APP$x$y",
            &format!("{}$", kept.to_text()),
        ] {
            assert!(bad.parse::<AppVerifier>().is_err(), "{bad}");
        }
    }

    #[test]
    fn it_opens_what_it_is_for() {
        let purpose = |scope, client: &str| Purpose {
            scope,
            client: client.parse().ok(),
            now: Timestamp::from_millis(1000),
        };
        let here = purpose(Scope::Submission, "192.0.2.7");
        assert_eq!(AppPassword::default().refuses(&here), None);
        let terms = AppPassword {
            name: "printer".to_owned(),
            scopes: vec![Scope::Submission],
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            expires: Some(Timestamp::from_millis(1001)),
        };
        assert_eq!(terms.refuses(&here), None);
        assert_eq!(
            terms.refuses(&purpose(Scope::Submission, "::ffff:192.0.2.7")),
            None
        );
        for (refused, why) in [
            (purpose(Scope::Imap, "192.0.2.7"), "it is not for imap"),
            (
                purpose(Scope::Submission, "198.51.100.1"),
                "it is not for this network",
            ),
            (purpose(Scope::Submission, ""), "it is not for this network"),
            (
                Purpose {
                    now: Timestamp::from_millis(1001),
                    ..here
                },
                "it was good until 1970-01-01T00:00:01.001Z",
            ),
        ] {
            assert_eq!(terms.refuses(&refused).as_deref(), Some(why));
        }
    }
}
