//! Where a service is, and the files of mutual TLS.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use postroad_daemon::TlsFiles;
use postroad_metrics::labels::Certificate;
use postroad_metrics::{Metrics, list};
use postroad_net::{CertFiles, ClientTls, PeerRole, Revocations, ServerTls};
use serde::{Deserialize, Serialize};

use crate::{ALPN, Error};

/// `unix:/run/postroad/queue.sock` or `tcp:host:port`; TCP always means mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
    /// A host (name, IPv4 address, or IPv6 address without brackets) and port.
    Tcp {
        /// The name the server's certificate must carry; when serving, the address to bind, or a name of it.
        host: String,
        /// The port; 0 takes a free one when serving.
        port: u16,
    },
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::Endpoint(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Endpoint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path
            .starts_with('/')
            .then(|| Endpoint::Unix(PathBuf::from(path)));
    }
    let (host, port) = text.strip_prefix("tcp:")?.rsplit_once(':')?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    // An IPv6 address without brackets would leave its last group in doubt.
    let host = bracketed.or((!host.contains([':', '[', ']'])).then_some(host))?;
    let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    plain.then_some(Endpoint::Tcp {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

/// The server's side of mutual TLS. The certificate names its owner's roles as `postroad://role/<role>` URIs and,
/// for a server, its host names; an extended key usage, if there is one, must allow what the owner does.
pub(crate) fn server_tls(files: &TlsFiles) -> Result<(ServerTls, Revocations), Error> {
    let revoked = revocations(files)?;
    let tls = ServerTls::load_mutual(&own(files), &files.ca_file, &revoked, ALPN)?;
    let tls = match files.warning {
        Some(before) => tls.warning(before.into()),
        None => tls,
    };
    Ok((tls, revoked))
}

/// The client's side, under the same rules. All that agents call is a queue: one with another agent's certificate that
/// stands at its address gets no mail.
pub(crate) fn client_tls(files: &TlsFiles) -> Result<ClientTls, Error> {
    let revoked = revocations(files)?;
    let queued = Some(PeerRole::Queued);
    let tls = ClientTls::mutual(&own(files), &files.ca_file, &revoked, queued, ALPN)?;
    Ok(match files.warning {
        Some(before) => tls.warning(before.into()),
        None => tls,
    })
}

/// Counts how long our certificate has left, if there is one.
pub(crate) fn count_certificate(
    metrics: &Metrics,
    left: Option<impl Fn() -> Option<i64> + Send + Sync + 'static>,
) {
    let read = move || left.as_ref()?().map(|seconds| seconds as f64);
    let shown = [Certificate::Agents.text()];
    metrics.read(&list::CERTIFICATE_EXPIRES, &shown, read);
}

fn revocations(files: &TlsFiles) -> Result<Revocations, Error> {
    let path = files.revoked.as_deref();
    Ok(path.map(Revocations::open).transpose()?.unwrap_or_default())
}

fn own(files: &TlsFiles) -> CertFiles {
    CertFiles {
        cert_file: files.cert_file.clone(),
        key_file: files.key_file.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written_alike() {
        for text in [
            "unix:/run/postroad/queue.sock",
            "tcp:queue.example.org:7700",
            "tcp:[::1]:0",
            "tcp:127.0.0.1:1",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let endpoint: Endpoint = serde_json::from_str("\"tcp:[::1]:7\"").unwrap();
        assert_eq!(
            endpoint,
            Endpoint::Tcp {
                host: "::1".to_owned(),
                port: 7
            }
        );
    }

    #[test]
    fn there_is_no_other_form() {
        for bad in [
            "",
            "unix:",
            "unix:queue.sock",
            "tcp:host",
            "tcp::1",
            "tcp:h:65536",
            "tcp:::1:25",
            "http://h:1",
            "h:1",
            "tcp+plain:h:1",
            "tcp:a b:1",
            "tcp:[::1:5",
        ] {
            let error = bad.parse::<Endpoint>().expect_err(bad).to_string();
            assert!(error.contains("unix:/run"), "{error}");
        }
    }
}
