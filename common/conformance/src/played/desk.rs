//! What the played queue knows, and what rules have it do.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use postroad_proto::queue::v1::{AdmitRequest, Event, Reply};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tonic::{Code, Status};

use super::answers::{Answer, Submitted};

/// Content that can be read.
#[derive(Debug, Clone)]
pub struct Content {
    pub octets: Bytes,
    /// The next reading ends after so many octets: in good order, or with an error.
    pub cut: Option<(usize, Option<Code>)>,
    /// Reading waits until this is true.
    pub gate: Option<watch::Receiver<bool>>,
}

impl Content {
    pub fn whole(octets: Bytes) -> Self {
        Self {
            octets,
            cut: None,
            gate: None,
        }
    }
}

/// The state of the played queue.
#[derive(Default)]
pub struct Desk {
    state: Mutex<State>,
    changed: Notify,
}

/// What rules look at and set.
#[derive(Default)]
pub struct State {
    /// How workers are refused that call, one after the other; then none is.
    pub refusals: VecDeque<Code>,
    /// When workers called.
    pub calls: Vec<Instant>,
    pub contents: HashMap<Bytes, Content>,
    /// Readings: of what, and from where.
    pub reads: Vec<(Bytes, u64)>,
    pub admitted: Vec<AdmitRequest>,
    /// How what is asked before content is refused, if it is.
    pub no_admission: Option<(Code, Option<Reply>)>,
    pub submitted: Vec<Submitted>,
    /// How submissions are answered, one after the other; then all are accepted.
    pub answers: VecDeque<Answer>,
    /// An unknown message comes before each answer of `SubmitMany`.
    pub says_unknown: bool,
    /// Counting is not answered.
    pub counts_in_silence: bool,
    pub counts: usize,
    pub events: Vec<Event>,
}

impl Desk {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and lets those look again who wait.
    pub fn change<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let result = what(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    /// Waits until there is something to return.
    pub async fn wait<T>(
        &self,
        patience: Duration,
        look: impl Fn(&State) -> Option<T>,
    ) -> Option<T> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(&self.state()) {
                    return found;
                }
                changed.await;
            }
        };
        timeout(patience, found).await.ok()
    }

    /// What rules made of it is undone; what was seen is forgotten.
    pub fn reset(&self) {
        self.change(|state| *state = State::default());
    }

    /// A worker calls.
    pub fn work_is_asked_for(&self) -> Result<(), Status> {
        self.change(|state| {
            state.calls.push(Instant::now());
            match state.refusals.pop_front() {
                Some(code) => Err(Status::new(code, "as the tester wants it")),
                None => Ok(()),
            }
        })
    }

    /// A mail came to its end: how it is answered.
    pub fn answer_to(&self, submitted: Submitted) -> Answer {
        self.change(|state| {
            state.submitted.push(submitted);
            state.answers.pop_front().unwrap_or(Answer::Accepted)
        })
    }
}
