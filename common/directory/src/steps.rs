//! How a recipient was followed, for a person who asks why its mail goes where it goes.

use std::path::Path;

use postroad_address::{Domain, ForwardPath, Mailbox};

use crate::{Directory, Resolution};

/// An address on the way of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many others stand before it: 0 for the recipient itself.
    pub depth: usize,
    /// The address.
    pub address: Mailbox,
    /// What it is.
    pub what: What,
    /// The line of the directory file that says so; none: no line does.
    pub line: Option<usize>,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An account that takes mail.
    Account,
    /// One that is disabled.
    Disabled,
    /// An alias.
    Alias,
    /// `postmaster` or `abuse`, which every domain has (RFC 5321 §4.5.1, RFC 2142 §2).
    Role,
    /// Nothing of its own: the domain has a catch-all.
    CatchAll,
    /// Of a domain that is not ours.
    Foreign,
    /// Nothing.
    Unknown,
}

impl What {
    /// For a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Disabled => "disabled account",
            Self::Alias => "alias",
            Self::Role => "role of the domain",
            Self::CatchAll => "catch-all of the domain",
            Self::Foreign => "not ours",
            Self::Unknown => "unknown",
        }
    }
}

impl Directory {
    /// [`Directory::resolve`] with the way that led there.
    pub fn explain(&self, path: &ForwardPath) -> (Resolution, Vec<Step>) {
        let mut steps = Vec::new();
        let resolution = self.follow(path, Some(&mut steps));
        (resolution, steps)
    }

    /// Where the entry of a domain of ours stands.
    pub fn place_of(&self, domain: &Domain) -> Option<(&Path, usize)> {
        Some((self.file(), self.domain(domain)?.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"[[domain]]
name = "example.org"
postmaster = "alice@example.org"
catch_all = "team@example.org"

[[account]]
address = "alice@example.org"

[[account]]
address = "gone@example.org"
disabled = true

[[alias]]
address = "team@example.org"
to = ["alice+team@example.org", "x@foreign.example", "gone@example.org"]
"#;

    fn told(address: &str) -> Vec<String> {
        let directory = Directory::parse(Path::new("directory.toml"), FILE).unwrap();
        let path = ForwardPath::parse(address).unwrap();
        let (resolution, steps) = directory.explain(&path);
        assert_eq!(resolution, directory.resolve(&path), "{address}");
        let one = |step: &Step| {
            let line = step.line.map_or("-".to_owned(), |line| line.to_string());
            format!(
                "{} {} {} {line}",
                step.depth,
                step.address,
                step.what.as_str()
            )
        };
        steps.iter().map(one).collect()
    }

    #[test]
    fn each_address_on_the_way_is_told_with_its_line() {
        assert_eq!(told("alice@example.org"), ["0 alice@example.org account 7"]);
        assert_eq!(
            told("nobody@example.org"),
            [
                "0 nobody@example.org catch-all of the domain 2",
                "1 team@example.org alias 14",
                "2 alice+team@example.org account 7",
                "2 x@foreign.example not ours -",
                "2 gone@example.org disabled account 10",
            ]
        );
        assert_eq!(
            told("abuse@example.org"),
            [
                "0 abuse@example.org role of the domain 2",
                "1 alice@example.org account 7"
            ]
        );
        assert_eq!(
            told("a@foreign.example"),
            ["0 a@foreign.example not ours -"]
        );
    }
}
