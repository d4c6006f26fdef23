//! One request over HTTP/1.1: keys of an issuer, the policy of a domain, a report to its owner.
//!
//! **Purpose.** Whoever asks says which addresses the host has, what TLS must be like and how much may come; nothing is left to
//! the other side. Redirects are not followed: who may say where something is, is whoever asked.
//!
//! **Flow.** [`Request`] and addresses in, the body of a 2xx answer or a [`Fault`] out. The addresses are tried in their order;
//! all of it ends within the time given, and nothing of the connection is left behind.
//!
//! **What can fail.** A [`Fault`] says how far it came, which reports of TLS (RFC 8460) tell apart.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request as HttpRequest, StatusCode};
use hyper_util::rt::TokioIo;
use postroad_net::{ClientTls, Error as NetError, Stream, connect_tcp};
use tokio::time::timeout;

/// For one address of the server, of which the next may answer.
const CONNECT: Duration = Duration::from_secs(3);
/// Addresses of a server that are tried.
const MOST_ADDRESSES: usize = 4;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The name its certificate must have.
    pub host: &'a str,
    /// Where it listens.
    pub port: u16,
    /// Host and port as the URL has them.
    pub authority: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Types of content that are of use.
    pub accept: &'a str,
    /// TLS for it; none: in plain text.
    pub tls: Option<&'a ClientTls>,
    /// What is sent there, with its type; none: something is fetched.
    pub body: Option<(&'a str, Bytes)>,
    /// Octets of the answer that are taken.
    pub most: usize,
    /// How long all of it may take.
    pub within: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody answers at any address.
    #[error("{0}")]
    Connect(String),
    /// No TLS came about, or the certificate does not count.
    #[error("{0}")]
    Tls(NetError),
    /// What came is no HTTP, or too much of it.
    #[error("{0}")]
    Http(String),
    /// It is said to be elsewhere.
    #[error("it points elsewhere ({0})")]
    Redirected(StatusCode),
    /// There is none.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// It took too long.
    #[error("no answer within {} seconds", .0.as_secs())]
    Late(Duration),
}

/// Asks the first of the addresses that answers.
pub async fn fetch(request: &Request<'_>, addresses: &[IpAddr]) -> Result<Bytes, Fault> {
    match exchange(request, addresses).await? {
        (status, body) if status.is_success() => Ok(body),
        (status, _) => Err(Fault::Status(status)),
    }
}

/// The same for who wants to read why it is refused: whatever is answered, but not from elsewhere.
pub async fn exchange(
    request: &Request<'_>,
    addresses: &[IpAddr],
) -> Result<(StatusCode, Bytes), Fault> {
    // On the heap, since it is large and seldom asked for by those who have room for it.
    match timeout(request.within, Box::pin(answer(request, addresses))).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::Late(request.within)),
    }
}

async fn answer(request: &Request<'_>, addresses: &[IpAddr]) -> Result<(StatusCode, Bytes), Fault> {
    let stream = connect(addresses, request.port).await?;
    let stream = match request.tls {
        None => stream,
        Some(tls) => stream
            .upgrade_client(tls, request.host, &[], request.within)
            .await
            .map_err(Fault::Tls)?,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let asked = async {
        let response = sender
            .send_request(http_request(request)?)
            .await
            .map_err(http)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Fault::Redirected(status));
        }
        let body = Limited::new(response.into_body(), request.most);
        let body = body.collect().await;
        let body = body.map_err(|error| Fault::Http(error.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven here and dropped with this future: nothing of it is left behind.
    tokio::pin!(asked, connection);
    tokio::select! {
        biased;
        answer = &mut asked => return answer,
        ended = &mut connection => {
            if let Err(error) = ended {
                return Err(http(error));
            }
        }
    }
    // It closed after the answer, which is all there.
    asked.await
}

fn http_request(request: &Request<'_>) -> Result<HttpRequest<Full<Bytes>>, Fault> {
    let (method, body) = match &request.body {
        None => (Method::GET, Bytes::new()),
        Some((_, body)) => (Method::POST, body.clone()),
    };
    let mut head = HttpRequest::builder()
        .method(method)
        .uri(request.path)
        .header(HOST, request.authority)
        .header(ACCEPT, request.accept)
        .header(USER_AGENT, "postroad");
    if let Some((kind, _)) = &request.body {
        head = head.header(CONTENT_TYPE, *kind);
    }
    head.body(Full::new(body))
        .map_err(|error| Fault::Http(error.to_string()))
}

fn http(error: hyper::Error) -> Fault {
    Fault::Http(error.to_string())
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<Stream, Fault> {
    let mut problem = "its name has no address".to_owned();
    for ip in addresses.iter().take(MOST_ADDRESSES) {
        let one = SocketAddr::new(*ip, port);
        match connect_tcp(one, CONNECT, None).await {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = format!("{one}: {error}"),
        }
    }
    Err(Fault::Connect(problem))
}
