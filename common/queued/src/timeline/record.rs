//! What lies in a segment of the timeline: format `timeline v1`. Numbers are never used again, fields only added; events
//! and attempts are the contract's messages, which follow the same rule.

use std::{collections::BTreeSet, mem};

use postroad_envelope::{Attempt, Event, EventKind, QueueId, Timestamp};
use postroad_journal::RecordKind;
use postroad_proto::queue::v1;
use prost::Message;

use super::index::Key;

/// Events of one mail. Other kinds are passed over.
pub const EVENTS: RecordKind = RecordKind(1);
/// A record is not made longer than this, unless by a single event.
const LONG: usize = 64 << 10;

/// An event, and what only the timeline needs with it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub event: Event,
    /// The mail's recipients, folded: what it is found by. Only with `Accepted`.
    pub recipients: Vec<String>,
    /// Only with `Settled`.
    pub attempt: Option<Attempt>,
}

impl From<Event> for Entry {
    fn from(event: Event) -> Self {
        Self {
            event,
            recipients: Vec::new(),
            attempt: None,
        }
    }
}

impl Entry {
    /// The Message-ID without its angle brackets.
    pub fn message_id(&self) -> Option<&str> {
        let id = (self.event.kind == EventKind::Accepted)
            .then(|| self.event.fields.get("message_id"))
            .flatten();
        id.map(|id| bare(id))
    }
}

/// What someone names mails by: a Message-ID, or the address of a recipient.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub message_id: String,
    /// Folded.
    pub address: String,
}

impl Named {
    /// Either, with or without angle brackets.
    pub fn by(text: &str) -> Self {
        let address = text.trim_start_matches('<').trim_end_matches('>');
        let address = postroad_address::Mailbox::parse(address)
            .map_or_else(|_| address.to_lowercase(), |mailbox| mailbox.folded());
        Self {
            message_id: bare(text).to_owned(),
            address,
        }
    }

    /// Whether this entry tells of such a mail.
    pub fn is_meant(&self, entry: &Entry) -> bool {
        entry.message_id() == Some(&self.message_id) || entry.recipients.contains(&self.address)
    }
}

/// A Message-ID without its angle brackets (RFC 5322 §3.6.4).
pub(super) fn bare(message_id: &str) -> &str {
    let id = message_id.trim();
    id.strip_prefix('<')
        .and_then(|id| id.strip_suffix('>'))
        .unwrap_or(id)
}

#[derive(Clone, PartialEq, Message)]
struct Events {
    #[prost(bytes = "vec", tag = "1")]
    queue_id: Vec<u8>,
    /// By our clock, which retention goes by.
    #[prost(uint64, tag = "2")]
    written_at_ms: u64,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<Kept>,
}

#[derive(Clone, PartialEq, Message)]
struct Kept {
    /// Without `queue_id`.
    #[prost(message, optional, tag = "1")]
    event: Option<v1::Event>,
    #[prost(string, repeated, tag = "2")]
    recipients: Vec<String>,
    #[prost(message, optional, tag = "3")]
    attempt: Option<v1::Attempt>,
}

/// [`Events`] of entries that are octets already.
#[derive(Clone, PartialEq, Message)]
struct DraftedEvents {
    #[prost(bytes = "vec", tag = "1")]
    queue_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    written_at_ms: u64,
    #[prost(bytes = "vec", repeated, tag = "3")]
    entries: Vec<Vec<u8>>,
}

/// An entry on its way to the disk. As it is there, which is one piece of memory: of fifty, made by one thread and given back by
/// another later, each is far from every processor by then.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub queue_id: QueueId,
    /// A [`Kept`].
    kept: Vec<u8>,
    /// What it is found by besides its mail.
    keys: Vec<Key>,
}

impl Draft {
    /// Of a [`Kept`] that was written elsewhere.
    pub(super) fn written(queue_id: QueueId, kept: Vec<u8>, keys: Vec<Key>) -> Self {
        Self {
            queue_id,
            kept,
            keys,
        }
    }

    /// About as much memory as it takes.
    pub fn octets(&self) -> usize {
        256 + self.kept.len()
    }
}

impl From<Entry> for Draft {
    fn from(entry: Entry) -> Self {
        let queue_id = entry.event.queue_id;
        Self {
            queue_id,
            keys: Key::of_entry(&entry).collect(),
            kept: Kept::from(entry).encode_to_vec(),
        }
    }
}

impl From<Event> for Draft {
    fn from(event: Event) -> Self {
        Entry::from(event).into()
    }
}

/// A record, read.
#[derive(Debug)]
pub struct Decoded {
    pub queue_id: QueueId,
    pub written_at: Timestamp,
    pub entries: Vec<Entry>,
}

/// A record as it is written.
#[derive(Default)]
pub struct Encoded {
    pub payload: Vec<u8>,
    /// What its entries are found by.
    pub keys: BTreeSet<Key>,
    /// How many are in it.
    pub count: usize,
    /// They themselves, for those who follow.
    pub entries: Vec<Entry>,
}

