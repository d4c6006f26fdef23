use std::{fmt, str::FromStr};

use crate::{AddressError, Domain, LocalPart, MAX_PATH};

/// `local-part@domain` (RFC 5321 §4.1.2 Mailbox).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local_part: LocalPart,
    domain: Domain,
}

impl Mailbox {
    /// Joins two valid parts.
    pub fn new(local_part: LocalPart, domain: Domain) -> Self {
        Self { local_part, domain }
    }

    /// Parses an address without angle brackets. The last `@` outside quotes divides it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() + 2 > MAX_PATH {
            return Err(AddressError::TooLong("address"));
        }
        let (local_part, domain) = text.rsplit_once('@').ok_or(AddressError::NoDomain)?;
        Ok(Self::new(
            LocalPart::parse(local_part)?,
            Domain::parse(domain)?,
        ))
    }

    /// The part left of the `@`.
    pub fn local_part(&self) -> &LocalPart {
        &self.local_part
    }

    /// The part right of the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the address can only be sent where SMTPUTF8 is offered (RFC 6531 §3.3).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part.as_str().is_ascii() || !self.domain.as_str().is_ascii()
    }

    /// The form under which our own addresses are compared: local part folded, domain as A-label.
    pub fn folded(&self) -> String {
        format!("{}@{}", self.local_part.folded(), self.domain.a_label())
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// Who is told when a mail fails: a mailbox, or nobody (`<>`, RFC 5321 §4.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReversePath {
    /// `<>`: a notification, about which no other notification is ever sent.
    Null,
    /// An ordinary sender.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Parses the text between the angle brackets of MAIL FROM; empty is the null path.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match strip_source_route(text) {
            "" => Ok(Self::Null),
            path => Mailbox::parse(path).map(Self::Mailbox),
        }
    }

    /// The sender, if there is one.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether this is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// Without angle brackets; the null path is empty.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mailbox().map_or(Ok(()), |mailbox| mailbox.fmt(f))
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        Self::Mailbox(mailbox)
    }
}

/// A recipient as RCPT TO names it (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in any case: the postmaster of this host.
    Postmaster,
    /// An ordinary recipient.
    Mailbox(Mailbox),
}

impl ForwardPath {
    /// Parses the text between the angle brackets of RCPT TO.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let path = strip_source_route(text);
        if path.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Mailbox::parse(path).map(Self::Mailbox)
    }

    /// The mailbox, unless this is the bare postmaster.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

impl From<Mailbox> for ForwardPath {
    fn from(mailbox: Mailbox) -> Self {
        Self::Mailbox(mailbox)
    }
}

/// RFC 5321 §4.1.2: source routes (`@a,@b:user@c`) must be accepted and should be ignored.
fn strip_source_route(text: &str) -> &str {
    match text.split_once(':') {
        Some((route, rest))
            if route.starts_with('@')
                && route.split(',').all(|hop| {
                    hop.strip_prefix('@')
                        .is_some_and(|name| Domain::parse(name).is_ok())
                }) =>
        {
            rest
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_rfc_5321_4_1_2() {
        assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
        assert_eq!(
            ForwardPath::parse("PostMaster"),
            Ok(ForwardPath::Postmaster)
        );
        assert_eq!(
            ForwardPath::parse("@a.example,@b.example:joe@c.example")
                .unwrap()
                .to_string(),
            "joe@c.example"
        );
        assert_eq!(ForwardPath::parse(""), Err(AddressError::Empty));
        assert_eq!(ForwardPath::parse("joe"), Err(AddressError::NoDomain));
        assert_eq!(
            Mailbox::parse("\"a@b\"@c.example")
                .unwrap()
                .domain()
                .as_str(),
            "c.example"
        );
    }

    #[test]
    fn too_long() {
        let long = format!("{}@{}example", "a".repeat(64), "abcdefgh.".repeat(22));
        assert_eq!(Mailbox::parse(&long), Err(AddressError::TooLong("address")));
    }

    proptest! {
        #[test]
        fn printing_and_parsing_is_identity(local in "[ -~]{1,20}", domain in "[a-z]{1,9}\\.[a-z]{2,5}") {
            let quoted: String = local.chars().flat_map(|c| ['\\', c]).collect();
            let mailbox = Mailbox::parse(&format!("\"{quoted}\"@{domain}")).unwrap();
            prop_assert_eq!(mailbox.local_part().as_str(), &local);
            prop_assert_eq!(Mailbox::parse(&mailbox.to_string()).unwrap(), mailbox);
        }

        #[test]
        fn nothing_panics(text in ".{0,80}") {
            let _ = (ForwardPath::parse(&text), ReversePath::parse(&text));
        }
    }
}
