//! What a process tells over HTTP: `/healthz`, `/readyz` and `/metrics`.
//!
//! For probes and Prometheus, so it is plain and small: HTTP/1.1 without TLS, one request on a connection, GET and HEAD only, few
//! connections at a time, each for a short time. Nothing can be changed by it, and it tells no address and no mail.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use postroad_metrics::{Metrics, list, page};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::config::text;
use crate::error::DaemonError;
use crate::health::HealthState;
use crate::shutdown::Shutdown;

/// Connections at a time; others wait in the backlog.
const CONNECTIONS: usize = 16;
/// For the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// For all of a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets and fields of a request's head.
const LONGEST_HEAD: usize = 8 << 10;
const MOST_FIELDS: usize = 64;
const PAUSE: Duration = Duration::from_millis(100);
const PLAIN: &str = "text/plain; charset=utf-8";

/// `[….http]`: where an agent tells how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpConfig {
    /// The address, or none. Whoever reaches it may read all of it.
    #[serde(with = "text")]
    pub listen: HttpAddr,
}

/// An address and port, or nothing: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpAddr(pub Option<SocketAddr>);

/// The section of an agent.
pub trait AgentConfig {
    /// Where it tells how it is.
    fn http(&self) -> &HttpConfig;
}

/// An agent that is told about.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How it stands.
    pub health: HealthState,
    /// What it counts, and its name.
    pub metrics: Metrics,
}

/// A bound socket that does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpConfig {
    /// What becomes visible there to others than this host, for a person who checks the configuration.
    pub fn note(&self) -> Option<String> {
        let address = self
            .listen
            .0
            .filter(|address| !address.ip().is_loopback())?;
        Some(format!(
            "whoever reaches {address} can read states and numbers of the agent (no addresses, no mail), without TLS or password"
        ))
    }
}

impl HttpServer {
    /// Takes the address; to be called inside a tokio runtime.
    pub async fn bind(address: SocketAddr) -> Result<Self, DaemonError> {
        let failed = |error| DaemonError::bind(address, error);
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        info!(event = "listening", listener = "http", %address);
        Ok(Self { listener, address })
    }

    /// Where it is, with the port the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until told to stop. `process`: what is counted of all of them together, if that is not in one of them.
    pub async fn serve(self, agents: Vec<Observed>, process: Option<Metrics>, stop: Shutdown) {
        let told = Arc::new(Told { agents, process });
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                () = stop.requested() => return,
                Some(_) = tasks.join_next() => continue,
                accepted = accept => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: others need them more.
                sleep(PAUSE).await;
                continue;
            };
            let told = Arc::clone(&told);
            tasks.spawn(async move {
                let _place = place;
                let _ = timeout(PATIENCE, converse(stream, told)).await;
            });
        }
    }
}

async fn converse(stream: TcpStream, told: Arc<Told>) {
    let answer = service_fn(|request| answer(request, Arc::clone(&told)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        debug!(%error, "a client of the HTTP address");
    }
}

async fn answer(
    request: Request<Incoming>,
    told: Arc<Told>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let known = ["/healthz", "/readyz", "/metrics"].contains(&&*path);
    if !known {
        return Ok(response(
            StatusCode::NOT_FOUND,
            PLAIN,
            "not found\n".to_owned(),
        ));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let text = "only GET and HEAD\n".to_owned();
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
        let allowed = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return Ok(refusal);
    }
    Ok(match &*path {
        "/healthz" => response(StatusCode::OK, PLAIN, "alive\n".to_owned()),
        "/readyz" => told.readiness(),
        // It looks into files and waits for locks.
        _ => match spawn_blocking(move || told.metrics()).await {
            Ok(page) => response(StatusCode::OK, postroad_metrics::CONTENT_TYPE, page),
            Err(_) => {
                let text = "a fault of the program\n".to_owned();
                response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text)
            }
        },
    })
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is told.
struct Told {
    agents: Vec<Observed>,
    process: Option<Metrics>,
}

impl Told {
    /// A line for each check: `ready queue`, `not ready queue: why`. With several agents their names come first.
    fn readiness(&self) -> Response<Full<Bytes>> {
        let (mut all, mut lines) = (true, String::new());
        for Observed { health, metrics } in &self.agents {
            let health = health.snapshot(metrics.agent());
            all &= health.ready;
            let agent = match self.agents.len() {
                1 => String::new(),
                _ => format!("{} ", health.agent),
            };
            for (check, state) in &health.checks {
                let ready = if state.ready { "ready" } else { "not ready" };
                let why = state.reason.as_ref().map(|why| format!(": {why}"));
                lines += &format!("{ready} {agent}{check}{}\n", why.unwrap_or_default());
            }
            if health.checks.is_empty() {
                lines += &format!("not ready {agent}process: starting\n");
            }
        }
        let status = match all {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        response(status, PLAIN, lines)
    }

    fn metrics(&self) -> String {
        for Observed { health, metrics } in &self.agents {
            let health = health.snapshot(metrics.agent());
            metrics.gauge(&list::READY, &[]).set(health.ready.into());
            for (check, state) in &health.checks {
                let gauge = metrics.gauge(&list::CHECK_READY, &[check]);
                gauge.set(state.ready.into());
            }
        }
        let agents = self.agents.iter().map(|agent| &agent.metrics);
        page(&agents.chain(&self.process).collect::<Vec<_>>())
    }
}

impl FromStr for HttpAddr {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        if written.is_empty() {
            return Ok(Self(None));
        }
        let address = written.parse().map_err(|_| {
            format!("{written:?} is no address and port; write one such as \"127.0.0.1:9700\", or \"\" for none")
        })?;
        Ok(Self(Some(address)))
    }
}

impl fmt::Display for HttpAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
