//! Serving: bind, add health and reflection, serve until shutdown, drain, cut.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use postroad_dns::{DnsError, SystemNames};
use postroad_metrics::Metrics;
use postroad_net::{
    CERTIFICATE_WATCH, Error as NetError, Limits, ListenAddr, Listener, Revocations, ServerTls,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::{debug, warn};

use crate::endpoint::{count_certificate, server_tls};
use crate::incoming::{Desk, Sink, accept_tcp, accept_unix};
use crate::unix::{SocketFile, UnixOptions};
use crate::{
    CONNECTION_WINDOW, Endpoint, Error, KEEPALIVE, KEEPALIVE_TIMEOUT, MAX_FRAME, MAX_HEADERS,
    STREAM_WINDOW, TlsFiles,
};

const MAX_STREAMS: u32 = 1024;
/// Connections whose handshake is done and that tonic has not taken yet.
const ACCEPTED_AHEAD: usize = 16;
/// How long cut connections may take to notice.
const CUT_GRACE: Duration = Duration::from_secs(2);
/// How long the name of an address to listen at may take to lead to us.
const NAME_PATIENCE: Duration = Duration::from_secs(30);
const NAME_PAUSE: Duration = Duration::from_millis(250);

/// How to serve, besides where.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// For Unix endpoints.
    pub unix: UnixOptions,
    /// The bounds of connections and the grace period of both transports.
    pub limits: Limits,
    /// Encoded `FileDescriptorSet`s for reflection.
    pub descriptors: Vec<&'static [u8]>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        // All agents of a host behind one address are usual here, unlike on port 25.
        let limits = Limits {
            max_connections: 256,
            max_connections_per_ip: 256,
            ..Limits::default()
        };
        Self {
            unix: UnixOptions::default(),
            limits,
            descriptors: Vec::new(),
        }
    }
}

/// A bound server that does not accept yet.
pub struct Server {
    socket: Socket,
    endpoint: Endpoint,
    options: ServeOptions,
    health: HealthReporter,
}

enum Socket {
    Unix(SocketFile),
    Tcp(Listener, ServerTls, Revocations),
}

/// Binds `endpoint` and serves `routes` there until `shutdown`: [`Server::bind`] and [`Server::serve`] in one.
pub async fn serve(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
    routes: Routes,
    shutdown: CancellationToken,
    options: ServeOptions,
) -> Result<(), Error> {
    Server::bind(endpoint, tls, options)
        .await?
        .serve(routes, shutdown)
        .await
}

impl Server {
    /// Binds `endpoint`. TCP needs `tls`; a Unix socket has no use for it.
    pub async fn bind(
        endpoint: &Endpoint,
        tls: Option<&TlsFiles>,
        options: ServeOptions,
    ) -> Result<Self, Error> {
        let (socket, endpoint) = match endpoint {
            Endpoint::Unix(path) => (
                Socket::Unix(SocketFile::bind(path, options.unix.mode).await?),
                endpoint.clone(),
            ),
            Endpoint::Tcp { host, port } => {
                let tls = tls.ok_or_else(|| Error::TlsMissing(endpoint.to_string()))?;
                let (tls, revoked) = server_tls(tls)?;
                let listener = listen(host, *port).await?;
                let endpoint = Endpoint::Tcp {
                    host: host.clone(),
                    port: listener.local_addr().port(),
                };
                (Socket::Tcp(listener, tls, revoked), endpoint)
            }
        };
        Ok(Self {
            socket,
            endpoint,
            options,
            health: HealthReporter::new(),
        })
    }

    /// Where it serves, with the port the system chose for port 0.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Counts how long the certificate that is shown here has left.
    pub fn count_certificate(&self, metrics: &Metrics) {
        let left = match &self.socket {
            Socket::Tcp(_, tls, _) => Some(tls.clone()),
            Socket::Unix(_) => None,
        };
        count_certificate(metrics, left.map(|tls| move || tls.seconds_left()));
    }

    /// Sets what the health service answers; the server as a whole (`""`) serves from the start until shutdown.
    pub fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    /// Serves `routes`, health and reflection until `shutdown`; then calls may end within the grace period.
    pub async fn serve(self, routes: Routes, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            socket,
            endpoint,
            options,
            health,
        } = self;
        let routes = with_services(routes, &health, &options.descriptors)?;
        let cut = CancellationToken::new();
        let (connections, incoming) = mpsc::channel(ACCEPTED_AHEAD);
        let sink = Sink {
            connections,
            cut: cut.clone(),
        };
        // Also cancelled when tonic fails, so that nobody accepts for a server that is gone.
        let accepting = shutdown.child_token();

