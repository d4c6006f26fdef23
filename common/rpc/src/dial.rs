//! Calling: lazy channels that find their way again after a loss.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::TokioIo;
use postroad_dns::SystemNames;
use postroad_metrics::Metrics;
use postroad_net::{ClientTls, Stream, connect_tcp, connect_unix};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Uri};
use tower::service_fn;
use tracing::debug;

use crate::endpoint::{client_tls, count_certificate};
use crate::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW, Endpoint, Error, KEEPALIVE, KEEPALIVE_TIMEOUT, MAX_FRAME,
    MAX_HEADERS, STREAM_WINDOW, TlsFiles,
};

/// A channel to `endpoint`; to be called inside a tokio runtime.
///
/// It connects at the first call and again after a loss; while nobody is there, calls fail with `UNAVAILABLE`.
pub fn dial(endpoint: &Endpoint, tls: Option<&TlsFiles>) -> Result<Channel, Error> {
    Ok(channel(&Route::new(endpoint, tls)?))
}

/// `n` channels (at least one) to `endpoint`. One HTTP/2 connection is one serial task, so 2 to 4 suit a busy agent.
pub fn dial_pool(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
    n: usize,
) -> Result<ChannelPool, Error> {
    let route = Route::new(endpoint, tls)?;
    let channels = (0..n.max(1)).map(|_| channel(&route)).collect();
    Ok(ChannelPool {
        channels,
        next: Arc::default(),
        endpoint: route.endpoint,
        tls: route.tls,
    })
}

/// Channels taken in turn.
#[derive(Clone, Debug)]
pub struct ChannelPool {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
    endpoint: Arc<Endpoint>,
    tls: Option<ClientTls>,
}

impl ChannelPool {
    /// The next channel.
    pub fn pick(&self) -> Channel {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }

    /// Takes up renewed certificates and warns before they run out, until `shutdown`. Connections take up a renewed one as
    /// they begin, also without this.
    pub async fn watch_certificates(&self, shutdown: CancellationToken) {
        match self.tls.clone() {
            Some(tls) => tls.watch(shutdown).await,
            None => shutdown.cancelled().await,
        }
    }

    /// Counts how long the certificate that is shown has left.
    pub fn count_certificate(&self, metrics: &Metrics) {
        count_certificate(
            metrics,
            self.tls.clone().map(|tls| move || tls.seconds_left()),
        );
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.channels.len()
    }

    /// Where they lead.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All of them, for one long stream on each.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }
}

/// How to get there.
#[derive(Clone)]
struct Route {
    endpoint: Arc<Endpoint>,
    tls: Option<ClientTls>,
    uri: Uri,
}

impl Route {
    fn new(endpoint: &Endpoint, tls: Option<&TlsFiles>) -> Result<Self, Error> {
        let (tls, authority) = match endpoint {
            Endpoint::Unix(_) => (None, "localhost".to_owned()),
            Endpoint::Tcp { .. } => {
                let tls = tls.ok_or_else(|| Error::TlsMissing(endpoint.to_string()))?;
                (
                    Some(client_tls(tls)?),
                    endpoint.to_string().split_off("tcp:".len()),
                )
            }
        };
        // tonic's name for "the stream is the connector's business"; over TCP the connector does TLS.
        let uri = format!("http://{authority}")
            .parse()
            .map_err(|_| Error::Endpoint(endpoint.to_string()))?;
        Ok(Self {
            endpoint: Arc::new(endpoint.clone()),
            tls,
            uri,
        })
    }

    async fn connect(self) -> Result<Stream, Error> {
        let (host, port) = match &*self.endpoint {
            Endpoint::Unix(path) => return Ok(connect_unix(path, CONNECT_TIMEOUT).await?),
            Endpoint::Tcp { host, port } => (host, *port),
        };
        let Some(tls) = self.tls else {
            return Err(Error::TlsMissing(self.endpoint.to_string()));
        };
        let tls = refreshed(tls).await;
        let stream = connect_any(host, port).await?;
        Ok(stream
            .upgrade_client(&tls, host, b"", CONNECT_TIMEOUT)
            .await?)
    }
}

fn channel(route: &Route) -> Channel {
    let connector = {
        let route = route.clone();
        service_fn(move |_: Uri| {
            let route = route.clone();
            async move {
                let connected = route.clone().connect().await;
                // The call that wanted it fails with this; who makes it knows whether that is worth a line.
                connected.map(TokioIo::new).inspect_err(
                    |error| debug!(address = %route.endpoint, "cannot connect: {error}"),
                )
            }
        })
    };
    tonic::transport::Endpoint::from(route.uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// A certificate renewed since the last connection is taken up; a bad one is passed over.
async fn refreshed(tls: ClientTls) -> ClientTls {
    let reload = tls.clone();
    // It panics only by a fault of ours, and then the old one is as good.
    let _ = spawn_blocking(move || reload.refresh()).await;
    tls
}

/// The first address of `host` that answers; looked up anew each time, since a host that comes back may have another.
async fn connect_any(host: &str, port: u16) -> Result<Stream, Error> {
    let addresses = SystemNames::default().addresses(host).await;
    let addresses = addresses.map_err(|source| Error::Resolve {
        host: host.to_owned(),
        source,
    })?;
    let mut failure = None;
    for address in addresses {
        match connect_tcp(SocketAddr::new(address, port), CONNECT_TIMEOUT, None).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.map_or_else(|| Error::Endpoint(host.to_owned()), Error::Net))
}
