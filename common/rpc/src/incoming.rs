//! Accepted connections on their way to tonic: handshake done, caller known, counted until they close.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use postroad_net::{Connection, Limits, Listener, PeerIdentity, ServerTls, Stream, UnixRoles};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{error, info};

use crate::peer::ConnectInfo;
use crate::unix::SocketFile;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection of a known caller.
pub struct RpcStream {
    io: Stream,
    identity: ConnectInfo,
    /// Ends the connection when the grace period is over; tonic has no other way to part from a long call.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What counts the connection: a permit, or the sender whose drop ends the listener's task.
    _place: Box<dyn Send>,
}

/// Where accepted connections go.
#[derive(Clone)]
pub struct Sink {
    pub connections: mpsc::Sender<io::Result<RpcStream>>,
    pub cut: CancellationToken,
}

impl Sink {
    async fn hand_over(&self, io: Stream, identity: PeerIdentity, place: impl Send + 'static) {
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        let stream = RpcStream {
            io,
            identity: Arc::new(identity),
            cut,
            _place: Box::new(place),
        };
        // It fails only when the server is gone, and with it the need.
        let _ = self.connections.send(Ok(stream)).await;
    }
}

/// Accepts on a Unix socket until `shutdown`; over `max` connections new ones wait in the kernel's backlog.
pub async fn accept_unix(
    socket: &SocketFile,
    roles: &UnixRoles,
    max: usize,
    sink: Sink,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    let accept = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match socket.listener.accept().await {
                Ok((stream, _)) => Stream::from(stream),
                Err(error) => {
                    error!(event = "fault", "pausing {ACCEPT_PAUSE:?}: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match stream.peer_identity(roles) {
                Ok(identity) => sink.hand_over(stream, identity, place).await,
                Err(error) => info!(
                    event = "connection_refused",
                    "no credentials of the peer: {error}"
                ),
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept => {}
    }
}

/// Accepts TCP with mutual TLS until `shutdown`, then until its connections have closed.
pub async fn accept_tcp(
    listener: Listener,
    tls: ServerTls,
    limits: &Limits,
    sink: Sink,
    shutdown: CancellationToken,
) {
    let handler = move |connection: Connection| handshake(connection, tls.clone(), sink.clone());
    // A peer that speaks TLS could not read a farewell.
    listener.serve(limits, *b"", shutdown, handler).await;
}

async fn handshake(connection: Connection, tls: ServerTls, sink: Sink) {
    let Connection {
        stream,
        peer,
        shutdown,
        ..
    } = connection;
    let upgraded = tokio::select! {
        () = shutdown.cancelled() => return,
        upgraded = stream.upgrade_server(&tls, b"", HANDSHAKE_TIMEOUT) => upgraded,
    };
    let known =
        upgraded.and_then(|stream| Ok((stream.peer_identity(&UnixRoles::default())?, stream)));
    match known {
        Ok((identity, stream)) => {
            let (place, released) = oneshot::channel::<()>();
            sink.hand_over(stream, identity, place).await;
            // The sender is only ever dropped: with the connection.
            let _ = released.await;
        }
        Err(error) => info!(event = "connection_refused", %peer, "{error}"),
    }
}

impl RpcStream {
    /// Registers the waker with the cut, and fails once it has come.
    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server is shutting down",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for RpcStream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        Arc::clone(&self.identity)
    }
}

impl AsyncRead for RpcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for RpcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // After the cut nobody waits for a peer's last octets.
        if self.check_cut(cx).is_err() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