        let grace = options.limits.grace;
        let serving = async {
            let _stop_accepting = accepting.clone().drop_guard();
            let router = builder().add_routes(routes);
            let serving = router.serve_with_incoming_shutdown(
                ReceiverStream::new(incoming),
                accepting.clone().cancelled_owned(),
            );
            tokio::pin!(serving);
            tokio::select! {
                served = &mut serving => return served,
                () = shutdown.cancelled() => retire(health).await,
            }
            if let Ok(served) = timeout(grace, &mut serving).await {
                return served;
            }
            warn!(event = "fault", address = %endpoint, "the grace period is over");
            cut.cancel();
            timeout(CUT_GRACE, serving).await.unwrap_or(Ok(()))
        };
        debug!(address = %endpoint, "serving");
        let accept = accept(socket, &options, sink, accepting.clone());
        let (served, ()) = tokio::join!(serving, accept);
        Ok(served?)
    }
}

async fn accept(socket: Socket, options: &ServeOptions, sink: Sink, shutdown: CancellationToken) {
    match socket {
        Socket::Unix(file) => {
            accept_unix(
                &file,
                &options.unix.roles,
                options.limits.max_connections,
                sink,
                shutdown,
            )
            .await;
        }
        Socket::Tcp(listener, tls, revoked) => {
            // Connections are cut by the server; the listener's own grace must not come first.
            let limits = Limits {
                grace: options.limits.grace + 2 * CUT_GRACE,
                ..options.limits.clone()
            };
            let watch = tls.clone().watch(CERTIFICATE_WATCH, shutdown.clone());
            let watch_revoked = revoked.clone().watch(shutdown.clone());
            let desk = Desk::new(tls, revoked, sink);
            let accept = accept_tcp(listener, desk, &limits, shutdown);
            tokio::join!(watch, watch_revoked, accept);
        }
    }
}

fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

fn with_services(
    routes: Routes,
    health: &HealthReporter,
    descriptors: &[&'static [u8]],
) -> Result<Routes, Error> {
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for descriptor in descriptors {
        reflection = reflection.register_encoded_file_descriptor_set(descriptor);
    }
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    Ok(routes
        .add_service(health)
        .add_service(reflection.build_v1()?))
}

/// Tells those who watch, then ends their calls: a watch would otherwise use up the whole grace period.
async fn retire(mut health: HealthReporter) {
    health
        .set_service_status("", ServingStatus::NotServing)
        .await;
    health.clear_service_status("").await;
}

/// Takes the port at the first address of `host` that is ours. By a host name a host with several networks tells in
/// which one it listens; that of a container may become known only after its start.
async fn listen(host: &str, port: u16) -> Result<Listener, Error> {
    let is_name = host.parse::<IpAddr>().is_err();
    let until = Instant::now() + NAME_PATIENCE;
    let mut told = false;
    loop {
        let error = match listen_now(host, port).await {
            Err(error) if is_name && may_pass(&error) && Instant::now() < until => error,
            result => return result,
        };
        if !told {
            warn!(
                event = "fault",
                address = host,
                "trying again for {NAME_PATIENCE:?}: {error}"
            );
            told = true;
        }
        sleep(NAME_PAUSE).await;
    }
}

async fn listen_now(host: &str, port: u16) -> Result<Listener, Error> {
    let addresses = SystemNames::default().addresses(host).await;
    let addresses = addresses.map_err(|source| Error::Resolve {
        host: host.to_owned(),
        source,
    })?;
    let mut failure = None;
    for address in addresses {
        match Listener::bind(ListenAddr(SocketAddr::new(address, port))) {
            // Another host's with the same name, or one that a name server still remembers.
            Err(error) if is_elsewhere(&error) => failure = Some(error),
            result => return Ok(result?),
        }
    }
    Err(failure.map_or_else(|| Error::Endpoint(host.to_owned()), Error::Net))
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::Resolve { source, .. } => !matches!(source, DnsError::NotAName { .. }),
        Error::Net(error) => is_elsewhere(error),
        _ => false,
    }
}

fn is_elsewhere(error: &NetError) -> bool {
    matches!(error, NetError::Bind { source, .. } if source.kind() == ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests;
