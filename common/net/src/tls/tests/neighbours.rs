//! Servers that are not ours: hosts by the names we know them by, clients by their certificates.

use rcgen::date_time_ymd;

use super::*;
use crate::{Fingerprint, KnownClient, TrustedClients};

/// Both ends after a handshake in which the client asked for `sni` and wanted one of `names`.
async fn meet(
    server: &ServerTls,
    client: &ClientTls,
    sni: &str,
    names: &[&str],
) -> Result<(Stream, Stream), Error> {
    let (client_end, server_end) = pair().await;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let (server_end, client_end) = tokio::join!(
        server_end.upgrade_server(server, b"", SOON),
        client_end.upgrade_to_host(client, sni, &names, b"", SOON)
    );
    let client_end = client_end?;
    Ok((client_end, server_end?))
}

async fn refused(authority: &Authority, files: &CertFiles, names: &[&str]) -> String {
    let server = ServerTls::load(std::slice::from_ref(files)).unwrap();
    let client = ClientTls::to_hosts(true, authority.trust(), None).unwrap();
    match meet(&server, &client, names[0], names).await {
        Err(Error::Refused(refused)) => format!("{refused}; {}", refused.remedy),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_is_verified_for_any_of_the_names_it_is_known_by() {
    let authority = Authority::new();
    let files = authority.issue("host", "smtp.example.net", &[]);
    let server = ServerTls::load(&[files]).unwrap();
    let client = ClientTls::to_hosts(true, authority.trust(), None).unwrap();
    for names in [
        &["smtp.example.net"][..],
        &["example.net", "SMTP.example.net."],
    ] {
        let (ours, theirs) = meet(&server, &client, "mx7.example.org", names)
            .await
            .unwrap();
        let info = ours.tls_info().unwrap();
        assert!(info.is_peer_verified());
        let verified = info.verified.as_deref().unwrap_or_default();
        assert!(
            verified.eq_ignore_ascii_case("smtp.example.net"),
            "{verified}"
        );
        let asked_for = theirs.tls_info().unwrap().sni.as_deref();
        assert_eq!(asked_for, Some("mx7.example.org"));
    }
}

#[tokio::test]
async fn each_fault_of_a_host_has_words_and_a_remedy() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let name = "smtp.example.net";
    let misnamed = ours.issue("other", "mail.example.net", &[]);
    let told = refused(&ours, &misnamed, &[name]).await;
    assert!(
        told.contains("is for other names: mail.example.net; ") && told.contains("tls_names"),
        "{told}"
    );
    let old = ours.issue_as("old", name, &[], |params| {
        params.not_after = date_time_ymd(2001, 2, 3);
    });
    let told = refused(&ours, &old, &[name]).await;
    assert!(
        told.contains("has run out; whoever runs the host"),
        "{told}"
    );
    let early = ours.issue_as("early", name, &[], |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
    });
    let told = refused(&ours, &early, &[name]).await;
    assert!(
        told.contains("is not valid yet; compare the clocks"),
        "{told}"
    );
    let strange = foreign.issue("strange", name, &[]);
    let told = refused(&ours, &strange, &[name]).await;
    assert!(
        told.contains("is from no authority that is trusted here") && told.contains("ca_file"),
        "{told}"
    );
}

#[tokio::test]
async fn a_session_that_was_verified_for_one_name_is_not_taken_up_for_another() {
    let authority = Authority::new();
    let files = authority.issue("host", "a.example", &[]);
    let server = ServerTls::load(&[files]).unwrap();
    let client = ClientTls::to_hosts(true, authority.trust(), None).unwrap();
    let (mut ours, mut theirs) = meet(&server, &client, "mx.example", &["a.example"])
        .await
        .unwrap();
    // The ticket comes with the first octet.
    theirs.write_u8(1).await.unwrap();
    ours.read_u8().await.unwrap();
    let other = meet(&server, &client, "mx.example", &["b.example"]).await;
    assert!(matches!(other, Err(Error::Refused(_))), "{other:?}");
}

fn fingerprint(files: &CertFiles) -> Fingerprint {
    let pem = fs::read(&files.cert_file).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    Fingerprint::of(&pem.contents)
}

