//! What can be wrong with a configuration, in words that name file, line, key and remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the value is the built-in default.
    #[default]
    Default,
    /// In a file; without a line the file as a whole is meant.
    File {
        /// The file.
        file: Arc<Path>,
        /// Its line, from 1.
        line: Option<usize>,
    },
    /// In this environment variable.
    Environment(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line: None } => write!(f, "{}", file.display()),
            Self::File {
                file,
                line: Some(line),
            } => write!(f, "{}:{line}", file.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// All of these are the fault of whoever wrote the configuration: exit status 78.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; {remedy}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The text is not TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where the reader stumbled.
        place: Place,
        /// What it stumbled over.
        problem: String,
    },
    /// A key nobody knows.
    #[error("{place}: unknown {what} `{key}`{}; {remedy}", within(section))]
    UnknownKey {
        /// Where it is written.
        place: Place,
        /// "key" or "section".
        what: &'static str,
        /// The key.
        key: String,
        /// Dotted name of the table it is in; empty at the top.
        section: String,
        /// The nearest known key, or all of them.
        remedy: String,
    },
    /// A key that has no default was not written.
    #[error("{place}: the required key `{key}` is missing; add `{key} = …` to [{section}]")]
    MissingKey {
        /// The table, or the file when the table itself is not there.
        place: Place,
        /// The key.
        key: String,
        /// Dotted name of the table.
        section: String,
    },
    /// A value of the wrong type or form.
    #[error("{place}: {key}: {problem}")]
    Value {
        /// Where it is written.
        place: Place,
        /// Dotted name of the key.
        key: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A value that reads well and cannot be meant.
    #[error("{place}: {key}: {problem}; {remedy}")]
    Meaning {
        /// Where it is written.
        place: Place,
        /// Dotted name of the key.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => "create it, or name another file with --config FILE",
            io::ErrorKind::PermissionDenied => "let the user or group of this process read it",
            io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "check the disk it lies on",
        };
        Self::Unreadable {
            file: file.to_owned(),
            source: Arc::new(source),
            remedy,
        }
    }

    pub(super) fn unknown_key(place: Place, section: &str, key: &str, known: &[&str]) -> Self {
        Self::UnknownKey {
            place,
            what: if section.is_empty() { "section" } else { "key" },
            key: key.to_owned(),
            section: section.to_owned(),
            remedy: suggest(key, known),
        }
    }
}

fn within(section: &str) -> String {
    match section {
        "" => String::new(),
        section => format!(" in [{section}]"),
    }
}

/// "did you mean …?" for a near miss, else the whole choice.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let mut near: Vec<(usize, &str)> = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= word.chars().count().div_ceil(3))
        .collect();
    near.sort();
    match near.as_slice() {
        [(_, only)] => format!("did you mean `{only}`?"),
        [(best, first), (next, _), ..] if best < next => format!("did you mean `{first}`?"),
        _ if known.is_empty() => "remove it, nothing is configured here".to_owned(),
        _ => format!("known are {}", known.join(", ")),
    }
}
