//! What a submission server adds to and takes from a mail (RFC 6409 §8), as header edits.

use postroad_address::Domain;
use postroad_envelope::{EditPlace, HeaderEdit, Timestamp};
use postroad_message::{HeaderBlock, MessageId, date_field};

/// Fields no other host may see: who was copied blindly; what only a final delivery may write (RFC 5321 §4.4, RFC 9228); and what
/// only a border may say of a mail. Of Authentication-Results all go, not just those with our own name (RFC 8601 §5): a mail that
/// begins here was checked by nobody, and a host of ours at another border would believe its own name.
const REMOVED: [&str; 6] = [
    "Bcc",
    "Resent-Bcc",
    "Return-Path",
    "Delivered-To",
    "Authentication-Results",
    "Received-SPF",
];

/// Says where a mail was written, in words of web mail and the like.
const CLIENT: [&str; 2] = ["X-Originating-IP", "X-Originating-Client"];

/// What is MIME, and what says so (RFC 2045 §4): without it readers take the rest for decoration.
const MIME: [&str; 2] = ["Content-Type", "Content-Transfer-Encoding"];

/// What a mail still lacks, and its Message-ID.
pub struct Completed {
    pub edits: Vec<HeaderEdit>,
    pub message_id: Option<MessageId>,
}

/// Date and Message-ID are added when they are missing (RFC 6409 §8.2 and §8.3), and MIME-Version where other fields are of MIME, below
/// the client's own fields. What is there is left as it is, good or bad.
pub fn complete(
    header: &HeaderBlock,
    now: Timestamp,
    random: [u8; 10],
    host: &Domain,
    hide_client: bool,
) -> Completed {
    let hidden = CLIENT.iter().filter(|_| hide_client);
    let mut edits: Vec<HeaderEdit> = REMOVED
        .iter()
        .chain(hidden)
        .filter(|name| header.has(name))
        .map(|name| HeaderEdit::Remove {
            name: (*name).to_owned(),
            occurrence: None,
        })
        .collect();
    let add = |field| HeaderEdit::Add {
        place: EditPlace::Bottom,
        field,
    };
    if !header.has("Date") {
        edits.push(add(date_field(now)));
    }
    if MIME.iter().any(|name| header.has(name)) && !header.has("MIME-Version") {
        edits.push(add(b"MIME-Version: 1.0\r\n".to_vec()));
    }
    let message_id = match header.has("Message-ID") {
        true => header.message_id(),
        false => {
            let id = MessageId::generate(now, random, host);
            edits.push(add(id.to_field()));
            Some(id)
        }
    };
    Completed { edits, message_id }
}

#[cfg(test)]
mod tests {
    use postroad_message::apply_edits;

    use super::*;

    fn completed(header: &str) -> (String, Option<String>) {
        let host = Domain::parse("mail.example").unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let done = complete(
            &HeaderBlock::parse(header.as_bytes()),
            now,
            [7; 10],
            &host,
            true,
        );
        let edited = apply_edits(header.as_bytes(), &done.edits);
        let id = done.message_id.map(|id| id.as_str().to_owned());
        (String::from_utf8(edited).unwrap(), id)
    }

    #[test]
    fn adds_what_is_missing() {
        let (header, id) = completed("Subject: x\r\n\r\n");
        let id = id.unwrap();
        assert_eq!(
            header,
            format!(
                "Subject: x\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: {id}\r\n\r\n"
            )
        );
        assert!(id.ends_with("@mail.example>"));
        assert!(completed("").0.ends_with("\r\n\r\n"), "no header at all");
    }

    #[test]
    fn takes_out_what_only_a_border_or_a_delivery_may_say() {
        let kept = "Date: d\r\nMessage-ID: <a@b>\r\nDKIM-Signature: v=1\r\nARC-Seal: i=1\r\n\r\n";
        let forged = "Authentication-Results: mx.elsewhere.example;\r\n dkim=pass\r\nauthentication-results: mail.example; spf=pass\r\n\
                      Received-SPF: pass\r\nReturn-Path: <x@y>\r\nDelivered-To: bob@b.example\r\nX-Originating-IP: [192.0.2.1]\r\n";
        assert_eq!(completed(&format!("{forged}{kept}")).0, kept);
    }

    #[test]
    fn what_is_of_mime_says_so() {
        let ids = "Date: d\r\nMessage-ID: <a@b>\r\n";
        for (before, added) in [
            ("Content-Type: text/html\r\n", "MIME-Version: 1.0\r\n"),
            (
                "content-transfer-encoding: 8bit\r\n",
                "MIME-Version: 1.0\r\n",
            ),
            ("Mime-Version: 1.0\r\nContent-Type: text/html\r\n", ""),
            ("Subject: text\r\n", ""),
        ] {
            let (header, _) = completed(&format!("{before}{ids}\r\n"));
            assert_eq!(header, format!("{before}{ids}{added}\r\n"));
        }
    }

    #[test]
    fn leaves_what_is_there_and_takes_blind_copies_out() {
        let whole = "Date: yesterday\r\nmessage-id: <a@b>\r\nbCC: secret@x.example,\r\n other@x.example\r\nBcc: again@x.example\r\nTo: x\r\n\r\n";
        let (header, id) = completed(whole);
        assert_eq!(
            header,
            "Date: yesterday\r\nmessage-id: <a@b>\r\nTo: x\r\n\r\n"
        );
        assert_eq!(id.as_deref(), Some("<a@b>"));
    }
}
