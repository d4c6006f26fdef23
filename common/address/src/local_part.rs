use std::{fmt, str::FromStr};

use unicode_normalization::UnicodeNormalization;

use crate::{AddressError, MAX_LOCAL_PART};

/// The part left of the `@`, held without quotes (RFC 5321 §4.1.2).
///
/// `"a b"@x` and an unquoted form with the same characters are the same local part. Upper and lower
/// case stay as given and compare as different; [`LocalPart::folded`] is for looking up our own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(String);

impl LocalPart {
    /// Parses a dot-string or a quoted string, as it stands before the `@`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('"') {
            Some(rest) => Self::unquote(rest.strip_suffix('"').ok_or(AddressError::Quoting)?),
            None if is_dot_string(text) => Self::bounded(text.to_owned()),
            None if text.is_empty() => Err(AddressError::Empty),
            None => Err(AddressError::LocalPart),
        }
    }

    fn unquote(inner: &str) -> Result<Self, AddressError> {
        let mut value = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                // RFC 5321 §4.1.2 quoted-pairSMTP: a backslash and any printable ASCII.
                '\\' => match chars.next() {
                    Some(c @ ' '..='~') => value.push(c),
                    _ => return Err(AddressError::Quoting),
                },
                '"' => return Err(AddressError::Quoting),
                c if c.is_control() => return Err(AddressError::LocalPart),
                c => value.push(c),
            }
        }
        if value.is_empty() {
            return Err(AddressError::Empty);
        }
        Self::bounded(value)
    }

    fn bounded(value: String) -> Result<Self, AddressError> {
        if value.len() > MAX_LOCAL_PART {
            return Err(AddressError::TooLong("local part"));
        }
        Ok(Self(value))
    }

    /// The characters without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Lower case and NFC: the form in which our own accounts and folders are looked up.
    pub fn folded(&self) -> String {
        self.0.to_lowercase().nfc().collect()
    }

    /// Splits at the first `delimiter`: `bob+lists` is (`bob`, `lists`). None without delimiter or base.
    pub fn split_subaddress(&self, delimiter: char) -> Option<(LocalPart, &str)> {
        let (base, detail) = self.0.split_once(delimiter)?;
        (!base.is_empty()).then(|| (LocalPart(base.to_owned()), detail))
    }
}

fn is_dot_string(text: &str) -> bool {
    text.split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 §3.2.3 atext, and what RFC 6531 §3.3 adds.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control())
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl FromStr for LocalPart {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_where_needed() {
        assert_eq!(LocalPart::parse("\"bob\"").unwrap().to_string(), "bob");
        assert_eq!(LocalPart::parse("\"a b\"").unwrap().to_string(), "\"a b\"");
        assert_eq!(
            LocalPart::parse(r#""a\"b""#).unwrap().to_string(),
            r#""a\"b""#
        );
        assert_eq!(LocalPart::parse("\"..\"").unwrap().as_str(), "..");
    }

    #[test]
    fn refuses_bad_strings() {
        assert_eq!(LocalPart::parse(".."), Err(AddressError::LocalPart));
        assert_eq!(LocalPart::parse("a b"), Err(AddressError::LocalPart));
        assert_eq!(LocalPart::parse("\"a"), Err(AddressError::Quoting));
        assert_eq!(LocalPart::parse("\"\""), Err(AddressError::Empty));
        assert_eq!(LocalPart::parse("\"a\0\""), Err(AddressError::LocalPart));
        assert_eq!(
            LocalPart::parse(&"é".repeat(33)),
            Err(AddressError::TooLong("local part"))
        );
    }

    #[test]
    fn subaddress() {
        let part = LocalPart::parse("bob+a+b").unwrap();
        let (base, detail) = part.split_subaddress('+').unwrap();
        assert_eq!((base.as_str(), detail), ("bob", "a+b"));
        assert!(
            LocalPart::parse("+x")
                .unwrap()
                .split_subaddress('+')
                .is_none()
        );
    }
}
