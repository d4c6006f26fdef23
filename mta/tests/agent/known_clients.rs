//! A listener for clients alone that prove by a certificate who they are.

use postroad_mta::Config;
use postroad_net::{CertFiles, ClientTls, Fingerprint, Networks, Stream, Trust};
use tokio::io::BufReader;
use tokio::net::TcpStream;

use crate::inbound::{Client, PATIENCE, Server};
use crate::setup::certificate;

/// A server whose clients have its own certificate, for `mx.test`, or are known by a fingerprint.
async fn server(folder: &tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Server {
    let files = certificate(folder);
    Server::start(|config| {
        config.inbound.certificates = vec![files.clone()];
        let listener = config.inbound.listeners.get_mut("smtp").unwrap();
        listener.client_ca_file = Some(files.cert_file);
        listener.client_names = vec!["MX.test".to_owned()];
        change(config);
    })
    .await
}

/// A client under TLS that has shown `own`.
async fn encrypted(server: &Server, own: Option<&CertFiles>, implicit: bool) -> Client<Stream> {
    let tls = ClientTls::to_hosts(false, Trust::Files(Vec::new()), own).unwrap();
    let stream = if implicit {
        TcpStream::connect(server.address).await.unwrap()
    } else {
        let mut client = Client::connect(server.address).await;
        client.expect("220 *").await;
        client.ask("EHLO client.test", "250-*").await;
        client
            .ask("MAIL FROM:<eve@elsewhere.test>", "530 5.7.0 *")
            .await;
        client.ask("STARTTLS", "220 2.0.0 *").await;
        client.stream.into_inner()
    };
    let stream = Stream::from(stream);
    let stream = stream.upgrade_client(&tls, "mx.test", &[], PATIENCE).await;
    let mut client = Client {
        stream: BufReader::new(stream.unwrap()),
    };
    if implicit {
        client.expect("220 *").await;
    }
    client.ask("EHLO client.test", "250-*").await;
    client
}

#[tokio::test]
async fn who_shows_the_right_certificate_may_send_to_anyone() {
    for implicit in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let server = server(&folder, |config| {
            config
                .inbound
                .listeners
                .get_mut("smtp")
                .unwrap()
                .implicit_tls = implicit;
        })
        .await;
        let own = CertFiles {
            cert_file: folder.path().join("cert.pem"),
            key_file: folder.path().join("key.pem"),
        };
        let mut client = encrypted(&server, Some(&own), implicit).await;
        client.ask("MAIL FROM:<alice@ours.test>", "250 *").await;
        client.ask("RCPT TO:<carol@elsewhere.test>", "250 *").await;
        client.ask("DATA", "354 *").await;
        client.ask("x\r\n.", "250 *").await;
        let origin = server.queue.with(|data| data.mails[0].0.origin.clone());
        // RFC 3848: a certificate is no AUTH.
        assert_eq!(origin.protocol.to_string(), "ESMTPS");
        assert_eq!(origin.tls.unwrap().verified.as_deref(), Some("mx.test"));
        drop(client);
        server.stop().await;
    }
}

#[tokio::test]
async fn who_shows_none_or_another_can_send_nothing() {
    let (folder, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = server(&folder, |config| {
        config.inbound.relay_networks = Networks::parse(["127.0.0.0/8"]).unwrap();
    })
    .await;
    let mut nobody = encrypted(&server, None, false).await;
    nobody
        .ask("MAIL FROM:<alice@ours.test>", "530 5.7.0 *showed none")
        .await;
    let other = certificate(&foreign);
    let mut stranger = encrypted(&server, Some(&other), false).await;
    stranger
        .ask(
            "MAIL FROM:<alice@ours.test>",
            "454 4.7.5 *no authority that is trusted here",
        )
        .await;
    drop((nobody, stranger));
    assert_eq!(server.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_certificate_may_be_known_by_itself() {
    let (folder, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let own = certificate(&foreign);
    let pem = std::fs::read_to_string(&own.cert_file).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let fingerprint = Fingerprint::of(&pem.contents);
    let server = server(&folder, |config| {
        let listener = config.inbound.listeners.get_mut("smtp").unwrap();
        (listener.client_ca_file, listener.client_names) = (None, Vec::new());
        listener.client_fingerprints = vec![fingerprint.clone()];
    })
    .await;
    let mut client = encrypted(&server, Some(&own), false).await;
    client.ask("MAIL FROM:<alice@ours.test>", "250 *").await;
    client.ask("RCPT TO:<carol@elsewhere.test>", "250 *").await;
    client.ask("DATA", "354 *").await;
    client.ask("x\r\n.", "250 *").await;
    let origin = server.queue.with(|data| data.mails[0].0.origin.clone());
    assert_eq!(origin.tls.unwrap().verified, Some(fingerprint.to_string()));
    drop(client);
    server.stop().await;
}
