use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;

use super::{Around, Deed, Session};
use crate::event::Taken;
use crate::script::{CertificateKind, Script};
use crate::tally::Tally;

/// A conversation, and what was done in it.
struct Play {
    session: Session,
    tally: Tally,
    script: Arc<Script>,
    now: Duration,
    taken: Vec<Taken>,
}

impl Play {
    fn new(text: &str) -> (Self, String) {
        let script = Arc::new(Script::parse(text).unwrap());
        let mut play = Self {
            tally: Tally::new(&script),
            session: Session::new(Arc::clone(&script), 0, [7; 32]),
            script,
            now: Duration::ZERO,
            taken: Vec::new(),
        };
        let greeting = play.connect();
        (play, greeting)
    }

    fn connect(&mut self) -> String {
        self.tally.connections += 1;
        self.tally.open += 1;
        let connection = self.tally.connections;
        self.session = Session::new(Arc::clone(&self.script), connection, [7; 32]);
        let mut around = Around {
            tally: &mut self.tally,
            now: self.now,
        };
        let deeds = self.session.begin(&mut around);
        self.shown(deeds)
    }

    /// What comes of it, up to the point where more is needed.
    fn say(&mut self, text: &str) -> String {
        let mut input = BytesMut::from(text);
        let mut shown = String::new();
        loop {
            let mut around = Around {
                tally: &mut self.tally,
                now: self.now,
            };
            let Some(deeds) = self.session.receive(&mut input, &mut around) else {
                return shown;
            };
            shown += &self.shown(deeds);
        }
    }

    fn mail(&mut self, to: &str, content: &str) -> String {
        let said = self.say(&format!(
            "EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<{to}>\r\nDATA\r\n"
        ));
        said + &self.say(content) + &self.say(".\r\n")
    }

    fn shown(&mut self, deeds: Vec<Deed>) -> String {
        let shown = deeds.into_iter().map(|deed| match deed {
            Deed::Send(octets) => String::from_utf8_lossy(&octets).into_owned(),
            Deed::Tell(_) => String::new(),
            Deed::Keep(taken) => {
                self.taken.push(*taken);
                "[keep]".to_owned()
            }
            deed => format!("[{deed:?}]"),
        });
        shown.collect()
    }
}

#[test]
fn without_rules_it_is_a_good_host() {
    let (mut play, greeting) = Play::new("size: 1000B\n");
    assert_eq!(greeting, "220 mx.peer.test ESMTP\r\n");
    let said = play.mail("c@d.test", "Subject: x\r\n\r\n..dot\r\n");
    assert_eq!(
        said,
        "250-mx.peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SIZE 1000\r\n250 STARTTLS\r\n\
         250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 go ahead\r\n[keep]250 2.0.0 mail 1 taken\r\n"
    );
    assert_eq!(play.taken[0].content, b"Subject: x\r\n\r\n.dot\r\n");
    let chunks = "MAIL FROM:<> SIZE=5\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\nde";
    let said = play.say(chunks);
    assert!(
        said.ends_with("250 2.0.0 chunk ok\r\n[keep]250 2.0.0 mail 2 taken\r\n"),
        "{said}"
    );
    assert_eq!(play.taken[1].content, b"abcde");
    let large = format!("{}\r\n", "x".repeat(1000));
    assert!(
        play.mail("c@d.test", &large)
            .ends_with("552 5.3.4 the mail is too large\r\n")
    );
    assert_eq!(
        play.say("DATA\r\nFOO\r\nMAIL FROM:<> SIZE=1001\r\nQUIT\r\n"),
        "503 5.5.1 say MAIL first\r\n500 5.5.1 this command is not known\r\n552 5.3.4 the mail is too large\r\n\
         221 2.0.0 good-bye\r\n[Close]"
    );
    assert_eq!(play.taken.len(), 2);
}

#[test]
fn the_first_rule_that_fits_is_followed() {
    let script = "on RCPT to full@*: 452 4.2.2 full\non RCPT mail 2: 550 5.1.1 nobody\non end mail 3:\n keep\n reset\non end mail 4:\n half 250 2.0.0 ok\n\
                  on end mail 5: 451 4.3.0 no\n";
    let (mut play, _) = Play::new(script);
    assert!(
        play.mail("full@d.test", "")
            .contains("452 4.2.2 full\r\n554 5.5.1 no valid")
    );
    play.say("RSET\r\n");
    assert!(play.mail("c@d.test", "").contains("550 5.1.1 nobody\r\n"));
    play.say("RSET\r\n");
    assert!(play.mail("c@d.test", "").ends_with("[keep][Reset]"));
    assert!(
        play.mail("c@d.test", "")
            .ends_with("354 go ahead\r\n250 2.[Silence]")
    );
    assert!(play.mail("c@d.test", "").ends_with("451 4.3.0 no\r\n"));
    assert_eq!(play.taken.len(), 1, "the last two were not kept");
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let (mut play, _) = Play::new("speaks: lmtp\non end to full@*: 552 5.2.2 full\n");
    let said = play.say(
        "EHLO a\r\nLHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<full@d.test>\r\nRCPT TO:<e@d.test>\r\nDATA\r\nx\r\n.\r\n",
    );
    assert!(said.starts_with("500 5.5.1 say LHLO\r\n250-mx"), "{said}");
    let end = "354 go ahead\r\n[keep]552 5.2.2 full\r\n250 2.0.0 mail 1 taken\r\n";
    assert!(said.ends_with(end), "{said}");
    assert_eq!(play.taken[0].to, ["e@d.test"]);
}

