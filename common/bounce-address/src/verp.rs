//! One envelope sender for each recipient, so that a bounce tells by its address alone whose mail it is about (VERP).

use std::{fmt, str::FromStr};

use postroad_address::{LocalPart, Mailbox};

use crate::LONGEST_LOCAL_PART;

/// What may divide: atext (RFC 5322 §3.2.3) that no name is made of, and that hosts do not read anything into.
const ALLOWED: &str = "+=-_#~";

/// What stands before the recipient, and what for its `@`: `+=` makes `list+user=example.org@lists.example.net`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiters {
    before: char,
    at: char,
}

/// What cannot divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelimiterError {
    /// More or fewer, or twice the same.
    #[error("there must be two different characters, such as \"+=\"")]
    Number,
    /// One that says something else in an address.
    #[error("{0:?} cannot divide an address; take two of {ALLOWED}")]
    Character(char),
    /// RFC 952: the names of hosts have hyphens, so the end of the recipient would not be known.
    #[error("\"-\" cannot stand for the @, since domains have it too; take another of {ALLOWED}")]
    Hyphen,
}

impl Default for Delimiters {
    fn default() -> Self {
        Self {
            before: '+',
            at: '=',
        }
    }
}

impl FromStr for Delimiters {
    type Err = DelimiterError;

    fn from_str(text: &str) -> Result<Self, DelimiterError> {
        let mut chars = text.chars();
        let (Some(before), Some(at), None) = (chars.next(), chars.next(), chars.next()) else {
            return Err(DelimiterError::Number);
        };
        if let Some(wrong) = [before, at].into_iter().find(|c| !ALLOWED.contains(*c)) {
            return Err(DelimiterError::Character(wrong));
        }
        match (before, at) {
            (_, '-') => Err(DelimiterError::Hyphen),
            (before, at) if before == at => Err(DelimiterError::Number),
            (before, at) => Ok(Self { before, at }),
        }
    }
}

impl fmt::Display for Delimiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.before, self.at)
    }
}

impl Delimiters {
    /// The sender of mail to this recipient alone. None, if there is no room for it (RFC 5321 §4.5.3.1.1), or if it could not be read
    /// back: the sender has the first delimiter already, or the recipient has letters beyond ASCII, or is quoted, or at a literal.
    pub fn write(&self, sender: &Mailbox, recipient: &Mailbox) -> Option<Mailbox> {
        let (base, user) = (sender.local_part(), recipient.local_part().as_str());
        let domain = recipient.domain().a_label();
        let local = format!("{}{}{user}{}{domain}", base.as_str(), self.before, self.at);
        if local.len() > LONGEST_LOCAL_PART {
            return None;
        }
        // What needs quotes is not worth the trouble that programs have with it.
        let local = LocalPart::parse(&local).ok()?;
        let written = Mailbox::new(local, sender.domain().clone());
        let (read, whose) = self.read(&written)?;
        let same = read == *sender && whose == *recipient;
        same.then_some(written)
    }

    /// The sender below such an address, and the recipient of its mail; none, if it is not of this form.
    pub fn read(&self, address: &Mailbox) -> Option<(Mailbox, Mailbox)> {
        let local = address.local_part().as_str();
        let (base, rest) = local.split_once(self.before).filter(|_| local.is_ascii())?;
        let (user, domain) = rest.rsplit_once(self.at)?;
        let sender = Mailbox::new(LocalPart::parse(base).ok()?, address.domain().clone());
        let recipient = Mailbox::parse(&format!("{user}@{domain}")).ok()?;
        Some((sender, recipient))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    fn written(delimiters: &str, sender: &str, recipient: &str) -> Option<String> {
        let delimiters: Delimiters = delimiters.parse().unwrap();
        let address = delimiters.write(&mailbox(sender), &mailbox(recipient))?;
        let read = delimiters.read(&address).unwrap();
        assert_eq!(read, (mailbox(sender), mailbox(recipient)), "{address}");
        Some(address.to_string())
    }

    #[test]
    fn an_address_is_written_and_read_back() {
        for (delimiters, sender, recipient, expected) in [
            (
                "+=",
                "list@l.test",
                "user@a.test",
                "list+user=a.test@l.test",
            ),
            (
                "-=",
                "list@l.test",
                "user@a.test",
                "list-user=a.test@l.test",
            ),
            // The recipient may have both of them, the domain has none.
            (
                "+=",
                "list-bounces@l.test",
                "a=b+c@a.test",
                "list-bounces+a=b+c=a.test@l.test",
            ),
            (
                "+=",
                "list@l.test",
                "user@bücher.test",
                "list+user=xn--bcher-kva.test@l.test",
            ),
        ] {
            assert_eq!(
                written(delimiters, sender, recipient).as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn what_has_no_room_or_could_not_be_read_stays_as_it_is() {
        let long = format!("{}@a.test", "u".repeat(64 - "list+=a.test".len()));
        assert!(written("+=", "list@l.test", &long).is_some());
        for (sender, recipient) in [
            ("list@l.test", format!("u{long}")),
            ("list+x@l.test", "user@a.test".to_owned()),
            ("list@l.test", "\"a b\"@a.test".to_owned()),
            ("list@l.test", "user@[192.0.2.1]".to_owned()),
            ("list@l.test", "grüße@a.test".to_owned()),
            ("\"a list\"@l.test", "user@a.test".to_owned()),
        ] {
            assert_eq!(
                written("+=", sender, &recipient),
                None,
                "{sender} {recipient}"
            );
        }
    }

    #[test]
    fn others_are_not_of_this_form() {
        for plain in [
            "list@l.test",
            "list+user@l.test",
            "+user=a.test@l.test",
            "list+=a.test@l.test",
            "list+u=@l.test",
            "list+ü=a.test@l.test",
        ] {
            assert_eq!(Delimiters::default().read(&mailbox(plain)), None, "{plain}");
        }
    }

    #[test]
    fn delimiters_are_two_that_divide() {
        let wrong = |text: &str| text.parse::<Delimiters>().unwrap_err();
        for text in ["", "+", "++", "+=+"] {
            assert_eq!(wrong(text), DelimiterError::Number, "{text}");
        }
        assert_eq!(wrong("a="), DelimiterError::Character('a'));
        assert_eq!(wrong("+@"), DelimiterError::Character('@'));
        assert_eq!(wrong("+-"), DelimiterError::Hyphen);
        assert_eq!("-=".parse::<Delimiters>().unwrap().to_string(), "-=");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(base in "[a-z+=.-]{1,12}", user in "[!-~]{1,20}", domain in "[a-z]{1,9}\\.test") {
            let sender = Mailbox::parse(&format!("{base}@l.test"));
            let recipient = Mailbox::parse(&format!("{user}@{domain}"));
            if let (Ok(sender), Ok(recipient)) = (sender, recipient)
                && let Some(address) = Delimiters::default().write(&sender, &recipient)
            {
                prop_assert_eq!(Delimiters::default().read(&address), Some((sender, recipient)));
            }
        }
    }
}
