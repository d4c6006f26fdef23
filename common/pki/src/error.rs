use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong, in words for the person who has to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Asked for: a name no certificate can carry.
    #[error("{0:?} is neither a host name nor an address")]
    Name(String),
    /// Asked for: a name outside of what the authority was made for.
    #[error("the authority may not vouch for {name}; it was made for {permits} (`--permit`)")]
    NotPermitted {
        /// The name.
        name: String,
        /// What it may vouch for.
        permits: String,
    },
    /// Asked for: something is there that must not be written over.
    #[error("{}: is there already; `--replace` makes it anew", .0.display())]
    Exists(PathBuf),
    /// Asked for: no such holder.
    #[error("{}: has no certificate", .0.display())]
    NoHolder(PathBuf),
    /// A file: cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The system: a file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A text that is no certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// A text that is no key; says nothing about its content.
    #[error("not a private key of a kind we make (PKCS #8, ECDSA P-256)")]
    Key,
    /// Ours: a certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(String),
}

impl Error {
    pub(crate) fn file(path: &Path, problem: impl ToString) -> Self {
        Self::File {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }
}
