use postroad_envelope::Notify;
use postroad_smtp::By;

use super::*;

fn by(seconds: i64, return_after: bool) -> OutgoingMail {
    OutgoingMail {
        deliver_by: Some(By {
            seconds,
            return_after,
            trace: false,
        }),
        ..mail(&["b@mx.example"])
    }
}

/// What is said to a host with this line in its reply to EHLO, or why nothing is.
fn said_to(line: &str, lmtp: bool, mail: OutgoingMail) -> String {
    let config = ClientConfig { lmtp, ..config() };
    let lines: String = line.lines().map(|line| format!("250-{line}\r\n")).collect();
    let ehlo = format!("250-mx.example\r\n{lines}250 PIPELINING\r\n");
    let mut talk = Talk::ready(config, false, &ehlo);
    match talk.0.send(mail) {
        Some(Progress::Done(results)) => results.iter().map(show).collect(),
        None => String::from_utf8(talk.0.take_output().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn mail_to(line: &str, mail: OutgoingMail) -> String {
    let said = said_to(line, false, mail);
    let first = said.lines().next().unwrap_or_default();
    first.replace("MAIL FROM:<a@client.example>", "MAIL")
}

/// RFC 2852 §4.1.4.1.
#[test]
fn what_is_to_be_returned_goes_where_its_time_is_kept() {
    assert_eq!(mail_to("DELIVERBY", by(98, true)), "MAIL BY=98;R");
    assert_eq!(mail_to("DELIVERBY 30", by(98, true)), "MAIL BY=98;R");
    assert_eq!(mail_to("DELIVERBY 98", by(98, true)), "MAIL BY=98;R");
    assert_eq!(mail_to("DELIVERBY 99", by(98, true)), "unfit 5.4.7");
    assert_eq!(mail_to("DSN", by(98, true)), "unfit 5.3.3");
    // No time is left.
    assert_eq!(mail_to("DELIVERBY", by(0, true)), "unfit 5.4.7");
    assert_eq!(mail_to("DSN", by(-1, true)), "unfit 5.4.7");
}

/// RFC 2852 §4.1.4 and §4.1.4.2.
#[test]
fn what_is_only_told_of_goes_anywhere_with_what_is_left() {
    assert_eq!(mail_to("DELIVERBY 240", by(98, false)), "MAIL BY=98;N");
    assert_eq!(mail_to("DELIVERBY 240", by(-7, false)), "MAIL BY=-7;N");
    assert_eq!(mail_to("XSOMETHING", by(98, false)), "MAIL");
    let mut traced = by(5, false);
    traced.deliver_by = traced.deliver_by.map(|by| By { trace: true, ..by });
    assert_eq!(mail_to("DELIVERBY", traced), "MAIL BY=5;NT");
}

/// RFC 2852 §4.1.4.2: a host that cannot keep the time is asked to tell of delays, but not behind the sender's back.
#[test]
fn delays_are_asked_for_where_the_time_is_lost() {
    let on = |success, failure, delay| {
        Some(Notify::On {
            success,
            failure,
            delay,
        })
    };
    let asked = |line: &str, seconds: i64, notify: Option<Notify>| {
        let mut mail = by(seconds, false);
        for recipient in &mut mail.recipients {
            recipient.notify = notify;
        }
        let said = said_to(line, false, mail);
        let rcpt = said.lines().nth(1).unwrap_or_default().to_owned();
        rcpt.replace("RCPT TO:<b@mx.example>", "RCPT")
    };
    for (notify, said) in [
        (None, "RCPT NOTIFY=FAILURE,DELAY"),
        (on(true, false, false), "RCPT NOTIFY=SUCCESS,DELAY"),
        (on(false, true, true), "RCPT NOTIFY=FAILURE,DELAY"),
        (Some(Notify::Never), "RCPT NOTIFY=NEVER"),
    ] {
        assert_eq!(asked("DSN", 98, notify), said);
    }
    assert_eq!(asked("XSOMETHING", 98, None), "RCPT");
    // The sender has been told already.
    assert_eq!(asked("DSN", 0, None), "RCPT");
    // The host sees to the time itself.
    assert_eq!(asked("DSN\nDELIVERBY", 98, None), "RCPT");
}

/// RFC 2852 §1: handed to a store is delivered, whether or not it knows of times.
#[test]
fn a_store_need_not_know_of_times() {
    let said = |line: &str, mail| {
        let said = said_to(line, true, mail);
        let first = said.lines().next().unwrap_or_default();
        first.replace("MAIL FROM:<a@client.example>", "MAIL")
    };
    assert_eq!(said("DSN", by(98, true)), "MAIL");
    assert_eq!(said("DELIVERBY 240", by(98, true)), "MAIL");
    assert_eq!(said("DELIVERBY", by(98, true)), "MAIL BY=98;R");
    assert_eq!(said("DSN", by(0, true)), "unfit 5.4.7");
}
