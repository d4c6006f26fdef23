//! A next hop of ours with an entry of its own: verified TLS, AUTH, and what becomes of mail when these fail.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use postroad_daemon::SecretFile;
use postroad_mta::{HostConfig, PasswordNeeds};
use postroad_net::TrustedClients;

use super::*;

const EHLO: [&str; 3] = ["STARTTLS", "AUTH PLAIN LOGIN", "PIPELINING"];

/// A host with a certificate for `mx.test`, reached by a route as an address.
struct Smarthost {
    folder: tempfile::TempDir,
    host: Host,
}

impl Smarthost {
    async fn start(change: impl FnOnce(&mut Script)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut script = Script {
            ehlo: Some(EHLO.to_vec()),
            starttls: StartTls::Works(server_tls(&folder)),
            ..Script::default()
        };
        change(&mut script);
        let host = Host::start(script).await;
        Self { folder, host }
    }

    fn entry(&self) -> HostConfig {
        let secret = self.folder.path().join("password");
        std::fs::write(&secret, "hunter2\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        HostConfig {
            host: self.host.address.to_string().parse().unwrap(),
            tls: TlsPolicy::Verify,
            implicit_tls: None,
            tls_names: vec!["mx.test".to_owned()],
            ca_file: Some(self.folder.path().join("cert.pem")),
            cert_file: None,
            key_file: None,
            user: Some("us".to_owned()),
            password_file: Some(SecretFile::read(secret.to_str().unwrap()).unwrap()),
            token_file: None,
            oauth: None,
            password_needs: PasswordNeeds::default(),
            mechanisms: Vec::new(),
        }
    }

    fn lease(&self) -> Lease {
        let mut lease = lease("elsewhere.test", &["bob"]);
        lease.route.next_hop = Some(self.host.address.to_string().parse().unwrap());
        lease
    }

    async fn run(&self, entry: HostConfig) -> Done {
        run(with(vec![entry]), self.lease()).await
    }

    fn commands(&self, connection: usize) -> Vec<String> {
        self.host.heard()[connection].commands.clone()
    }
}

fn with(hosts: Vec<HostConfig>) -> Config {
    let mut config = config();
    config.outbound.hosts = hosts;
    config
}

fn verified(done: &Done) -> Option<String> {
    let report = done.settled.as_ref().unwrap().outcomes[0].1.report();
    report.remote.as_ref()?.tls.as_ref()?.verified.clone()
}

#[tokio::test]
async fn a_smarthost_is_verified_and_logged_in_to() {
    let smarthost = Smarthost::start(|_| ()).await;
    let done = smarthost.run(smarthost.entry()).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    // "\0us\0hunter2"
    let commands = smarthost.commands(0);
    assert_eq!(commands[3], "AUTH PLAIN AHVzAGh1bnRlcjI=", "{commands:?}");
    assert_eq!(smarthost.host.heard()[0].sni.as_deref(), Some("mx.test"));
    assert_eq!(verified(&done).as_deref(), Some("mx.test"));
    assert_eq!(done.events[0].fields["verified"], "mx.test");
}

#[tokio::test]
async fn rfc_8314_tls_may_come_before_the_first_word() {
    let smarthost = Smarthost::start(|script| {
        if let StartTls::Works(tls) = &script.starttls {
            script.implicit = Some(tls.clone());
        }
    })
    .await;
    let entry = HostConfig {
        implicit_tls: Some(true),
        ..smarthost.entry()
    };
    let done = smarthost.run(entry).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    let commands = smarthost.commands(0);
    assert!(commands[1].starts_with("AUTH PLAIN"), "{commands:?}");
    assert_eq!(verified(&done).as_deref(), Some("mx.test"));
}

#[tokio::test]
async fn a_smarthost_that_wants_our_certificate_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = certificate(&folder);
    let clients = TrustedClients {
        ca_file: Some(own.cert_file.clone()),
        names: vec!["mx.test".to_owned()],
        fingerprints: Vec::new(),
        ..TrustedClients::default()
    };
    let asking = ServerTls::load_asking(std::slice::from_ref(&own), &clients).unwrap();
    let smarthost = Smarthost::start(|script| script.starttls = StartTls::Works(asking)).await;
    let entry = HostConfig {
        ca_file: Some(own.cert_file.clone()),
        cert_file: Some(own.cert_file),
        key_file: Some(own.key_file),
        user: None,
        password_file: None,
        token_file: None,
        oauth: None,
        ..smarthost.entry()
    };
    let done = smarthost.run(entry).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert!(smarthost.host.heard()[0].certificate);
}

