//! Log-ins by the certificate of the connection.

use std::path::PathBuf;

use postroad_net::Fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

use super::*;

/// An authority of people's certificates.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(
        &self,
        serial: u64,
        address: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertFiles {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let address = address.try_into().unwrap();
        params.subject_alt_names = vec![SanType::Rfc822Name(address)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = CertFiles {
            cert_file: self.path(&format!("{serial}.pem")),
            key_file: self.path(&format!("{serial}.key")),
        };
        fs::write(&files.cert_file, certificate.pem()).unwrap();
        fs::write(&files.key_file, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key_file, Permissions::from_mode(0o600)).unwrap();
        files
    }

    /// Takes one back.
    fn revoke(&self, serial: u64) {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        fs::write(self.path("crl.pem"), list.pem().unwrap()).unwrap();
    }
}

fn fingerprint(files: &CertFiles) -> Fingerprint {
    let text = fs::read_to_string(&files.cert_file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('-'));
    let der = STANDARD.decode(lines.collect::<String>()).unwrap();
    Fingerprint::of(&der)
}

/// What EHLO offers to a client with this certificate, and the client.
async fn with(agent: &Agent, own: Option<&CertFiles>) -> (String, Client) {
    let trust = Trust::Files(vec![agent.folder.path().join("cert.pem")]);
    let tls = ClientTls::to_hosts(true, trust, own).unwrap();
    let mut client = Client::connect(agent.submission).await;
    client.hear().await;
    client.expect("EHLO laptop", "250-").await;
    client.expect("STARTTLS", "220").await;
    let mut client = client.start_tls(&tls).await;
    let hello = client.ask("EHLO laptop").await;
    (hello, client)
}

async fn agent(people: &Authority, known: &[(&CertFiles, &str)]) -> Agent {
    people.revoke(99);
    Agent::with(|config| {
        let clients = &mut config.client_certificates;
        clients.ca_file = Some(people.path("ca.pem"));
        clients.crl_file = Some(people.path("crl.pem"));
        clients.accounts = known
            .iter()
            .map(|(files, account)| (fingerprint(files), (*account).to_owned()))
            .collect();
        config.auth.max_failures = 100;
        config.auth.max_delay = Interval::millis(2);
    })
    .await
}

#[tokio::test]
async fn a_certificate_speaks_for_its_account() {
    let (people, others) = (Authority::new(), Authority::new());
    let alice = people.issue(1, "Alice@example.org", |_| {});
    let pinned = others.issue(2, "whoever@elsewhere.example", |_| {});
    let agent = agent(&people, &[(&pinned, "alice@example.org")]).await;
    let authzid = STANDARD.encode("alice@example.org");
    for own in [&alice, &pinned] {
        for log_in in [
            "AUTH EXTERNAL =".to_owned(),
            format!("AUTH EXTERNAL {authzid}"),
        ] {
            let (hello, mut client) = with(&agent, Some(own)).await;
            assert!(
                hello.contains("AUTH EXTERNAL PLAIN") || hello.contains(" EXTERNAL "),
                "{hello}"
            );
            client.expect(&log_in, "235 ").await;
            send(&mut client, &["bob@example.org"], "Subject: a\r\n\r\nb").await;
        }
        let (_, mut client) = with(&agent, Some(own)).await;
        client.expect("AUTH EXTERNAL", "334").await;
        client
            .expect(&STANDARD.encode("bob@example.org"), "535 5.7.8")
            .await;
        client.expect("AUTH EXTERNAL", "334").await;
        client.expect("", "235 ").await;
    }
    let mails = agent.queue.mails();
    assert_eq!(mails.len(), 4);
    assert!(
        mails
            .iter()
            .all(|mail| mail.envelope.account.as_deref() == Some("alice@example.org"))
    );
    agent.stop().await;
}

/// The handshake goes well with all of them, and so does a password.
#[tokio::test]
async fn one_that_does_not_count_is_refused_in_words() {
    let (people, others) = (Authority::new(), Authority::new());
    let good = "alice@example.org";
    let old = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2001, 2, 3);
    };
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let agent = agent(&people, &[]).await;
    for (own, words) in [
        (None, "you showed no certificate"),
        (
            Some(others.issue(3, good, |_| {})),
            "is from no authority that is trusted here",
        ),
        (Some(people.issue(4, good, old)), "has run out"),
        (
            Some(people.issue(5, good, server)),
            "is made for another use",
        ),
        (
            Some(people.issue(6, good, nameless)),
            "names nobody by a mail address",
        ),
        (
            Some(people.issue(99, good, |_| {})),
            "was taken back by its authority",
        ),
    ] {
        let (hello, mut client) = with(&agent, own.as_ref()).await;
        assert!(!hello.contains("EXTERNAL"), "{words}: {hello}");
        let reply = client.ask("AUTH EXTERNAL =").await;
        assert!(
            reply.starts_with("535 5.7.8 ") && reply.contains(words),
            "{words}: {reply}"
        );
        client.expect(&plain(good, "secret"), "235 ").await;
    }
    for (serial, address) in [
        (7, "away@example.org"),
        (8, "none@example.org"),
        (9, "team@example.org"),
    ] {
        let own = people.issue(serial, address, |_| {});
        let (_, mut client) = with(&agent, Some(&own)).await;
        client
            .expect("AUTH EXTERNAL =", "535 5.7.8 name or password is wrong")
            .await;
    }
    agent.stop().await;

    let agent = Agent::start().await;
    let (hello, mut client) = with(&agent, None).await;
    assert!(!hello.contains("EXTERNAL"), "{hello}");
    client.expect("AUTH EXTERNAL =", "504 5.5.4").await;
    agent.stop().await;
}
