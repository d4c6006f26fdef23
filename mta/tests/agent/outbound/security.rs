//! What the recipients' domain says of TLS: DANE (RFC 7672) and MTA-STS (RFC 8461), and what the mail says (RFC 8689).

use std::net::SocketAddr;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroad_net::{CertFiles, Stream};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use x509_parser::pem::Pem;

use super::*;

const POLICY: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.test\r\nmax_age: 86400\r\n";

/// A host that has TLS with a certificate for `mx.test`, which is its own authority.
struct World {
    folder: TempDir,
    files: CertFiles,
    host: Host,
}

impl World {
    async fn start(ehlo: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = certificate(&folder);
        let host = Host::start(Script {
            ehlo: Some(ehlo.to_vec()),
            starttls: StartTls::Works(ServerTls::load(slice::from_ref(&files)).unwrap()),
            ..Script::default()
        })
        .await;
        Self {
            folder,
            files,
            host,
        }
    }

    async fn with_tls() -> Self {
        Self::start(&["STARTTLS", "PIPELINING"]).await
    }

    fn config(&self) -> Config {
        let mut config = to_port(self.host.address.port());
        config.outbound.ca_file = Some(self.files.cert_file.clone());
        config
    }

    /// `3 1 0` and the key of the host.
    fn key(&self) -> String {
        let text = std::fs::read(&self.files.cert_file).unwrap();
        let pem = Pem::iter_from_buffer(&text).next().unwrap().unwrap();
        let parsed = pem.parse_x509().unwrap();
        let key = parsed.tbs_certificate.subject_pki.raw;
        let digits: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("3 1 0 {digits}")
    }

    /// The zone of `example.test` with these lines, `PORT` in them being that of the host.
    fn zone(&self, lines: &str) -> String {
        format!("{ZONE}{lines}\n").replace("PORT", &self.host.address.port().to_string())
    }

    async fn send(&self, lines: &str) -> Done {
        self.send_as(lines, self.config(), lease("example.test", &["bob"]))
            .await
    }

    async fn send_as(&self, lines: &str, config: Config, lease: Lease) -> Done {
        let zone = self.zone(lines);
        run_in(&zone, &common(), config, lease, &FakeQueue::default()).await
    }

    fn saw_no_mail(&self) -> bool {
        let heard = self.host.heard();
        heard
            .iter()
            .all(|one| !one.commands.join(" ").contains("MAIL"))
    }
}

/// How the connection had to be protected, as the timeline has it.
fn policy(done: &Done) -> &str {
    done.events[0]
        .fields
        .get("tls_policy")
        .map_or("", String::as_str)
}

#[tokio::test]
async fn a_published_key_is_demanded() {
    let world = World::with_tls().await;
    let right = format!("test. SIGNED\n_PORT._tcp.mx.test. TLSA {}", world.key());
    let done = world.send(&right).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(policy(&done), "dane (TLSA 3 1 0 of mx.test)");
    let remote = done.settled.as_ref().unwrap().outcomes[0]
        .1
        .report()
        .remote
        .clone();
    assert_eq!(
        remote.unwrap().tls_policy.unwrap(),
        "dane (TLSA 3 1 0 of mx.test)"
    );
    assert_eq!(done.events[0].fields["verified"], "mx.test");
    assert_eq!(world.host.heard()[0].sni.as_deref(), Some("mx.test"));

    let world = World::with_tls().await;
    let zeros = "00".repeat(32);
    let done = world
        .send(&format!(
            "test. SIGNED\n_PORT._tcp.mx.test. TLSA 3 1 1 {zeros}"
        ))
        .await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
    assert!(done.text().contains("TLSA 3 1 1"), "{}", done.text());
    assert!(world.saw_no_mail());
}

#[tokio::test]
async fn without_dnssec_a_record_means_nothing_and_a_failed_lookup_delays() {
    let zeros = "00".repeat(32);
    let wrong = format!("_PORT._tcp.mx.test. TLSA 3 1 1 {zeros}");
    let world = World::with_tls().await;
    let done = world.send(&wrong).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(policy(&done), "may (mta.outbound.tls)");
    // Of what leads to the host the MX record is not vouched for.
    let done = world.send(&format!("mx.test. SIGNED\n{wrong}")).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());

    let world = World::with_tls().await;
    let done = world
        .send("test. SIGNED\n_PORT._tcp.mx.test. SERVFAIL")
        .await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
    assert!(
        done.text().contains("TLSA records cannot be had"),
        "{}",
        done.text()
    );
    assert!(world.host.heard().is_empty(), "RFC 7672 §2.1.2");
}

