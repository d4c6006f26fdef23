use mail_parser::{MessageParser, MimeHeaders};
use postroad_envelope::{Cause, RemoteHost, StatusReport};
use postroad_reply::{
    BAD_MAILBOX_5_1_1, DELIVERED_2_6_0, EXPIRED_5_4_7, MAILBOX_UNAVAILABLE_550, NO_ANSWER_4_4_1,
    Reply,
};
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_600_000);
const MAIL: &[u8] =
    b"Message-ID: <orig@a.example>\r\nSubject: Hello\r\n\r\nbody\r\n.\r\n--limit\r\n";

fn envelope() -> Envelope {
    let sender = ReversePath::parse("alice@a.example").unwrap();
    let arrival = Timestamp::from_millis(1_700_000_000_000);
    let mut envelope = Envelope::new(QueueId::from_bytes([0; 16]), sender, arrival);
    envelope.envid = Some("QQ314159".to_owned());
    envelope.recipients = vec![Recipient::new(
        RecipientIndex(0),
        Mailbox::parse("bob@x.example").unwrap(),
    )];
    envelope
}

fn refused(text: &str) -> StatusReport {
    StatusReport {
        status: BAD_MAILBOX_5_1_1,
        text: "refused at RCPT".to_owned(),
        remote: Some(RemoteHost {
            name: "mx.x.example".to_owned(),
            address: Some("192.0.2.1:25".parse().unwrap()),
            tls: None,
            tls_policy: None,
        }),
        reply: Some(Reply::new(MAILBOX_UNAVAILABLE_550, BAD_MAILBOX_5_1_1, text)),
        stage: None,
        cause: None,
    }
}

fn report(envelope: &Envelope, kind: ReportKind, outcome: Outcome, mail: &[u8]) -> Report {
    let mut recipient = RecipientStatus::new(&envelope.recipients[0], outcome);
    recipient.last_attempt = Some(NOW);
    recipient.will_retry_until = Some(NOW.plus(std::time::Duration::from_secs(86_400)));
    let returned = Returned::choose(kind, envelope.ret, mail, true);
    let host = Domain::parse("mx.a.example").unwrap();
    Report::about(envelope, host, kind, vec![recipient], returned).unwrap()
}

fn write(report: &Report) -> ReportMail {
    let id = MessageId::find("<dsn@mx.a.example>").unwrap();
    report.to_mail(NOW, &id, "limit")
}

fn failed(envelope: &Envelope, reply: &str, mail: &[u8]) -> ReportMail {
    write(&report(
        envelope,
        ReportKind::Failed,
        Outcome::Failed(refused(reply)),
        mail,
    ))
}

/// Content types of the parts, and the octets of each as a reader sees them.
fn parts(mail: &ReportMail) -> Vec<(String, String)> {
    let parsed = MessageParser::new().parse(&mail.content).unwrap();
    parsed
        .root_part()
        .sub_parts()
        .unwrap()
        .iter()
        .map(|index| {
            let part = &parsed.parts[*index as usize];
            let kind = part.content_type().unwrap();
            let raw =
                &mail.content[part.raw_body_offset() as usize..part.raw_end_offset() as usize];
            (
                format!("{}/{}", kind.ctype(), kind.subtype().unwrap()),
                String::from_utf8_lossy(raw).into_owned(),
            )
        })
        .collect()
}

fn assert_sound(mail: &ReportMail) {
    for line in mail.content.split_inclusive(|&byte| byte == b'\n') {
        let text = line
            .strip_suffix(b"\r\n")
            .expect("every line ends with CRLF");
        assert!(text.len() <= 998 && !text.contains(&b'\r') && !text.contains(&0));
    }
    assert_eq!(parts(mail).len(), 3);
    assert_sayable_in_ascii(mail);
}

/// For a host without 8BITMIME; only a report to somebody with a UTF-8 address cannot be.
fn assert_sayable_in_ascii(mail: &ReportMail) {
    let Some(content) = crate::seven_bit(&mail.content) else {
        assert!(mail.smtputf8);
        return;
    };
    let told = ReportMail {
        content,
        ..mail.clone()
    };
    assert!(told.content.is_ascii());
    let (before, after) = (parts(mail), parts(&told));
    assert_eq!(after.len(), 3);
    for (before, after) in before.iter().zip(&after) {
        assert!(before.0 == after.0 || after.0 == "text/rfc822-headers");
    }
}

