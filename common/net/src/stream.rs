//! One stream type over every transport.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::UCred;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::tls::info;
use crate::tls::verify::refusal;
use crate::{ClientTls, Dane, Error, PeerCertificate, PeerIdentity, ServerTls, TlsInfo, UnixRoles};

/// A connection: TCP, TCP with TLS at either end, or a Unix socket.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    tls: Option<TlsInfo>,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    TlsServer(Box<server::TlsStream<TcpStream>>),
    TlsClient(Box<client::TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// Begins TLS as server, for implicit TLS and after the reply to STARTTLS.
    ///
    /// `unread` is what the caller has read and not used; it must be empty. RFC 3207 §6: octets a client (or
    /// somebody between) sent along with STARTTLS must not be taken for commands under TLS.
    pub async fn upgrade_server(
        self,
        tls: &ServerTls,
        unread: &[u8],
        within: Duration,
    ) -> Result<Self, Error> {
        let tcp = self.into_upgradable(unread)?;
        let current = tls.current();
        let handshake = TlsAcceptor::from(current.config()).accept(tcp);
        let stream = in_time(within, handshake).await?;
        let tls = info::of_server(stream.get_ref().1, current.judge());
        Ok(Self {
            io: Io::TlsServer(Box::new(stream)),
            tls: Some(tls),
        })
    }

    /// Begins TLS as client towards the host called `name`; `unread` as in [`upgrade_server`](Self::upgrade_server).
    pub async fn upgrade_client(
        self,
        tls: &ClientTls,
        name: &str,
        unread: &[u8],
        within: Duration,
    ) -> Result<Self, Error> {
        let tcp = self.into_upgradable(unread)?;
        let name = ClientTls::server_name(name)?;
        Self::connect_tls(tcp, tls, &name, std::slice::from_ref(&name), within).await
    }

    /// The same, asking for the host called `name` (RFC 6066 §3), whose certificate may be for any of `names`.
    pub async fn upgrade_to_host(
        self,
        tls: &ClientTls,
        name: &str,
        names: &[String],
        unread: &[u8],
        within: Duration,
    ) -> Result<Self, Error> {
        let tcp = self.into_upgradable(unread)?;
        let name = ClientTls::server_name(name)?;
        let names = names.iter().map(|name| ClientTls::server_name(name));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        Self::connect_tls(tcp, tls, &name, &names, within).await
    }

    /// The same for a host whose certificate the DNS vouches for (RFC 7672); it is asked for by `name`.
    pub async fn upgrade_to_dane_host(
        self,
        tls: &ClientTls,
        name: &str,
        dane: &Dane,
        unread: &[u8],
        within: Duration,
    ) -> Result<Self, Error> {
        let tcp = self.into_upgradable(unread)?;
        let asked_for = ClientTls::server_name(name)?;
        let current = tls.current();
        let config = current.dane_config(dane);
        let handshake = TlsConnector::from(config).connect(asked_for.clone(), tcp);
        let stream = in_time(within, handshake).await?;
        let info = info::of_client(stream.get_ref().1, &asked_for, &[], &current);
        Ok(Self {
            io: Io::TlsClient(Box::new(stream)),
            // Without that the handshake would have failed.
            tls: Some(TlsInfo {
                peer: PeerCertificate::Verified,
                verified: Some(name.to_owned()),
                ..info
            }),
        })
    }

    async fn connect_tls(
        tcp: TcpStream,
        tls: &ClientTls,
        name: &ServerName<'static>,
        names: &[ServerName<'static>],
        within: Duration,
    ) -> Result<Self, Error> {
        let current = tls.current();
        let handshake = TlsConnector::from(current.config(names)).connect(name.clone(), tcp);
        let stream = in_time(within, handshake).await?;
        let tls = info::of_client(stream.get_ref().1, name, names, &current);
        Ok(Self {
            io: Io::TlsClient(Box::new(stream)),
            tls: Some(tls),
        })
    }

    /// What TLS agreed on, if it is in use.
    pub fn tls_info(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The certificate the peer showed, in DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let chain = match &self.io {
            Io::TlsServer(stream) => stream.get_ref().1.peer_certificates(),
            Io::TlsClient(stream) => stream.get_ref().1.peer_certificates(),
            Io::Tcp(_) | Io::Unix(_) => None,
        };
        chain.and_then(|chain| chain.first()).map(AsRef::as_ref)
    }

    /// Who the peer is and which roles it has: from its verified client certificate (the stream must have been
    /// upgraded with [`ServerTls::load_mutual`]), or from its uid and gid on a Unix socket.
    pub fn peer_identity(&self, unix: &UnixRoles) -> Result<PeerIdentity, Error> {
        match (&self.io, self.peer_certificate()) {
            // `load_mutual` lets no unverified one through; others are the clients of a mail listener.
            (Io::TlsServer(_), Some(der))
                if self.tls.as_ref().is_some_and(TlsInfo::is_peer_verified) =>
            {
                PeerIdentity::from_certificate(der)
            }
            (Io::Unix(stream), _) => Ok(unix.identify(&stream.peer_cred()?)),
            _ => Err(Error::PeerCertificate("none was presented".to_owned())),
        }
    }

    /// The uid, gid and pid at the other end of a Unix socket.
    pub fn unix_peer(&self) -> Option<UCred> {
        match &self.io {
            Io::Unix(stream) => stream.peer_cred().ok(),
            _ => None,
        }
    }

    /// Ends the connection by RST, at which the peer loses what it has not read yet (RFC 9293 §3.5.2). A Unix socket is
    /// merely closed.
    pub fn reset(self) -> Result<(), io::Error> {
        match &self.io {
            Io::Tcp(tcp) => tcp.set_zero_linger(),
            Io::TlsServer(stream) => stream.get_ref().0.set_zero_linger(),
            Io::TlsClient(stream) => stream.get_ref().0.set_zero_linger(),
            Io::Unix(_) => Ok(()),
        }
    }

    fn into_upgradable(self, unread: &[u8]) -> Result<TcpStream, Error> {
        if !unread.is_empty() {
            return Err(Error::PlaintextAfterStartTls(unread.len()));
        }
        match self.io {
            Io::Tcp(tcp) => Ok(tcp),
            _ => Err(Error::NotUpgradable),
        }
    }
}

/// The handshake has memory of its own and gives it back; else every conversation would have room for one until its end.
fn in_time<T>(
    within: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> impl Future<Output = Result<T, Error>> {
    let handshake = timeout(within, Box::pin(handshake));
    handshake.map(|ended| match ended {
        Ok(result) => result.map_err(|error| match refusal(&error) {
            Some(refused) => Error::Refused(refused),
            None => Error::Handshake(error),
        }),
        Err(_) => Err(Error::TimedOut("TLS handshake")),
    })
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self {
            io: Io::Tcp(tcp),
            tls: None,
        }
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Self {
            io: Io::Unix(unix),
            tls: None,
        }
    }
}

macro_rules! each_io {
    ($this:expr, $io:ident => $call:expr) => {
        match &mut $this.get_mut().io {
            Io::Tcp(io) => {
                let $io = Pin::new(io);
                $call
            }
            Io::TlsServer(io) => {
                let $io = Pin::new(io.as_mut());
                $call
            }
            Io::TlsClient(io) => {
                let $io = Pin::new(io.as_mut());
                $call
            }
            Io::Unix(io) => {
                let $io = Pin::new(io);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each_io!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each_io!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_io!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        // Every variant takes vectored writes.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, io => io.poll_shutdown(cx))
    }
}
