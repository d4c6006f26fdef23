//! What waits for the thread: many leave events at any time, and it comes for all of them now and then.
//!
//! Nobody wakes it for an event while others wait already: a wake costs more than the event.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::record::Draft;

/// Events taken at once, unless one came with more.
const ROUND: usize = 4_096;

/// What somebody waits for.
pub enum Request {
    /// Answered when all that was said before is written.
    Flush(SyncSender<()>),
    /// A purge begins: what was said before lies in sealed segments then, and none is recycled; or it has ended. Answered
    /// with whether that could be done.
    Clean(bool, SyncSender<bool>),
    Stop,
}

/// Shared by all who leave something and the thread.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    /// Something is there that the thread should know of.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<Draft>,
    requests: Vec<Request>,
    /// Nobody comes any more.
    closed: bool,
}

/// What the thread takes away.
#[derive(Default)]
pub struct Round {
    pub entries: Vec<Draft>,
    /// Made after these entries were left.
    pub requests: Vec<Request>,
}

/// Who comes for it: it closes with the thread, however that ends.
pub struct Taker(pub Arc<Inbox>);

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Inbox {
    /// Leaves events; gives them back if nobody comes for them.
    pub fn leave(&self, entries: Vec<Draft>) -> Result<(), Vec<Draft>> {
        let mut state = self.lock();
        if state.closed {
            return Err(entries);
        }
        let before = state.entries.len();
        if before == 0 {
            state.entries = entries;
        } else {
            state.entries.extend(entries);
        }
        let is_round = before < ROUND && state.entries.len() >= ROUND;
        drop(state);
        if before == 0 || is_round {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Asks for something; false: nobody is there to answer.
    pub fn ask(&self, request: Request) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.requests.push(request);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// What comes within `patience`, and what more comes within `gather` after the first event, unless somebody asks for
    /// something or there is a round of them. Blocks.
    pub fn take(&self, patience: Duration, gather: Duration) -> Round {
        let state = self.lock();
        let state = self.wait(state, patience, |state| {
            state.entries.is_empty() && state.requests.is_empty()
        });
        let mut state = self.wait(state, gather, |state| {
            !state.entries.is_empty() && state.entries.len() < ROUND && state.requests.is_empty()
        });
        let rest = match state.entries.len() > ROUND {
            true => state.entries.split_off(ROUND),
            false => Vec::new(),
        };
        // What is asked waits for all that was left before it.
        let requests = match rest.is_empty() {
            true => mem::take(&mut state.requests),
            false => Vec::new(),
        };
        Round {
            entries: mem::replace(&mut state.entries, rest),
            requests,
        }
    }

    /// Nobody comes any more; who asked is told so by its channel.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left = (
            mem::take(&mut state.entries),
            mem::take(&mut state.requests),
        );
        drop(state);
        drop(left);
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        time: Duration,
        waits: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let until = Instant::now() + time;
        while waits(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.changed.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, thread};

    use postroad_envelope::{Event, EventKind, QueueId, Timestamp};

    use super::{super::record::Entry, *};

    const LONG: Duration = Duration::from_secs(3600);

    fn entries(count: usize) -> Vec<Draft> {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let entry = Entry::from(Event {
            queue_id: QueueId::mint(at, [3; 10]),
            at,
            agent: "mta@here".to_owned(),
            kind: EventKind::Attempt,
            recipients: Vec::new(),
            text: String::new(),
            fields: Default::default(),
        });
        vec![entry.into(); count]
    }

    #[test]
    fn whoever_asks_ends_the_wait_for_more_events() {
        let inbox = Arc::new(Inbox::default());
        let (asked, _answer) = sync_channel(1);
        let (theirs, flush) = (Arc::clone(&inbox), Request::Flush(asked));
        let left = thread::spawn(move || {
            theirs.leave(entries(2)).is_ok()
                && theirs.leave(entries(1)).is_ok()
                && theirs.ask(flush)
        });
        let mut round = inbox.take(LONG, LONG);
        // It may have come between the events and the question.
        while round.requests.is_empty() {
            let next = inbox.take(LONG, LONG);
            round.entries.extend(next.entries);
            round.requests = next.requests;
        }
        assert!(left.join().unwrap());
        assert_eq!(round.entries.len(), 3);
        assert!(matches!(round.requests[..], [Request::Flush(_)]));
    }

    #[test]
    fn a_question_waits_for_the_events_that_were_left_before_it() {
        let inbox = Inbox::default();
        assert!(inbox.leave(entries(ROUND + 1)).is_ok());
        assert!(inbox.ask(Request::Stop));
        let first = inbox.take(LONG, LONG);
        assert_eq!((first.entries.len(), first.requests.len()), (ROUND, 0));
        let second = inbox.take(LONG, LONG);
        assert_eq!((second.entries.len(), second.requests.len()), (1, 1));
    }

    #[test]
    fn nothing_is_left_for_nobody() {
        let inbox = Inbox::default();
        let (asked, answer) = sync_channel(1);
        assert!(inbox.leave(entries(1)).is_ok() && inbox.ask(Request::Flush(asked)));
        inbox.close();
        assert!(answer.recv().is_err(), "who asked need not wait");
        assert_eq!(inbox.leave(entries(2)).unwrap_err().len(), 2);
        assert!(!inbox.ask(Request::Stop));
        let round = inbox.take(Duration::ZERO, LONG);
        assert!(round.entries.is_empty() && round.requests.is_empty());
    }
}
