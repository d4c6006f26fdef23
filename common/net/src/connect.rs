//! The calling side. The caller orders the addresses of a host; here one address is tried.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpSocket, UnixStream};
use tokio::time::timeout;

use crate::{Error, Stream};

/// Connects to `addr` within `within`, from the local address `source` if there is one.
pub async fn connect_tcp(
    addr: SocketAddr,
    within: Duration,
    source: Option<IpAddr>,
) -> Result<Stream, Error> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot send from the local address {source}: {error}"),
            )
        })?;
    }
    let stream = in_time(within, socket.connect(addr)).await?;
    // Commands and replies are small and waited for: no Nagle.
    stream.set_nodelay(true)?;
    Ok(Stream::from(stream))
}

/// Connects to the Unix socket at `path` within `within`.
pub async fn connect_unix(path: &Path, within: Duration) -> Result<Stream, Error> {
    Ok(Stream::from(
        in_time(within, UnixStream::connect(path)).await?,
    ))
}

async fn in_time<T>(
    within: Duration,
    connect: impl Future<Output = io::Result<T>>,
) -> Result<T, Error> {
    match timeout(within, connect).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::TimedOut("connect")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, UnixListener};

    const SECOND: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn connects_from_the_given_source() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = "127.0.0.2".parse().unwrap();
        let _stream = connect_tcp(listener.local_addr().unwrap(), SECOND, Some(source))
            .await
            .unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), source);
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_named() {
        let source = "192.0.2.1".parse().unwrap();
        let error = connect_tcp("127.0.0.1:1".parse().unwrap(), SECOND, Some(source))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[tokio::test]
    async fn a_unix_socket_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (connected, accepted) = tokio::join!(connect_unix(&path, SECOND), listener.accept());
        assert!(connected.unwrap().tls_info().is_none());
        accepted.unwrap();
    }
}