/// The records of one mail's entries; with the entries, if somebody follows.
pub fn encode(
    queue_id: QueueId,
    drafts: Vec<Draft>,
    now: Timestamp,
    is_followed: bool,
) -> Vec<Encoded> {
    let mut records = Vec::new();
    let (mut record, mut entries, mut len) = (Encoded::default(), Vec::new(), 0);
    let finish = |mut record: Encoded, entries: Vec<Vec<u8>>| {
        record.keys.insert(Key::of_id(queue_id));
        let events = DraftedEvents {
            queue_id: queue_id.to_bytes().to_vec(),
            written_at_ms: now.as_millis(),
            entries,
        };
        let payload = events.encode_to_vec();
        let read = is_followed.then(|| decode(&payload)).flatten();
        Encoded {
            entries: read.map_or_else(Vec::new, |read| read.entries),
            payload,
            ..record
        }
    };
    for draft in drafts {
        let longer = draft.kept.len();
        if len > 0 && len + longer > LONG {
            records.push(finish(mem::take(&mut record), mem::take(&mut entries)));
            len = 0;
        }
        len += longer;
        record.keys.extend(draft.keys);
        record.count += 1;
        entries.push(draft.kept);
    }
    records.push(finish(record, entries));
    records
}

/// What a payload says; none if it says nothing that can be understood. Events of kinds this release does not know are
/// passed over.
pub fn decode(payload: &[u8]) -> Option<Decoded> {
    let record = Events::decode(payload).ok()?;
    let queue_id = QueueId::from_bytes(record.queue_id.as_slice().try_into().ok()?);
    let entries = record.entries.into_iter().filter_map(|kept| {
        let event = v1::Event {
            queue_id: record.queue_id.clone().into(),
            ..kept.event?
        };
        Some(Entry {
            event: event.try_into().ok()?,
            recipients: kept.recipients,
            attempt: kept.attempt.and_then(|attempt| attempt.try_into().ok()),
        })
    });
    Some(Decoded {
        queue_id,
        written_at: Timestamp::from_millis(record.written_at_ms),
        entries: entries.collect(),
    })
}

impl From<Entry> for Kept {
    fn from(entry: Entry) -> Self {
        Self {
            event: Some(v1::Event {
                queue_id: bytes::Bytes::new(),
                ..entry.event.into()
            }),
            recipients: entry.recipients,
            attempt: entry.attempt.as_ref().map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use postroad_envelope::{Outcome, RecipientIndex, StatusReport};
    use postroad_reply::NO_ANSWER_4_4_1;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn entry(text: &str) -> Entry {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let outcome = Outcome::Delayed(StatusReport::local(NO_ANSWER_4_4_1, "nobody"));
        Entry {
            event: Event {
                queue_id: QueueId::mint(at, [7; 10]),
                at,
                agent: "queued@here".to_owned(),
                kind: EventKind::Accepted,
                recipients: vec![RecipientIndex(3)],
                text: text.to_owned(),
                fields: BTreeMap::from([("message_id".to_owned(), "<a@b>".to_owned())]),
            },
            recipients: vec!["x@far.test".to_owned()],
            attempt: Some(Attempt {
                number: 2,
                started_at: at,
                ended_at: at,
                agent: "mta@here".to_owned(),
                outcomes: vec![(RecipientIndex(3), outcome)],
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_and_unknown_fields_do_not_harm() {
        let kept = entry("kept");
        let now = Timestamp::from_millis(5);
        let written = encode(kept.event.queue_id, vec![kept.clone().into()], now, true);
        let [
            Encoded {
                payload,
                keys,
                count: 1,
                entries,
            },
        ] = &written[..]
        else {
            panic!("one record of one entry")
        };
        assert_eq!(entries.len(), 1);
        let of = Key::of_entries(kept.event.queue_id, entries);
        assert_eq!(*keys, of);
        let mut newer = payload.clone();
        // Field 90, a number.
        newer.extend([0xd0, 0x05, 0x07]);
        for payload in [payload, &newer] {
            let read = decode(payload).unwrap();
            assert_eq!(read.written_at, now);
            let [found] = &read.entries[..] else {
                panic!("one entry")
            };
            assert_eq!(found.event, kept.event);
            assert_eq!(found.attempt, kept.attempt);
            assert_eq!(found.recipients, kept.recipients);
            assert_eq!(found.message_id(), Some("a@b"));
        }
    }

    #[test]
    fn many_entries_are_several_records() {
        let long = "x".repeat(30_000);
        let id = entry("").event.queue_id;
        let written = encode(
            id,
            vec![entry(&long).into(); 5],
            Timestamp::from_millis(5),
            false,
        );
        let counts: Vec<usize> = written.iter().map(|record| record.count).collect();
        assert_eq!(counts, [2, 2, 1]);
    }

    #[test]
    fn arbitrary_octets_are_no_fault() {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let valid = encode(
            entry("").event.queue_id,
            vec![entry("").into()],
            Timestamp::from_millis(1),
            false,
        );
        for _ in 0..2_000 {
            let mut payload = valid[0].payload.clone();
            let at = random.random_range(0..payload.len());
            payload[at] = random.random();
            payload.truncate(random.random_range(0..=payload.len()));
            let _ = decode(&payload);
        }
    }
}
