//! Where connections come in, or do not.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postroad_net::Stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Error, Place, Shared, conversation};
use crate::script::Door;

const BACKLOG: u32 = 1024;
/// How long a connection takes that is answered at all, on a busy machine.
const ANSWER: Duration = Duration::from_millis(500);
/// What the kernel may hold of connections that nobody takes.
const FILLERS: usize = 16;
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// A bound door.
pub struct Entrance {
    place: Place,
    kind: Kind,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// Bound, not listening: connections are refused, and nobody else takes the port.
    Shut(#[expect(dead_code, reason = "holds the port")] TcpSocket),
    /// Listening with a full backlog, so that connections are not even refused.
    Deaf(
        #[expect(dead_code, reason = "holds the port")] TcpListener,
        #[expect(dead_code, reason = "fill the backlog")] Vec<TcpStream>,
    ),
}

impl Entrance {
    pub async fn open(place: &Place, door: Door) -> Result<Self, Error> {
        let bind = |source| Error::Bind {
            place: place.to_string(),
            source,
        };
        match place {
            Place::Tcp(address) if !address.ip().is_loopback() => Err(Error::NotLoopback(*address)),
            Place::Tcp(address) => {
                let (address, kind) = tcp(*address, door).await.map_err(bind)?;
                let place = Place::Tcp(address);
                Ok(Self { place, kind })
            }
            Place::Unix(path) => {
                // One that was killed has left its socket.
                let _ = fs::remove_file(path);
                let kind = UnixListener::bind(path).map(Kind::Unix).map_err(bind)?;
                let place = place.clone();
                Ok(Self { place, kind })
            }
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Until the host goes down; the end of it ends every conversation.
    pub async fn serve(self, shared: Arc<Shared>) {
        let mut conversations = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.shutdown.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let shared = Arc::clone(&shared);
                    conversations.spawn(conversation::converse(stream, from, shared));
                }
                // Too many open files; those that end free some.
                Err(_) => sleep(PAUSE).await,
            }
            while conversations.try_join_next().is_some() {}
        }
        conversations.shutdown().await;
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((stream.into(), Some(from)))
            }
            Kind::Unix(listener) => Ok((listener.accept().await?.0.into(), None)),
            Kind::Shut(_) | Kind::Deaf(..) => std::future::pending().await,
        }
    }
}

async fn tcp(address: SocketAddr, door: Door) -> io::Result<(SocketAddr, Kind)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let address = socket.local_addr()?;
    let kind = match door {
        Door::Open => Kind::Tcp(socket.listen(BACKLOG)?),
        Door::Shut => Kind::Shut(socket),
        Door::Deaf => {
            let listener = socket.listen(1)?;
            let mut fillers = Vec::new();
            while fillers.len() < FILLERS {
                match timeout(ANSWER, TcpStream::connect(address)).await {
                    Ok(filler) => fillers.push(filler?),
                    Err(_) => break,
                }
            }
            Kind::Deaf(listener, fillers)
        }
    };
    Ok((address, kind))
}
