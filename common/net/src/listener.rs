//! Accepting: one task per connection, bounded, told of shutdown, waited for.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use postroad_metrics::labels::Rule;
use postroad_metrics::{Counter, Metrics, Table, list};
use rustix::net::sockopt::set_ipv6_v6only;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admission::{Admission, Permit, Place, Refusal};
use crate::peer::unmapped;
use crate::proxy::{Carried, HeaderError, read_header};
use crate::{Error, LiveLimits, Networks, Peer, Stream};

const BACKLOG: u32 = 1024;
/// Refused peers told why at a time; beyond them a connection is closed without a word.
const FAREWELLS: usize = 64;
/// How long a balancer may take to say whose connection it carries. It knows when it connects.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An address to listen on, such as `"[::]:25"` (both families) or `"127.0.0.1:2025"`; port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAddr(pub SocketAddr);

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    balancers: Networks,
    header_timeout: Duration,
    refused: Option<Table<Rule, Counter>>,
}

/// What a handler gets for one accepted connection.
pub struct Connection {
    /// The open stream.
    pub stream: Stream,
    /// The other end; behind a balancer the client it told of.
    pub peer: Peer,
    /// The balancer that carries the connection.
    pub proxy: Option<Peer>,
    /// The balancer's own: a look whether we are well, by no client.
    pub own: bool,
    /// Its place among those of its network.
    pub place: Place,
    /// Our end, unmapped.
    pub local: SocketAddr,
    /// Cancelled when the listener shuts down: finish what was begun, then leave within the grace period.
    pub shutdown: CancellationToken,
}

impl Listener {
    /// Binds `addr`; to be called inside a tokio runtime.
    ///
    /// `[::]` takes IPv4 too; without IPv6 in the kernel it becomes `0.0.0.0`, with a warning.
    pub fn bind(addr: ListenAddr) -> Result<Self, Error> {
        let addr = addr.0;
        let socket = match listen(addr) {
            Err(error) if addr.ip() == IpAddr::from([0u16; 8]) && no_ipv6(&error) => {
                warn!(event = "fault", listener = %addr, "listening on 0.0.0.0 instead: {error}");
                listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
            }
            result => result,
        }
        .map_err(|source| Error::Bind {
            addr,
            reason: bind_reason(addr, &source),
            source,
        })?;
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            local,
            balancers: Networks::default(),
            header_timeout: HEADER_TIMEOUT,
            refused: None,
        })
    }

    /// Counts whom it turns away, under this name.
    pub fn counted(mut self, metrics: &Metrics, name: &str) -> Self {
        self.refused = Some(metrics.counters(&list::CONNECTIONS_REFUSED, &[name]));
        self
    }

    /// Trusts the balancers in `networks` to say whose connections they carry: from there a header of the PROXY
    /// protocol is required before anything else, TLS included. From elsewhere it is never looked for.
    pub fn behind(mut self, networks: &Networks) -> Self {
        self.balancers = networks.clone();
        self
    }

    /// The bound address, with the port the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts until `shutdown`, then waits for the connections, at most `limits.grace`, and drops the rest. Limits that change
    /// hold for connections that come from then on.
    ///
    /// Over the limits a peer reads `farewell` (such as `421 4.7.0 …\r\n`) and is closed; an empty farewell
    /// closes at once, which is right where the peer expects TLS from the first octet.
    pub async fn serve<H, F>(
        self,
        limits: impl Into<LiveLimits>,
        farewell: impl Into<Arc<[u8]>>,
        shutdown: CancellationToken,
        handler: H,
    ) where
        H: Fn(Connection) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let limits = limits.into();
        let mut tasks = JoinSet::new();
        // Connections whose balancer has not told yet whose they are.
        let mut arriving = JoinSet::new();
        let porter = Porter {
            admission: Admission::new(limits.clone()),
            balancers: self.balancers,
            header_timeout: self.header_timeout,
            farewell: farewell.into(),
            limits: limits.clone(),
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
            refused: self.refused.clone(),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => { report(ended); continue }
                Some(arrived) = arriving.join_next() => {
                    let arrived = arrived.map_err(|error| report(Err(error))).ok().flatten();
                    arrived.and_then(|arrival| porter.admit(arrival, &mut tasks))
                }
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, addr)) => {
                        pause = FIRST_PAUSE;
                        porter.receive(stream, Peer::new(addr), &mut arriving, &mut tasks)
                    }
                    Err(error) if concerns_one_connection(&error) => continue,
                    Err(error) => {
                        // EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays in the backlog, so an immediate
                        // retry would spin; connections that end free what is missing.
                        error!(event = "fault", listener = %self.local, "pausing {pause:?}: {error}");
                        tokio::select! {
                            () = shutdown.cancelled() => break,
                            () = sleep(pause) => {}
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                },
            };
            let Some(arrival) = accepted else {
                continue;
            };
            let local = arrival.stream.local_addr().map_or(self.local, unmapped);
            let place = Place::new(arrival.permit);
            let work = handler(Connection {
                stream: Stream::from(arrival.stream),
                peer: arrival.peer,
                proxy: arrival.proxy,
                own: arrival.own,
                place: place.clone(),
                local,
                shutdown: shutdown.child_token(),
            });
            // An async block would have room for it twice: as what it was given, and as what it waits for. On the heap it is not
            // moved any more.
            tasks.spawn(Box::pin(work).map(move |()| drop(place)));
        }
        drop((self.socket, arriving));
        wait_for(tasks, limits.current().grace, self.local).await;
    }
}

