use postroad_address::Domain;
use proptest::prelude::*;

use super::*;

fn session(flavour: Flavour) -> ServerSession {
    let mut config = ServerConfig::new(Domain::parse("mx.example").unwrap(), flavour);
    (config.require_tls, config.require_auth) = (false, false);
    config.offers.xforward = true;
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
