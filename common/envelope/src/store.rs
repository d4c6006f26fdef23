use std::{fmt, str::FromStr, sync::Arc};

/// Most octets of a store's name.
const LONGEST: usize = 64;

/// The name of a mail store: the mailboxes that one delivery agent serves. An account is of one store; whoever names none
/// means `default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StoreName(Option<Arc<str>>);

impl StoreName {
    /// The name of the store of whoever names none.
    pub const DEFAULT: &'static str = "default";

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(Self::DEFAULT)
    }

    /// Whether it is the one of whoever names none.
    pub const fn is_default(&self) -> bool {
        self.0.is_none()
    }

    /// As it is kept and sent: nothing for the default store, so that whoever knows of no stores reads what he knows.
    pub fn named(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StoreName {
    type Err = InvalidStoreName;

    /// 1 to 64 lower-case letters, digits, dots, hyphens and underscores, the first a letter or digit: it stands in file
    /// names, metrics and command lines.
    fn from_str(text: &str) -> Result<Self, InvalidStoreName> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| plain(byte) || b"._-".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(plain);
        if !begins_well || text.len() > LONGEST || !text.bytes().all(allowed) {
            return Err(InvalidStoreName);
        }
        Ok(Self((text != Self::DEFAULT).then(|| text.into())))
    }
}

impl TryFrom<String> for StoreName {
    type Error = InvalidStoreName;

    fn try_from(text: String) -> Result<Self, InvalidStoreName> {
        text.parse()
    }
}

impl From<StoreName> for String {
    fn from(name: StoreName) -> Self {
        name.as_str().to_owned()
    }
}

/// A text that names no store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a store is 1 to 64 lower-case letters, digits, dots, hyphens and underscores, and begins with a letter or digit"
)]
pub struct InvalidStoreName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stores() {
        for good in ["default", "b", "store-2.example_x", "0", &"x".repeat(64)] {
            assert_eq!(good.parse::<StoreName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(65);
        for bad in ["", "A", "-b", ".b", "a/b", "a b", "ü", "a\n", &long] {
            assert_eq!(bad.parse::<StoreName>(), Err(InvalidStoreName), "{bad:?}");
        }
        let default: StoreName = "default".parse().unwrap();
        assert!(default.is_default() && default == StoreName::default());
        assert_eq!(default.named(), None);
        let other: StoreName = "b".parse().unwrap();
        assert_eq!((other.named(), other.is_default()), (Some("b"), false));
    }
}
