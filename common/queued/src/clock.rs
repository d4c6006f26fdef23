//! The two things this crate takes from its surroundings without being given them: time and chance.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::Entropy;

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// How long something took, for the log.
pub(crate) fn millis_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn entropy() -> Entropy {
    Arc::new(|bytes: &mut [u8]| rand::fill(bytes))
}

pub(crate) fn fresh_id() -> QueueId {
    QueueId::mint(now(), rand::random())
}
