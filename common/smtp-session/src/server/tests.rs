use postroad_address::Domain;
use proptest::prelude::*;

use super::*;

fn session(flavour: Flavour) -> ServerSession {
    let mut config = ServerConfig::new(Domain::parse("mx.example").unwrap(), flavour);
    (config.require_tls, config.require_auth) = (false, false);
    (config.offers.xforward, config.offers.xclient) = (true, true);
    config.limits.size = 200;
    ServerSession::new(Arc::new(config), false)
}

/// Feeds `input`, accepting everything; gives what the server said.
fn accept_all(session: &mut ServerSession, input: &[u8]) -> String {
    let mut input = BytesMut::from(input);
    while let Some(event) = session.receive(&mut input) {
        if !matches!(event, Event::Content(_)) {
            session.answer(PolicyReply::Accept);
        }
    }
    String::from_utf8(session.take_output().to_vec()).unwrap()
}

#[test]
fn two_hundred_recipients_and_not_one_over_the_limit() {
    let mut session = session(Flavour::Smtp);
    accept_all(
        &mut session,
        b"HELO c.example\r\nMAIL FROM:<a@c.example>\r\n",
    );
    let rcpt = |index: u32| format!("RCPT TO:<u{index}@mx.example>\r\n");
    let group: String = (0..1000).map(rcpt).collect();
    assert_eq!(
        accept_all(&mut session, group.as_bytes())
            .matches("250 2.1.5")
            .count(),
        1000
    );
    assert!(accept_all(&mut session, rcpt(1000).as_bytes()).starts_with("452 4.5.3 "));
    assert_eq!(session.transaction().unwrap().recipients.len(), 1000);
}

#[test]
fn as_many_mails_as_are_offered_and_not_one_more() {
    let mut session = session(Flavour::Smtp);
    Arc::make_mut(&mut session.config).limits.mails = 3;
    let said = accept_all(&mut session, b"EHLO c.example\r\n");
    assert!(said.contains("LIMITS MAILMAX=3 RCPTMAX=1000\r\n"), "{said}");
    // RFC 9422 §4.1: one that is refused counts as well.
    let mails = "MAIL FROM:<a@c.example>\r\nMAIL FROM:<b@c.example>\r\nRSET\r\nMAIL FROM:<a@c.example>\r\nRSET\r\n";
    assert!(!accept_all(&mut session, mails.as_bytes()).contains("421"));
    let said = accept_all(&mut session, b"MAIL FROM:<a@c.example>\r\nQUIT\r\n");
    let told = "421 4.7.0 too many mails on one connection, please connect again\r\n";
    assert_eq!(said, told);
    assert!(session.is_closed());
}

#[test]
fn what_is_not_limited_is_not_named() {
    let mut session = session(Flavour::Lmtp);
    let config = Arc::make_mut(&mut session.config);
    (config.limits.mails, config.offers.xclient) = (u32::MAX, false);
    let said = accept_all(&mut session, b"LHLO c.example\r\n");
    assert!(said.contains("LIMITS RCPTMAX=1000\r\n"), "{said}");
}

/// Exim's `lmtp` transport takes a longer reply for a broken one, and defers.
#[test]
fn lhlo_is_answered_in_as_much_as_exim_reads() {
    for (name, limited) in [
        ("mx.example", true),
        ("mail-store-07.frankfurt.customers.example.com", false),
    ] {
        let mut config = ServerConfig::new(Domain::parse(name).unwrap(), Flavour::Lmtp);
        config.offers.xforward = true;
        config.limits.mails = u32::MAX;
        let mut session = ServerSession::new(Arc::new(config), false);
        let said = accept_all(&mut session, b"LHLO c.example\r\n");
        let (_greeting, said) = said.split_once("\r\n").unwrap();
        assert!(said.len() <= 246, "{} octets: {said}", said.len());
        assert_eq!(said.contains("LIMITS"), limited, "{said}");
        assert!(said.contains("XFORWARD NAME ADDR"), "{said}");
    }
}

#[test]
fn every_line_is_a_command_that_counts() {
    let mut session = session(Flavour::Smtp);
    Arc::make_mut(&mut session.config).limits.commands = 4;
    let lines = b"EHLO c.example\r\nNOOP\r\nNONSENSE\r\n\xff\r\nNOOP\r\nNOOP\r\n";
    let said = accept_all(&mut session, lines);
    let told = "421 4.7.0 too many commands on one connection, please connect again\r\n";
    assert!(said.ends_with(told) && session.is_closed(), "{said}");
    assert_eq!(said.matches("\r\n500 ").count(), 2, "{said}");
}

