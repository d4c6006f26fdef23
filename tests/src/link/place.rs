//! The two kinds of sockets.

use std::{fs, io, net::SocketAddr, path::PathBuf};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Where one listens, or is found.
#[derive(Clone, Debug)]
pub enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Place {
    pub fn listen(&self) -> io::Result<Door> {
        match self {
            Self::Unix(path) => {
                // Ours, of before the line was cut.
                let _ = fs::remove_file(path);
                UnixListener::bind(path).map(Door::Unix)
            }
            Self::Tcp(address) => {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }?;
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                socket.listen(BACKLOG).map(Door::Tcp)
            }
        }
    }

    pub async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => at_once(TcpStream::connect(address).await?)?,
        })
    }
}

/// A place where one listens.
pub enum Door {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Door {
    pub async fn accept(&self) -> io::Result<Box<dyn Wire>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => at_once(listener.accept().await?.0)?,
        })
    }

    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

/// The line itself adds no delay.
fn at_once(stream: TcpStream) -> io::Result<Box<dyn Wire>> {
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// A connection.
pub trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// When it is dropped the other end is told of a fault, not of an end, as far as there is a difference.
    fn tear(&self);
}

impl Wire for TcpStream {
    fn tear(&self) {
        // It may be torn already.
        let _ = self.set_zero_linger();
    }
}

impl Wire for UnixStream {
    fn tear(&self) {}
}
