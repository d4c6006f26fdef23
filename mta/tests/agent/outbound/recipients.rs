//! An outcome for each recipient.

use super::*;

#[tokio::test]
async fn a_mail_is_relayed_and_everybody_is_told() {
    let (done, host) = sent(Script::default(), &["bob"]).await;
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0"]);
    let port = host.address.port();
    let said = format!("mx.test [127.0.0.1]:{port} took the mail: 250 2.0.0 queued as 42");
    assert_eq!(done.text(), said);
    assert_eq!(done.settled.as_ref().unwrap().sites[0].site, "mx.test");
    let heard = &host.heard()[0];
    let size = CONTENT.len();
    let mail = format!("MAIL FROM:<alice@ours.test> SIZE={size}");
    let commands = [
        "EHLO mta.ours.test",
        &mail,
        "RCPT TO:<bob@example.test>",
        "DATA",
    ];
    assert_eq!(heard.commands[..4], commands);
    assert_eq!(heard.content, b"Subject: hi\r\n\r\nhello\r\n..dot\r\n");
    let event = &done.events[0];
    assert_eq!(event.recipients, [RecipientIndex(0)]);
    assert_eq!(event.fields["relay"], format!("mx.test[127.0.0.1]:{port}"));
    assert_eq!(
        (event.fields["code"].as_str(), event.text.as_str()),
        ("250", said.as_str())
    );
}

#[tokio::test]
async fn each_recipient_has_an_outcome_of_its_own() {
    let script = Script {
        rcpt: vec![
            ("later", "450 4.2.1 busy"),
            ("never", "550 5.1.1 no such user"),
            ("old", "550 no"),
        ],
        ..Script::default()
    };
    let (done, host) = sent(script, &["bob", "later", "never", "old", "eve"]).await;
    let expected = [
        "0 relayed 2.0.0",
        "1 delayed 4.2.1",
        "2 failed 5.1.1",
        "3 failed 5.0.0",
        "4 relayed 2.0.0",
    ];
    assert_eq!(done.outcomes(), expected);
    let report = done.settled.as_ref().unwrap().outcomes[2].1.report();
    assert_eq!(
        report.reply.as_ref().unwrap().to_string(),
        "550 5.1.1 no such user"
    );
    assert!(
        report.text.contains("said to RCPT TO: 550 5.1.1"),
        "{}",
        report.text
    );
    assert_eq!(host.heard().len(), 1);
    // One event for each different outcome.
    let told: Vec<usize> = done
        .events
        .iter()
        .map(|event| event.recipients.len())
        .collect();
    assert_eq!(told, [2, 1, 1, 1]);
}

#[tokio::test]
async fn a_refusal_of_mail_or_content_is_everybodys() {
    let ok = Script::default;
    for (script, expected) in [
        (
            Script {
                mail: "550 5.7.1 not you",
                ..ok()
            },
            "failed 5.7.1",
        ),
        (
            Script {
                data: "451 4.3.0 not now",
                ..ok()
            },
            "delayed 4.3.0",
        ),
        (
            Script {
                data: "554 5.0.0 never",
                ..ok()
            },
            "failed 5.0.0",
        ),
        (
            Script {
                end: "452 4.3.1 full",
                ..ok()
            },
            "delayed 4.3.1",
        ),
        (
            Script {
                end: "554 5.6.0 spam",
                ..ok()
            },
            "failed 5.6.0",
        ),
        (
            Script {
                end: "421 4.3.2 stopping",
                ..ok()
            },
            "delayed 4.3.2",
        ),
        (
            Script {
                mail: "451 4.7.1 greylisted",
                ..ok()
            },
            "delayed 4.7.1",
        ),
    ] {
        let (done, _host) = sent(script, &["bob", "eve"]).await;
        assert_eq!(
            done.outcomes(),
            [format!("0 {expected}"), format!("1 {expected}")]
        );
    }
}

fn lmtp_to(host: &Host, local_parts: &[&str]) -> Lease {
    let mut lease = lease("example.test", local_parts);
    lease.route.class = RouteClass::Lmtp;
    lease.route.next_hop = Some(host.address.to_string().parse().unwrap());
    lease
}

#[tokio::test]
async fn rfc_2033_lmtp_answers_for_each_recipient() {
    let host = Host::start(Script {
        // The same name as ours is no loop here.
        greeting: "220 mta.ours.test LMTP",
        lmtp: true,
        rcpt: vec![("never", "550 5.1.1 unknown")],
        rcpt_end: vec![("full", "452 4.2.2 over quota"), ("spam", "554 5.7.1 no")],
        ..Script::default()
    })
    .await;
    let mail = lmtp_to(&host, &["bob", "never", "full", "spam"]);
    let done = run(config(), mail).await;
    let expected = [
        "0 relayed 2.0.0",
        "1 failed 5.1.1",
        "2 delayed 4.2.2",
        "3 failed 5.7.1",
    ];
    assert_eq!(done.outcomes(), expected);
    assert_eq!(host.heard()[0].commands[0], "LHLO mta.ours.test");
    let mut mail = lmtp_to(&host, &["bob"]);
    mail.route.next_hop = None;
    assert_eq!(run(config(), mail).await.outcomes(), ["0 delayed 4.3.5"]);
}

