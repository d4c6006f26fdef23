//! Messages of the contract ↔ words of the house.

mod count;
mod envelope;
mod event;
mod outcome;
mod recipient;
mod suppression;
mod work;

pub use count::counter_keys;
pub use event::{event_kind, event_kind_from_wire};
pub use suppression::{suppression_from_wire, suppression_to_wire};

use bytes::Bytes;
use postroad_envelope::{QueueId, Timestamp};

/// A message that cannot be: the field, and what is wrong with it. The fault of the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct ConvertError {
    /// Name of the field in the `.proto` file.
    pub field: &'static str,
    /// What is wrong, without the value.
    pub problem: String,
}

impl ConvertError {
    /// A field with a value that cannot be.
    pub fn new(field: &'static str, problem: impl ToString) -> Self {
        Self {
            field,
            problem: problem.to_string(),
        }
    }
}

/// A queue id from its 16 octets.
pub fn queue_id(field: &'static str, bytes: &[u8]) -> Result<QueueId, ConvertError> {
    <[u8; 16]>::try_from(bytes)
        .map(QueueId::from_bytes)
        .map_err(|_| ConvertError::new(field, "a queue id has 16 octets"))
}

/// The 16 octets of a queue id.
pub fn queue_id_bytes(id: QueueId) -> Bytes {
    Bytes::copy_from_slice(&id.to_bytes())
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or_else(|| ConvertError::new(field, "is missing"))
}

pub(crate) fn parsed<T>(field: &'static str, text: &str) -> Result<T, ConvertError>
where
    T: std::str::FromStr<Err: ToString>,
{
    text.parse()
        .map_err(|error: T::Err| ConvertError::new(field, error))
}

pub(crate) fn millis(time: Option<u64>) -> Option<Timestamp> {
    time.map(Timestamp::from_millis)
}