/// What the listener makes of a client that shows `own`.
async fn client_is(server: &ServerTls, own: Option<&CertFiles>) -> Result<String, PeerCertificate> {
    let client = ClientTls::to_hosts(false, Trust::Files(Vec::new()), own).unwrap();
    let (mut ours, mut theirs) = meet(server, &client, "mx.example", &[]).await.unwrap();
    ours.write_u8(1).await.unwrap();
    theirs.read_u8().await.unwrap();
    let info = theirs.tls_info().unwrap().clone();
    info.verified.ok_or(info.peer)
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_and_told_apart_otherwise() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let own = ours.issue("server", "mx.example", &[]);
    let name = "submission.example.net";
    let known_by_itself = foreign.issue("pinned", "whatever.example", &[]);
    let clients = TrustedClients {
        ca_file: Some(ours.ca_file()),
        names: vec![
            "other.example".to_owned(),
            "Submission.example.net".to_owned(),
        ],
        fingerprints: vec![fingerprint(&known_by_itself)],
        ..TrustedClients::default()
    };
    let server = ServerTls::load_asking(&[own], &clients).unwrap();

    let good = ours.issue("good", name, &[]);
    assert_eq!(client_is(&server, Some(&good)).await.as_deref(), Ok(name));
    // Each time anew.
    assert_eq!(client_is(&server, Some(&good)).await.as_deref(), Ok(name));
    let pinned = client_is(&server, Some(&known_by_itself)).await.unwrap();
    assert_eq!(pinned, fingerprint(&known_by_itself).to_string());

    assert_eq!(client_is(&server, None).await, Err(PeerCertificate::Absent));
    let old = ours.issue_as("old", name, &[], |params| {
        params.not_after = date_time_ymd(2001, 2, 3);
    });
    for (files, reason) in [
        (
            foreign.issue("strange", name, &[]),
            "is from no authority that is trusted here",
        ),
        (old, "has run out"),
        (
            ours.issue("misnamed", "www.example.net", &[]),
            "is for other names: www.example.net",
        ),
    ] {
        let reason = reason.to_owned();
        let found = client_is(&server, Some(&files)).await;
        assert_eq!(found, Err(PeerCertificate::Unverified(reason)));
    }
}

#[tokio::test]
async fn a_changed_authority_of_clients_is_taken_up() {
    let (old, new) = (Authority::new(), Authority::new());
    let own = old.issue("server", "mx.example", &[]);
    let name = "submission.example.net";
    let clients = TrustedClients {
        ca_file: Some(old.ca_file()),
        names: vec![name.to_owned()],
        fingerprints: Vec::new(),
        ..TrustedClients::default()
    };
    let server = ServerTls::load_asking(&[own], &clients).unwrap();
    let renewed = new.issue("client", name, &[]);
    assert!(client_is(&server, Some(&renewed)).await.is_err());
    fs::copy(new.ca_file(), old.ca_file()).unwrap();
    assert!(server.reload_if_changed().unwrap());
    assert_eq!(
        client_is(&server, Some(&renewed)).await.as_deref(),
        Ok(name)
    );
}

#[test]
fn a_known_client_is_a_name_or_a_fingerprint() {
    let digits = "ab".repeat(32);
    let pinned: KnownClient = vec!["AB"; 32].join(":").parse().unwrap();
    assert!(pinned.is(&format!("sha256:{digits}")));
    let named: KnownClient = "Submission.example.net".parse().unwrap();
    assert!(named.is("submission.example.NET") && !named.is("example.net"));
    assert_eq!(named.to_string(), "submission.example.net");
    for text in ["", "a b", "192.0.2.1", "*.example.net"] {
        assert!(text.parse::<KnownClient>().is_err(), "{text}");
    }
}

#[test]
fn fingerprints_are_read_as_openssl_tells_them() {
    let digits = "ab".repeat(32);
    let pairs = vec!["AB"; 32].join(":");
    for text in [
        &digits,
        &pairs,
        &format!("sha256:{digits}"),
        &format!("SHA256:{pairs}"),
    ] {
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.to_string(), format!("sha256:{digits}"));
    }
    for text in ["", "ab", "sha1:abab", &"zz".repeat(32), &"ab".repeat(33)] {
        assert!(text.parse::<Fingerprint>().is_err(), "{text}");
    }
}
