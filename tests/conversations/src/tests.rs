//! A file that expects what is not said must fail, and say where.

use super::*;

const GOOD: &str = "title: RFC 5321 §4: x\nlistener: inbound\n\nS: 220 {host} …\nC: {ehlo} a\nS+ 250 +SIZE {size} -AUTH\nC: NOOP\nS*2: 250 {queue-id} queued\n";

fn parse(text: &str) -> Result<Transcript, Fault> {
    Transcript::parse("rfc5321/4-x.txt", text)
}

/// Plays what the server says; the first mismatch.
fn play(text: &str, said: &[&str]) -> Result<(), String> {
    let transcript = parse(text).unwrap();
    let mut player = transcript.player(Listener::Inbound).unwrap();
    let mut said = said.iter();
    while let Some(action) = player.next() {
        if action == Action::Hear {
            let heard = player.heard(said.next().copied());
            heard.map_err(|mismatch| mismatch.to_string())?;
        }
    }
    Ok(())
}

const SAID: [&str; 6] = [
    "220 mx.demo.test ESMTP",
    "250-mx.demo.test",
    "250-SIZE 65536",
    "250 HELP",
    "250 0123456789abcdefghjkmnpqrs queued",
    "250 0123456789abcdefghjkmnpqrs queued",
];

#[test]
fn what_is_said_as_written_is_right() {
    assert_eq!(play(GOOD, &SAID), Ok(()));
}

#[test]
fn what_is_said_otherwise_is_told_with_its_place() {
    let cases = [
        (0, "220 mx.other.test", "rfc5321/4-x.txt:4 at inbound"),
        (2, "250-SIZE 1", "no line is"),
        (3, "250 AUTH PLAIN", "a line is"),
        (3, "550 no", "has not the code 250"),
        (
            4,
            "250 short queued",
            "rfc5321/4-x.txt:8 at inbound\n    C NOOP\n  - S 250 {queue-id} queued\n  + S 250 short queued",
        ),
    ];
    for (at, instead, expected) in cases {
        let mut said = SAID;
        said[at] = instead;
        let told = play(GOOD, &said).unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
    let told = play(GOOD, &SAID[..5]).unwrap_err();
    assert!(told.contains("(nothing more)"), "{told}");
}

#[test]
fn files_nobody_can_play_are_faults() {
    let cases = [
        (
            "title: RFC 5321 §4: x\n\nS: 220 …\n",
            "`listener` is missing",
        ),
        (
            "title: RFC 822 §4: x\nlistener: lmtp\n\nS: 220 …\n",
            "does not begin with",
        ),
        (
            "title: RFC 5321 §4: x\nlistener: pop3\n\nS: 220 …\n",
            "no listener is",
        ),
        (
            "title: RFC 5321 §4: x\nlistener: lmtp\n\nC: NOOP\n",
            "never says anything",
        ),
        (
            "title: RFC 5321 §4: x\nlistener: lmtp\n\nX: 220\n",
            "no line begins with",
        ),
        (
            "title: RFC 5321 §4: x\nlistener: lmtp\nneeds: luck\n\nS: 220\n",
            "nothing to need",
        ),
    ];
    for (text, expected) in cases {
        let fault = parse(text).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
    }
    for line in ["C: {nobody}", "C: {size", "S: {nobody}", "C! \\q", "S+ 25"] {
        let text = format!("title: RFC 5321 §4: x\nlistener: lmtp\n\nS: 220\n{line}\n");
        let fault = parse(&text).unwrap().player(Listener::Lmtp).unwrap_err();
        assert_eq!(fault.line, 5, "{fault}");
    }
    let misnamed = Transcript::parse("rfc5321/behaviour.txt", GOOD).unwrap_err();
    assert!(misnamed.problem.contains("section-behaviour"), "{misnamed}");
}

#[test]
fn place_holders_of_the_client() {
    let sent = |text: &str| expand::client(text, Listener::Lmtp, true).unwrap();
    assert_eq!(sent("{ehlo} {host}"), b"LHLO mx.demo.test");
    assert_eq!(sent("{size+1} {a\\x00*2}"), b"65537 a\0a\0");
    assert_eq!(sent("{b64:\\0a}\\r\\n"), b"AGE=\r\n");
    assert_eq!(sent("{x*size-2}").len(), 65534);
}
