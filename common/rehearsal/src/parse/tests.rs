use std::time::Duration;

use proptest::prelude::*;

use crate::script::{Action, CertificateKind, Door, Protocol, Range, Script, Stage, Tls};

#[test]
fn all_of_the_language_is_read() {
    let text = r"# a remark
name: mx1.world.test
names: mx2.world.test, *.world.test
speaks: lmtp
tls: at once
certificate: for another name
offers: PIPELINING, SIZE 1000
offers under tls: none
login: alice secret with blanks
size: 1KiB
door: deaf
seed: 7
connections: 5 else 421 4.7.0 too many
connections per 1m: 100, else 421 4.7.0 too fast
mails per 1m: 100 else 451 4.7.1 too fast
mails per connection: 3 else 421 4.7.0 enough
recipients per mail: 2 else 452 4.5.3 too many
greylist: 30s else 451 4.7.1 greylisted

on connect connection 3..: reset
on handshake: certificate files /a /b
on RCPT to full@[IPv6:::1] from * mail ..2 time 2 with login without tls chance 5%: 452 4.2.2 full
on content after 2KiB: deaf
on end:
    keep
    wait 2s
    drip 10ms 250 2.0.0 slowly
    octets 250 \\ \x00\r\n
    half 250 ok
";
    let script = Script::parse(text).unwrap();
    assert_eq!(
        (script.protocol, script.tls, script.door, script.seed),
        (Protocol::Lmtp, Tls::AtOnce, Door::Deaf, 7)
    );
    assert_eq!(script.certificate, CertificateKind::AnotherName);
    assert_eq!(script.offers_under_tls, Some(Vec::new()));
    assert_eq!(script.logins[0].secret, "secret with blanks");
    let limits = &script.limits;
    assert_eq!(limits.connections[0].within, Duration::from_secs(60));
    assert_eq!(
        limits.greylist.as_ref().unwrap().within,
        Duration::from_secs(30)
    );
    let [connect, _, rcpt, content, end] = script.rules.as_slice() else {
        panic!("{:?}", script.rules);
    };
    let from = |first| Range {
        first,
        last: u64::MAX,
    };
    assert_eq!(connect.when.connection, Some(from(3)));
    assert_eq!(rcpt.when.to.as_ref().unwrap().0, "full@[IPv6:::1]");
    assert_eq!((rcpt.when.tls, rcpt.when.login), (Some(false), Some(true)));
    assert_eq!(content.when.after, Some(2048));
    assert_eq!((end.stage, end.actions.len()), (Stage::End, 5));
    assert_eq!(end.actions[3], Action::Octets(b"250 \\ \0\r\n".to_vec()));
}

#[test]
fn each_fault_has_its_line_and_a_remedy() {
    let text = "nmae: mx\non RCTP: 451 no\non end:\nname: two words\n    keep\non MAIL: keep\nconnections: 5\n";
    let faults = Script::parse(text).unwrap_err().0;
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let begins = [
        "line 1: there is no setting \"nmae\"; settings are name,",
        "line 2: there is no stage \"RCTP\"; stages are connect,",
        "line 3: the rule does nothing; write an action",
        "line 4: \"two words\" is no name of a host; write",
        "line 5: an indented line belongs to a rule",
        "line 6: \"keep\" has no meaning at MAIL; `keep` belongs to `on end`",
        "line 7: \"5\" does not say what is replied beyond it; write",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for (told, begin) in told.iter().zip(begins) {
        assert!(told.starts_with(begin), "{told}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_fall(text in "(on |name|[a-zA-Z0-9:. \\\\%\n<>*-]){0,60}") {
        let _ = Script::parse(&text);
    }
}
