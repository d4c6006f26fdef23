use postroad_address::{ForwardPath, ReversePath};
use postroad_envelope::BodyKind;
use postroad_sasl::Password;
use postroad_smtp::HeloName;
use proptest::prelude::*;

use super::*;

mod at_once;
mod chunks;
mod deliver_by;
mod log_in;

fn config() -> ClientConfig {
    ClientConfig::new(HeloName::parse("client.example").unwrap())
}

fn mail(recipients: &[&str]) -> OutgoingMail {
    OutgoingMail {
        reverse_path: ReversePath::parse("a@client.example").unwrap(),
        recipients: recipients
            .iter()
            .map(|text| OutgoingRecipient {
                forward_path: ForwardPath::parse(text).unwrap(),
                notify: None,
                orcpt: None,
            })
            .collect(),
        size: 10,
        body: BodyKind::SevenBit,
        smtputf8: false,
        utf8_header: false,
        requiretls: false,
        ret: None,
        envid: None,
        priority: 0,
        deliver_by: None,
        auth: None,
    }
}

struct Talk(ClientSession);

impl Talk {
    /// A session with the greeting and the reply to EHLO behind it.
    fn ready(config: ClientConfig, tls: bool, ehlo: &str) -> Self {
        let mut talk = Self(ClientSession::new(config, tls));
        assert_eq!(talk.hear("220 mx.example hi\r\n"), Ok(None));
        talk.says(if talk.0.config.lmtp {
            "LHLO client.example\r\n"
        } else {
            "EHLO client.example\r\n"
        });
        assert_eq!(talk.hear(ehlo), Ok(Some(Progress::Ready)));
        talk
    }

    fn hear(&mut self, text: &str) -> Result<Option<Progress>, ClientError> {
        self.0.receive(&mut BytesMut::from(text))
    }