#[test]
fn starttls_under_tls_is_one_reply_however_tls_began() {
    for starttls in [true, false] {
        let mut config = ServerConfig::new(Domain::parse("mx.example").unwrap(), Flavour::Smtp);
        config.offers.starttls = starttls;
        let mut session = ServerSession::new(Arc::new(config), true);
        let said = accept_all(&mut session, b"EHLO c.example\r\nSTARTTLS\r\n");
        assert!(said.ends_with("503 5.5.1 TLS already active\r\n"), "{said}");
    }
}

/// RFC 2852 §3 and §4, RFC 4865 §5.2.2.
#[test]
fn a_time_to_deliver_by_is_taken_if_it_can_be_kept() {
    let mut session = session(Flavour::Submission);
    let config = Arc::make_mut(&mut session.config);
    config.offers.future_release = Some(std::time::Duration::from_secs(3600));
    config.offers.deliver_by = Some(30);
    session.set_now("2030-01-01T00:00:00Z".parse().unwrap());
    let said = accept_all(&mut session, b"EHLO c.example\r\n");
    assert!(said.contains("DELIVERBY 30\r\n"), "{said}");
    for (by, code) in [
        ("BY=30;R", "250 2.1.0 "),
        ("BY=29;R", "555 5.5.4 "),
        ("BY=29;N", "250 2.1.0 "),
        ("BY=-29;NT", "250 2.1.0 "),
        ("BY=0;R", "501 5.5.4 "),
        ("BY=60;R HOLDFOR=60", "250 2.1.0 "),
        ("BY=60;R HOLDFOR=61", "501 5.5.4 "),
        ("BY=60;N HOLDUNTIL=2030-01-01T00:01:01Z", "501 5.5.4 "),
    ] {
        let mail = format!("MAIL FROM:<a@c.example> {by}\r\nRSET\r\n");
        let said = accept_all(&mut session, mail.as_bytes());
        assert!(said.starts_with(code), "{by}: {said}");
    }
}

#[test]
fn a_mail_rests_no_longer_than_is_offered() {
    let mut session = session(Flavour::Submission);
    let config = Arc::make_mut(&mut session.config);
    config.offers.future_release = Some(std::time::Duration::from_secs(3600));
    session.set_now("2030-01-01T00:00:00Z".parse().unwrap());
    let said = accept_all(&mut session, b"EHLO c.example\r\n");
    assert!(
        said.contains("FUTURERELEASE 3600 2030-01-01T01:00:00"),
        "{said}"
    );
    for (hold, code) in [
        ("HOLDFOR=3600", "250 2.1.0 "),
        ("HOLDFOR=3601", "501 5.5.4 "),
        ("HOLDUNTIL=2030-01-01T01:00:00Z", "250 2.1.0 "),
        ("HOLDUNTIL=2030-01-01T01:00:01Z", "501 5.5.4 "),
        ("HOLDUNTIL=2030-01-01T00:30:00Z HOLDFOR=1", "501 5.5.4 "),
    ] {
        let mail = format!("MAIL FROM:<a@c.example> {hold}\r\nRSET\r\n");
        let said = accept_all(&mut session, mail.as_bytes());
        assert!(said.starts_with(code), "{hold}: {said}");
    }
}

#[test]
fn a_limit_of_ones_own_is_told_and_holds() {
    let mut session = session(Flavour::Smtp);
    session.set_size_limit(Some(100));
    assert!(accept_all(&mut session, b"EHLO c.example\r\n").contains("250-SIZE 100\r\n"));
    let announced = b"MAIL FROM:<a@c.example> SIZE=101\r\n";
    assert!(accept_all(&mut session, announced).starts_with("552 5.3.4 "));
    accept_all(
        &mut session,
        b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\n",
    );
    let chunk = [&b"BDAT 101 LAST\r\n"[..], &b"x".repeat(101)].concat();
    assert!(accept_all(&mut session, &chunk).starts_with("552 5.3.4 "));
}

#[test]
fn a_refusal_is_one_on_the_wire_whatever_the_policy_made() {
    let mut session = session(Flavour::Smtp);
    let mut input = BytesMut::from("HELO c.example\r\nMAIL FROM:<a@c.example>\r\n");
    while let Some(event) = session.receive(&mut input) {
        session.answer(match event {
            Event::Mail(_) => PolicyReply::Refuse(command::ok("fooled")),
            _ => PolicyReply::Accept,
        });
    }
    let said = session.take_output();
    assert!(said.ends_with(b"451 4.3.0 local error, please try again later\r\n"));
    assert!(session.transaction().is_none());
}