#[test]
fn a_failure_as_a_person_and_a_program_read_it() {
    let mail = failed(&envelope(), "No such user here", MAIL);
    let expected = "\
Date: Tue, 14 Nov 2023 22:23:20 +0000
From: \"Mail Delivery System\" <MAILER-DAEMON@mx.a.example>
To: <alice@a.example>
Subject: Not delivered: your mail to bob@x.example
Message-ID: <dsn@mx.a.example>
In-Reply-To: <orig@a.example>
References: <orig@a.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"limita\"
Content-Transfer-Encoding: 7bit

--limita
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

This is the mail system at mx.a.example. It took your mail on Tue, 14
Nov 2023 22:13:20 +0000.

Your mail could not be delivered to this recipient, and will not be
tried again:

  bob@x.example
    There is no mailbox with this address.
    mx.x.example [192.0.2.1] said:
      550 5.1.1 No such user here

What you can do:
  - Check the address for typing errors, correct it and send the mail
    again.

Your mail is attached. If you need help, forward this report to your
postmaster; the mail's id is 00000000000000000000000000.

--limita
Content-Type: message/delivery-status
Content-Transfer-Encoding: 7bit

Original-Envelope-Id: QQ314159
Reporting-MTA: dns; mx.a.example
X-Postroad-Queue-Id: 00000000000000000000000000
Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000

Final-Recipient: rfc822; bob@x.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.x.example
Diagnostic-Code: smtp; 550 5.1.1 No such user here
Last-Attempt-Date: Tue, 14 Nov 2023 22:23:20 +0000

--limita
Content-Type: message/rfc822
Content-Transfer-Encoding: 7bit

Message-ID: <orig@a.example>
Subject: Hello

body
.
--limit

--limita--
";
    assert_eq!(
        String::from_utf8(mail.content.clone())
            .unwrap()
            .replace("\r\n", "\n"),
        expected
    );
    assert_sound(&mail);
    assert_eq!((mail.body, mail.smtputf8), (BodyKind::SevenBit, false));
}

#[test]
fn a_delay_says_how_long_we_try() {
    let delayed = Outcome::Delayed(StatusReport::local(NO_ANSWER_4_4_1, "connect timed out"));
    let mail = write(&report(&envelope(), ReportKind::Delayed, delayed, MAIL));
    let parts = parts(&mail);
    let words: Vec<&str> = parts[0].1.split_whitespace().collect();
    assert!(words.join(" ").contains(
        "You need not send it again: we go on trying until Wed, 15 Nov 2023 22:23:20 +0000, and tell you if that fails."
    ));
    assert!(parts[1].1.contains(
        "Action: delayed\r\nStatus: 4.4.1\r\nDiagnostic-Code: x-postroad; connect timed out\r\n"
    ));
    assert!(
        parts[1]
            .1
            .contains("Will-Retry-Until: Wed, 15 Nov 2023 22:23:20 +0000\r\n")
    );
    assert_eq!(parts[2].0, "text/rfc822-headers");
    assert!(!parts[2].1.contains("body"));
}

#[test]
fn a_success_is_told_as_asked() {
    let delivered = Outcome::Delivered(StatusReport::local(DELIVERED_2_6_0, "filed"));
    let mail = write(&report(&envelope(), ReportKind::Succeeded, delivered, MAIL));
    let parsed = MessageParser::new().parse(&mail.content).unwrap();
    assert_eq!(
        parsed.subject(),
        Some("Delivered: your mail to bob@x.example")
    );
    assert!(
        parts(&mail)[1]
            .1
            .contains("Action: delivered\r\nStatus: 2.6.0\r\n")
    );
    assert!(!parts(&mail)[1].1.contains("Will-Retry-Until"));
}

#[test]
fn international_mail_gets_the_global_types() {
    let mut envelope = envelope();
    envelope.smtputf8 = true;
    envelope.reverse_path = ReversePath::parse("älice@a.example").unwrap();
    envelope.recipients[0].address = Mailbox::parse("bøb@x.example").unwrap();
    envelope.recipients[0].orcpt = Some(OriginalRecipient {
        address_type: "utf-8".to_owned(),
        address: "bøb@x.example".to_owned(),
    });
    let mail = failed(
        &envelope,
        "går ej",
        "Subject: Grüße\r\n\r\nä\r\n".as_bytes(),
    );
    let parts = parts(&mail);
    assert_eq!(parts[1].0, "message/global-delivery-status");
    assert!(parts[1].1.contains(
        "Original-Recipient: utf-8; bøb@x.example\r\nFinal-Recipient: utf-8; bøb@x.example\r\n"
    ));
    assert!(
        parts[1]
            .1
            .contains("Diagnostic-Code: smtp; 550 5.1.1 går ej\r\n")
    );
    assert_eq!(parts[2].0, "message/global");
    assert_eq!((mail.body, mail.smtputf8), (BodyKind::EightBitMime, true));
    assert_sound(&mail);
}

