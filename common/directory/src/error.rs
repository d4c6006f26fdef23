use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use postroad_address::Mailbox;

/// Why a directory cannot be read or changed. Secrets are never part of it.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The file, or a file it names, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was written in the file is wrong; every problem found.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
    /// The new file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address is in the directory already.
    #[error("{0} is in the directory already")]
    AlreadyThere(Mailbox),
    /// The domain is in the directory already.
    #[error("the domain {0} is in the directory already")]
    DomainAlreadyThere(postroad_address::Domain),
    /// There is no such account.
    #[error("there is no account {0} in the directory")]
    NoSuchAccount(Mailbox),
    /// Argon2 refused its input.
    #[error("the password cannot be hashed: {0}")]
    Hash(&'static str),
}

/// One thing that is wrong with the directory, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it is in.
    pub file: PathBuf,
    /// The line it is on, counted from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What puts it right.
    pub remedy: String,
}

impl Problem {
    pub(crate) fn new(
        file: &Path,
        line: impl Into<Option<usize>>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line: line.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// `directory.toml:12: what is wrong; what to do`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}
