//! As whom we log in to a host: by a password that we have, or by a token that we have to get.

use std::path::PathBuf;

use postroad_daemon::{SecretError, SecretFile};
use postroad_oauth::{AccessTokens, GrantError};
use postroad_sasl::Password;
use tokio::task::spawn_blocking;

use crate::Error;
use crate::config::hosts::HostConfig;

/// How we log in.
pub enum Login {
    /// Nobody asked for it.
    Nobody,
    /// By name and password.
    Password(String, Password),
    /// By a token that another program writes into a file.
    File(String, PathBuf),
    /// By a token of its issuer.
    Grant(String, Box<AccessTokens>),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// Its file.
    #[error("no access token: {0}")]
    File(#[from] SecretError),
    /// It is no text.
    #[error("no access token: {} is no text", .0.display())]
    NoText(PathBuf),
    /// Its issuer.
    #[error(transparent)]
    Issuer(#[from] GrantError),
}

impl NoToken {
    /// Whether it may pass by itself.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Issuer(GrantError::Unreachable(_)))
    }
}

impl Login {
    /// That of an entry. Reads files; blocks.
    pub fn of(entry: &HostConfig) -> Result<Self, Error> {
        let Some(user) = entry.user.clone() else {
            return Ok(Self::Nobody);
        };
        if let Some(file) = &entry.token_file {
            return Ok(Self::File(user, file.clone()));
        }
        let Some(grant) = &entry.oauth else {
            let password = entry.credentials();
            return Ok(password.map_or(Self::Nobody, |(user, password)| {
                Self::Password(user, password)
            }));
        };
        let tokens = AccessTokens::new(grant).map_err(|source| Error::Grant {
            host: entry.host.to_string(),
            source,
        })?;
        Ok(Self::Grant(user, Box::new(tokens)))
    }

    /// As whom.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Nobody => None,
            Self::Password(user, _) | Self::File(user, _) | Self::Grant(user, _) => Some(user),
        }
    }

    /// Name and password, or token, for a connection that begins now.
    pub async fn credentials(&self) -> Result<Option<(String, Password)>, NoToken> {
        let (user, secret) = match self {
            Self::Nobody => return Ok(None),
            Self::Password(user, password) => (user, password.clone()),
            Self::File(user, path) => (user, from_file(path.clone()).await?),
            Self::Grant(user, tokens) => (user, tokens.token().await?),
        };
        Ok(Some((user.clone(), secret)))
    }

    /// The host did not take it.
    pub fn refused(&self) {
        if let Self::Grant(_, tokens) = self {
            tokens.forget();
        }
    }
}

async fn from_file(path: PathBuf) -> Result<Password, NoToken> {
    let read = spawn_blocking(move || {
        let secret = SecretFile::read(&path.to_string_lossy())?;
        match secret.reveal_str() {
            Some(token) => Ok(Password::new(token.trim())),
            None => Err(NoToken::NoText(path)),
        }
    });
    match read.await {
        Ok(read) => read,
        Err(_) => Err(GrantError::Unreachable("the file was not read".to_owned()).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_with_a_token_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let login = Login::File("us".to_owned(), path.clone());
        let error = login.credentials().await.unwrap_err();
        assert!(
            !error.may_pass() && error.to_string().contains("cannot read"),
            "{error}"
        );
        for token in ["first", "second"] {
            fs::write(&path, format!("{token}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let (user, secret) = login.credentials().await.unwrap().unwrap();
            assert_eq!((user.as_str(), secret.reveal()), ("us", token));
        }
        login.refused();
    }
}
