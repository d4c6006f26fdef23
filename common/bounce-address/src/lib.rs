//! Envelope senders of our own making: signed ones, a bounce to which is about mail that we sent, and one for each recipient
//! ([`Delimiters`], VERP), a bounce to which is about mail to that one.
//!
//! ```text
//! alice@our.example ─► Signer::sign ─► prvs=0123a1b2c3=alice@our.example ─► MAIL FROM of mail that leaves
//!                                       a bounce comes to it ─► Signer::read ─► alice@our.example, or forged, or too old
//! ```
//!
//! * The form is that of BATV (draft-levine-smtp-batv): `prvs=`, a digit, the day on which it ends in three digits, six digits of a
//!   keyed hash, `=`, and the local part. Others know it, and take it off where they compare senders.
//! * The hash is HMAC-SHA-256 over day and address. Six digits are 24 bits: enough against who sends bounces at random, and
//!   nothing to let anybody in by; what they let through is a mail to a mailbox that takes mail anyway.
//! * The first key signs; all of them are believed, so that a new one can be put before the old one.
//!
//! The day is an argument, as everything that changes. Only a key or delimiters can be wrong ([`KeyError`], [`DelimiterError`]).
#![forbid(unsafe_code)]

mod verp;

use postroad_address::{LocalPart, Mailbox};
use ring::hmac;
use subtle::ConstantTimeEq as _;
pub use verp::{DelimiterError, Delimiters};
use zeroize::Zeroizing;

/// Octets a key has at least.
pub const SHORTEST_KEY: usize = 16;
/// Days after which the number of a day comes again.
const ROUND: u64 = 1000;
const PREFIX: &str = "prvs=";
/// RFC 5321 §4.5.3.1.1.
const LONGEST_LOCAL_PART: usize = 64;

/// Signs addresses, and reads what comes back.
#[derive(Clone)]
pub struct Signer {
    keys: Vec<hmac::Key>,
    /// Days for which an address is good.
    days: u64,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.keys.len())
            .field("days", &self.days)
            .finish()
    }
}

/// A file of keys that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error(
        "there is no key in it; write one of at least {SHORTEST_KEY} octets on a line of its own"
    )]
    None,
    /// Too few octets.
    #[error("a key has fewer than {SHORTEST_KEY} octets; `openssl rand -hex 32` makes one")]
    Short,
}

/// What an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Not of this form.
    Plain,
    /// Signed by us; the address that it stands for.
    Signed(Mailbox),
    /// Signed by us, and its time is over.
    Expired,
    /// Of this form, and not signed by us.
    Forged,
}

impl Signer {
    /// By the keys of a file, one on each line. `days`: for how long a signed address is good; at most 500.
    pub fn new(keys: &str, days: u64) -> Result<Self, KeyError> {
        let keys = keys.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<Zeroizing<String>> = keys.map(|key| key.to_owned().into()).collect();
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        if keys.iter().any(|key| key.len() < SHORTEST_KEY) {
            return Err(KeyError::Short);
        }
        let key = |key: &Zeroizing<String>| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        Ok(Self {
            keys: keys.iter().map(key).collect(),
            days: days.clamp(1, ROUND / 2),
        })
    }

