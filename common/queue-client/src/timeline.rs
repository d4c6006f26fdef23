//! Following the timeline: events as they come, from a cursor on.

use futures::stream::BoxStream;
use postroad_envelope::{Event, EventKind, QueueId};
use postroad_proto::{ConvertError, convert, queue::v1};

use crate::QueueError;

/// Events in the order in which the queue wrote them.
pub type WatchStream = BoxStream<'static, Result<Watched, QueueError>>;

/// A place in the timeline: which record, and which event in it. It stays what it is over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// Number of the record.
    pub lsn: u64,
    /// The event in the record, from 0.
    pub position: u32,
}

impl Cursor {
    /// Behind every event of a record.
    pub const fn end_of(lsn: u64) -> Self {
        let position = u32::MAX;
        Self { lsn, position }
    }

    /// As on the wire.
    pub fn to_bytes(self) -> [u8; 12] {
        let whole = (u128::from(self.lsn) << 32) | u128::from(self.position);
        let [_, _, _, _, bytes @ ..] = whole.to_be_bytes();
        bytes
    }

    /// None if that is no cursor.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (lsn, position) = bytes.split_first_chunk()?;
        Some(Self {
            lsn: u64::from_be_bytes(*lsn),
            position: u32::from_be_bytes(position.try_into().ok()?),
        })
    }
}

/// See [`QueueAdmin::watch`](crate::QueueAdmin::watch).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchQuery {
    /// Only events of these mails; none named: of all.
    pub ids: Vec<QueueId>,
    /// Only events of mails with this Message-ID or recipient, the newest 100 that are known and those that come. Not
    /// together with ids.
    pub text: Option<String>,
    /// Only events of these kinds; none named: of all.
    pub kinds: Vec<EventKind>,
    /// Events behind this one. None: with ids or text all that are known of these mails, else only what comes from now on.
    pub after: Option<Cursor>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Ask again from here.
    pub cursor: Cursor,
    /// What happened.
    pub event: Event,
}

impl From<&WatchQuery> for v1::WatchRequest {
    fn from(query: &WatchQuery) -> Self {
        let ids = query.ids.iter().map(|&id| convert::queue_id_bytes(id));
        Self {
            cursor: query.after.map(|cursor| cursor.to_bytes().to_vec().into()),
            filter: Some(v1::Filter {
                queue_ids: ids.collect(),
                all: query.ids.is_empty(),
                ..v1::Filter::default()
            }),
            kinds: query
                .kinds
                .iter()
                .map(|&kind| convert::event_kind(kind).into())
                .collect(),
            text: query.text.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::WatchRequest> for WatchQuery {
    type Error = ConvertError;

    fn try_from(wire: v1::WatchRequest) -> Result<Self, ConvertError> {
        let kinds = wire.kinds().map(convert::event_kind_from_wire);
        let kinds = kinds.collect::<Result<_, _>>()?;
        let filter = wire.filter.unwrap_or_default();
        let known = v1::Filter {
            queue_ids: filter.queue_ids.clone(),
            all: filter.all,
            ..v1::Filter::default()
        };
        // A filter that is not understood must not select more than was meant.
        if filter != known || filter.all != filter.queue_ids.is_empty() {
            let why = "events can be had of mails by id, or of all";
            return Err(ConvertError::new("filter", why));
        }
        if !wire.text.is_empty() && !filter.queue_ids.is_empty() {
            return Err(ConvertError::new("text", "does not go together with ids"));
        }
        let ids = filter.queue_ids.iter();
        let ids = ids.map(|id| convert::queue_id("queue_ids", id));
        let no_cursor = || ConvertError::new("cursor", "is none");
        let after = wire.cursor.as_deref();
        Ok(Self {
            ids: ids.collect::<Result<_, _>>()?,
            kinds,
            text: (!wire.text.is_empty()).then_some(wire.text),
            after: after
                .map(|bytes| Cursor::from_bytes(bytes).ok_or_else(no_cursor))
                .transpose()?,
        })
    }
}

impl From<Watched> for v1::WatchEvent {
    fn from(watched: Watched) -> Self {
        Self {
            cursor: watched.cursor.to_bytes().to_vec().into(),
            event: Some(watched.event.into()),
        }
    }
}

impl TryFrom<v1::WatchEvent> for Watched {
    type Error = ConvertError;

    fn try_from(wire: v1::WatchEvent) -> Result<Self, ConvertError> {
        let cursor = Cursor::from_bytes(&wire.cursor);
        let event = wire
            .event
            .ok_or_else(|| ConvertError::new("event", "is missing"))?;
        Ok(Self {
            cursor: cursor.ok_or_else(|| ConvertError::new("cursor", "is none"))?,
            event: event.try_into()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_ordered_and_read_back() {
        let cursor = Cursor {
            lsn: 0x0102_0304_0506_0708,
            position: 9,
        };
        assert_eq!(cursor.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9]);
        assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Some(cursor));
        assert_eq!(Cursor::from_bytes(&[0; 11]), None);
        assert_eq!(Cursor::from_bytes(&[0; 13]), None);
        let next = Cursor {
            lsn: cursor.lsn + 1,
            position: 0,
        };
        assert!(cursor < Cursor::end_of(cursor.lsn) && Cursor::end_of(cursor.lsn) < next);
    }

    #[test]
    fn only_filters_that_are_understood_are_taken() {
        let id = QueueId::from_bytes([7; 16]);
        let ids = vec![id];
        let after = Some(Cursor::end_of(3));
        for query in [
            WatchQuery::default(),
            WatchQuery {
                ids: ids.clone(),
                after,
                ..WatchQuery::default()
            },
            WatchQuery {
                after,
                text: Some("bob@example.org".to_owned()),
                kinds: vec![EventKind::Settled, EventKind::Late],
                ..WatchQuery::default()
            },
        ] {
            let wire = v1::WatchRequest::from(&query);
            assert_eq!(WatchQuery::try_from(wire), Ok(query));
        }
        let mut wire = v1::WatchRequest::from(&WatchQuery::default());
        wire.filter.as_mut().unwrap().account = Some("a@b".to_owned());
        assert!(WatchQuery::try_from(wire).is_err());
        assert!(WatchQuery::try_from(v1::WatchRequest::default()).is_err());
        let both = WatchQuery {
            ids,
            text: Some("bob@example.org".to_owned()),
            ..WatchQuery::default()
        };
        assert!(WatchQuery::try_from(v1::WatchRequest::from(&both)).is_err());
        let mut wire = v1::WatchRequest::from(&WatchQuery::default());
        wire.kinds.push(v1::EventKind::Unspecified.into());
        assert!(WatchQuery::try_from(wire).is_err());
    }
}
