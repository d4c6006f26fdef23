//! An event of our own, written as it is told: a `Kept` of `record.rs` (format `timeline v1`) without pieces of memory for
//! its parts, of which there would be thirty to an accepted mail.

use std::{fmt::Display, io::Write as _};

use postroad_envelope::{EventKind, QueueId, RecipientIndex, Timestamp};
use postroad_proto::{convert::event_kind, queue::v1};
use prost::encoding::{WireType, encode_key, encode_varint, message};

use super::{
    index::Key,
    record::{Draft, bare},
};

/// Most events take less. What is written here is given back at once; only as much as it is waits for the disk.
const USUAL: usize = 1024;
/// Fields of `Kept`.
mod kept {
    pub const EVENT: u32 = 1;
    pub const RECIPIENTS: u32 = 2;
    pub const ATTEMPT: u32 = 3;
}
/// Fields of the contract's `Event`, of which `queue_id` is left out.
mod event {
    pub const AT_MS: u32 = 2;
    pub const AGENT: u32 = 3;
    pub const KIND: u32 = 4;
    pub const RECIPIENTS: u32 = 5;
    pub const TEXT: u32 = 6;
    pub const FIELDS: u32 = 7;
}
/// Of an entry of a map.
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// What is told of a mail; ends as a [`Draft`].
#[derive(Debug)]
pub(crate) struct Telling {
    queue_id: QueueId,
    octets: Vec<u8>,
    /// Where the length of the event is.
    event: usize,
    keys: Vec<Key>,
}

impl Telling {
    /// Of this mail, by this agent. Of no recipients: of all.
    pub fn new(
        at: Timestamp,
        queue_id: QueueId,
        agent: &str,
        kind: EventKind,
        recipients: &[RecipientIndex],
    ) -> Self {
        let mut octets = Vec::with_capacity(USUAL);
        let event = begin(kept::EVENT, &mut octets);
        number(event::AT_MS, at.as_millis(), &mut octets);
        text(event::AGENT, agent, &mut octets);
        let kind = i32::from(event_kind(kind));
        number(event::KIND, u64::try_from(kind).unwrap_or(0), &mut octets);
        if !recipients.is_empty() {
            let packed = begin(event::RECIPIENTS, &mut octets);
            for recipient in recipients {
                encode_varint(recipient.0.into(), &mut octets);
            }
            end(packed, &mut octets);
        }
        Self {
            queue_id,
            octets,
            event,
            keys: Vec::new(),
        }
    }

    /// What happened, for a person. Once for an event.
    pub fn text(mut self, what: impl Display) -> Self {
        text(event::TEXT, what, &mut self.octets);
        self
    }

    /// A further field, by the name that logs use. Each name once.
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        let octets = &mut self.octets;
        let entry = begin(event::FIELDS, octets);
        text(KEY, name, octets);
        text(VALUE, value, octets);
        end(entry, octets);
        self
    }

    /// A further field, if there is one.
    pub fn field_of(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// What a mail is found by, with the event of its acceptance: its Message-ID, and its recipients, folded.
    pub fn found_by(
        mut self,
        message_id: Option<&str>,
        recipients: impl IntoIterator<Item = String>,
    ) -> Draft {
        self.keys
            .extend(message_id.map(|id| Key::of_message_id(bare(id))));
        end(self.event, &mut self.octets);
        for recipient in recipients {
            self.keys.push(Key::of_recipient(&recipient));
            text(kept::RECIPIENTS, recipient, &mut self.octets);
        }
        self.draft()
    }

    /// With the attempt that this settles.
    pub fn after(mut self, attempt: &v1::Attempt) -> Draft {
        end(self.event, &mut self.octets);
        message::encode(kept::ATTEMPT, attempt, &mut self.octets);
        self.draft()
    }

    fn draft(self) -> Draft {
        Draft::written(self.queue_id, self.octets.as_slice().to_vec(), self.keys)
    }
}

impl From<Telling> for Draft {
    fn from(mut telling: Telling) -> Self {
        end(telling.event, &mut telling.octets);
        telling.draft()
    }
}

fn number(tag: u32, value: u64, octets: &mut Vec<u8>) {
    encode_key(tag, WireType::Varint, octets);
    encode_varint(value, octets);
}

fn text(tag: u32, what: impl Display, octets: &mut Vec<u8>) {
    let at = begin(tag, octets);
    // Memory refuses nothing.
    let _ = write!(octets, "{what}");
    end(at, octets);
}

