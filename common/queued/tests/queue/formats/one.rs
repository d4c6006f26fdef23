//! A strict reader of format 1: every kind and field that a release may have written into it. What is not here came later.

use prost::encoding::{WireType, decode_key, decode_varint};

/// A message: its name, how many fields it has, and which of them are messages.
type Message = (&'static str, u32, &'static [(u32, &'static str)]);

const KINDS: [&str; 7] = [
    "Mail",
    "JobState",
    "LeaseHints",
    "Epoch",
    "Checkpoint",
    "Snapshot",
    "FinishedBlock",
];

const MESSAGES: &[Message] = &[
    (
        "MailHead",
        4,
        &[
            (1, "Envelope"),
            (2, "ContentFile"),
            (3, "Digest"),
            (4, "JobState"),
        ],
    ),
    ("ContentFile", 3, &[]),
    ("Digest", 3, &[]),
    (
        "JobState",
        19,
        &[
            (6, "HostPort"),
            (16, "RecipientState"),
            (17, "StatusReport"),
            (18, "Digest"),
        ],
    ),
    ("RecipientState", 4, &[]),
    ("StatusReport", 4, &[(3, "RemoteHost"), (4, "Reply")]),
    ("RemoteHost", 3, &[(3, "TlsFacts")]),
    ("TlsFacts", 2, &[]),
    ("Reply", 3, &[]),
    ("HostPort", 2, &[]),
    (
        "Envelope",
        26,
        &[
            (3, "Recipient"),
            (7, "Entry"),
            (13, "DeliverBy"),
            (21, "Entry"),
            (25, "HeaderEdit"),
            (26, "Origin"),
        ],
    ),
    ("Recipient", 8, &[(5, "OriginalRecipient"), (7, "HostPort")]),
    ("OriginalRecipient", 2, &[]),
    ("DeliverBy", 3, &[]),
    ("HeaderEdit", 4, &[]),
    ("Origin", 6, &[(4, "TlsFacts")]),
    ("LeaseHints", 1, &[(1, "LeaseHint")]),
    ("LeaseHint", 7, &[]),
    ("Epoch", 1, &[]),
    ("Checkpoint", 4, &[(3, "LeaseHint")]),
    ("Snapshot", 1, &[(1, "Entry")]),
    ("FinishedBlock", 1, &[(1, "Finished")]),
    ("Finished", 3, &[(3, "Digest")]),
    ("Entry", 2, &[]),
];

/// What in a record is not of format 1.
pub fn unknown(kind: u16, payload: &[u8]) -> Option<String> {
    let Some(name) = usize::from(kind)
        .checked_sub(1)
        .and_then(|at| KINDS.get(at))
    else {
        return Some(format!("kind {kind}"));
    };
    if *name != "Mail" {
        return in_message(name, payload);
    }
    // The head with its length, then the content.
    let mut rest = payload;
    let len = usize::try_from(decode_varint(&mut rest).unwrap()).unwrap();
    in_message("MailHead", &rest[..len])
}

fn in_message(name: &str, mut rest: &[u8]) -> Option<String> {
    let known = MESSAGES.iter().find(|(known, ..)| *known == name);
    let (_, fields, messages) = known.unwrap();
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).unwrap();
        if number > *fields {
            return Some(format!("field {number} of {name}"));
        }
        let len = match kind {
            WireType::Varint => {
                decode_varint(&mut rest).unwrap();
                continue;
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                usize::try_from(decode_varint(&mut rest).unwrap()).unwrap()
            }
            other => return Some(format!("{other:?} in {name}")),
        };
        let (value, after) = rest.split_at(len);
        rest = after;
        if let Some((_, inner)) = messages.iter().find(|(field, _)| *field == number)
            && let Some(found) = in_message(inner, value)
        {
            return Some(found);
        }
    }
    None
}
