//! Certificates that do not count between agents: we know why, who shows them does not.

use rcgen::date_time_ymd;

use super::*;

/// What the server's log would say, and what the client reads.
async fn refused(server: &ServerTls, client: &ClientTls) -> (RefusedCertificate, String) {
    let (client_end, server_end) = pair().await;
    let serve = server_end.upgrade_server(server, b"", SOON);
    let call = async {
        let mut stream = client_end
            .upgrade_client(client, "localhost", b"", SOON)
            .await?;
        stream.write_u8(42).await?;
        Ok::<_, Error>(stream.read_u8().await?)
    };
    let (serve, call) = tokio::join!(serve, call);
    match (serve, call) {
        (Err(Error::Refused(refused)), Err(error)) => (refused, error.to_string()),
        other => panic!("{other:?}"),
    }
}

fn serial(files: &CertFiles) -> Serial {
    let pem = fs::read(&files.cert_file).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    Serial::of(pem.parse_x509().unwrap().raw_serial())
}

#[tokio::test]
async fn each_is_refused_for_its_own_reason_and_with_the_same_words() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let list = ours.dir.path().join("revoked");
    fs::write(&list, "").unwrap();
    let revoked = Revocations::open(&list).unwrap();
    let own = ours.issue("queued", "localhost", &["queued"]);
    let server = ServerTls::load_mutual(&own, &ours.ca_file(), &revoked, &[]).unwrap();
    let stolen = ours.issue("stolen", "stolen.example", &["mta"]);
    let cases = [
        (
            foreign.issue("foreign", "f.example", &["admin"]),
            "is not from the authority",
        ),
        (
            ours.issue_as("expired", "e.example", &["msa"], |params| {
                params.not_after = date_time_ymd(2001, 2, 3);
            }),
            "has run out",
        ),
        (
            ours.issue_as("early", "e.example", &["msa"], |params| {
                params.not_before = date_time_ymd(4000, 1, 1);
            }),
            "is not valid yet",
        ),
        (
            ours.issue("roleless", "r.example", &["future"]),
            "names no role",
        ),
        (stolen.clone(), "is revoked"),
    ];
    let agent = |files: &CertFiles| {
        ClientTls::mutual(files, &ours.ca_file(), &Revocations::none(), None, &[])
    };
    // One that was here before has no session to go on with.
    let known = agent(&stolen).unwrap();
    handshake(&server, &known, "localhost").await.unwrap();
    fs::write(&list, format!("{}  # stolen\n", serial(&stolen))).unwrap();
    assert!(revoked.reload_if_changed().unwrap());

    let (again, _) = refused(&server, &known).await;
    assert_eq!(again.reason, "is revoked");
    let mut answers = Vec::new();
    for (files, reason) in cases {
        let (refused, answer) = refused(&server, &agent(&files).unwrap()).await;
        let name = files.cert_file.file_stem().unwrap().to_string_lossy();
        assert!(refused.reason.contains(reason), "{name}: {refused:?}");
        assert!(refused.name.contains(&format!("CN={name}")), "{refused:?}");
        assert_eq!(refused.serial, Some(serial(&files)), "{name}");
        assert!(!refused.remedy.is_empty(), "{name}");
        answers.push(answer);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(!answers[0].contains("revoked"), "{answers:?}");
}

#[tokio::test]
async fn a_revoked_server_is_not_spoken_to() {
    let authority = Authority::new();
    let own = authority.issue("queued", "localhost", &["queued"]);
    let server =
        ServerTls::load_mutual(&own, &authority.ca_file(), &Revocations::none(), &[]).unwrap();
    let list = authority.dir.path().join("revoked");
    fs::write(&list, serial(&own).to_string()).unwrap();
    let revoked = Revocations::open(&list).unwrap();
    let agent = authority.issue("edge", "edge.example", &["msa"]);
    let client = ClientTls::mutual(&agent, &authority.ca_file(), &revoked, None, &[]).unwrap();
    let (client_end, server_end) = pair().await;
    let (_, called) = tokio::join!(
        server_end.upgrade_server(&server, b"", SOON),
        client_end.upgrade_client(&client, "localhost", b"", SOON)
    );
    let error = called.unwrap_err().to_string();
    assert!(error.contains("is revoked"), "{error}");
}

#[tokio::test]
async fn a_server_of_another_role_is_not_spoken_to() {
    let authority = Authority::new();
    let agent = authority.issue("edge", "edge.example", &["msa"]);
    let none = Revocations::none();
    let wanted = Some(PeerRole::Queued);
    let client = ClientTls::mutual(&agent, &authority.ca_file(), &none, wanted, &[]).unwrap();
    let mut told = Vec::new();
    for (name, roles) in [
        ("edge2", vec!["msa"]),
        ("plain", vec![]),
        ("queued", vec!["queued"]),
        ("whole", vec!["queued", "msa"]),
    ] {
        let own = authority.issue(name, "localhost", &roles);
        let server = ServerTls::load_mutual(&own, &authority.ca_file(), &none, &[]).unwrap();
        let (client_end, server_end) = pair().await;
        let (_, called) = tokio::join!(
            server_end.upgrade_server(&server, b"", SOON),
            client_end.upgrade_client(&client, "localhost", b"", SOON)
        );
        told.push(called.map_or_else(|error| error.to_string(), |_| "spoken to".to_owned()));
    }
    let lacks = "does not name the role queued, but";
    assert!(told[0].contains(&format!("{lacks} msa")), "{told:?}");
    assert!(told[1].contains(&format!("{lacks} none")), "{told:?}");
    assert_eq!(told[2..], ["spoken to", "spoken to"]);
}