#[test]
fn eight_bit_content_of_ordinary_mail_stays_ordinary() {
    let mail = failed(&envelope(), "no", b"Subject: \xe4\r\n\r\n\xe4\r\n");
    assert_eq!(parts(&mail)[2].0, "message/rfc822");
    assert!(parts(&mail)[1].1.is_ascii());
    assert_eq!((mail.body, mail.smtputf8), (BodyKind::EightBitMime, false));
}

#[test]
fn the_alias_the_sender_wrote_is_named() {
    let mut envelope = envelope();
    envelope.recipients[0].original = Mailbox::parse("team@a.example").ok();
    let mail = failed(&envelope, "no", MAIL);
    assert!(
        parts(&mail)[0]
            .1
            .contains("(for your mail to team@a.example)")
    );
    let parsed = MessageParser::new().parse(&mail.content).unwrap();
    assert_eq!(
        parsed.subject(),
        Some("Not delivered: your mail to team@a.example")
    );
}

#[test]
fn the_report_travels_from_nobody() {
    let mail = failed(&envelope(), "no", MAIL);
    let own = mail.envelope(QueueId::from_bytes([1; 16]), NOW);
    assert!(own.reverse_path.is_null());
    assert_eq!(own.recipients[0].address.to_string(), "alice@a.example");
    let outcomes = [(RecipientIndex(0), Outcome::Failed(refused("no")))];
    assert_eq!(crate::decide(&own, &outcomes, &[]), []);
    let null = Envelope::new(own.queue_id, ReversePath::Null, NOW);
    let returned = Returned::Headers(Vec::new());
    let host = Domain::parse("a.example").unwrap();
    assert_eq!(
        Report::about(&null, host, ReportKind::Failed, Vec::new(), returned),
        None
    );
}

proptest! {
    #[test]
    fn the_far_side_cannot_break_the_report(
        reply in "(?s).{0,80}(\r\n--limit(a|--)?\r\nContent-Type: text/html\r\n\r\n<b>){0,2}.{0,2000}",
        envid in "[ -~\r\n]{0,100}",
        host in "(?s).{0,60}",
        body in "(?s)[a-z\r\n\u{e4}-]{0,80}",
    ) {
        let mut envelope = envelope();
        envelope.envid = Some(envid);
        let mut result = refused(&reply);
        result.remote = Some(RemoteHost { name: host, address: None, tls: None, tls_policy: None });
        let content = [MAIL, body.as_bytes()].concat();
        let mail = write(&report(&envelope, ReportKind::Failed, Outcome::Failed(result), &content));
        assert_sound(&mail);
        let parts = parts(&mail);
        prop_assert_eq!(&parts[0].0, "text/plain");
        prop_assert_eq!(&parts[1].0, "message/delivery-status");
        // Two groups of fields, divided by one empty line; nothing can add a third.
        prop_assert_eq!(parts[1].1.trim_end().matches("\r\n\r\n").count(), 1);
        prop_assert_eq!(HeaderBlock::parse(parts[1].1.as_bytes()).malformed_lines(), 0);
        prop_assert_eq!(parts[1].1.matches("\r\nAction: ").count(), 1);
    }
}

/// RFC 6533 §3: an alias may lead from an address in ASCII to one that has no such form.
#[test]
fn a_sender_without_smtputf8_reads_it_all_in_ascii() {
    let mut envelope = envelope();
    envelope.recipients[0].address = Mailbox::parse("b\u{f8}b+x@b\u{fc}cher.example").unwrap();
    envelope.recipients[0].orcpt = Some(OriginalRecipient {
        address_type: "utf-8".to_owned(),
        address: "j\u{f8}=\u{65e5}@x.example".to_owned(),
    });
    let latin = b"Subject: Gr\xfc\xdfe\r\nX: y\r\n\r\nbody\r\n";
    let delayed = Outcome::Delayed(refused("not \u{fc}"));
    let mail = write(&report(&envelope, ReportKind::Delayed, delayed, latin));
    assert_sound(&mail);
    assert!(
        mail.content.is_ascii(),
        "{}",
        String::from_utf8_lossy(&mail.content)
    );
    assert_eq!((mail.body, mail.smtputf8), (BodyKind::SevenBit, false));
    let [(text, words), (status, fields), (returned, header)] = &parts(&mail)[..] else {
        panic!("three parts")
    };
    let kinds = [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ];
    assert_eq!([text, status, returned], kinds);
    for field in [
        "Original-Recipient: utf-8; j\\x{F8}\\x{3D}\\x{65E5}@x.example",
        "Final-Recipient: utf-8; b\\x{F8}b\\x{2B}x@b\\x{FC}cher.example",
    ] {
        assert!(fields.contains(field), "{field} is not in {fields}");
    }
    assert!(
        words.contains("b=C3=B8b+x@") && header.contains("Gr=FC=DFe"),
        "{words}{header}"
    );
}

