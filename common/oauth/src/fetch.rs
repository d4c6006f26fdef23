//! Keys and tokens over HTTP: one question, bounded in time and size. Redirects are not followed: who may say where they are is the operator.

use std::net::IpAddr;
use std::time::Duration;

use hyper::Uri;
use hyper::body::Bytes;
use hyper::http::uri::Scheme;
use postroad_dns::SystemNames;
use postroad_fetch::{Fault, Request};
use postroad_net::ClientTls;
use tokio::time::timeout;

use crate::keys::{KeySet, MAX_SET};

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where keys are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub secure: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Address {
    /// Of a URL, if it may be one: https, or http to this host.
    pub fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        // Names and passwords in a URL end up in logs.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let here = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let plain = uri.scheme() == Some(&Scheme::HTTP);
        (!host.is_empty() && (secure || plain && here)).then(|| Self {
            secure,
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            host,
        })
    }
}

/// Fetches a set of keys, or says why not.
pub async fn fetch(address: &Address, tls: Option<&ClientTls>) -> Result<KeySet, String> {
    match timeout(PATIENCE, answer(address, tls)).await {
        Ok(answer) => KeySet::parse(&answer?).map_err(|error| format!("the answer {error}")),
        Err(_) => Err(Fault::Late(PATIENCE).to_string()),
    }
}

/// Sends a form; the status and what comes with it.
pub async fn post(
    address: &Address,
    tls: Option<&ClientTls>,
    form: String,
) -> Result<(u16, Bytes), String> {
    let body = ("application/x-www-form-urlencoded", Bytes::from(form));
    let request = Request {
        accept: "application/json",
        body: Some(body),
        ..address.request(tls)?
    };
    // On the heap: who logs in with a password has no room for it.
    let asked = Box::pin(async {
        let found = address.found().await?;
        let answer = postroad_fetch::exchange(&request, &found).await;
        answer.map_err(|fault| fault.to_string())
    });
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map(|(status, body)| (status.as_u16(), body)),
        Err(_) => Err(Fault::Late(PATIENCE).to_string()),
    }
}

impl Address {
    fn request<'a>(&'a self, tls: Option<&'a ClientTls>) -> Result<Request<'a>, String> {
        let tls = match (self.secure, tls) {
            (false, _) => None,
            (true, None) => return Err("there is no TLS for it".to_owned()),
            (true, tls) => tls,
        };
        Ok(Request {
            host: &self.host,
            port: self.port,
            authority: &self.authority,
            path: &self.path,
            accept: "application/jwk-set+json, application/json",
            tls,
            body: None,
            most: MAX_SET,
            within: PATIENCE,
        })
    }

    async fn found(&self) -> Result<Vec<IpAddr>, String> {
        let found = SystemNames::default().addresses(&self.host).await;
        found.map_err(|error| error.to_string())
    }
}

async fn answer(address: &Address, tls: Option<&ClientTls>) -> Result<Bytes, String> {
    let request = address.request(tls)?;
    let found = address.found().await?;
    let fetched = postroad_fetch::fetch(&request, &found).await;
    fetched.map_err(|fault| match fault {
        Fault::Redirected(_) => format!("{fault}; write the last address into jwks_url"),
        fault => fault.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_tls_or_from_this_host() {
        let of = |url: &str| url.parse::<Uri>().ok().and_then(|uri| Address::of(&uri));
        for good in [
            "https://id.example/realms/a/certs?x=1",
            "http://127.0.0.1:8080/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
        ] {
            assert!(of(good).is_some(), "{good}");
        }
        for bad in [
            "http://id.example/keys",
            "http://127.0.0.1.example/keys",
            "ftp://127.0.0.1/keys",
            "/keys",
            "id.example",
            "https://name:password@id.example/",
            "http://name@127.0.0.1/",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let address = of("https://id.example/certs?x=1").unwrap();
        assert_eq!((address.port, address.path.as_str()), (443, "/certs?x=1"));
    }
}
