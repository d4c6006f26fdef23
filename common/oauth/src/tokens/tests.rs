use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use postroad_daemon::Interval;
use postroad_net::{CertFiles, ServerTls, Stream};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Signer, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{advance, pause, resume};

use super::*;

const ISSUER: &str = "https://id.example";

fn key() -> Ed25519KeyPair {
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()
}

fn set(keys: &[(&str, &Ed25519KeyPair)]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|(kid, key)| {
            let x = URL_SAFE_NO_PAD.encode(key.public_key());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

fn token(kid: &str, key: &Ed25519KeyPair, issuer: &str) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "EdDSA", "kid": kid}));
    let claims = part(json!({"iss": issuer, "aud": "mail", "exp": 2000, "sub": "alice@demo.test"}));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn config() -> OAuthConfig {
    OAuthConfig {
        issuer: ISSUER.to_owned(),
        audience: vec!["mail".to_owned()],
        jwks_file: None,
        jwks_url: None,
        ca_file: None,
        scopes: Vec::new(),
        openid_configuration: None,
        account_claim: "sub".to_owned(),
        leeway: Interval::seconds(30),
        refresh: Interval::hours(1),
        max_stale: Interval::hours(24),
    }
}

fn tokens(config: OAuthConfig) -> Tokens {
    Tokens::new(&[config], &Metrics::new("msa"))
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1500)
}

fn why(checked: Result<Claims, Refused>) -> Rejection {
    match checked {
        Err(Refused::Rejected { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// A server of keys, of which it is known how often it was asked. What it says is the whole of its answer.
#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    port: u16,
}

impl Server {
    async fn start(tls: Option<ServerTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            answer: Arc::default(),
            asked: Arc::default(),
            port: listener.local_addr().unwrap().port(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            loop {
                let mut stream = Stream::from(listener.accept().await.unwrap().0);
                if let Some(tls) = &tls {
                    match stream
                        .upgrade_server(tls, &[], Duration::from_secs(5))
                        .await
                    {
                        Ok(upgraded) => stream = upgraded,
                        Err(_) => continue,
                    }
                }
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                this.asked.fetch_add(1, Ordering::SeqCst);
                let answer = this.answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        server
    }

    fn says(&self, status: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn later(by: Duration) {
    pause();
    advance(by).await;
    resume();
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let (old, new) = (key(), key());
    fs::write(&file, set(&[("a", &old)])).unwrap();
    let tokens = tokens(OAuthConfig {
        jwks_file: Some(file.clone()),
        ..config()
    });
    let claims = tokens
        .check(&token("a", &old, ISSUER), now())
        .await
        .unwrap();
    assert_eq!(claims.account, "alice@demo.test");
    let stranger = token("a", &old, "https://evil.example");
    assert_eq!(why(tokens.check(&stranger, now()).await), Rejection::Issuer);

    fs::write(&file, set(&[("b", &new)])).unwrap();
    later(Duration::from_secs(2)).await;
    assert!(tokens.check(&token("b", &new, ISSUER), now()).await.is_ok());
    // A key that was taken away counts no more.
    let gone = tokens.check(&token("a", &old, ISSUER), now()).await;
    assert_eq!(why(gone), Rejection::UnknownKey);
}

#[tokio::test]
async fn an_unknown_key_makes_it_ask_once_a_minute() {
    let (old, new) = (key(), key());
    let server = Server::start(None).await;
    let tokens = tokens(OAuthConfig {
        jwks_url: Some(format!("http://127.0.0.1:{}/keys", server.port)),
        ..config()
    });
    server.says("200 OK", &set(&[("a", &old)]));
    for _ in 0..3 {
        assert!(tokens.check(&token("a", &old, ISSUER), now()).await.is_ok());
    }
    assert_eq!(server.asked(), 1);
    for _ in 0..3 {
        let unknown = tokens.check(&token("b", &new, ISSUER), now()).await;
        assert_eq!(why(unknown), Rejection::UnknownKey);
    }
    assert_eq!(server.asked(), 1);
    server.says("200 OK", &set(&[("b", &new)]));
    later(Duration::from_secs(61)).await;
    assert!(tokens.check(&token("b", &new, ISSUER), now()).await.is_ok());
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn keys_outlive_their_server_for_a_time() {
    let key = key();
    let server = Server::start(None).await;
    let tokens = tokens(OAuthConfig {
        jwks_url: Some(format!("http://127.0.0.1:{}/keys", server.port)),
        ..config()
    });
    let good = token("a", &key, ISSUER);
    let large = " ".repeat(300 << 10);
    for (minutes, (status, body)) in [
        ("500 Internal Server Error", ""),
        ("302 Found", ""),
        ("200 OK", "<html>"),
        ("200 OK", r#"{"keys":[]}"#),
        ("200 OK", large.as_str()),
    ]
    .into_iter()
    .enumerate()
    {
        server.says(status, body);
        assert_eq!(
            tokens.check(&good, now()).await,
            Err(Refused::Away),
            "{status}"
        );
        assert_eq!(server.asked(), minutes + 1);
        later(Duration::from_secs(61)).await;
    }
    server.says("200 OK", &set(&[("a", &key)]));
    assert!(tokens.check(&good, now()).await.is_ok());

    server.says("500 Internal Server Error", "");
    later(Duration::from_secs(23 * 3600)).await;
    let issuer = &tokens.0.issuers[0];
    assert!(issuer.source.is_due());
    assert_eq!(tokens.look(issuer).await, Looked::Failed);
    assert!(tokens.check(&good, now()).await.is_ok());
    // The next configuration has them too.
    let same = OAuthConfig {
        jwks_url: Some(format!("http://127.0.0.1:{}/keys", server.port)),
        leeway: Interval::seconds(1),
        ..config()
    };
    let next = tokens.successor(&[same], &Metrics::new("msa"));
    assert!(next.check(&good, now()).await.is_ok());
    later(Duration::from_secs(2 * 3600)).await;
    assert_eq!(tokens.check(&good, now()).await, Err(Refused::Away));
}

#[tokio::test]
async fn over_tls_the_server_must_be_the_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(path(name), certificate.pem()).unwrap();
        Signer::new(params, key)
    };
    let (ours, _other) = (authority("ours.pem"), authority("other.pem"));
    let server_key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&server_key, &ours).unwrap();
    let files = CertFiles {
        cert_file: path("cert.pem"),
        key_file: path("key.pem"),
    };
    fs::write(&files.cert_file, certificate.pem()).unwrap();
    fs::write(&files.key_file, server_key.serialize_pem()).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&files.key_file, fs::Permissions::from_mode(0o600)).unwrap();

    let key = key();
    let server = Server::start(Some(ServerTls::load(&[files]).unwrap())).await;
    server.says("200 OK", &set(&[("a", &key)]));
    let asks = async |host: &str, authority: &str| {
        let tokens = tokens(OAuthConfig {
            jwks_url: Some(format!("https://{host}:{}/keys", server.port)),
            ca_file: Some(path(authority)),
            ..config()
        });
        tokens
            .check(&token("a", &key, ISSUER), now())
            .await
            .map(drop)
    };
    assert_eq!(asks("localhost", "ours.pem").await, Ok(()));
    assert_eq!(asks("127.0.0.1", "ours.pem").await, Err(Refused::Away));
    assert_eq!(asks("localhost", "other.pem").await, Err(Refused::Away));
}