#[test]
fn the_cause_is_what_a_person_reads_of() {
    let cause = |cause| {
        Outcome::Failed(StatusReport {
            cause: Some(cause),
            ..refused("5.7.1 blocked using a list")
        })
    };
    let text = |outcome| {
        let mail = write(&report(&envelope(), ReportKind::Failed, outcome, MAIL));
        assert_sound(&mail);
        String::from_utf8(mail.content).unwrap()
    };
    let told = text(cause(Cause::Reputation));
    assert!(told.contains("which it has on a list."), "{told}");
    assert!(told.contains("ask for our removal"));
    assert!(told.contains("\r\nX-Postroad-Cause: reputation\r\n"));
    // What no rule knew is told by its status.
    assert!(text(cause(Cause::Other)).contains("There is no mailbox with this address."));
}

#[test]
fn time_that_is_over_is_told_with_what_to_do_about_its_reason() {
    let outcome = Outcome::Failed(StatusReport {
        status: EXPIRED_5_4_7,
        cause: Some(Cause::MailboxFull),
        ..refused("mailbox full")
    });
    let mail = write(&report(&envelope(), ReportKind::Failed, outcome, MAIL));
    let told = String::from_utf8(mail.content).unwrap();
    assert!(told.contains("It could not be delivered in the time allowed."));
    assert!(told.contains("Tell the recipient in another way"));
}

/// RFC 2852 §4.1.4 and §5.
#[test]
fn a_mail_with_a_time_is_told_of_with_it() {
    let mut timed = envelope();
    timed.deliver_by = Some(postroad_envelope::DeliverBy {
        at: NOW,
        return_after: false,
        trace: false,
    });
    let told = |trace| {
        let outcome = Outcome::Relayed(StatusReport::local("2.0.0".parse().unwrap(), "took it"));
        let mut report = report(&timed, ReportKind::Succeeded, outcome, MAIL);
        report.recipients[0].trace = Some(trace);
        let mail = write(&report);
        assert_sound(&mail);
        String::from_utf8(mail.content).unwrap()
    };
    let field = format!("\r\nDeliver-By-Date: {}\r\n", NOW.to_rfc5322());
    for (trace, words) in [
        (Trace::Told, "which was told of that time."),
        (Trace::Lost, "which does not know of such a"),
    ] {
        let text = told(trace);
        assert!(text.contains(&field) && text.contains(words), "{text}");
        assert!(text.contains("\r\nAction: relayed\r\n"), "{text}");
    }
    let plain = report(
        &envelope(),
        ReportKind::Failed,
        Outcome::Failed(refused("no")),
        MAIL,
    );
    let plain = String::from_utf8(write(&plain).content).unwrap();
    assert!(!plain.contains("Deliver-By-Date"), "{plain}");
}

/// What is missing at the host is no trouble of its own.
#[test]
fn a_host_that_lacks_what_was_asked_for_is_not_ill() {
    let outcome = Outcome::Failed(StatusReport {
        cause: Some(Cause::System),
        ..StatusReport::local("5.3.3".parse().unwrap(), "does not support DELIVERBY")
    });
    let mail = write(&report(&envelope(), ReportKind::Failed, outcome, MAIL));
    let told = String::from_utf8(mail.content).unwrap();
    assert!(
        told.contains("Send it again without asking for that."),
        "{told}"
    );
}

#[test]
fn of_a_mail_without_a_sender_somebody_else_is_told() {
    let mut nobody = envelope();
    nobody.reverse_path = ReversePath::Null;
    let status = RecipientStatus::new(&nobody.recipients[0], Outcome::Failed(refused("no")));
    let host = Domain::parse("mx.a.example").unwrap();
    let returned = || Returned::choose(ReportKind::Failed, None, MAIL, true);
    let all = || vec![status.clone()];
    let none = Report::about(&nobody, host.clone(), ReportKind::Failed, all(), returned());
    assert_eq!(none, None);
    let to = Mailbox::parse("postmaster@a.example").unwrap();
    let report = Report::to(
        to.clone(),
        &nobody,
        host,
        ReportKind::Failed,
        all(),
        returned(),
    );
    let mail = write(&report.unwrap());
    assert_sound(&mail);
    let told = String::from_utf8_lossy(&mail.content);
    assert!(
        told.contains("nobody else to tell: mail to bob@x.example"),
        "{told}"
    );
    let envelope = mail.envelope(QueueId::from_bytes([1; 16]), NOW);
    assert!(envelope.reverse_path.is_null());
    assert_eq!(envelope.recipients[0].address, to);
}
