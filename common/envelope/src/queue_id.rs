use std::{fmt, str::FromStr};

use crate::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

/// A mail's name for its whole life: a UUIDv7 (RFC 9562) as 26 characters of lower-case Crockford base32.
///
/// Sorts by the time it was minted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u128);

/// A text that is no queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id: {LENGTH} characters of 0-9 and a-z without i, l, o, u")]
pub struct InvalidQueueId;

impl QueueId {
    /// Mints an id from the time and ten random octets.
    pub fn mint(now: Timestamp, random: [u8; 10]) -> Self {
        let uuid = uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid();
        Self(uuid.as_u128())
    }

    /// The 16 octets, as stored and sent.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From the 16 octets.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// When it was minted, to the millisecond.
    pub const fn minted_at(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> 80) as u64)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; LENGTH];
        for (at, slot) in text.iter_mut().enumerate() {
            // 26 characters hold 130 bits, so the first one has only three of the id's.
            let shift = 5 * (LENGTH - 1 - at);
            *slot = ALPHABET[(self.0 >> shift & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = InvalidQueueId;
    fn from_str(text: &str) -> Result<Self, InvalidQueueId> {
        if text.len() != LENGTH {
            return Err(InvalidQueueId);
        }
        let mut value = 0_u128;
        for (at, byte) in text.bytes().enumerate() {
            let digit = digit(byte).ok_or(InvalidQueueId)?;
            if at == 0 && digit > 7 {
                return Err(InvalidQueueId);
            }
            value = value << 5 | digit;
        }
        Ok(Self(value))
    }
}

fn digit(byte: u8) -> Option<u128> {
    let byte = byte.to_ascii_lowercase();
    ALPHABET
        .iter()
        .position(|&known| known == byte)
        .and_then(|at| u128::try_from(at).ok())
}

/// The beginning of a queue id, 8 characters or more, as people type it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueIdPrefix(String);

impl QueueIdPrefix {
    /// Lower bound of the ids that begin so.
    pub fn first(&self) -> QueueId {
        self.padded('0')
    }

    /// Upper bound of the ids that begin so.
    pub fn last(&self) -> QueueId {
        self.padded('z')
    }

    fn padded(&self, fill: char) -> QueueId {
        let text: String = self
            .0
            .chars()
            .chain(std::iter::repeat(fill))
            .take(LENGTH)
            .collect();
        text.parse().unwrap_or(QueueId(0))
    }
}

impl fmt::Display for QueueIdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for QueueIdPrefix {
    type Err = InvalidQueueId;
    fn from_str(text: &str) -> Result<Self, InvalidQueueId> {
        let valid = (8..=LENGTH).contains(&text.len())
            && text.bytes().all(|byte| digit(byte).is_some())
            && text
                .bytes()
                .next()
                .and_then(digit)
                .is_some_and(|first| first <= 7);
        if valid {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidQueueId)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sorts_by_time_and_tells_it() {
        let early = QueueId::mint(Timestamp::from_millis(1_700_000_000_000), [255; 10]);
        let late = QueueId::mint(Timestamp::from_millis(1_700_000_000_001), [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.minted_at(), Timestamp::from_millis(1_700_000_000_001));
    }

    #[test]
    fn prefixes_bound_their_ids() {
        let id = QueueId::mint(Timestamp::from_millis(1_700_000_000_000), [7; 10]);
        let prefix: QueueIdPrefix = id.to_string()[..9].to_uppercase().parse().unwrap();
        assert!(prefix.first() <= id && id <= prefix.last());
        assert!("0123456".parse::<QueueIdPrefix>().is_err());
        assert!("zzzzzzzz".parse::<QueueIdPrefix>().is_err());
    }

    proptest! {
        #[test]
        fn text_is_identity(value: u128) {
            let id = QueueId(value);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(QueueId::from_bytes(id.to_bytes()), id);
        }
    }
}