#[test]
fn a_refused_greeting_leaves_only_quit() {
    let mut session = session(Flavour::Smtp);
    let refusal = Reply::new(TRANSACTION_FAILED_554, NOT_AUTHORIZED_5_7_1, "not you");
    assert_eq!(
        session.receive(&mut BytesMut::new()),
        Some(Event::Connected)
    );
    session.answer(PolicyReply::Refuse(refusal));
    assert_eq!(
        accept_all(&mut session, b"EHLO c.example\r\nQUIT\r\n"),
        "554 5.7.1 not you\r\n503 5.5.1 no mail service here\r\n221 2.0.0 bye\r\n"
    );
    assert!(session.is_closed());
}

#[test]
fn content_refused_by_the_driver_is_read_to_its_end() {
    let mut session = session(Flavour::Smtp);
    accept_all(
        &mut session,
        b"HELO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n",
    );
    assert!(session.awaits_content());
    let mut input = BytesMut::from("a\r\nb\r\n");
    assert!(matches!(
        session.receive(&mut input),
        Some(Event::Content(_))
    ));
    session.refuse_content(Reply::new(LOCAL_ERROR_451, SYSTEM_4_3_0, "no queue"));
    assert_eq!(
        accept_all(&mut session, b"c\r\n.\r\n"),
        "451 4.3.0 no queue\r\n"
    );
    assert!(session.transaction().is_none());
}

#[test]
fn a_flood_behind_refused_content_is_cut() {
    let mut session = session(Flavour::Smtp);
    accept_all(
        &mut session,
        b"HELO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n",
    );
    let block = b"0123456789abcde\r\n".repeat(1000);
    let mut said = String::new();
    for _ in 0..100 {
        said.push_str(&accept_all(&mut session, &block));
    }
    assert!(said.starts_with("552 5.3.4 ") && session.is_closed());
}

#[test]
fn what_is_forwarded_holds_for_one_transaction() {
    let name = |session: &ServerSession| session.forwarded()?.name.clone();
    let mut session = session(Flavour::Smtp);
    accept_all(&mut session, b"EHLO c.example\r\n");
    let ends: [&[u8]; 5] = [
        b"RSET\r\n",
        b"EHLO c.example\r\n",
        b"RCPT TO:<b@mx.example>\r\nDATA\r\n.\r\n",
        b"RCPT TO:<b@mx.example>\r\nBDAT 0 LAST\r\n",
        b"RCPT TO:<b@mx.example>\r\nBDAT 300 LAST\r\nRSET\r\n",
    ];
    for end in ends {
        accept_all(
            &mut session,
            b"XFORWARD NAME=a HELO=b\r\nXFORWARD ADDR=192.0.2.7\r\n",
        );
        assert_eq!(name(&session).as_deref(), Some("a"));
        // Whether or not a transaction began.
        accept_all(
            &mut session,
            b"MAIL FROM:<a@c.example>\r\nXFORWARD NAME=x\r\n",
        );
        assert_eq!(name(&session).as_deref(), Some("a"));
        accept_all(&mut session, end);
        if end.starts_with(b"RCPT TO:<b@mx.example>\r\nBDAT 300") {
            accept_all(&mut session, &[b'x'; 300]);
        }
        assert_eq!(
            session.forwarded(),
            None,
            "{}",
            String::from_utf8_lossy(end)
        );
    }
    accept_all(
        &mut session,
        b"XFORWARD NAME=a\r\nRSET\r\nXFORWARD HELO=b\r\n",
    );
    assert_eq!(name(&session), None);
    assert!(
        session.forwarded().is_some(),
        "who forwards nothing forwards that"
    );
}

#[test]
fn a_client_that_was_told_of_has_nothing_of_the_proxys() {
    let mut config = ServerConfig::new(Domain::parse("mx.example").unwrap(), Flavour::Submission);
    (config.offers.xclient, config.offers.xclient_login) = (true, true);
    config.offers.auth = vec![
        Mechanism::ScramSha256Plus,
        Mechanism::External,
        Mechanism::Plain,
    ];
    let config = Arc::new(config);
    let mut session = ServerSession::new(Arc::clone(&config), true);
    session.set_seed([7; 32]);
    session.set_binding(Some(vec![1; 32]));
    session.set_certified(true);
    let said = accept_all(&mut session, b"EHLO proxy.example\r\n");
    assert!(
        said.contains("AUTH SCRAM-SHA-256-PLUS EXTERNAL PLAIN\r\n"),
        "{said}"
    );
    assert!(said.contains("XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT LOGIN\r\n"));
    let mut input = BytesMut::from("XCLIENT ADDR=192.0.2.7 LOGIN=alice@example.org\r\n");
    let Some(Event::XClient(told)) = session.receive(&mut input) else {
        panic!("told")
    };
    let identity = Identity {
        account: told.account().unwrap().to_owned(),
        mechanism: Mechanism::External,
    };
    session.speaks_for(config, Some(identity));
    session.answer(PolicyReply::Accept);
    // As a driver does after a handshake.
    session.set_binding(Some(vec![1; 32]));
    session.set_certified(true);
    let said = accept_all(&mut session, b"EHLO c.example\r\n");
    assert!(
        said.starts_with("220 mx.example ESMTP") && said.contains("AUTH PLAIN\r\n"),
        "{said}"
    );
    assert!(accept_all(&mut session, b"AUTH PLAIN\r\n").starts_with("503 5.5.1 already"));
    assert!(accept_all(&mut session, b"MAIL FROM:<alice@example.org>\r\n").starts_with("250 "));
    // And it cannot become somebody else.
    let again = b"RSET\r\nXCLIENT LOGIN=bob@example.org\r\n";
    assert!(accept_all(&mut session, again).contains("503 5.5.1 XCLIENT comes before"));
    assert_eq!(session.identity().unwrap().account, "alice@example.org");
}

