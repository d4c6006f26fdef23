//! The socket file: made for us alone, replaced when its owner is dead, removed at the end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use postroad_net::UnixRoles;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::Error;

/// How a Unix socket is offered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnixOptions {
    /// The mode of the socket file. Default 0660.
    pub mode: u32,
    /// What the users of this host may do.
    pub roles: UnixRoles,
}

impl Default for UnixOptions {
    fn default() -> Self {
        Self {
            mode: 0o660,
            roles: UnixRoles::default(),
        }
    }
}

/// A listening socket whose file goes with it.
#[derive(Debug)]
pub struct SocketFile {
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that a successor's file is left alone.
    id: (u64, u64),
}

impl SocketFile {
    pub async fn bind(path: &Path, mode: u32) -> Result<Self, Error> {
        clear_stale(path).await?;
        let failed = |source| Error::Socket {
            path: path.to_owned(),
            source,
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Until the next line the umask rules; who connects early still has only the roles of its uid.
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777)).map_err(failed)?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            id: (meta.dev(), meta.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id) {
            // Nothing depends on it: a file left behind is recognised as stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file a dead server left; refuses to touch a live one's, or any file that is no socket.
async fn clear_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Socket {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Error::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        // Connected, or too busy to answer: alive.
        Ok(_) | Err(_) => Err(Error::AlreadyServing(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.sock");
        let socket = SocketFile::bind(&path, 0o660).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let error = SocketFile::bind(&path, 0o660).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyServing(_)), "{error}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_servers_file_is_replaced_and_a_successors_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = SocketFile::bind(&path, 0o600).await.unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = SocketFile::bind(&path, 0o600).await.unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mail");
        fs::write(&path, "precious").unwrap();
        let error = SocketFile::bind(&path, 0o660).await.unwrap_err();
        assert!(matches!(error, Error::NotASocket(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let nowhere = SocketFile::bind(&dir.path().join("no/such/dir"), 0o660)
            .await
            .unwrap_err();
        assert!(nowhere.to_string().contains("no/such/dir"), "{nowhere}");
    }
}
