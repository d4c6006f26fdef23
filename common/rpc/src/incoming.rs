//! Accepted connections on their way to tonic: handshake done, caller known, counted until they close.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use postroad_net::{
    Connection, Error, Limits, Listener, Peer, PeerIdentity, RefusedCertificate, Revocations,
    ServerTls, Stream, UnixRoles,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{debug, error, info, warn};

use crate::peer::ConnectInfo;
use crate::unix::SocketFile;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon the same certificate is told of again, and of how many that is known: strangers may show any number.
const TELL_AGAIN: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection of a known caller.
pub struct RpcStream {
    io: Stream,
    identity: ConnectInfo,
    /// Ends the connection when the grace period is over, or its certificate is revoked; tonic has no other way to part from
    /// a long call.
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
    async fn hand_over(
        &self,
        io: Stream,
        identity: PeerIdentity,
        cut: CancellationToken,
        place: impl Send + 'static,
    ) {
        let cut = Box::pin(cut.cancelled_owned());
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
                Ok(identity) => {
                    let cut = sink.cut.clone();
                    sink.hand_over(stream, identity, cut, place).await;
                }
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
    desk: Desk,
    limits: &Limits,
    shutdown: CancellationToken,
) {
    let handler = move |connection: Connection| handshake(connection, desk.clone());
    // A peer that speaks TLS could not read a farewell.
    listener.serve(limits, *b"", shutdown, handler).await;
}

async fn handshake(connection: Connection, desk: Desk) {
    let Connection {
        stream,
        peer,
        shutdown,
        ..
    } = connection;
    let upgraded = tokio::select! {
        () = shutdown.cancelled() => return,
        upgraded = stream.upgrade_server(&desk.tls, b"", HANDSHAKE_TIMEOUT) => upgraded,
    };
    let known =
        upgraded.and_then(|stream| Ok((stream.peer_identity(&UnixRoles::default())?, stream)));
    match known {
        Ok((identity, stream)) => desk.attend(stream, identity, peer).await,
        Err(Error::Refused(refused)) => desk.refuse(&refused, peer),
        Err(error) => info!(event = "connection_refused", %peer, "{error}"),
    }
}

/// Where callers over TCP show their certificates.
#[derive(Clone)]
pub struct Desk {
    tls: ServerTls,
    revoked: Revocations,
    sink: Sink,
    told: Arc<Mutex<VecDeque<(RefusedCertificate, Instant)>>>,
}

impl Desk {
    /// What passes goes to `sink`.
    pub fn new(tls: ServerTls, revoked: Revocations, sink: Sink) -> Self {
        Self {
            tls,
            revoked,
            sink,
            told: Arc::default(),
        }
    }

    /// Hands a caller over and waits for its end, which comes at once should its certificate be revoked.
    async fn attend(&self, stream: Stream, identity: PeerIdentity, peer: Peer) {
        let (place, mut released) = oneshot::channel::<()>();
        let cut = self.sink.cut.child_token();
        let (name, serial) = (identity.name.clone(), identity.serial.clone());
        self.sink
            .hand_over(stream, identity, cut.clone(), place)
            .await;
        let revoked = async {
            match &serial {
                Some(serial) => self.revoked.revoked(serial).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // The sender is only ever dropped: with the connection.
            _ = &mut released => return,
            () = revoked => {}
        }
        let serial = serial.map(|serial| serial.to_string());
        warn!(event = "connection_closed", %peer, name, serial, reason = "its certificate was revoked");
        cut.cancel();
        let _ = released.await;
    }

    /// For a person, once in a while: an agent that is refused comes again every few seconds.
    fn refuse(&self, refused: &RefusedCertificate, peer: Peer) {
        let serial = refused.serial.as_ref().map(ToString::to_string);
        let (name, reason, remedy) = (&refused.name, &refused.reason, refused.remedy);
        if self.is_news(refused) {
            warn!(event = "connection_refused", %peer, name, serial, reason, remedy, "its certificate does not count");
        } else {
            debug!(event = "connection_refused", %peer, name, serial, reason);
        }
    }

    fn is_news(&self, refused: &RefusedCertificate) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|(_, at)| now.duration_since(*at) < TELL_AGAIN);
        if told.iter().any(|(known, _)| known == refused) {
            return false;
        }
        if told.len() == REMEMBERED {
            told.pop_front();
        }
        told.push_back((refused.clone(), now));
        true
    }
}

impl RpcStream {
    /// Registers the waker with the cut, and fails once it has come.
    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server ends the connection",
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
