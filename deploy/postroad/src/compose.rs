//! A plain text as a mail (RFC 5322, RFC 2045, RFC 2047). Date and Message-ID are the submission agent's to add.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroad_address::Mailbox;

/// RFC 5322 §2.1.1.
const LONGEST_LINE: usize = 998;
/// Octets of an encoded word's text: with its frame 75 characters at most (RFC 2047 §2).
const WORD: usize = 42;

/// A mail of one text part, with CRLF line ends.
pub fn compose(from: &Mailbox, to: &[Mailbox], subject: &str, text: &str) -> Vec<u8> {
    let to: Vec<String> = to.iter().map(ToString::to_string).collect();
    let mut mail = format!(
        "From: {from}\r\nTo: {}\r\nSubject: {}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n",
        to.join(",\r\n "),
        header_text(subject),
    );
    let lines: Vec<&str> = text.lines().collect();
    let plain = lines
        .iter()
        .all(|line| line.len() <= LONGEST_LINE && !line.contains(['\0', '\r']));
    if plain {
        let encoding = if text.is_ascii() { "7bit" } else { "8bit" };
        mail.push_str(&format!("Content-Transfer-Encoding: {encoding}\r\n\r\n"));
        for line in lines {
            mail.push_str(line);
            mail.push_str("\r\n");
        }
    } else {
        mail.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
        for chunk in text.as_bytes().chunks(57) {
            mail.push_str(&STANDARD.encode(chunk));
            mail.push_str("\r\n");
        }
    }
    mail.into_bytes()
}

/// A stored mail as SMTP wants it: every line ends with CRLF.
pub fn with_crlf(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + mail.len() / 32);
    for line in mail.split_inclusive(|&octet| octet == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(bare.strip_suffix(b"\r").unwrap_or(bare));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// As it is if it is short printable ASCII, else as encoded words, a line each.
fn header_text(text: &str) -> String {
    let printable = |c: char| c == ' ' || c.is_ascii_graphic();
    if text.len() <= 70 && text.chars().all(printable) && !text.contains("=?") {
        return text.to_owned();
    }
    let mut words = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= WORD => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let encoded = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;

    use super::*;

    fn read_back(subject: &str, text: &str) -> (String, String) {
        let mailbox = |text| Mailbox::parse(text).unwrap();
        let mail = compose(
            &mailbox("a@demo.test"),
            &[mailbox("b@demo.test"), mailbox("c@demo.test")],
            subject,
            text,
        );
        assert!(
            mail.split(|&octet| octet == b'\n')
                .all(|line| line.is_empty() || line.ends_with(b"\r"))
        );
        assert!(
            mail.split(|&octet| octet == b'\n')
                .all(|line| line.len() <= LONGEST_LINE + 1)
        );
        let message = MessageParser::new().parse(&mail).unwrap();
        assert_eq!(message.to().unwrap().as_list().unwrap().len(), 2);
        (
            message.subject().unwrap().to_owned(),
            message.body_text(0).unwrap().replace("\r\n", "\n"),
        )
    }

    #[test]
    fn what_was_written_is_read_back() {
        let long = "ä".repeat(700);
        for (subject, text) in [
            ("Hello", "one\ntwo\n"),
            (
                "Grüße an alle, die diese lange Zeile mit ihren vielen Umlauten lesen müssen: äöüß",
                "grün\n",
            ),
            ("=?x", &long),
            ("a\r\nBcc: x", "x\n"),
        ] {
            assert_eq!(
                read_back(subject, text),
                (subject.to_owned(), text.to_owned())
            );
        }
    }

    #[test]
    fn line_ends_become_crlf() {
        assert_eq!(with_crlf(b"a\nb\r\n\nc"), b"a\r\nb\r\n\r\nc\r\n");
    }
}