/// Whatever is wrong with a log-in, the mail waits and no word of it is said.
#[tokio::test]
async fn no_mail_bounces_for_a_log_in_that_fails() {
    for (auth, outcome, words) in [
        (
            "535 5.7.8 Error: authentication failed",
            "0 delayed 4.7.8",
            "mend `user` and `password_file`",
        ),
        ("535 no", "0 delayed 4.7.8", "said to AUTH: 535 no"),
        (
            "534 5.7.9 use an app password",
            "0 delayed 4.7.9",
            "use an app password",
        ),
        (
            "454 4.7.0 Temporary authentication failure",
            "0 delayed 4.7.0",
            "Temporary",
        ),
    ] {
        let smarthost = Smarthost::start(|script| script.auth = auth).await;
        let done = smarthost.run(smarthost.entry()).await;
        assert_eq!(done.outcomes(), [outcome], "{}", done.text());
        assert!(done.text().contains(words), "{}", done.text());
        let commands = smarthost.commands(0).join(" ");
        assert!(!commands.contains("MAIL"), "{commands}");
        assert!(!done.text().contains("hunter2"), "{}", done.text());
    }
    let mechanisms = |script: &mut Script| script.ehlo = Some(vec!["STARTTLS", "AUTH GSSAPI"]);
    let smarthost = Smarthost::start(mechanisms).await;
    let done = smarthost.run(smarthost.entry()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.4"], "{}", done.text());
    assert!(done.text().contains("it offers GSSAPI"), "{}", done.text());
}

#[tokio::test]
async fn a_log_in_that_was_refused_is_not_tried_with_each_mail() {
    let smarthost = Smarthost::start(|script| script.auth = "535 5.7.8 no").await;
    let queue = FakeQueue::default();
    let (told, mut tells) = mpsc::unbounded_channel();
    queue.with(|data| {
        data.leases.push(smarthost.lease());
        data.leases.push(smarthost.lease());
        data.told = Some(told);
    });
    let mut config = with(vec![smarthost.entry()]);
    config.outbound.concurrency = 1;
    let shutdown = CancellationToken::new();
    let (deps, common) = (deps(&queue, ZONE).await, common());
    let agent = postroad_mta::serve(config, &common, deps, shutdown.clone());
    let wait = async {
        for _ in 0..2 {
            timeout(PATIENCE, tells.recv()).await.unwrap();
        }
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(agent, wait);
    served.unwrap();
    assert_eq!(smarthost.host.heard().len(), 1);
    queue.with(|data| {
        let texts = data
            .settled
            .iter()
            .map(|settled| settled.outcomes[0].1.report());
        let texts: Vec<&str> = texts.map(|report| report.text.as_str()).collect();
        assert!(
            texts.iter().all(|text| text.contains("535 5.7.8 no")),
            "{texts:?}"
        );
        assert!(
            texts.iter().any(|text| text.contains("not tried again")),
            "{texts:?}"
        );
    });
}

#[tokio::test]
async fn a_certificate_that_does_not_count_gets_neither_password_nor_mail() {
    let smarthost = Smarthost::start(|_| ()).await;
    let foreign = tempfile::tempdir().unwrap();
    let other_name = HostConfig {
        tls_names: vec!["smtp.example.net".to_owned()],
        ..smarthost.entry()
    };
    let as_routed = HostConfig {
        tls_names: Vec::new(),
        ..smarthost.entry()
    };
    let other_authority = HostConfig {
        ca_file: Some(certificate(&foreign).cert_file),
        ..smarthost.entry()
    };
    for (entry, words) in [
        (other_name, "is for other names: mx.test"),
        // It is known as 127.0.0.1 here, whatever the certificate says.
        (as_routed, "tls_names"),
        (other_authority, "no authority that is trusted here"),
    ] {
        let done = smarthost.run(entry).await;
        assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
        assert!(done.text().contains(words), "{}", done.text());
        assert_eq!(verified(&done), None);
    }
    let all: String = smarthost
        .host
        .heard()
        .iter()
        .flat_map(|heard| heard.commands.clone())
        .collect();
    assert!(!all.contains("AUTH") && !all.contains("MAIL"), "{all}");
}

#[tokio::test]
async fn without_tls_nothing_is_said_unless_that_was_said_expressly() {
    let plain = |script: &mut Script| script.ehlo = Some(vec!["AUTH PLAIN"]);
    let smarthost = Smarthost::start(plain).await;
    let done = smarthost.run(smarthost.entry()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
    assert!(done.text().contains("implicit_tls"), "{}", done.text());
    let tls = HostConfig {
        tls: TlsPolicy::May,
        password_needs: PasswordNeeds::Tls,
        tls_names: Vec::new(),
        ca_file: None,
        ..smarthost.entry()
    };
    let done = smarthost.run(tls.clone()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.11"], "{}", done.text());
    let nothing = HostConfig {
        password_needs: PasswordNeeds::Nothing,
        ..tls
    };
    let done = smarthost.run(nothing).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
}

#[tokio::test]
async fn a_host_of_ours_that_wants_a_log_in_makes_no_mail_bounce() {
    let smarthost =
        Smarthost::start(|script| script.mail = "530 5.7.0 Authentication required").await;
    let done = run(config(), smarthost.lease()).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.0"], "{}", done.text());
    assert!(
        done.text().contains("`user` and `password_file`"),
        "{}",
        done.text()
    );
    // The world may want what it likes.
    let done = run(
        to_port(smarthost.host.address.port()),
        lease("example.test", &["bob"]),
    )
    .await;
    assert_eq!(done.outcomes(), ["0 failed 5.7.0"], "{}", done.text());
}

/// RFC 4954 §5.
#[tokio::test]
async fn who_submitted_is_told_of_our_own_accounts_alone() {
    let smarthost = Smarthost::start(|_| ()).await;
    for (account, auth, said) in [
        (
            Some("alice@ours.test"),
            Some("alice@ours.test"),
            " AUTH=alice@ours.test",
        ),
        (Some("alice@ours.test"), Some("boss@ours.test"), " AUTH=<>"),
        (None, Some("boss@ours.test"), " AUTH=<>"),
        (Some("alice@ours.test"), None, ""),
    ] {
        let mut lease = smarthost.lease();
        lease.envelope.account = account.map(str::to_owned);
        lease.envelope.auth = auth.map(str::to_owned);
        let done = run(with(vec![smarthost.entry()]), lease).await;
        assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
        let heard = smarthost.host.heard();
        let commands = &heard.last().unwrap().commands;
        let mail = commands
            .iter()
            .find(|line| line.starts_with("MAIL"))
            .unwrap();
        assert_eq!(mail, &format!("MAIL FROM:<alice@ours.test>{said}"));
    }
}

/// The domain's owner alone can have a certificate for it, or for a host below it; the DNS can say anything.
#[tokio::test]
async fn the_world_can_be_verified_by_what_the_sender_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(Script {
        ehlo: Some(vec!["STARTTLS"]),
        starttls: StartTls::Works(server_tls(&folder)),
        ..Script::default()
    })
    .await;
    let partner = |tls_names: &[&str]| HostConfig {
        host: "example.test".parse().unwrap(),
        tls: TlsPolicy::Verify,
        implicit_tls: None,
        tls_names: tls_names.iter().map(|name| (*name).to_owned()).collect(),
        ca_file: Some(Path::new(folder.path()).join("cert.pem")),
        cert_file: None,
        key_file: None,
        user: None,
        password_file: None,
        token_file: None,
        oauth: None,
        password_needs: PasswordNeeds::default(),
        mechanisms: Vec::new(),
    };
    let sent = async |entry| {
        let mut config = to_port(host.address.port());
        config.outbound.hosts = vec![entry];
        run(config, lease("example.test", &["bob"])).await
    };
    // mx.test is what the DNS says, and no name below example.test.
    let done = sent(partner(&[])).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.7.5"], "{}", done.text());
    let done = sent(partner(&["mx.test"])).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"], "{}", done.text());
    assert_eq!(verified(&done).as_deref(), Some("mx.test"));
}
