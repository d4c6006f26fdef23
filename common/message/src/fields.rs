use postroad_address::{Mailbox, ReversePath};
use postroad_envelope::Timestamp;

/// `Date:` in UTC (RFC 5322 §3.6.1).
pub fn date_field(now: Timestamp) -> Vec<u8> {
    format!("Date: {}\r\n", now.to_rfc5322()).into_bytes()
}

/// `Return-Path:`, added by whoever makes the final delivery (RFC 5321 §4.4).
pub fn return_path(path: &ReversePath) -> Vec<u8> {
    format!("Return-Path: <{path}>\r\n").into_bytes()
}

/// `Delivered-To:` with the mailbox the mail was filed for (RFC 9228).
pub fn delivered_to(mailbox: &Mailbox) -> Vec<u8> {
    format!("Delivered-To: {mailbox}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_lines() {
        assert_eq!(
            date_field(Timestamp::from_millis(1_700_000_000_123)),
            b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
        assert_eq!(return_path(&ReversePath::Null), b"Return-Path: <>\r\n");
        let quoted = Mailbox::parse("\"a b\"@c.example").unwrap();
        assert_eq!(
            delivered_to(&quoted),
            b"Delivered-To: \"a b\"@c.example\r\n"
        );
    }
}
