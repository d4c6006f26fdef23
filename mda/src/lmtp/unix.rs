//! A Unix socket as a listener: who may open the file is served.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroad_net::{Connection, LiveLimits, Peer, Place, Stream};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Door;

const PAUSE: Duration = Duration::from_millis(100);

/// A bound socket; its file goes with it.
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Makes the socket, in place of one that a dead process left.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let there = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if there && Probe::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if there {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let socket = Self {
            listener,
            path: path.to_owned(),
        };
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
        Ok(socket)
    }

    /// Accepts until `shutdown`, then waits for the connections within the grace period. Beyond the limit
    /// clients wait in the backlog.
    pub async fn serve(self, limits: &LiveLimits, door: &Door, shutdown: CancellationToken) {
        let mut changes = limits.subscribe();
        let mut tasks = JoinSet::new();
        loop {
            let room = tasks.len() < limits.current().max_connections;
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = tasks.join_next() => continue,
                Ok(()) = changes.changed() => continue,
                accepted = self.listener.accept(), if room => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: connections that end free some.
                sleep(PAUSE).await;
                continue;
            };
            let (smtpd, shutdown) = (door.smtpd(), shutdown.child_token());
            tasks.spawn(async move {
                smtpd.serve(connection(stream.into(), shutdown), None).await;
            });
        }
        drop(self);
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(limits.current().grace, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn connection(stream: Stream, shutdown: CancellationToken) -> Connection {
    Connection {
        stream,
        peer: Peer::local(),
        proxy: None,
        own: false,
        place: Place::default(),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        shutdown,
    }
}