#[test]
fn limits_are_kept() {
    let script = "connections: 1 else 421 4.7.0 busy\nmails per 1m: 2 else 451 4.7.1 slow\nmails per connection: 3 else 421 4.7.0 enough\n\
                  recipients per mail: 1 else 452 4.5.3 many\ngreylist: 10s else 451 4.7.1 later\n";
    let (mut play, _) = Play::new(script);
    assert!(play.mail("c@d.test", "").contains("451 4.7.1 later\r\n554"));
    play.say("RSET\r\n");
    play.now = Duration::from_secs(10);
    let twice = play.say("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<e@d.test>\r\n");
    assert!(
        twice.ends_with("250 2.1.5 recipient ok\r\n452 4.5.3 many\r\n"),
        "{twice}"
    );
    assert_eq!(
        play.say("RSET\r\nMAIL FROM:<>\r\n"),
        "250 2.0.0 reset\r\n451 4.7.1 slow\r\n"
    );
    play.now = Duration::from_secs(60);
    assert_eq!(play.say("MAIL FROM:<>\r\n"), "250 2.1.0 sender ok\r\n");
    assert_eq!(
        play.say("RSET\r\nMAIL FROM:<>\r\n"),
        "250 2.0.0 reset\r\n421 4.7.0 enough\r\n[Close]"
    );
    assert_eq!(play.connect(), "421 4.7.0 busy\r\n[Close]");
}

#[test]
fn tls_begins_as_the_script_says() {
    let rules = "on handshake time 1: certificate expired\non handshake time 2: plain\non MAIL without tls: 530 5.7.0 first\n";
    let (mut play, _) = Play::new(rules);
    let said = play.say("EHLO a\r\nMAIL FROM:<>\r\nSTARTTLS\r\n");
    let shown = CertificateKind::Expired;
    let end = format!("530 5.7.0 first\r\n220 2.0.0 go ahead\r\n[Handshake({shown:?})]");
    assert!(said.ends_with(&end), "{said}");
    let said = play.say("EHLO a\r\nMAIL FROM:<>\r\n");
    assert!(
        !said.contains("STARTTLS") && said.ends_with("250 2.1.0 sender ok\r\n"),
        "{said}"
    );
    play.connect();
    assert_eq!(
        play.say("STARTTLS\r\n\x16\x03\x01\r\n"),
        "220 2.0.0 go ahead\r\n500 5.5.1 this command is not known\r\n"
    );
    let (_, greeting) = Play::new("tls: at once\non handshake: garbage 3\n");
    assert!(greeting.contains("220 mx.peer.test"), "{greeting}");
}

#[test]
fn logins_are_tried() {
    let script = "offers: AUTH PLAIN LOGIN XOAUTH2\nlogin: alice secret\non MAIL without login: 530 5.7.0 log in\n";
    let (mut play, _) = Play::new(script);
    let said = play.say("EHLO a\r\nMAIL FROM:<>\r\nAUTH PLAIN AGFsaWNlAHdyb25n\r\nAUTH FOO\r\n");
    assert!(
        said.ends_with("530 5.7.0 log in\r\n535 5.7.8 these are no good\r\n504 5.5.4 this mechanism is not known\r\n"),
        "{said}"
    );
    // user=alice^Aauth=Bearer bad^A^A
    let refused = play.say("AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciBiYWQBAQ==\r\n\r\n");
    assert!(
        refused.starts_with("334 ") && refused.ends_with("\r\n535 5.7.8 these are no good\r\n")
    );
    let welcome = play.say("AUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\nMAIL FROM:<>\r\n");
    assert!(
        welcome.ends_with("235 2.7.0 welcome\r\n250 2.1.0 sender ok\r\n"),
        "{welcome}"
    );
}

proptest! {
    #[test]
    fn no_octets_make_it_fall(
        parts in prop::collection::vec(prop_oneof![
            Just("EHLO a\r\n"), Just("MAIL FROM:<a@b>\r\n"), Just("RCPT TO:<c@d>\r\n"), Just("DATA\r\n"), Just(".\r\n"),
            Just("BDAT 3\r\n"), Just("BDAT 99999999999999999999\r\n"), Just("AUTH LOGIN\r\n"), Just("STARTTLS\r\n"), Just("é\u{0}"), Just("\r\n"),
        ], 0..40),
    ) {
        let (mut play, _) = Play::new("on end chance 50%: garbage 9\n");
        for part in parts {
            play.say(part);
        }
    }
}