    fn says(&mut self, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&self.0.take_output()), expected);
    }

    fn done(&mut self, text: &str) -> Vec<String> {
        match self.hear(text) {
            Ok(Some(Progress::Done(results))) => results.iter().map(show).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn show(result: &RecipientResult) -> String {
    match result {
        RecipientResult::Accepted(reply) => format!("accepted {reply}"),
        RecipientResult::Refused { stage, reply } => format!("{stage:?} {reply}"),
        RecipientResult::Unfit { status, .. } => format!("unfit {status}"),
    }
}

#[test]
fn a_pipelined_mail_with_mixed_recipients_then_another() {
    let mut talk = Talk::ready(
        config(),
        false,
        "250-mx.example\r\n250-PIPELINING\r\n250 SIZE 1000\r\n",
    );
    talk.0.send(mail(&["x@mx.example", "b@mx.example"]));
    talk.says("MAIL FROM:<a@client.example> SIZE=10\r\nRCPT TO:<x@mx.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n");
    assert_eq!(talk.hear("250 ok\r\n550 5.1.1 no\r\n250 ok\r\n"), Ok(None));
    talk.says("");
    assert_eq!(talk.0.stage(), Stage::Data);
    assert_eq!(talk.hear("354 go\r\n"), Ok(Some(Progress::SendContent)));
    talk.0.content(b".x\r\ny").unwrap();
    talk.0.content_end().unwrap();
    talk.says("..x\r\ny\r\n.\r\n");
    assert_eq!(talk.0.timeout(), Duration::from_secs(600));
    assert_eq!(
        talk.done("250 2.0.0 mine\r\n"),
        ["Rcpt 550 5.1.1 no", "accepted 250 2.0.0 mine"]
    );

    talk.0.send(mail(&["x@mx.example"]));
    talk.says("MAIL FROM:<a@client.example> SIZE=10\r\nRCPT TO:<x@mx.example>\r\nDATA\r\n");
    assert_eq!(
        talk.done("250 ok\r\n450 4.2.1 later\r\n503 nobody\r\n"),
        ["Rcpt 450 4.2.1 later"]
    );
    talk.0.send(mail(&["b@mx.example"]));
    talk.says("RSET\r\nMAIL FROM:<a@client.example> SIZE=10\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n");
    assert_eq!(
        talk.done("250 ok\r\n451 no\r\n503 no\r\n503 no\r\n"),
        ["Mail 451 no"]
    );
    talk.0.quit();
    talk.says("QUIT\r\n");
    assert_eq!(talk.hear("221 bye\r\n"), Ok(Some(Progress::Closed)));
}

#[test]
fn helo_after_a_refused_ehlo_and_one_command_at_a_time() {
    let mut talk = Talk(ClientSession::new(config(), false));
    assert_eq!(talk.hear("220 old\r\n"), Ok(None));
    assert_eq!(talk.hear("500 what\r\n"), Ok(None));
    talk.says("EHLO client.example\r\nHELO client.example\r\n");
    assert_eq!(talk.hear("250 old\r\n"), Ok(Some(Progress::Ready)));
    talk.0.send(mail(&["b@mx.example", "c@mx.example"]));
    talk.says("MAIL FROM:<a@client.example>\r\n");
    assert_eq!(talk.hear("250 ok\r\n"), Ok(None));
    talk.says("RCPT TO:<b@mx.example>\r\n");
    assert_eq!(talk.hear("250 ok\r\n"), Ok(None));
    talk.says("RCPT TO:<c@mx.example>\r\n");
    assert_eq!(talk.hear("550 no\r\n"), Ok(None));
    talk.says("DATA\r\n");
    assert_eq!(talk.done("554 no\r\n"), ["Data 554 no", "Rcpt 550 no"]);
    talk.0.send(mail(&["b@mx.example"]));
    talk.says("RSET\r\n");
    assert_eq!(talk.hear("250 ok\r\n"), Ok(None));
    talk.says("MAIL FROM:<a@client.example>\r\n");
}

#[test]
fn starttls_then_everything_anew() {
    let mut talk = Talk(ClientSession::new(config(), false));
    assert_eq!(talk.hear("220 mx\r\n250-mx\r\n250 STARTTLS\r\n"), Ok(None));
    talk.says("EHLO client.example\r\nSTARTTLS\r\n");
    assert_eq!(talk.hear("220 go\r\n"), Ok(Some(Progress::StartTls)));
    talk.0.tls_started();
    talk.says("EHLO client.example\r\n");
    assert_eq!(
        talk.hear("250-mx\r\n250 DSN\r\n"),
        Ok(Some(Progress::Ready))
    );
    assert!(
        !talk
            .0
            .capabilities()
            .offers(&postroad_smtp::Extension::StartTls)
    );
}

#[test]
fn tls_refused_forged_or_missing() {
    let start = |tls| {
        let mut talk = Talk(ClientSession::new(ClientConfig { tls, ..config() }, false));
        assert_eq!(talk.hear("220 mx\r\n250-mx\r\n250 STARTTLS\r\n"), Ok(None));
        talk
    };
    assert_eq!(
        start(TlsUse::IfOffered).hear("454 not now\r\n"),
        Ok(Some(Progress::Ready))
    );
    assert!(matches!(
        start(TlsUse::Required).hear("454 not now\r\n"),
        Err(ClientError::Refused {
            stage: Stage::StartTls,
            ..
        })
    ));
    assert_eq!(
        start(TlsUse::IfOffered).hear("220 go\r\n250 injected\r\n"),
        Err(ClientError::PlaintextAfterStartTls)
    );
    let required = ClientConfig {
        tls: TlsUse::Required,
        ..config()
    };
    let mut talk = Talk(ClientSession::new(required, false));
    assert_eq!(
        talk.hear("220 mx\r\n250 mx\r\n"),
        Err(ClientError::TlsNotOffered)
    );
}

#[test]
fn what_the_host_lacks_is_not_asked() {
    let mut talk = Talk::ready(
        config(),
        false,
        "250-mx\r\n250-SIZE 5\r\n250 PIPELINING\r\n",
    );
    let unfit = |talk: &mut Talk, mail| match talk.0.send(mail) {
        Some(Progress::Done(results)) => results.iter().map(show).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(unfit(&mut talk, mail(&["b@mx.example"])), ["unfit 5.3.4"]);
    let eight_bit = OutgoingMail {
        body: BodyKind::EightBitMime,
        ..mail(&["b@mx.example"])
    };
    assert_eq!(unfit(&mut talk, eight_bit), ["unfit 5.6.3"]);
    let utf8 = OutgoingMail {
        smtputf8: true,
        utf8_header: true,
        size: 1,
        ..mail(&["b@mx.example"])
    };
    assert_eq!(unfit(&mut talk, utf8), ["unfit 5.6.7"]);
    let requiretls = OutgoingMail {
        requiretls: true,
        size: 1,
        ..mail(&["b@mx.example"])
    };
    assert_eq!(unfit(&mut talk, requiretls), ["unfit 5.7.30"]);
    talk.says("");
    let mixed = OutgoingMail {
        size: 1,
        // Asked for, and needed by one address alone.
        smtputf8: true,
        ..mail(&["jürgen@mx.example", "b@bücher.example"])
    };
    assert_eq!(talk.0.send(mixed), None);
    talk.says(
        "MAIL FROM:<a@client.example> SIZE=1\r\nRCPT TO:<b@xn--bcher-kva.example>\r\nDATA\r\n",
    );
    assert_eq!(
        talk.done("250 ok\r\n550 no\r\n503 no\r\n"),
        ["unfit 5.6.7", "Rcpt 550 no"]
    );
}

#[test]
fn lmtp_answers_for_each_accepted_recipient() {
    let lmtp = ClientConfig {
        lmtp: true,
        ..config()
    };
    let mut talk = Talk::ready(lmtp, false, "250-mx\r\n250 PIPELINING\r\n");
    talk.0
        .send(mail(&["b@mx.example", "x@mx.example", "c@mx.example"]));
    assert_eq!(
        talk.hear("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n"),
        Ok(None)
    );
    assert_eq!(talk.hear("354 go\r\n"), Ok(Some(Progress::SendContent)));
    talk.0.content_end().unwrap();
    assert_eq!(talk.hear("250 b\r\n"), Ok(None));
    assert_eq!(
        talk.done("452 4.2.2 full\r\n"),
        ["accepted 250 b", "Rcpt 550 no", "End 452 4.2.2 full"]
    );
}

/// RFC 2920 §3.1: a host that has no recipient and wants content hears the end of it, and no more.
#[test]
fn content_that_nobody_is_left_for_is_empty() {
    let mut talk = Talk::ready(config(), false, "250-mx\r\n250 PIPELINING\r\n");
    talk.0.send(mail(&["x@mx.example"]));
    talk.0.take_output();
    assert_eq!(talk.hear("250 ok\r\n550 no\r\n354 go\r\n"), Ok(None));
    talk.says(".\r\n");
    assert_eq!(talk.done("554 nobody\r\n"), ["Rcpt 550 no"]);
    talk.0.send(mail(&["b@mx.example"]));
    talk.says("MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n");

    let lmtp = ClientConfig {
        lmtp: true,
        ..config()
    };
    let mut talk = Talk::ready(lmtp, false, "250-mx\r\n250 PIPELINING\r\n");
    talk.0.send(mail(&["x@mx.example"]));
    let strange = talk.hear("250 ok\r\n550 no\r\n354 go\r\n");
    assert!(matches!(
        strange,
        Err(ClientError::Unexpected {
            stage: Stage::Data,
            ..
        })
    ));
    assert!(matches!(
        talk.0.abandon().1.as_slice(),
        [Some(RecipientResult::Refused { .. })]
    ));
}

/// No more commands are under way than there is room for the replies, DATA among them.
#[test]
fn data_waits_for_its_place_among_many_commands() {
    let mut talk = Talk::ready(config(), false, "250-mx\r\n250 PIPELINING\r\n");
    let many: Vec<String> = (0..63).map(|at| format!("u{at}@mx.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    talk.0.send(mail(&many));
    let said = talk.0.take_output();
    assert!(said.ends_with(b"RCPT TO:<u62@mx.example>\r\n"));
    assert_eq!(talk.hear("250 ok\r\n"), Ok(None));
    talk.says("DATA\r\n");
}

#[test]
fn a_host_that_leaves_is_a_reply_to_all_who_have_none() {
    let mut talk = Talk::ready(config(), false, "250-mx\r\n250 PIPELINING\r\n");
    talk.0
        .send(mail(&["x@mx.example", "b@mx.example", "c@mx.example"]));
    let results = talk.done("250 ok\r\n550 no\r\n421 leaving\r\n");
    assert_eq!(
        results,
        ["Rcpt 550 no", "Rcpt 421 leaving", "Rcpt 421 leaving"]
    );
    assert!(talk.0.is_closed());

    let mut talk = Talk::ready(config(), false, "250-mx\r\n250 PIPELINING\r\n");
    talk.0.send(mail(&["x@mx.example", "b@mx.example"]));
    assert_eq!(
        talk.hear("250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"),
        Ok(Some(Progress::SendContent))
    );
    talk.0.content_end().unwrap();
    let (stage, results) = talk.0.abandon();
    assert_eq!(stage, Stage::End);
    assert!(matches!(
        results.as_slice(),
        [Some(RecipientResult::Refused { .. }), None]
    ));
}

proptest! {
    #[test]
    fn no_host_makes_us_panic(
        replies in proptest::collection::vec(
            prop_oneof!["(220|250|354|450|550|421|334)[ -](STARTTLS|PIPELINING|CHUNKING|x)\r\n", "[ -~\r\n]{0,20}"], 0..30,
        ),
    ) {
        let mut session = ClientSession::new(ClientConfig { chunking: true, ..config() }, false);
        for reply in replies {
            match session.receive(&mut BytesMut::from(reply.as_str())) {
                Ok(Some(Progress::StartTls)) => session.tls_started(),
                Ok(Some(Progress::SendContent)) => session.content_end().unwrap(),
                Ok(Some(_)) => {
                    let mail = mail(&["b@mx.example", "c@mx.example"]);
                    if session.send_at_once(mail) == Some(Progress::SendContent) {
                        session.content_end().unwrap();
                    }
                }
                Ok(None) => {}
                Err(_) => { session.abandon(); }
            }
        }
    }
}