/// Begins what is preceded by its length, which is known only at its end. Where the length is.
fn begin(tag: u32, octets: &mut Vec<u8>) -> usize {
    encode_key(tag, WireType::LengthDelimited, octets);
    octets.push(0);
    octets.len() - 1
}

/// Ends it, and writes its length: into the one octet there is for that, or moves what is behind it.
fn end(at: usize, octets: &mut Vec<u8>) {
    let len = octets.len() - at - 1;
    match u8::try_from(len) {
        Ok(short @ ..0x80) => octets[at] = short,
        _ => {
            let mut room = [0; 10];
            let mut left = &mut room[..];
            encode_varint(len as u64, &mut left);
            let used = 10 - left.len();
            octets.splice(at..=at, room.into_iter().take(used));
        }
    }
}

#[cfg(test)]
mod tests {
    use postroad_envelope::{Attempt, Event, Outcome, StatusReport};
    use postroad_reply::NO_ANSWER_4_4_1;
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::{
        super::record::{Entry, decode, encode},
        *,
    };

    fn random_text(random: &mut StdRng, longest: usize) -> String {
        let len = random.random_range(0..=longest);
        (0..len).map(|_| random.random_range('a'..='é')).collect()
    }

    /// What a draft becomes on the disk.
    fn written(draft: Draft) -> (Vec<u8>, Vec<Key>) {
        let (now, id) = (Timestamp::from_millis(7), draft.queue_id);
        let mut records = encode(id, vec![draft], now, false);
        let record = records.pop().expect("one record");
        (record.payload, record.keys.into_iter().collect())
    }

    /// As if it were an [`Entry`], which other agents' events are.
    #[test]
    fn what_is_told_is_read_and_found_as_an_entry_is() {
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..300 {
            // Lengths that take one, two and three octets.
            let longest = [10, 200, 40_000][round % 3];
            let at = Timestamp::from_millis(random.random_range(0..1 << 45));
            let of_all = random.random();
            let outcome = Outcome::Delayed(StatusReport::local(NO_ANSWER_4_4_1, "nobody"));
            let kind = EventKind::ALL[random.random_range(0..EventKind::ALL.len())];
            let mut event = Event {
                queue_id: QueueId::mint(at, [9; 10]),
                at,
                agent: random_text(&mut random, 20),
                kind,
                recipients: match of_all {
                    true => Vec::new(),
                    false => (0..round as u32).map(RecipientIndex).collect(),
                },
                text: random_text(&mut random, longest),
                fields: (0..round % 5)
                    .map(|n| (format!("name{n}"), random_text(&mut random, longest)))
                    .collect(),
            };
            let mut telling =
                Telling::new(at, event.queue_id, &event.agent, kind, &event.recipients)
                    .text(&event.text)
                    .field_of("no_such_field", None::<&str>);
            for (name, value) in &event.fields {
                telling = telling.field(name, value);
            }
            let is_of_a_new_mail = kind == EventKind::Accepted;
            let attempt = (!is_of_a_new_mail && random.random()).then(|| Attempt {
                number: 3,
                started_at: at,
                ended_at: at,
                agent: "mta@here".to_owned(),
                outcomes: vec![(RecipientIndex(3), outcome)],
            });
            let mut recipients = Vec::new();
            let draft: Draft = match &attempt {
                Some(attempt) => telling.after(&attempt.into()),
                None if is_of_a_new_mail => {
                    recipients = vec![random_text(&mut random, longest), "x@far.test".to_owned()];
                    let id = "<a@b>".to_owned();
                    event.fields.insert("message_id".to_owned(), id);
                    let telling = telling.field("message_id", "<a@b>");
                    telling.found_by(Some("<a@b>"), recipients.clone())
                }
                None => telling.into(),
            };
            let (payload, keys) = written(draft);
            let read = decode(&payload).expect("understood");
            let [found] = &read.entries[..] else {
                panic!("not one entry; seed {seed}, round {round}")
            };
            assert_eq!(found.event, event, "seed {seed}, round {round}");
            assert_eq!(found.recipients, recipients, "seed {seed}, round {round}");
            assert_eq!(found.attempt, attempt, "seed {seed}, round {round}");
            let entry = Entry {
                event,
                recipients,
                attempt,
            };
            let (_, expected) = written(entry.into());
            assert_eq!(keys, expected, "seed {seed}, round {round}");
        }
    }
}