/// A socket of this host; there is no encryption, and the loop guard does not mind whose name the server has.
#[tokio::test]
async fn rfc_2033_lmtp_by_a_unix_socket() {
    let host = Host::start(Script {
        greeting: "220 mta.ours.test LMTP",
        ehlo: Some(vec!["PIPELINING", "STARTTLS"]),
        lmtp: true,
        rcpt: vec![("never", "550 5.1.1 unknown")],
        ..Script::default()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lmtp");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut mail = lmtp_to(&host, &["bob", "never"]);
    let hop = format!("unix:{}", path.display());
    mail.route.next_hop = Some(hop.parse().unwrap());
    let passed_on = async {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(host.address).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    };
    let (done, _) = tokio::join!(run(config(), mail.clone()), passed_on);
    assert_eq!(done.outcomes(), ["0 relayed 2.0.0", "1 failed 5.1.1"]);
    let text = done.text();
    assert!(
        text.starts_with(&format!("{hop} took the mail: 250")),
        "{text}"
    );
    assert_eq!(done.events[0].fields["relay"], hop);
    let settled = done.settled.unwrap();
    assert_eq!(settled.sites[0].site, hop);

    drop(listener);
    let done = run(config(), mail.clone()).await;
    assert!(done.text().contains("does not run"), "{}", done.text());
    assert_eq!(done.outcomes(), ["0 delayed 4.4.1", "1 delayed 4.4.1"]);
    // By SMTP nobody is sent there.
    mail.route.class = RouteClass::Relay;
    let done = run(config(), mail).await;
    assert_eq!(done.outcomes(), ["0 delayed 4.3.5", "1 delayed 4.3.5"]);
}

#[tokio::test]
async fn two_hundred_recipients_go_in_one_transaction() {
    let names: Vec<String> = (0..200).map(|number| format!("user{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for extensions in [vec!["PIPELINING"], vec![]] {
        let script = Script {
            ehlo: Some(extensions),
            ..Script::default()
        };
        let (done, host) = sent(script, &names).await;
        assert_eq!(done.settled.unwrap().outcomes.len(), 200);
        assert_eq!(done.events.len(), 1);
        let heard = host.heard();
        let rcpts = heard[0]
            .commands
            .iter()
            .filter(|line| line.starts_with("RCPT"));
        assert_eq!((heard.len(), rcpts.count()), (1, 200));
    }
}

#[tokio::test]
async fn rfc_3461_what_the_sender_asked_for_is_passed_on_and_nothing_else() {
    let script = Script {
        ehlo: Some(vec!["DSN", "PIPELINING"]),
        ..Script::default()
    };
    let host = Host::start(script).await;
    let mut mail = lease("example.test", &["bob", "eve", "dan"]);
    mail.envelope.envid = Some("a b".to_owned());
    mail.envelope.ret = Some(Ret::Headers);
    mail.envelope.recipients[1].notify = Notify::Never;
    // That is what is done where nothing is said, too.
    mail.envelope.recipients[2].notify = Notify::On {
        success: false,
        failure: true,
        delay: true,
    };
    run(to_port(host.address.port()), mail).await;
    let expected = [
        "MAIL FROM:<alice@ours.test> RET=HDRS ENVID=a+20b",
        "RCPT TO:<bob@example.test>",
        "RCPT TO:<eve@example.test> NOTIFY=NEVER",
        "RCPT TO:<dan@example.test> NOTIFY=FAILURE,DELAY",
    ];
    assert_eq!(host.heard()[0].commands[1..5], expected);
}

#[tokio::test]
async fn listed_senders_have_an_address_and_a_transaction_for_each_recipient() {
    let long = "u".repeat(60);
    let script = Script {
        rcpt: vec![("never", "550 5.1.1 no such user")],
        ..Script::default()
    };
    let host = Host::start(script).await;
    let to = ["bob", "never", &long, "eve+x"];
    for (listed, expected) in [
        (
            "ours.test",
            vec![
                "alice+bob=example.test",
                "alice+never=example.test",
                "alice",
                "alice+eve+x=example.test",
            ],
        ),
        ("alice@other.test", vec!["alice"]),
    ] {
        let mut config = to_port(host.address.port());
        let sender = postroad_mta::SenderText(listed.parse().unwrap());
        config.outbound.verp_senders = vec![sender];
        let done = run(config, lease("example.test", &to)).await;
        let outcomes = [
            "0 relayed 2.0.0",
            "1 failed 5.1.1",
            "2 relayed 2.0.0",
            "3 relayed 2.0.0",
        ];
        assert_eq!(done.outcomes(), outcomes, "{}", done.text());
        let heard = host.heard();
        let commands = &heard.last().unwrap().commands;
        let told = commands.iter().filter_map(|line| {
            let rest = line.strip_prefix("MAIL FROM:<")?;
            rest.split_once("@ours.test>").map(|(local, _)| local)
        });
        assert_eq!(told.collect::<Vec<_>>(), expected, "{commands:?}");
        let asked = commands.iter().filter(|line| line.starts_with("RCPT"));
        assert_eq!(asked.count(), to.len());
    }
}
