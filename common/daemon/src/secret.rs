//! Secrets come from files (or the environment), never from the configuration itself.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a secret shows of itself.
pub(crate) const SHOWN: &str = "(set)";

/// The value of a `*_file` key: the path of a file that holds a secret, read when the configuration
/// is. The file must not be open to everyone; one line end after the secret is dropped. The value
/// `"env:NAME"` takes the secret from the environment variable `NAME` instead.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile {
    secret: Vec<u8>,
    source: String,
}

impl SecretFile {
    /// Reads the secret a configuration value names.
    pub fn read(source: &str) -> Result<Self, SecretError> {
        let mut secret = match source.strip_prefix("env:") {
            Some(name) => std::env::var_os(name)
                .ok_or_else(|| SecretError::Unset(name.to_owned()))?
                .into_encoded_bytes(),
            None => read_file(Path::new(source))?,
        };
        if secret.ends_with(b"\n") {
            secret.pop();
            if secret.ends_with(b"\r") {
                secret.pop();
            }
        }
        match secret.is_empty() {
            true => Err(SecretError::Empty(source.to_owned())),
            false => Ok(Self {
                secret,
                source: source.to_owned(),
            }),
        }
    }

    /// The secret itself. Whoever asks keeps it out of logs.
    pub fn reveal(&self) -> &[u8] {
        &self.secret
    }

    /// The secret as text, if it is any.
    pub fn reveal_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.secret).ok()
    }

    /// What the configuration said: a path or `env:NAME`.
    pub fn source(&self) -> &str {
        &self.source
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let unreadable = |source| SecretError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let mode = std::fs::metadata(path).map_err(unreadable)?.mode();
    if mode & 0o007 != 0 {
        return Err(SecretError::Open {
            file: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    std::fs::read(path).map_err(unreadable)
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}: {source}; create it or correct the path", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everyone on the host can read or write the file.
    #[error("the secret file {} is open to everyone (mode {mode:03o}); run `chmod 640 {}`",
        file.display(), file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The environment variable is not there.
    #[error("the environment variable {0} is not set; set it or name a file")]
    Unset(String),
    /// There is nothing in it.
    #[error("the secret in {0} is empty; write one into it")]
    Empty(String),
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl Serialize for SecretFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SHOWN)
    }
}

impl<'de> Deserialize<'de> for SecretFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Self::read(&source).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_read_without_its_line_end_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "hunter2\r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let secret = SecretFile::read(path.to_str().unwrap()).unwrap();
        assert_eq!(secret.reveal_str(), Some("hunter2"));
        assert_eq!(format!("{secret:?}"), "(set)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"(set)\"");
    }

    #[test]
    fn a_secret_that_everyone_can_read_or_that_is_missing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let name = path.to_str().unwrap();
        assert!(matches!(
            SecretFile::read(name),
            Err(SecretError::Unreadable { .. })
        ));
        fs::write(&path, "\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            SecretFile::read(name).unwrap_err().to_string(),
            format!(
                "the secret file {name} is open to everyone (mode 644); run `chmod 640 {name}`"
            )
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(SecretFile::read(name), Err(SecretError::Empty(_))));
        assert!(matches!(
            SecretFile::read("env:POSTROAD_NO_SUCH_SECRET"),
            Err(SecretError::Unset(_))
        ));
    }
}
