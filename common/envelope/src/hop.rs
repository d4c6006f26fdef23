use std::{fmt, str::FromStr, sync::Arc};

use crate::NextHop;

/// Most places of one route.
pub const MAX_NEXT_HOPS: usize = 16;
/// Most octets of the names of all places of one route together: they stand in the state of each job.
pub const MAX_NEXT_HOPS_TEXT: usize = 512;

/// One of the places that a route may hand mail to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightedHop {
    /// The place.
    pub hop: NextHop,
    /// Its share among those of its preference, as in RFC 2782; with 0 it is taken only after those that have a share.
    pub weight: u16,
    /// As of a mail host (RFC 5321 §5.1): those with the lowest number are tried first, others when these failed.
    pub preference: u16,
}

impl WeightedHop {
    /// A place with an ordinary share, among those tried first.
    pub const fn new(hop: NextHop) -> Self {
        Self {
            hop,
            weight: 1,
            preference: 0,
        }
    }
}

/// As of a place alone, where nothing else is said.
impl fmt::Display for WeightedHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hop.fmt(f)?;
        if self.weight != 1 {
            write!(f, " weight {}", self.weight)?;
        }
        if self.preference != 0 {
            write!(f, " preference {}", self.preference)?;
        }
        Ok(())
    }
}

/// The name of a pool of addresses to send from, as the configuration of the agents that send has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// Most octets.
    const LONGEST: usize = 64;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SourceName {
    type Err = InvalidSourceName;

    /// 1 to 64 lower-case letters, digits, hyphens and underscores, the first a letter or digit: it stands in keys of the
    /// configuration, logs and metrics.
    fn from_str(text: &str) -> Result<Self, InvalidSourceName> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| plain(byte) || b"_-".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(plain);
        if !begins_well || text.len() > Self::LONGEST || !text.bytes().all(allowed) {
            return Err(InvalidSourceName);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for SourceName {
    type Error = InvalidSourceName;

    fn try_from(text: String) -> Result<Self, InvalidSourceName> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.as_str().to_owned()
    }
}

/// A text that names no pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a pool of source addresses is 1 to 64 lower-case letters, digits, hyphens and underscores, and begins with a letter or digit"
)]
pub struct InvalidSourceName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_with_what_is_not_ordinary() {
        let mut hop = WeightedHop::new("a.test:587".parse().unwrap());
        assert_eq!(hop.to_string(), "a.test:587");
        (hop.weight, hop.preference) = (3, 10);
        assert_eq!(hop.to_string(), "a.test:587 weight 3 preference 10");
    }

    #[test]
    fn the_name_of_a_pool_can_be_a_key() {
        for text in ["bulk", "ip-4", "2nd_pool", &"x".repeat(64)] {
            assert_eq!(text.parse::<SourceName>().unwrap().as_str(), text);
        }
        for text in ["", "-x", "Bulk", "a.b", "a b", &"x".repeat(65)] {
            assert_eq!(
                text.parse::<SourceName>(),
                Err(InvalidSourceName),
                "{text:?}"
            );
        }
    }
}
