//! What others must find in the DNS.

use comfy_table::Cell;
use serde_json::{Value, json};

use super::answers::Answers;
use crate::terminal::{lines, table as rows};

/// A record to publish.
pub struct Record {
    name: String,
    kind: &'static str,
    value: String,
}

impl Record {
    fn new(name: impl Into<String>, kind: &'static str, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind,
            value: value.into(),
        }
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        json!({ "name": self.name, "type": self.kind, "value": self.value })
    }
}

/// All of them.
pub fn of(answers: &Answers) -> Vec<Record> {
    let Answers {
        hostname, domain, ..
    } = answers;
    vec![
        Record::new(format!("{hostname}."), "A", "<the public IPv4 address>"),
        Record::new(
            format!("{hostname}."),
            "AAAA",
            "<the public IPv6 address, if there is one>",
        ),
        // RFC 5321 §5.1.
        Record::new(format!("{domain}."), "MX", format!("10 {hostname}.")),
        // RFC 7208: the hosts of the MX record send mail, and nobody else.
        Record::new(format!("{domain}."), "TXT", "\"v=spf1 mx -all\""),
        // RFC 7489: to be told first; a stricter policy is for when all mail is signed.
        Record::new(
            format!("_dmarc.{domain}."),
            "TXT",
            format!("\"v=DMARC1; p=none; rua=mailto:postmaster@{domain}\""),
        ),
        // RFC 6186, RFC 8314: mail programs find submission by themselves.
        Record::new(
            format!("_submissions._tcp.{domain}."),
            "SRV",
            format!("0 1 465 {hostname}."),
        ),
        Record::new(
            format!("_submission._tcp.{domain}."),
            "SRV",
            format!("10 1 587 {hostname}."),
        ),
    ]
}

/// As lines.
pub fn table(records: &[Record]) -> Vec<String> {
    let mut table = rows(["NAME", "TYPE", "VALUE"]);
    for record in records {
        table.add_row([
            Cell::new(&record.name),
            Cell::new(record.kind),
            Cell::new(&record.value),
        ]);
    }
    lines(&table)
        .lines()
        .map(|line| format!("  {line}"))
        .collect()
}

/// What is not in our zone.
pub fn remarks(answers: &Answers) -> [String; 1] {
    [format!(
        "Let the address resolve back to {} (PTR); its owner, mostly the hoster, sets that.",
        answers.hostname
    )]
}
