mod dane;
mod neighbours;
mod refusals;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    CertFiles, ClientTls, Error, PeerCertificate, PeerRole, RefusedCertificate, Revocations,
    Serial, ServerTls, Stream, Trust, UnixRoles,
};

const SOON: Duration = Duration::from_secs(10);

/// An authority in a folder of its own.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Test authority");
        let key = KeyPair::generate().unwrap();
        fs::write(
            dir.path().join("ca.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes `<file>.pem` and `<file>.key` for `host`, with `roles`.
    fn issue(&self, file: &str, host: &str, roles: &[&str]) -> CertFiles {
        self.issue_as(file, host, roles, |_| ())
    }

    fn issue_as(
        &self,
        file: &str,
        host: &str,
        roles: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertFiles {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        for role in roles {
            params.subject_alt_names.push(SanType::URI(
                format!("postroad://role/{role}").try_into().unwrap(),
            ));
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let files = CertFiles {
            cert_file: self.dir.path().join(format!("{file}.pem")),
            key_file: self.dir.path().join(format!("{file}.key")),
        };
        fs::write(
            &files.cert_file,
            params.signed_by(&key, &self.issuer).unwrap().pem(),
        )
        .unwrap();
        fs::write(&files.key_file, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key_file, PermissionsExt::from_mode(0o600)).unwrap();
        files
    }

    fn trust(&self) -> Trust {
        Trust::Files(vec![self.ca_file()])
    }
}

/// Both ends of a TCP connection.
async fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let (client, server) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (
        Stream::from(client.unwrap()),
        Stream::from(server.unwrap().0),
    )
}

/// Handshakes, and moves an octet each way: under TLS 1.3 a client learns of its refusal only then.
async fn handshake(
    server: &ServerTls,
    client: &ClientTls,
    name: &str,
) -> Result<(Stream, Stream), Error> {
    let (client_end, server_end) = pair().await;
    let serve = async {
        let mut stream = server_end.upgrade_server(server, b"", SOON).await?;
        let octet = stream.read_u8().await?;
        stream.write_u8(octet).await?;
        Ok::<_, Error>(stream)
    };
    let call = async {
        let mut stream = client_end.upgrade_client(client, name, b"", SOON).await?;
        stream.write_u8(42).await?;
        assert_eq!(stream.read_u8().await?, 42);
        Ok::<_, Error>(stream)
    };
    let (serve, call) = tokio::join!(serve, call);
    Ok((serve?, call?))
}

#[tokio::test]
async fn starttls_upgrades_a_stream_in_use() {
    let authority = Authority::new();
    let server = ServerTls::load(&[authority.issue("mx", "mx.example.org", &[])]).unwrap();
    let client = ClientTls::verified(authority.trust()).unwrap();
    let (mut client_end, mut server_end) = pair().await;
    client_end.write_all(b"STARTTLS\r\n").await.unwrap();
    let mut line = [0; 10];
    server_end.read_exact(&mut line).await.unwrap();
    let (server_end, client_end) = tokio::join!(
        server_end.upgrade_server(&server, b"", SOON),
        client_end.upgrade_client(&client, "mx.example.org.", b"", SOON)
    );
    let (mut server_end, mut client_end) = (server_end.unwrap(), client_end.unwrap());
    client_end.write_all(b"EHLO").await.unwrap();
    let mut line = [0; 4];
    server_end.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"EHLO");

    let info = server_end.tls_info().unwrap();
    assert_eq!(
        (info.version.as_str(), info.sni.as_deref()),
        ("TLS1.3", Some("mx.example.org"))
    );
    assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
    assert!(!info.cipher.contains("TLS13"), "{}", info.cipher);
    assert_eq!(info.peer, PeerCertificate::Absent);
    assert!(client_end.tls_info().unwrap().is_peer_verified());
    let bindings = [&server_end, &client_end].map(|end| end.tls_info().unwrap().binding.clone());
    assert!(bindings[0].is_some() && bindings[0] == bindings[1]);
    let again = server_end.upgrade_server(&server, b"", SOON).await;
    assert!(matches!(again, Err(Error::NotUpgradable)));
}

#[tokio::test]
async fn a_client_of_tls_1_2_is_served_and_named() {
    let authority = Authority::new();
    let server = ServerTls::load(&[authority.issue("mx", "mx.example.org", &[])]).unwrap();
    let old = rustls::ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(super::files::read_roots(&authority.ca_file()).unwrap())
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let call = async {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let name = ClientTls::server_name("mx.example.org").unwrap();
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(old))
            .connect(name, tcp)
            .await
            .unwrap()
    };
    let serve = async {
        let stream = Stream::from(listener.accept().await.unwrap().0);
        stream.upgrade_server(&server, b"", SOON).await.unwrap()
    };
    let (_call, serve) = tokio::join!(call, serve);
    let shown = serve.tls_info().unwrap().to_string();
    assert!(shown.starts_with("TLS1.2 TLS_ECDHE_ECDSA_WITH_"), "{shown}");
}

