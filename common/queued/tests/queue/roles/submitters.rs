//! Agents and programs that bring mail.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_msa_submits_for_accounts_and_leases_nothing() {
    let served = Served::to(PeerRole::Msa).await;
    let far = || mail("alice@local.test", &["x@far.test"]);
    assert!(served.submit(&by_account(far())).await.is_ok());
    assert!(refused(&served.submit(&far()).await));
    // A host may be named, a socket of the MTA's host may not.
    for (hop, is_refused) in [("store.test:24", false), ("unix:/run/docker.sock", true)] {
        let mut steered = by_account(far());
        let hop = Some(hop.parse().unwrap());
        steered.recipients[0].route_override = Some((RouteClass::Lmtp, hop));
        assert_eq!(refused(&served.submit(&steered).await), is_refused);
    }
    assert!(!served.works(&[RouteClass::Local]).await);
    let all = change(&served.admin, Change::Retry, Filter::all()).await;
    assert!(matches!(all, Err(QueueError::NotAllowed(_))), "{all:?}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_submits_what_its_accounts_may_send_and_does_nothing_else() {
    let mut config = config();
    config.listen.unix_roles = vec![UnixRole {
        uid: Some(rustix::process::geteuid().as_raw()),
        gid: None,
        roles: Roles::from(vec![PeerRole::Msa]),
        accounts: OnlyAccounts::from(vec!["alice@local.test".to_owned()]),
    }];
    let served = Served::with(PeerRole::Msa, config).await;
    let from = |sender: &str| by_account(mail(sender, &["x@far.test"]));
    assert!(served.submit(&from("alice@local.test")).await.is_ok());
    assert!(
        refused(&served.submit(&from("bob@local.test")).await),
        "not its sender"
    );
    let mut other = from("bob@local.test");
    other.account = Some("bob@local.test".to_owned());
    assert!(refused(&served.submit(&other).await), "not its account");
    let mut tenant = from("alice@local.test");
    tenant.tenant = "acme".to_owned();
    assert!(refused(&served.submit(&tenant).await), "not its tenant");
    let mut routed = from("alice@local.test");
    routed.recipients[0].route_override = Some((RouteClass::Discard, None));
    assert!(refused(&served.submit(&routed).await), "not its choice");
    let asked = |account: &str| AdmitRequest {
        tenant: "default".to_owned(),
        account: Some(account.to_owned()),
        size: None,
        recipients: Vec::new(),
    };
    assert!(served.remote.admit(asked("alice@local.test")).await.is_ok());
    let other = served.remote.admit(asked("bob@local.test")).await;
    assert!(matches!(other, Err(QueueError::NotAllowed(_))), "{other:?}");
    let told = served.remote.record(Vec::new()).await;
    assert!(matches!(told, Err(QueueError::NotAllowed(_))), "{told:?}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mta_brings_mail_for_us_and_for_whom_our_aliases_name() {
    let served = Served::to(PeerRole::Mta).await;
    let ours = mail("x@far.test", &["bob@local.test"]);
    assert!(served.submit(&ours).await.is_ok());
    assert!(refused(
        &served
            .submit(&by_account(mail("", &["bob@local.test"])))
            .await
    ));
    let mut far = mail("x@far.test", &["carol@far.test"]);
    assert!(refused(&served.submit(&far).await), "no open relay");
    far.recipients[0].original = Some("bob@local.test".parse().unwrap());
    assert!(
        refused(&served.submit(&far).await),
        "bob does not stand for carol"
    );
    far.recipients[0].original = Some("team@local.test".parse().unwrap());
    assert!(served.submit(&far).await.is_ok());
    // RFC 8460: a report of its own, and nothing that only looks like one.
    let report = || mail("", &["tls@far.test"]);
    assert!(served.submit(&report()).await.is_ok());
    let mut received = report();
    received.origin.client = Some("192.0.2.9:2525".parse().unwrap());
    assert!(refused(&served.submit(&received).await), "no open relay");
    let two = mail("", &["tls@far.test", "x@far.test"]);
    assert!(refused(&served.submit(&two).await));
    assert!(served.works(&[RouteClass::Relay, RouteClass::Lmtp]).await);
    assert!(!served.works(&[RouteClass::Relay, RouteClass::Local]).await);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mta_brings_mail_for_anyone_from_relay_networks() {
    let mut config = config();
    config.relay_networks = Networks::parse(["192.0.2.0/24"]).unwrap();
    let served = Served::with(PeerRole::Mta, config).await;
    let from = |client: Option<&str>| {
        let mut envelope = mail("x@far.test", &["carol@far.test"]);
        envelope.origin.client = client.map(|client| client.parse().unwrap());
        envelope
    };
    assert!(served.submit(&from(Some("192.0.2.9:2525"))).await.is_ok());
    assert!(
        served
            .submit(&from(Some("[::ffff:192.0.2.9]:2525")))
            .await
            .is_ok()
    );
    assert!(refused(&served.submit(&from(Some("192.0.3.9:2525"))).await));
    assert!(refused(&served.submit(&from(None)).await));
    // A client that a neighbour told of is hearsay: the neighbour counts.
    let through = |client: &str, peer: &str| {
        let mut envelope = from(Some(client));
        envelope.origin.peer = Some(peer.parse().unwrap());
        envelope
    };
    let inside = through("192.0.3.9:2525", "192.0.2.9:2525");
    assert!(served.submit(&inside).await.is_ok());
    let outside = through("192.0.2.9:2525", "192.0.3.9:2525");
    assert!(refused(&served.submit(&outside).await));
    let claims = by_account(from(Some("192.0.2.9:2525")));
    assert!(refused(&served.submit(&claims).await));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mta_brings_mail_for_anyone_of_a_client_known_by_its_certificate() {
    let mut config = config();
    config.relay_certificates = vec!["submission.example.net".parse().unwrap()];
    let served = Served::with(PeerRole::Mta, config).await;
    let by = |verified: Option<&str>| {
        let mut envelope = mail("x@far.test", &["carol@far.test"]);
        envelope.origin.tls = Some(TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            verified: verified.map(str::to_owned),
        });
        envelope
    };
    assert!(
        served
            .submit(&by(Some("Submission.example.net")))
            .await
            .is_ok()
    );
    assert!(refused(
        &served.submit(&by(Some("other.example.net"))).await
    ));
    assert!(refused(&served.submit(&by(None)).await));
    let claims = by_account(by(Some("submission.example.net")));
    assert!(refused(&served.submit(&claims).await));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_may_say_of_the_client_follows_from_its_role() {
    let (logged_in, not) = (esmtp(true), esmtp(false));
    // Account of the mail, account and protocol of its origin, and whether it is taken.
    let alice = Some("alice@local.test");
    let of_msa = [
        (alice, alice, logged_in, true),
        (alice, None, logged_in, true),
        (alice, Some("bob@local.test"), logged_in, false),
        (None, alice, logged_in, false),
    ];
    let of_mta = [
        (None, None, not, true),
        (None, None, Protocol::Smtp, true),
        (None, None, logged_in, false),
        (None, alice, not, false),
        (alice, None, not, false),
    ];
    // It hands on what came by a log-in.
    let of_mda = [
        (None, None, logged_in, true),
        (None, None, Protocol::Internal, true),
        (None, alice, logged_in, false),
        (alice, None, logged_in, false),
    ];
    for (role, cases) in [
        (PeerRole::Msa, &of_msa[..]),
        (PeerRole::Mta, &of_mta),
        (PeerRole::Mda, &of_mda),
    ] {
        let served = Served::to(role).await;
        for &(account, origin, protocol, taken) in cases {
            let mut envelope = mail("x@far.test", &["bob@local.test"]);
            envelope.account = account.map(str::to_owned);
            envelope.origin.account = origin.map(str::to_owned);
            envelope.origin.protocol = protocol;
            let answer = served.submit(&envelope).await;
            let case = format!("{role}: {account:?} {origin:?} {protocol}");
            assert_eq!(answer.is_ok(), taken, "{case}: {answer:?}");
            assert!(taken || refused(&answer), "{case}: {answer:?}");
        }
        served.end().await;
    }
}

fn esmtp(auth: bool) -> Protocol {
    Protocol::Esmtp {
        tls: true,
        auth,
        utf8: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mda_submits_reports_and_redirected_mail_and_leases_what_stays() {
    let served = Served::to(PeerRole::Mda).await;
    assert!(served.submit(&mail("", &["x@far.test"])).await.is_ok());
    let mut redirected = mail("x@far.test", &["y@far.test"]);
    assert!(refused(&served.submit(&redirected).await));
    redirected.recipients[0].original = Some("bob@local.test".parse().unwrap());
    assert!(served.submit(&redirected).await.is_ok());
    assert!(served.works(&[RouteClass::Local]).await);
    assert!(!served.works(&[RouteClass::Relay]).await);
    served.end().await;
}