    /// The address, signed on this day (since 1970). None, if it has no room for it, or is signed already.
    pub fn sign(&self, sender: &Mailbox, today: u64) -> Option<Mailbox> {
        let local = sender.local_part().as_str();
        if local
            .get(..PREFIX.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
        {
            return None;
        }
        let day = (today + self.days) % ROUND;
        let tag = self.keys.first().map(|key| tag(key, day, sender))?;
        let signed = format!("{PREFIX}0{day:03}{tag}={local}");
        if signed.len() > LONGEST_LOCAL_PART {
            return None;
        }
        let local = LocalPart::parse(&signed).ok()?;
        Some(Mailbox::new(local, sender.domain().clone()))
    }

    /// What an address is that mail comes to on this day.
    pub fn read(&self, address: &Mailbox, today: u64) -> Read {
        let Some((day, said, local)) = parts(address.local_part().as_str()) else {
            return Read::Plain;
        };
        let Ok(local) = LocalPart::parse(local) else {
            return Read::Forged;
        };
        let sender = Mailbox::new(local, address.domain().clone());
        // Each of them, whichever fits.
        let fits = self.keys.iter().fold(false, |fits, key| {
            let same = tag(key, day, &sender).as_bytes().ct_eq(said.as_bytes());
            fits | bool::from(same)
        });
        // Days come again after a thousand; a good one is at most so many ahead.
        let ahead = (day + ROUND - today % ROUND) % ROUND;
        match (fits, ahead <= self.days) {
            (false, _) => Read::Forged,
            (true, false) => Read::Expired,
            (true, true) => Read::Signed(sender),
        }
    }
}

/// Day, hash in small letters, and local part of a signed one.
fn parts(local: &str) -> Option<(u64, String, &str)> {
    let head = local.get(..PREFIX.len())?;
    if !head.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    let (tag, local) = local.get(PREFIX.len()..)?.split_once('=')?;
    let is_tag = tag.len() == 10 && tag.bytes().all(|octet| octet.is_ascii_hexdigit());
    let day = tag.get(1..4)?.parse().ok()?;
    let said = tag.get(4..)?.to_ascii_lowercase();
    is_tag.then_some((day, said, local))
}

/// Six digits.
fn tag(key: &hmac::Key, day: u64, sender: &Mailbox) -> String {
    let signed = hmac::sign(key, format!("{day:03}{}", sender.folded()).as_bytes());
    let octets = signed.as_ref().iter().take(3);
    octets.map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const TODAY: u64 = 20_784;

    fn signer(keys: &str) -> Signer {
        Signer::new(keys, 7).unwrap()
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn what_is_signed_is_read_until_its_time_is_over() {
        let (signer, alice) = (signer(KEY), mailbox("alice@our.test"));
        let signed = signer.sign(&alice, TODAY).unwrap();
        let text = signed.to_string();
        assert!(
            text.starts_with("prvs=0791") && text.ends_with("=alice@our.test"),
            "{text}"
        );
        assert_eq!(signer.read(&signed, TODAY), Read::Signed(alice.clone()));
        assert_eq!(signer.read(&signed, TODAY + 7), Read::Signed(alice.clone()));
        assert_eq!(signer.read(&signed, TODAY + 8), Read::Expired);
        // Some hosts change the case of what they send to.
        let loud = mailbox(&text.to_uppercase());
        assert!(matches!(signer.read(&loud, TODAY), Read::Signed(_)));
        assert_eq!(signer.sign(&signed, TODAY), None);
        assert_eq!(signer.read(&alice, TODAY), Read::Plain);
    }

    #[test]
    fn a_signature_is_of_one_address_and_one_key() {
        let old = signer(KEY);
        let signed = old.sign(&mailbox("alice@our.test"), TODAY).unwrap();
        let other = mailbox(&signed.to_string().replace("alice", "mallory"));
        assert_eq!(old.read(&other, TODAY), Read::Forged);
        let elsewhere = mailbox(&signed.to_string().replace("our.test", "other.test"));
        assert_eq!(old.read(&elsewhere, TODAY), Read::Forged);
        let new = "another key of thirty-two octets";
        assert_eq!(signer(new).read(&signed, TODAY), Read::Forged);
        let both = signer(&format!("{new}\n{KEY}\n"));
        assert!(matches!(both.read(&signed, TODAY), Read::Signed(_)));
        assert_ne!(both.sign(&mailbox("alice@our.test"), TODAY), Some(signed));
    }

    #[test]
    fn a_long_name_stays_as_it_is_and_a_short_key_is_none() {
        let long = format!("{}@our.test", "x".repeat(50));
        assert_eq!(signer(KEY).sign(&mailbox(&long), TODAY), None);
        assert_eq!(Signer::new("\n", 7).err(), Some(KeyError::None));
        assert_eq!(Signer::new("short", 7).err(), Some(KeyError::Short));
        assert!(!format!("{:?}", signer(KEY)).contains("0123456789"));
    }

    proptest! {
        #[test]
        fn any_address_can_be_read(local in "[!-~]{1,64}") {
            if let Ok(address) = Mailbox::parse(&format!("{local}@our.test")) {
                prop_assert!(!matches!(signer(KEY).read(&address, TODAY), Read::Signed(_)) || local.len() > 16);
            }
        }
    }
}
