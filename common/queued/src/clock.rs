//! The two things this crate takes from its surroundings without being given them: time and chance.

use std::{sync::Arc, time::SystemTime};

use postroad_envelope::{QueueId, Timestamp};
use postroad_journal::Entropy;

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

pub(crate) fn entropy() -> Entropy {
    Arc::new(|bytes: &mut [u8]| rand::fill(bytes))
}

pub(crate) fn fresh_id() -> QueueId {
    QueueId::mint(now(), rand::random())
}
