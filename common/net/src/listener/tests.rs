use super::*;
use crate::Limits;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(5);

fn local() -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn read_all(addr: SocketAddr) -> String {
    let mut text = String::new();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    timeout(SOON, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}

#[tokio::test]
async fn over_the_limit_a_peer_reads_the_farewell_and_later_comes_in() {
    let listener = local();
    let addr = listener.local_addr();
    let shutdown = CancellationToken::new();
    let (accepted, mut connections) = mpsc::channel(4);
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let serving = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let handler = move |connection: Connection| {
                let accepted = accepted.clone();
                async move {
                    let (release, held) = tokio::sync::oneshot::channel::<()>();
                    accepted.send((connection.peer, release)).await.unwrap();
                    let _ = held.await;
                    drop(connection);
                }
            };
            listener
                .serve(
                    &limits,
                    *b"421 4.7.0 Too many connections\r\n",
                    shutdown,
                    handler,
                )
                .await;
        }
    });
    let mut first = TcpStream::connect(addr).await.unwrap();
    let (peer, release) = connections.recv().await.unwrap();
    assert_eq!(peer.addr(), Some(first.local_addr().unwrap()));
    assert_eq!(read_all(addr).await, "421 4.7.0 Too many connections\r\n");

    drop(release);
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    // The permit returns just after the stream closed, so the next attempts may still be refused.
    let _second = timeout(SOON, async {
        loop {
            let attempt = TcpStream::connect(addr).await.unwrap();
            let mut first = [0];
            tokio::select! {
                _ = attempt.peek(&mut first) => {}
                held = connections.recv() => break (attempt, held),
            }
        }
    })
    .await
    .unwrap();
    shutdown.cancel();
    drop(_second);
    timeout(SOON, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_stops_accepting_and_waits_for_the_connections() {
    let listener = local();
    let addr = listener.local_addr();
    let shutdown = CancellationToken::new();
    let (done, mut finished) = mpsc::channel(1);
    let serving = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let handler = move |mut connection: Connection| {
                let done = done.clone();
                async move {
                    connection.stream.write_all(b"2").await.unwrap();
                    connection.shutdown.cancelled().await;
                    connection.stream.write_all(b"421").await.unwrap();
                    done.send(()).await.unwrap();
                }
            };
            listener
                .serve(&Limits::default(), *b"", shutdown, handler)
                .await;
        }
    });
    let mut client = TcpStream::connect(addr).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'2');
    shutdown.cancel();
    timeout(SOON, serving).await.unwrap().unwrap();
    assert!(
        finished.try_recv().is_ok(),
        "serve ended before its connection"
    );
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "421");
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_connection_that_outstays_the_grace_period_is_dropped() {
    let listener = local();
    let addr = listener.local_addr();
    let shutdown = CancellationToken::new();
    let limits = Limits {
        grace: Duration::from_millis(20),
        ..Limits::default()
    };
    let serving = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let handler = |mut connection: Connection| async move {
                connection.stream.write_all(b"x").await.unwrap();
                std::future::pending::<()>().await;
            };
            listener.serve(&limits, *b"", shutdown, handler).await;
        }
    });
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.read_u8().await.unwrap();
    shutdown.cancel();
    timeout(SOON, serving).await.unwrap().unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_dual_stack_socket_unmaps_its_ipv4_clients() {
    let Ok(listener) = Listener::bind("[::]:0".parse().unwrap()) else {
        panic!("[::] must always bind")
    };
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().port()));
    let shutdown = CancellationToken::new();
    let (accepted, mut connections) = mpsc::channel(1);
    let serving = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            let handler = move |connection: Connection| {
                let accepted = accepted.clone();
                async move {
                    accepted
                        .send((connection.peer, connection.local))
                        .await
                        .unwrap()
                }
            };
            listener
                .serve(&Limits::default(), *b"", shutdown, handler)
                .await;
        }
    });
    let client = TcpStream::connect(addr).await.unwrap();
    let (peer, local) = connections.recv().await.unwrap();
    assert_eq!(
        peer.to_string(),
        format!("[127.0.0.1]:{}", client.local_addr().unwrap().port())
    );
    assert_eq!(local, addr);
    shutdown.cancel();
    serving.await.unwrap();
}

/// A listener behind balancers on this host, whose connections say who they are and last until the client leaves.
struct Balanced {
    addr: SocketAddr,
    told: mpsc::Receiver<(Peer, Option<Peer>)>,
    shutdown: CancellationToken,
}

impl Balanced {
    fn start(balancers: &str, limits: Limits) -> Self {
        let mut listener = local().behind(&Networks::parse([balancers]).unwrap());
        listener.header_timeout = Duration::from_millis(300);
        let addr = listener.local_addr();
        let shutdown = CancellationToken::new();
        let (tell, told) = mpsc::channel(8);
        let handler = move |mut connection: Connection| {
            let tell = tell.clone();
            async move {
                tell.send((connection.peer, connection.proxy))
                    .await
                    .unwrap();
                let mut heard = [0; 64];
                while let Ok(1..) = connection.stream.read(&mut heard).await {
                    connection.stream.write_all(&heard[..1]).await.unwrap();
                }
            }
        };
        let stop = shutdown.clone();
        tokio::spawn(async move { listener.serve(&limits, *b"421\r\n", stop, handler).await });
        Self {
            addr,
            told,
            shutdown,
        }
    }

