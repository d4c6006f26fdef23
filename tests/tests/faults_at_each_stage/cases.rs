//! The stages, the faults, and the script that brings them together.

use std::net::Ipv4Addr;
use std::path::Path;

/// As many as there are addresses for.
pub const CASES: usize = 250;

/// Columns of the first table, with the stage in scripts and how a good answer begins.
pub const COLUMNS: [(&str, &str, &str); 10] = [
    ("connect", "connect", ""),
    ("greeting", "greeting", "220 mx.peer.test ESMTP"),
    ("EHLO", "EHLO", "250 mx.peer.test"),
    ("STARTTLS", "STARTTLS", "220 2.0.0 go ahead with it"),
    ("MAIL", "MAIL", "250 2.1.0 sender is fine"),
    ("RCPT", "RCPT", "250 2.1.5 recipient is fine"),
    ("DATA", "DATA", "354 go ahead with the mail"),
    ("content", "content after 64KiB", ""),
    ("end of data", "end", "250 2.0.0 the mail is taken"),
    ("QUIT", "QUIT", "221 2.0.0 good-bye to you"),
];

/// Rows of the first table.
pub const FAULTS: [&str; 12] = [
    "4xx",
    "421",
    "5xx",
    "silence",
    "garbage",
    "half a reply",
    "an octet at a time",
    "closed",
    "reset",
    "late, but in time",
    "refused",
    "no answer",
];

/// Columns of the second table.
pub const POLICIES: [&str; 2] = ["may", "verify"];

/// Rows of the second table, with what happens at the handshake.
pub const HANDSHAKES: [(&str, &str); 9] = [
    ("a good certificate", "ok"),
    ("unknown authority", "certificate of an unknown authority"),
    ("wrong name", "certificate for another name"),
    ("expired", "certificate expired"),
    ("no TLS after 220: plain text", "plain"),
    ("no TLS after 220: garbage", "garbage 100"),
    ("no TLS after 220: silence", "silence"),
    ("no TLS after 220: closed", "close"),
    ("no TLS after 220: reset", "reset"),
];

/// One cell.
pub struct Case {
    pub row: &'static str,
    pub column: &'static str,
    number: u8,
    /// What the host does the first time: lines of its script.
    rules: String,
    door: Option<&'static str>,
    loss: Loss,
}

/// Whether the sender cannot know that the mail was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    None,
    OfReply,
}

/// Whether a mail may bounce.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Permanence {
    ForGood,
    MayPass,
    Either,
}

/// Every cell that has a meaning.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let number = |cases: &[Case]| u8::try_from(cases.len() + 1).unwrap_or(u8::MAX);
    for (column, stage, well) in COLUMNS {
        for row in FAULTS {
            let (number, door) = (number(&cases), door(row, column));
            let Some(rules) = rules(row, stage, well).or(door.map(|_| String::new())) else {
                continue;
            };
            let loss = loss(row, column);
            cases.push(Case {
                row,
                column,
                number,
                rules,
                door,
                loss,
            });
        }
    }
    for column in POLICIES {
        for (row, action) in HANDSHAKES {
            cases.push(Case {
                row,
                column,
                number: number(&cases),
                rules: format!("on handshake time 1: {action}\n"),
                door: None,
                loss: Loss::None,
            });
        }
    }
    cases
}

fn door(row: &str, column: &str) -> Option<&'static str> {
    match (row, column) {
        ("refused", "connect") => Some("shut"),
        ("no answer", "connect") => Some("deaf"),
        _ => None,
    }
}

/// At the end of data the host has taken the mail before anything goes wrong with its answer.
fn loss(row: &str, column: &str) -> Loss {
    match (row, column) {
        (
            "silence" | "garbage" | "half a reply" | "an octet at a time" | "closed" | "reset",
            "end of data",
        ) => Loss::OfReply,
        _ => Loss::None,
    }
}

/// Once; afterwards the host is well.
fn rules(row: &str, stage: &str, well: &str) -> Option<String> {
    let says_nothing = well.is_empty();
    let action = match row {
        "closed" => "close".to_owned(),
        "reset" => "reset".to_owned(),
        "silence" if stage != "connect" => "silence".to_owned(),
        _ if stage == "connect" => return None,
        "4xx" => "451 4.3.0 not now".to_owned(),
        "421" => "421 4.3.2 going down".to_owned(),
        "5xx" => "554 5.7.1 never".to_owned(),
        _ if says_nothing => return None,
        "garbage" => "garbage 40".to_owned(),
        "half a reply" => format!("half {well}"),
        "an octet at a time" => format!("drip 500ms {well}"),
        "late, but in time" => "wait 1s".to_owned(),
        _ => return None,
    };
    // What is said in the middle of content ends the conversation; otherwise it would be the answer to its end.
    let more = if stage.starts_with("content") && action.starts_with(['4', '5']) {
        "\n    close"
    } else {
        ""
    };
    let keep = if stage == "end" && !action.starts_with(['4', '5', 'w']) {
        "    keep\n"
    } else {
        ""
    };
    Some(format!("on {stage} time 1:\n{keep}    {action}{more}\n"))
}

impl Case {
    pub fn name(&self) -> String {
        format!("{} at {}", self.row, self.column)
    }

    fn domain(&self) -> String {
        format!("case{}.test", self.number)
    }

    pub fn recipient(&self) -> String {
        format!("friend@{}", self.domain())
    }

    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 2, self.number)
    }

    pub fn zone(&self) -> String {
        let (domain, address) = (self.domain(), self.address());
        format!("{domain} MX 10 mx.{domain}\nmx.{domain} A {address}\n")
    }

    /// `mta.outbound.hosts`, where its certificate is verified.
    pub fn entry(&self, authority: &Path) -> String {
        match self.is_verified() {
            false => String::new(),
            true => format!(
                "[[mta.outbound.hosts]]\nhost = \"{}\"\ntls = \"verify\"\nca_file = {authority:?}\n",
                self.domain()
            ),
        }
    }

    pub fn script(&self) -> String {
        let door = self
            .door
            .map_or(String::new(), |door| format!("door: {door}\n"));
        format!("{}{door}{}", self.good_script(), self.rules)
    }

    pub fn good_script(&self) -> String {
        let tls = if self.is_about_tls() {
            "starttls"
        } else {
            "none"
        };
        format!("name: mx.{}\ntls: {tls}\n", self.domain())
    }

    pub fn door(&self) -> Option<&'static str> {
        self.door
    }

    pub fn loses_the_last_reply(&self) -> Loss {
        self.loss
    }

    pub fn is_about_tls(&self) -> bool {
        self.column == "STARTTLS" || POLICIES.contains(&self.column)
    }

    pub fn is_verified(&self) -> bool {
        self.column == "verify"
    }

    pub fn is_large(&self) -> bool {
        self.column == "content"
    }

    /// RFC 5321 §4.2.1: a 5yz to what is about the mail is for good. Not to EHLO, where HELO is left, nor to STARTTLS, without which it
    /// goes as well, nor to QUIT, when it has gone; and what is said of content in the midst of it is no reply to anything.
    pub fn permanence(&self) -> Permanence {
        match (self.row, self.column) {
            ("5xx", "EHLO" | "STARTTLS" | "QUIT") => Permanence::MayPass,
            ("5xx", "content") => Permanence::Either,
            ("5xx", _) => Permanence::ForGood,
            _ => Permanence::MayPass,
        }
    }
}