#[tokio::test]
async fn plaintext_pipelined_after_starttls_is_refused() {
    let authority = Authority::new();
    let server = ServerTls::load(&[authority.issue("mx", "mx.example.org", &[])]).unwrap();
    let (_client_end, server_end) = pair().await;
    let refused = server_end
        .upgrade_server(&server, b"MAIL FROM:<>\r\n", SOON)
        .await;
    assert!(matches!(refused, Err(Error::PlaintextAfterStartTls(14))));
}

#[tokio::test]
async fn a_peer_that_never_handshakes_times_out() {
    let authority = Authority::new();
    let server = ServerTls::load(&[authority.issue("mx", "mx.example.org", &[])]).unwrap();
    let (_client_end, server_end) = pair().await;
    let late = server_end
        .upgrade_server(&server, b"", Duration::from_millis(20))
        .await;
    assert!(matches!(late, Err(Error::TimedOut(_))));
}

#[tokio::test]
async fn opportunistic_tls_takes_any_certificate_and_says_what_it_was_worth() {
    let (known, foreign) = (Authority::new(), Authority::new());
    let client = ClientTls::opportunistic(known.trust()).unwrap();
    let peer = |files: CertFiles, name: &'static str| {
        let client = client.clone();
        async move {
            let (_server, stream) = handshake(&ServerTls::load(&[files]).unwrap(), &client, name)
                .await
                .unwrap();
            stream.tls_info().unwrap().peer.clone()
        }
    };
    let good = peer(known.issue("a", "mx.example.org", &[]), "mx.example.org").await;
    assert_eq!(good, PeerCertificate::Verified);
    let stranger = peer(foreign.issue("a", "mx.example.org", &[]), "mx.example.org").await;
    assert!(matches!(stranger, PeerCertificate::Unverified(_)));
    let misnamed = peer(known.issue("b", "mx.example.org", &[]), "other.example").await;
    assert!(matches!(misnamed, PeerCertificate::Unverified(_)));
}

#[tokio::test]
async fn a_verifying_client_refuses_strangers_and_wrong_names() {
    let (known, foreign) = (Authority::new(), Authority::new());
    let client = ClientTls::verified(known.trust()).unwrap();
    let good = ServerTls::load(&[known.issue("a", "mx.example.org", &[])]).unwrap();
    let stranger = ServerTls::load(&[foreign.issue("a", "mx.example.org", &[])]).unwrap();
    assert!(handshake(&good, &client, "mx.example.org").await.is_ok());
    assert!(handshake(&good, &client, "mx.example.net").await.is_err());
    assert!(
        handshake(&stranger, &client, "mx.example.org")
            .await
            .is_err()
    );
    let nonsense = handshake(&good, &client, "not a host").await;
    assert!(nonsense.is_err());
}