#[tokio::test]
async fn unusable_records_ask_for_tls_alone_and_none_for_nothing() {
    let zeros = "00".repeat(32);
    let unusable = format!("test. SIGNED\n_PORT._tcp.mx.test. TLSA 1 1 1 {zeros}");
    let world = World::with_tls().await;
    let done = world.send(&unusable).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert!(
        policy(&done).starts_with("encrypt (the TLSA records"),
        "{}",
        policy(&done)
    );
    let plain = World::start(&["PIPELINING"]).await;
    let done = plain.send(&unusable).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
    let done = plain.send("test. SIGNED").await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
}

#[tokio::test]
async fn a_domain_can_have_a_policy_of_ours() {
    let world = World::with_tls().await;
    let with = |pattern: &str, policy| {
        let mut config = world.config();
        config
            .outbound
            .tls_policies
            .insert(pattern.parse().unwrap(), policy);
        config
    };
    let mail = || lease("example.test", &["bob"]);
    let done = world
        .send_as("", with("example.test", TlsPolicy::Dane), mail())
        .await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
    assert!(
        done.text()
            .contains("mta.outbound.tls_policies example.test demands DANE"),
        "{}",
        done.text()
    );
    let done = world
        .send_as("", with(".test", TlsPolicy::None), mail())
        .await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(policy(&done), "none (mta.outbound.tls_policies .test)");
    assert!(!world.host.heard()[0].tls);
    // The certificate is for mx.test, which the DNS names alone.
    let done = world
        .send_as("", with("example.test", TlsPolicy::Verify), mail())
        .await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
}

#[tokio::test]
async fn rfc_8689_requiretls_goes_only_to_who_proves_itself_and_offers_it() {
    let mail = || {
        let mut lease = lease("example.test", &["bob"]);
        lease.envelope.requiretls = true;
        lease
    };
    // Not vouched for: a certificate for example.test would be needed.
    let world = World::start(&["STARTTLS", "REQUIRETLS"]).await;
    let done = world.send_as("", world.config(), mail()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
    // DNSSEC vouches for the name of the mail host, and its certificate is for that.
    let done = world.send_as("test. SIGNED", world.config(), mail()).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(policy(&done), "verify (REQUIRETLS)");
    let commands = world.host.heard().last().unwrap().commands.join("\n");
    assert!(commands.contains("REQUIRETLS"), "{commands}");
    // It proves itself, and does not promise to keep it.
    let world = World::with_tls().await;
    let done = world.send_as("test. SIGNED", world.config(), mail()).await;
    assert_eq!(done.outcomes(), ["0 failed 5.7.30"], "{}", done.text());
    assert!(world.saw_no_mail());
}

#[tokio::test]
async fn rfc_8689_tls_required_no_waives_what_the_domain_wishes() {
    let world = World::with_tls().await;
    let mut mail = lease("example.test", &["bob"]);
    let content = b"TLS-Required: No\r\nSubject: hi\r\n\r\nhello\r\n";
    mail.content = Some(Bytes::from_static(content));
    mail.envelope.size = content.len() as u64;
    let zeros = "00".repeat(32);
    let wrong = format!("test. SIGNED\n_PORT._tcp.mx.test. TLSA 3 1 1 {zeros}");
    let done = world.send_as(&wrong, world.config(), mail).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert!(
        policy(&done).contains("TLS-Required: No"),
        "{}",
        policy(&done)
    );
}

/// An HTTPS host at `mta-sts.example.test` that answers all with one policy.
struct Https {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Https {
    async fn start(folder: &Path, name: &str, answer: String) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = CertFiles {
            cert_file: folder.join("https.pem"),
            key_file: folder.join("https.key"),
        };
        std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&files.key_file, private).unwrap();
        let tls = ServerTls::load(&[files]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let stream = Stream::from(listener.accept().await.unwrap().0);
                let Ok(mut stream) = stream.upgrade_server(&tls, b"", PATIENCE).await else {
                    continue;
                };
                let mut heard = Vec::new();
                while !heard.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(octet) => heard.push(octet),
                        Err(_) => break,
                    }
                }
                let heard = String::from_utf8_lossy(&heard).to_lowercase();
                assert!(
                    heard.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"),
                    "{heard}"
                );
                assert!(
                    heard.contains("\r\nhost: mta-sts.example.test\r\n"),
                    "{heard}"
                );
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ok(policy: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{policy}",
        policy.len()
    )
}

const RECORD: &str =
    "_mta-sts.example.test. TXT \"v=STSv1; id=1;\"\nmta-sts.example.test. A 127.0.0.1";

/// A domain with a policy: its mail host, its HTTPS host, and what is configured for both.
async fn sts(host: &World, name: &str, answer: String) -> (Https, Config) {
    let https = Https::start(host.folder.path(), name, answer).await;
    let both = ["cert.pem", "https.pem"]
        .map(|file| std::fs::read_to_string(host.folder.path().join(file)).unwrap());
    let ca_file = host.folder.path().join("both.pem");
    std::fs::write(&ca_file, both.concat()).unwrap();
    let mut config = host.config();
    config.outbound.ca_file = Some(ca_file);
    config.outbound.mta_sts.port = https.address.port();
    (https, config)
}