    async fn send(&self, octets: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(octets).await.unwrap();
        stream
    }

    async fn told(&mut self) -> (String, Option<String>) {
        let (peer, proxy) = timeout(SOON, self.told.recv()).await.unwrap().unwrap();
        (peer.to_string(), proxy.map(|proxy| proxy.to_string()))
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn carrying(client: &str) -> Vec<u8> {
    format!("PROXY TCP6 {client} 2001:db8::25 4711 25\r\n").into_bytes()
}

fn at(stream: &TcpStream) -> String {
    Peer::new(stream.local_addr().unwrap()).to_string()
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(SOON, stream.read_to_string(&mut text))
        .await
        .unwrap();
    // Closed over what was not read.
    read.map_or_else(|_| "reset".to_owned(), |_| text)
}

#[tokio::test]
async fn a_balancer_tells_whose_connection_it_carries() {
    let mut balanced = Balanced::start("127.0.0.0/8", Limits::default());
    let stream = balanced.send(&carrying("2001:db8::7")).await;
    let client = "[2001:db8::7]:4711".to_owned();
    assert_eq!(balanced.told().await, (client, Some(at(&stream))));
    // RFC 4291 §2.5.5.2, from a balancer with one socket for both families.
    let stream = balanced.send(&carrying("::ffff:192.0.2.1")).await;
    let client = "[192.0.2.1]:4711".to_owned();
    assert_eq!(balanced.told().await, (client, Some(at(&stream))));
    let mut stream = balanced
        .send(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00first")
        .await;
    assert_eq!(balanced.told().await, (at(&stream), None));
    assert_eq!(
        stream.read_u8().await.unwrap(),
        b'f',
        "nothing is swallowed"
    );
}

#[tokio::test]
async fn from_elsewhere_a_header_is_never_looked_for() {
    let mut balanced = Balanced::start("192.0.2.0/24", Limits::default());
    let mut stream = balanced.send(&carrying("2001:db8::7")).await;
    assert_eq!(balanced.told().await, (at(&stream), None));
    assert_eq!(stream.read_u8().await.unwrap(), b'P');
}

#[tokio::test]
async fn a_balancer_that_tells_nothing_is_turned_away() {
    let mut balanced = Balanced::start("127.0.0.1", Limits::default());
    let commands = balanced.send(b"EHLO client.example.org\r\n").await;
    assert!(matches!(&*rest(commands).await, "" | "reset"));
    let silent = balanced.send(b"PROXY TCP4 ").await;
    assert_eq!(rest(silent).await, "", "after the time-out");
    assert!(balanced.told.try_recv().is_err());
}

#[tokio::test]
async fn limits_count_the_client_and_who_is_not_known_yet() {
    let limits = Limits {
        max_connections: 2,
        max_connections_per_ip: 1,
        ..Limits::default()
    };
    let mut balanced = Balanced::start("127.0.0.1", limits);
    let _first = balanced.send(&carrying("2001:db8::7")).await;
    balanced.told().await;
    let second = balanced.send(&carrying("2001:db8::7")).await;
    assert_eq!(rest(second).await, "421\r\n");
    let _third = balanced.send(&carrying("2001:db8:1::7")).await;
    balanced.told().await;
    let over = balanced.send(b"").await;
    assert_eq!(
        rest(over).await,
        "421\r\n",
        "without waiting for its header"
    );
}

#[tokio::test]
async fn a_connection_that_is_awaited_takes_a_place() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let balanced = Balanced::start("127.0.0.1", limits);
    let silent = balanced.send(b"").await;
    let over = balanced.send(&carrying("2001:db8::7")).await;
    assert!(matches!(&*rest(over).await, "421\r\n" | "reset"));
    assert_eq!(rest(silent).await, "");
}

#[tokio::test]
async fn a_busy_port_is_explained() {
    let listener = local();
    let addr = listener.local_addr();
    let error = Listener::bind(ListenAddr(addr)).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "port {} is already in use by another program",
            addr.port()
        )),
        "{error}"
    );
}

#[test]
fn reasons_are_for_a_person() {
    let reason = |addr: &str, kind: io::ErrorKind| bind_reason(addr.parse().unwrap(), &kind.into());
    assert!(
        reason("[::]:25", io::ErrorKind::PermissionDenied).starts_with("binding port 25 needs")
    );
    assert!(
        reason("192.0.2.1:25", io::ErrorKind::AddrNotAvailable)
            .contains("192.0.2.1 is not an address of this")
    );
    let error = ListenAddr::from_str("localhost").unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:2025"), "{error}");
}

#[test]
fn only_errors_of_one_connection_are_retried_at_once() {
    use rustix::io::Errno;
    let retried = |errno: Errno| concerns_one_connection(&io::Error::from(errno));
    assert!(retried(Errno::CONNABORTED) && retried(Errno::INTR));
    assert!(!retried(Errno::MFILE) && !retried(Errno::NFILE) && !retried(Errno::NOMEM));
}
