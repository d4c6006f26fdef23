//! What a submission server adds to and takes from a mail (RFC 6409 §8), as header edits.

use postroad_address::Domain;
use postroad_envelope::{EditPlace, HeaderEdit, Timestamp};
use postroad_message::{HeaderBlock, MessageId, date_field};

/// Fields no other host may see: who was copied blindly, and what only a final delivery may write (RFC 5321 §4.4).
const REMOVED: [&str; 3] = ["Bcc", "Resent-Bcc", "Return-Path"];

/// What a mail still lacks, and its Message-ID.
pub struct Completed {
    pub edits: Vec<HeaderEdit>,
    pub message_id: Option<MessageId>,
}

/// Date and Message-ID are added when they are missing (RFC 6409 §8.2 and §8.3), below the client's own fields.
/// What is there is left as it is, good or bad.
pub fn complete(
    header: &HeaderBlock,
    now: Timestamp,
    random: [u8; 10],
    host: &Domain,
) -> Completed {
    let mut edits: Vec<HeaderEdit> = REMOVED
        .iter()
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
        let done = complete(&HeaderBlock::parse(header.as_bytes()), now, [7; 10], &host);
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