fn mail() -> Lease {
    lease("example.test", &["bob"])
}

#[tokio::test]
async fn a_policy_is_fetched_kept_and_enforced() {
    let world = World::with_tls().await;
    let (https, config) = sts(&world, "mta-sts.example.test", ok(POLICY)).await;
    let state = tempfile::tempdir().unwrap();
    let common = CommonConfig {
        state_dir: state.path().to_owned(),
        ..common()
    };
    for turn in ["fetched", "kept"] {
        let (zone, config) = (world.zone(RECORD), config.clone());
        let done = run_in(&zone, &common, config, mail(), &FakeQueue::default()).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
        assert_eq!(
            policy(&done),
            "verify (MTA-STS policy of example.test)",
            "{turn}"
        );
        assert_eq!(done.events[0].fields["verified"], "mx.test");
        assert_eq!(https.asked(), 1, "{turn}");
    }
    // RFC 8461 §5.1: who takes the record away does not take the policy away.
    drop(https);
    let plain = World::start(&["PIPELINING"]).await;
    let mut config = config.clone();
    config.outbound.port = plain.host.address.port();
    let zone = plain.zone("");
    let done = run_in(&zone, &common, config, mail(), &FakeQueue::default()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
    assert!(plain.saw_no_mail());
}

#[tokio::test]
async fn a_policy_that_is_not_kept_delays_and_one_that_is_tested_does_not() {
    for (text, outcome, why) in [
        (
            POLICY.replace("mx.test", "*.example.test"),
            "0 delayed 4.7.0",
            "",
        ),
        (
            POLICY
                .replace("mx.test", "*.example.test")
                .replace("enforce", "testing"),
            "0 relayed 2.0.0",
            "may (mta.outbound.tls, example.test tests its MTA-STS policy)",
        ),
        (
            "version: STSv1\nmode: none\nmax_age: 60\n".to_owned(),
            "0 relayed 2.0.0",
            "may (mta.outbound.tls)",
        ),
    ] {
        let world = World::with_tls().await;
        let (https, config) = sts(&world, "mta-sts.example.test", ok(&text)).await;
        let done = world.send_as(RECORD, config, mail()).await;
        assert_eq!(done.outcomes(), [outcome], "{}", done.text());
        assert_eq!((policy(&done), https.asked()), (why, 1));
    }
    // The policy names the host, and its certificate is another's.
    let world = World::with_tls().await;
    let (_https, mut config) = sts(&world, "mta-sts.example.test", ok(POLICY)).await;
    config.outbound.ca_file = Some(world.folder.path().join("https.pem"));
    let done = world.send_as(RECORD, config, mail()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
    assert!(world.saw_no_mail());
}

#[tokio::test]
async fn a_policy_that_cannot_be_had_is_none() {
    let moved =
        "HTTP/1.1 301 Moved\r\nLocation: https://elsewhere.test/\r\nContent-Length: 0\r\n\r\n";
    let large = ok(&format!("{POLICY}{}", "x: y\n".repeat(20_000)));
    for (name, answer, told) in [
        ("mta-sts.example.test", moved.to_owned(), "points elsewhere"),
        ("mta-sts.example.test", large, "length limit exceeded"),
        ("mta-sts.example.test", ok("<html>"), "line 1"),
        (
            "mta-sts.example.test",
            "HTTP/1.1 404 No\r\n\r\n".to_owned(),
            "404",
        ),
        ("another.test", ok(POLICY), "cannot be fetched"),
    ] {
        let world = World::with_tls().await;
        let (_https, config) = sts(&world, name, answer).await;
        let done = world.send_as(RECORD, config, mail()).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
        let why = policy(&done);
        assert!(why.starts_with("may (") && why.contains(told), "{why}");
    }
    // Nothing is fetched from addresses that nobody may aim at.
    let world = World::with_tls().await;
    let (https, config) = sts(&world, "mta-sts.example.test", ok(POLICY)).await;
    let private = RECORD.replace("127.0.0.1", "10.0.0.1");
    let done = world.send_as(&private, config, mail()).await;
    assert!(
        policy(&done).contains("not listed in mta.outbound.allow_networks"),
        "{}",
        policy(&done)
    );
    assert_eq!(https.asked(), 0);
}

#[tokio::test]
async fn dane_wins_over_mta_sts() {
    let world = World::with_tls().await;
    let foreign = POLICY.replace("mx.test", "other.test");
    let (_https, config) = sts(&world, "mta-sts.example.test", ok(&foreign)).await;
    let lines = format!(
        "{RECORD}\ntest. SIGNED\n_PORT._tcp.mx.test. TLSA {}",
        world.key()
    );
    let done = world.send_as(&lines, config, mail()).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(policy(&done), "dane (TLSA 3 1 0 of mx.test)");
}
