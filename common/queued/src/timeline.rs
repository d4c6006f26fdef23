//! The events of recent mails, in memory: what `trace` prints.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use postroad_envelope::{Attempt, Event, QueueId};

/// Mails whose events are kept.
const MAILS: usize = 10_000;
/// Events, and attempts, kept of one mail; of more, the first and the newest.
const EVENTS: usize = 200;

/// Bounded by mails and by events of each; the mail that came first goes first.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_mail: HashMap<QueueId, History>,
    order: VecDeque<QueueId>,
}

#[derive(Debug, Default)]
struct History {
    events: Vec<Event>,
    attempts: Vec<Attempt>,
}

impl Timeline {
    pub fn record(&self, events: impl IntoIterator<Item = Event>) {
        let mut inner = self.lock();
        for event in events {
            push(&mut inner.history(event.queue_id).events, event);
        }
    }

    pub fn record_attempt(&self, queue_id: QueueId, attempt: Attempt) {
        push(&mut self.lock().history(queue_id).attempts, attempt);
    }

    /// Oldest first.
    pub fn of(&self, queue_id: QueueId) -> Vec<Event> {
        let mut events = self
            .lock()
            .by_mail
            .get(&queue_id)
            .map(|h| h.events.clone())
            .unwrap_or_default();
        events.sort_by_key(|event| event.at);
        events
    }

    /// Oldest first.
    pub fn attempts(&self, queue_id: QueueId) -> Vec<Attempt> {
        self.lock()
            .by_mail
            .get(&queue_id)
            .map(|h| h.attempts.clone())
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn history(&mut self, id: QueueId) -> &mut History {
        if !self.by_mail.contains_key(&id) {
            self.order.push_back(id);
            if self.order.len() > MAILS
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_mail.remove(&oldest);
            }
        }
        self.by_mail.entry(id).or_default()
    }
}

fn push<T>(kept: &mut Vec<T>, new: T) {
    if kept.len() >= EVENTS {
        kept.remove(EVENTS / 2);
    }
    kept.push(new);
}