#[tokio::test]
async fn the_certificate_follows_the_name_asked_for() {
    let authority = Authority::new();
    let hosts = [
        ("first", "mx.example.org"),
        ("exact", "imap.example.net"),
        ("wild", "*.example.net"),
    ];
    let files: Vec<_> = hosts
        .iter()
        .map(|(file, host)| authority.issue(file, host, &[]))
        .collect();
    let server = ServerTls::load(&files).unwrap();
    let client = ClientTls::opportunistic(authority.trust()).unwrap();
    let cases = [
        ("IMAP.example.net", "exact"),
        ("smtp.example.net", "wild"),
        ("a.b.example.net", "first"),
        ("mx.example.org", "first"),
        ("127.0.0.1", "first"),
    ];
    for (name, expected) in cases {
        let (_server, stream) = handshake(&server, &client, name).await.unwrap();
        let shown =
            crate::PeerIdentity::from_certificate(stream.peer_certificate().unwrap()).unwrap();
        assert_eq!(shown.name, expected, "{name}");
    }
}

#[tokio::test]
async fn changed_files_are_reloaded_and_bad_ones_leave_the_old_in_use() {
    let authority = Authority::new();
    let files = authority.issue("mx", "old.example.org", &[]);
    let server = ServerTls::load(std::slice::from_ref(&files)).unwrap();
    let client = ClientTls::verified(authority.trust()).unwrap();
    assert!(!server.reload_if_changed().unwrap());

    authority.issue("mx", "new.example.org", &[]);
    assert!(server.reload_if_changed().unwrap());
    assert!(handshake(&server, &client, "new.example.org").await.is_ok());
    assert!(
        handshake(&server, &client, "old.example.org")
            .await
            .is_err()
    );

    fs::write(&files.cert_file, "half a certificate").unwrap();
    let error = server.reload_if_changed().unwrap_err().to_string();
    assert!(error.contains("mx.pem"), "{error}");
    assert!(handshake(&server, &client, "new.example.org").await.is_ok());
    assert!(
        !server.reload_if_changed().unwrap(),
        "a bad file is reported once"
    );
    assert!(server.reload().is_err());
}

#[test]
fn a_certificate_is_a_concern_some_time_before_its_end() {
    let authority = Authority::new();
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    let of = |life: Duration, left: Duration| {
        authority.issue_as("mx", "mx.example.org", &[], |params| {
            params.not_before = (now - (life - left)).into();
            params.not_after = (now + left).into();
        })
    };
    let concern = |files: &CertFiles, before| files.concern(before).unwrap();
    let usual = of(90 * day, 10 * day);
    let told = concern(&usual, 14 * day).unwrap();
    assert!(told.contains("mx.pem: expires at "), "{told}");
    assert_eq!(concern(&usual, 9 * day), None);
    let left = ServerTls::load(&[usual]).unwrap().seconds_left().unwrap();
    assert!((863_000..=864_000).contains(&left), "{left}");
    // Of a short life a fifth.
    assert_eq!(concern(&of(5 * day, 2 * day), 14 * day), None);
    assert!(concern(&of(6 * day, day), 14 * day).is_some());
    let over = authority.issue_as("mx", "mx.example.org", &[], |params| {
        params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    });
    let told = concern(&over, Duration::ZERO).unwrap();
    assert!(told.contains("expired at "), "{told}");
}

#[tokio::test]
async fn a_client_takes_up_its_new_certificate() {
    let authority = Authority::new();
    let server = ServerTls::load_mutual(
        &authority.issue("queued", "localhost", &[]),
        &authority.ca_file(),
        &Revocations::none(),
        &[],
    )
    .unwrap();
    let own = authority.issue("agent", "agent.example", &["msa"]);
    let client =
        ClientTls::mutual(&own, &authority.ca_file(), &Revocations::none(), None, &[]).unwrap();
    authority.issue("agent", "agent.example", &["mda"]);
    assert!(client.reload_if_changed().unwrap());
    let (stream, _client) = handshake(&server, &client, "localhost").await.unwrap();
    assert_eq!(
        stream
            .peer_identity(&UnixRoles::default())
            .unwrap()
            .roles
            .to_string(),
        "mda"
    );
}