/// A connection that has a place.
struct Arrival {
    stream: TcpStream,
    peer: Peer,
    proxy: Option<Peer>,
    own: bool,
    permit: Permit,
}

/// Lets connections in or sends them away.
struct Porter {
    admission: Admission,
    balancers: Networks,
    header_timeout: Duration,
    farewell: Arc<[u8]>,
    limits: LiveLimits,
    farewells: Arc<Semaphore>,
    refused: Option<Table<Rule, Counter>>,
}

impl Porter {
    /// A new connection; one of a balancer goes on in `arriving`.
    fn receive(
        &self,
        stream: TcpStream,
        peer: Peer,
        arriving: &mut JoinSet<Option<Arrival>>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Arrival> {
        // Replies are small and waited for: no Nagle. A socket that refuses is already dead.
        let _ = stream.set_nodelay(true);
        let permit = match self.admission.enter() {
            Ok(permit) => permit,
            Err(refusal) => {
                self.refuse(stream, peer, None, refusal, tasks);
                return None;
            }
        };
        let arrival = Arrival {
            stream,
            peer,
            proxy: None,
            own: false,
            permit,
        };
        if self.balancers.contains(peer.ip()) {
            arriving.spawn(hear_balancer(arrival, self.header_timeout));
            return None;
        }
        self.admit(arrival, tasks)
    }

    /// Whose connection it is, is known.
    fn admit(&self, arrival: Arrival, tasks: &mut JoinSet<()>) -> Option<Arrival> {
        // It has a place of the total, and belongs to no client.
        if arrival.own {
            return Some(arrival);
        }
        let Arrival {
            stream,
            peer,
            proxy,
            own,
            permit,
        } = arrival;
        match permit.belongs_to(peer.ip()) {
            Ok(permit) => Some(Arrival {
                stream,
                peer,
                proxy,
                own,
                permit,
            }),
            Err(refusal) => {
                self.refuse(stream, peer, proxy, refusal, tasks);
                None
            }
        }
    }

    fn refuse(
        &self,
        stream: TcpStream,
        peer: Peer,
        proxy: Option<Peer>,
        refusal: Refusal,
        tasks: &mut JoinSet<()>,
    ) {
        let (proxy, rule) = (proxy.map(tracing::field::display), refusal.rule());
        info!(event = "connection_refused", %peer, proxy, rule = rule.text());
        if let Some(refused) = &self.refused {
            refused.count(rule);
        }
        if self.farewell.is_empty() {
            return;
        }
        let Ok(place) = Arc::clone(&self.farewells).try_acquire_owned() else {
            return;
        };
        let (farewell, within) = (
            Arc::clone(&self.farewell),
            self.limits.current().farewell_timeout,
        );
        tasks.spawn(async move {
            let _place = place;
            // Whether the peer hears it or not, it is gone afterwards.
            let _ = timeout(within, say_farewell(stream, &farewell)).await;
        });
    }
}

/// Waits for the header that says whose connection it is. Without one it ends here: what came instead is not to be
/// taken for the words of a client.
async fn hear_balancer(mut arrival: Arrival, within: Duration) -> Option<Arrival> {
    let header = timeout(within, read_header(&mut arrival.stream)).await;
    match header.unwrap_or(Err(HeaderError::TimedOut)) {
        Ok(Carried::Own) => Some(Arrival {
            own: true,
            ..arrival
        }),
        Ok(Carried::Unknown) => Some(arrival),
        Ok(Carried::Client(client)) => Some(Arrival {
            peer: Peer::new(client),
            proxy: Some(arrival.peer),
            ..arrival
        }),
        Err(error) => {
            info!(event = "connection_refused", peer = %arrival.peer, rule = "proxy_networks", %error);
            None
        }
    }
}

async fn say_farewell(mut stream: TcpStream, farewell: &[u8]) -> io::Result<()> {
    stream.write_all(farewell).await?;
    stream.shutdown().await?;
    // Closing with unread input resets the connection and may take the farewell with it.
    let mut unread = [0; 512];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

async fn wait_for(mut tasks: JoinSet<()>, grace: Duration, local: SocketAddr) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if timeout(grace, all).await.is_err() {
        warn!(event = "fault", listener = %local, count = tasks.len(), "the grace period is over");
        tasks.shutdown().await;
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(event = "fault", "{error}");
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if addr.is_ipv6() {
        set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn no_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | TimedOut
    )
}

fn bind_reason(addr: SocketAddr, error: &io::Error) -> String {
    let port = addr.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "port {port} is already in use by another program (address {addr}; `ss -ltnp` shows which)"
            )
        }
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "binding port {port} needs the capability CAP_NET_BIND_SERVICE \
             (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or choose a port of 1024 or above"
        ),
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this host", addr.ip()),
        _ => format!("cannot listen on {addr}: {error}"),
    }
}

impl FromStr for ListenAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self).map_err(|_| Error::Syntax {
            text: text.to_owned(),
            expected: "an address and port to listen on, such as \"[::]:25\" or \"127.0.0.1:2025\"",
        })
    }
}

impl TryFrom<String> for ListenAddr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ListenAddr> for String {
    fn from(addr: ListenAddr) -> Self {
        addr.to_string()
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
