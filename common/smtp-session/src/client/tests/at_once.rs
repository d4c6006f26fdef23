use super::*;

fn at_once(recipients: &[&str]) -> Talk {
    let chunking = ClientConfig {
        chunking: true,
        ..config()
    };
    let ehlo = "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let mut talk = Talk::ready(chunking, false, ehlo);
    assert_eq!(
        talk.0.send_at_once(mail(recipients)),
        Some(Progress::SendContent)
    );
    talk.0.content(b"a: b\r\n").unwrap();
    talk.0.content_end().unwrap();
    let to: String = recipients
        .iter()
        .map(|to| format!("RCPT TO:<{to}>\r\n"))
        .collect();
    talk.says(&format!(
        "MAIL FROM:<a@client.example>\r\n{to}BDAT 6 LAST\r\na: b\r\n"
    ));
    talk
}

#[test]
fn a_small_mail_is_said_at_once() {
    let mut talk = at_once(&["x@mx.example", "b@mx.example"]);
    assert_eq!(
        talk.done("250 ok\r\n550 no\r\n250 ok\r\n250 mine\r\n"),
        ["Rcpt 550 no", "accepted 250 mine"]
    );
    talk.0.send(mail(&["b@mx.example"]));
    talk.says("MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n");

    // RFC 3030 §2: RSET is due after a BDAT that failed.
    for (replies, result) in [
        ("250 ok\r\n550 no\r\n503 nobody\r\n", "Rcpt 550 no"),
        ("451 no\r\n503 no\r\n503 no\r\n", "Mail 451 no"),
        ("250 ok\r\n250 ok\r\n552 large\r\n", "End 552 large"),
    ] {
        let mut talk = at_once(&["b@mx.example"]);
        assert_eq!(talk.done(replies), [result]);
        talk.0.send(mail(&["b@mx.example"]));
        talk.says("RSET\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n");
    }
}

/// What breaks after the content left us may have been taken, even before MAIL was answered; a host that says 421 has not taken it.
#[test]
fn what_was_said_at_once_may_have_been_taken() {
    for heard in ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n"] {
        let mut talk = at_once(&["b@mx.example"]);
        assert_eq!(talk.hear(heard), Ok(None));
        assert_eq!(talk.0.abandon(), (Stage::End, vec![None]));
    }
    let mut talk = at_once(&["b@mx.example"]);
    let strange = talk.hear("354 what\r\n");
    assert!(matches!(
        strange,
        Err(ClientError::Unexpected {
            stage: Stage::End,
            ..
        })
    ));
    for (replies, result) in [
        ("421 bye\r\n", "Mail 421 bye"),
        ("250 ok\r\n421 bye\r\n", "Rcpt 421 bye"),
        ("250 ok\r\n250 ok\r\n421 bye\r\n", "End 421 bye"),
    ] {
        let mut talk = at_once(&["b@mx.example"]);
        assert_eq!(talk.done(replies), [result]);
        assert!(talk.0.is_closed());
    }
}

#[test]
fn what_is_large_or_for_many_or_not_for_bdat_is_not_said_at_once() {
    let begin = |config: ClientConfig, ehlo: &str, mail: OutgoingMail| {
        let mut talk = Talk::ready(config, false, ehlo);
        talk.0.send_at_once(mail)
    };
    let chunking = || ClientConfig {
        chunking: true,
        ..config()
    };
    let both = "250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
    let one = || mail(&["b@mx.example"]);
    let now = Some(Progress::SendContent);
    assert_eq!(begin(chunking(), both, one()), now);
    assert_eq!(begin(config(), both, one()), None);
    let without = "250-mx\r\n250 CHUNKING\r\n";
    assert_eq!(begin(chunking(), without, one()), None);
    let large = OutgoingMail {
        size: 1 << 20,
        ..one()
    };
    assert_eq!(begin(chunking(), both, large), None);
    assert_eq!(begin(chunking(), both, mail(&["b@mx.example"; 64])), None);
    let lmtp = ClientConfig {
        lmtp: true,
        ..chunking()
    };
    assert_eq!(begin(lmtp, both, one()), None);
}