#[tokio::test]
async fn mutual_tls_tells_roles_and_refuses_strangers() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let alpn: &[&[u8]] = &[b"h2"];
    let server = ServerTls::load_mutual(
        &ours.issue("queued", "localhost", &["queued"]),
        &ours.ca_file(),
        &Revocations::none(),
        alpn,
    );
    let server = server.unwrap();

    let agent = ClientTls::mutual(
        &ours.issue("edge", "edge.example", &["msa", "mta"]),
        &ours.ca_file(),
        &Revocations::none(),
        Some(PeerRole::Queued),
        alpn,
    );
    let (stream, client) = handshake(&server, &agent.unwrap(), "localhost")
        .await
        .unwrap();
    let identity = stream.peer_identity(&UnixRoles::default()).unwrap();
    assert!(identity.roles.contains(PeerRole::Msa) && identity.roles.contains(PeerRole::Mta));
    assert!(!identity.roles.contains(PeerRole::Admin));
    assert_eq!(identity.name, "edge");
    assert_eq!(stream.tls_info().unwrap().alpn.as_deref(), Some("h2"));
    assert!(
        stream.tls_info().unwrap().is_peer_verified()
            && client.tls_info().unwrap().is_peer_verified()
    );

    let stranger = ClientTls::mutual(
        &foreign.issue("edge", "edge.example", &["admin"]),
        &ours.ca_file(),
        &Revocations::none(),
        None,
        alpn,
    );
    assert!(
        handshake(&server, &stranger.unwrap(), "localhost")
            .await
            .is_err(),
        "a certificate of a foreign CA"
    );
    let nobody = ClientTls::verified(ours.trust()).unwrap();
    assert!(
        handshake(&server, &nobody, "localhost").await.is_err(),
        "no certificate"
    );
    let misled = ClientTls::mutual(
        &ours.issue("edge2", "e.example", &["msa"]),
        &foreign.ca_file(),
        &Revocations::none(),
        None,
        alpn,
    );
    assert!(
        handshake(&server, &misled.unwrap(), "localhost")
            .await
            .is_err(),
        "a server of a foreign CA"
    );
}

#[test]
fn bad_files_are_explained() {
    let authority = Authority::new();
    let good = authority.issue("a", "a.example", &[]);
    let other = authority.issue("b", "b.example", &[]);
    let path = |name: &str, text: &str| {
        let path = authority.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let open_key = path("open.key", &fs::read_to_string(&good.key_file).unwrap());
    fs::set_permissions(&open_key, PermissionsExt::from_mode(0o644)).unwrap();
    let explain = |cert: &Path, key: &Path| {
        let files = CertFiles {
            cert_file: cert.to_owned(),
            key_file: key.to_owned(),
        };
        ServerTls::load(&[files]).unwrap_err().to_string()
    };
    let (cert, key) = (good.cert_file.as_path(), good.key_file.as_path());
    let cases = [
        (
            explain(Path::new("/nonexistent/x.pem"), key),
            "/nonexistent/x.pem: cannot be read",
        ),
        (
            explain(&path("t", "hello"), key),
            "is not a certificate in PEM",
        ),
        (
            explain(cert, &path("t", "hello")),
            "is not a private key in PEM",
        ),
        (explain(cert, &open_key), "open to every user"),
        (
            explain(cert, &other.key_file),
            "is not the key of the certificate in",
        ),
        (
            explain(&path("t", "-----BEGIN CERTIFICATE-----\nAAAA\n"), key),
            "no END line",
        ),
        (
            explain(
                cert,
                &path(
                    "t",
                    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                ),
            ),
            "this key is encrypted",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    assert!(ServerTls::load(&[]).is_err());
    let empty_trust = ClientTls::verified(Trust::Files(vec![]))
        .unwrap_err()
        .to_string();
    assert!(empty_trust.contains("ca_file"), "{empty_trust}");
}
