//! The report as a mail (RFC 8460 §5.3).

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::Date;
use serde_json::Value;

/// Octets of a line of base64.
const LINE: usize = 76;

/// A report to be sent.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// The domain it is about.
    pub domain: &'a str,
    /// Our domain.
    pub organisation: &'a str,
    /// The day it is about.
    pub date: Date,
    /// Its name, without angle brackets.
    pub report_id: &'a str,
    /// Whom to ask; the sender.
    pub contact: &'a str,
    /// Where it goes.
    pub to: &'a str,
    /// The Date field.
    pub sent: &'a str,
    /// Between the parts; in none of them.
    pub boundary: &'a str,
}

impl Mail<'_> {
    /// Header and body.
    pub fn content(&self, report: &Value) -> io::Result<Vec<u8>> {
        let Self {
            domain,
            organisation,
            date,
            report_id,
            contact,
            to,
            sent,
            boundary,
        } = self;
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(report.to_string().as_bytes())?;
        let packed = STANDARD.encode(packed.finish()?);
        let seconds = |time: &str| format!("{date}T{time}Z");
        let name = format!(
            "{organisation}!{domain}!{}!{}.json.gz",
            seconds("00-00-00"),
            seconds("23-59-59")
        );
        let mut mail = format!(
            "From: {contact}\r\nTo: {to}\r\nDate: {sent}\r\nMessage-ID: <{report_id}>\r\n\
             Subject: Report Domain: {domain}\r\n Submitter: {organisation}\r\n Report-ID: <{report_id}>\r\n\
             TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {organisation}\r\n\
             TLS-Required: No\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\"\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
             This is a report on how TLS went between {organisation} and the mail hosts of\r\n\
             {domain} on {date} (UTC), as RFC 8460 has it. It is sent since\r\n\
             _smtp._tls.{domain} asks for it.\r\n\r\n\
             --{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n\r\n"
        )
        .into_bytes();
        for line in packed.as_bytes().chunks(LINE) {
            mail.extend_from_slice(line);
            mail.extend_from_slice(b"\r\n");
        }
        mail.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Ok(mail)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_report_is_in_the_mail() {
        let report = json!({"organization-name": "ours.test", "policies": ["x".repeat(5000)]});
        let mail = Mail {
            domain: "a.test",
            organisation: "ours.test",
            date: jiff::civil::date(2026, 4, 1),
            report_id: "7@ours.test",
            contact: "postmaster@ours.test",
            to: "tls@a.test",
            sent: "Thu, 02 Apr 2026 00:10:00 +0000",
            boundary: "report-7",
        };
        let content = String::from_utf8(mail.content(&report).unwrap()).unwrap();
        assert!(content.lines().all(|line| line.len() <= 998));
        assert!(content.contains("\r\nTLS-Report-Domain: a.test\r\n"));
        assert!(content.contains(
            "filename=\"ours.test!a.test!2026-04-01T00-00-00Z!2026-04-01T23-59-59Z.json.gz\""
        ));
        let (_, packed) = content.rsplit_once(".json.gz\"\r\n\r\n").unwrap();
        let (packed, _) = packed.split_once("\r\n\r\n").unwrap();
        let packed = STANDARD.decode(packed.replace("\r\n", "")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), report);
    }
}