#[test]
fn a_client_that_is_not_served_gets_no_further_behind_a_proxy_either() {
    for (code, closed) in [
        (SERVICE_NOT_AVAILABLE_421, true),
        (TRANSACTION_FAILED_554, false),
    ] {
        let mut session = session(Flavour::Smtp);
        accept_all(&mut session, b"EHLO proxy.example\r\n");
        let mut input = BytesMut::from("XCLIENT ADDR=192.0.2.7\r\n");
        assert!(matches!(
            session.receive(&mut input),
            Some(Event::XClient(_))
        ));
        let reply = Reply::new(
            code,
            if closed {
                POLICY_4_7_0
            } else {
                NOT_AUTHORIZED_5_7_1
            },
            "not you",
        );
        session.answer(PolicyReply::Refuse(reply));
        assert_eq!(session.is_closed(), closed);
        let said = accept_all(
            &mut session,
            b"EHLO c.example\r\nXCLIENT ADDR=127.0.0.1\r\n",
        );
        assert!(!said.contains("250"), "{said}");
    }
}

#[test]
fn a_refused_sender_keeps_what_was_forwarded_and_a_handshake_does_not() {
    let mut config = ServerConfig::new(Domain::parse("mx.example").unwrap(), Flavour::Smtp);
    (config.offers.starttls, config.offers.xforward) = (true, true);
    let mut session = ServerSession::new(Arc::new(config), false);
    accept_all(&mut session, b"EHLO c.example\r\n");
    let mut input = BytesMut::from("XFORWARD NAME=a\r\nMAIL FROM:<a@c.example>\r\n");
    while let Some(Event::Mail(_)) = session.receive(&mut input) {
        let reply = Reply::new(MAILBOX_UNAVAILABLE_550, NOT_AUTHORIZED_5_7_1, "not you");
        session.answer(PolicyReply::Refuse(reply));
    }
    assert!(session.forwarded().is_some());
    accept_all(&mut session, b"STARTTLS\r\n");
    session.tls_started();
    assert_eq!(session.forwarded(), None);
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(vec![
        "EHLO c.example\r\n",
        "LHLO c.example\r\n",
        "MAIL FROM:<a@c.example>\r\n",
        "RCPT TO:<b@mx.example>\r\n",
        "DATA\r\n",
        "BDAT 5\r\n",
        "BDAT 3 LAST\r\n",
        "RSET\r\n",
        ".\r\n",
        "\r\n.\r\n",
        "x",
        "\n",
        "\r",
        "..\r\n",
        "AUTH PLAIN\r\n",
        "STARTTLS\r\n",
        "QUIT\r\n",
        "NOOP\r\n",
        "XFORWARD ADDR=192.0.2.7 HELO=[UNAVAILABLE]\r\n",
        "XFORWARD NAME\r\n",
        "XCLIENT ADDR=192.0.2.7 LOGIN=[UNAVAILABLE]\r\n",
    ]);
    prop_oneof![
        5 => known.prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #[test]
    fn arbitrary_input_never_panics_and_steps_do_not_matter(
        words in proptest::collection::vec(words(), 0..30), lmtp: bool, step in 1..9_usize,
    ) {
        let flavour = if lmtp { Flavour::Lmtp } else { Flavour::Smtp };
        let input = words.concat();
        let (mut once, mut stepwise) = (session(flavour), session(flavour));
        let whole = accept_all(&mut once, &input);
        let (mut buffer, mut said) = (BytesMut::new(), accept_all(&mut stepwise, b"").into_bytes());
        for chunk in input.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some(event) = stepwise.receive(&mut buffer) {
                if !matches!(event, Event::Content(_)) {
                    stepwise.answer(PolicyReply::Accept);
                }
            }
            said.extend_from_slice(&stepwise.take_output());
        }
        // Only what is sent behind DATA too early is judged by how it arrives.
        if !whole.contains("wait for the reply") {
            prop_assert_eq!(whole, String::from_utf8(said).unwrap());
        }
    }
}
