//! Where handlers ask whether a site may be connected to, and tell the timeline what happened.

use std::{collections::HashMap, time::Duration};

use postroad_envelope::{Event, LeaseRef};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{Permit, Permitted};

/// Questions on their way to the worker's stream.
const ASKS: usize = 256;
/// Without an answer a handler goes on; a queue that is away does not hold up mail.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events on their way there; what is more is lost, since mail matters more than its story.
const TOLD: usize = 4096;

/// The way of handlers to the worker's stream.
#[derive(Debug, Clone)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    told: mpsc::Sender<Event>,
}

/// The other end of it.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) told: mpsc::Receiver<Event>,
}

/// A question, and where the answer goes.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) lease: LeaseRef,
    site: String,
    answer: oneshot::Sender<Permitted>,
}

impl Inbox {
    /// This one and what waits behind it, at most so many.
    pub(super) fn take(&mut self, first: Option<Event>, most: usize) -> Vec<Event> {
        let mut events: Vec<Event> = first.into_iter().collect();
        while events.len() < most
            && let Ok(event) = self.told.try_recv()
        {
            events.push(event);
        }
        events
    }
}

impl Desk {
    pub(super) fn new() -> (Self, Inbox) {
        let (asks, asked) = mpsc::channel(ASKS);
        let (tell, told) = mpsc::channel(TOLD);
        let inbox = Inbox { asks: asked, told };
        (Self { asks, told: tell }, inbox)
    }

    /// One where nobody answers: every site may be connected to.
    pub fn closed() -> Self {
        Self::new().0
    }

    /// For the timelines of mails. The queue hears of it on the worker's stream, before it hears of the end of any lease whose handler
    /// told it.
    pub fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if self.told.try_send(event).is_err() {
                tracing::debug!("an event of the timeline was lost");
            }
        }
    }

    /// Whether the worker of this lease may connect to a site; else how long to give the lease back for. Without an answer it may.
    pub async fn may_connect(&self, lease: LeaseRef, site: &str) -> Result<(), Duration> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            lease,
            site: site.to_owned(),
            answer,
        };
        let asking = async {
            self.asks.send(ask).await.ok()?;
            answered.await.ok()
        };
        match timeout(PATIENCE, asking).await {
            Ok(Some(permitted)) if permitted.connections == 0 => Err(permitted.retry_after),
            _ => Ok(()),
        }
    }
}

/// Questions that were sent on the stream there is now.
#[derive(Debug, Default)]
pub(super) struct Asked {
    answers: bool,
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Permitted>>,
}

impl Asked {
    /// What the queue said of itself.
    pub(super) fn answers(&mut self, answers: bool) {
        self.answers = answers;
    }

    /// What to send; a queue that does not answer is not asked, and the handler goes on.
    pub(super) fn enter(&mut self, ask: Ask) -> Option<Permit> {
        if !self.answers {
            return None;
        }
        self.last += 1;
        self.waiting.retain(|_, answer| !answer.is_closed());
        self.waiting.insert(self.last, ask.answer);
        Some(Permit {
            request: self.last,
            site: ask.site,
            connections: 1,
            lease: ask.lease,
        })
    }

    pub(super) fn answer(&mut self, permitted: Permitted) {
        if let Some(answer) = self.waiting.remove(&permitted.request) {
            let _ = answer.send(permitted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use postroad_envelope::{EventKind, Fence, JobKey, QueueId, Timestamp};

    use super::*;

    fn lease() -> LeaseRef {
        LeaseRef {
            job: JobKey {
                queue_id: QueueId::from_bytes([7; 16]),
                number: 0,
            },
            revision: 1,
            fence: Fence {
                epoch: 1,
                counter: 1,
            },
        }
    }

    #[test]
    fn what_is_told_keeps_its_order_and_what_is_too_much_is_lost() {
        let (desk, mut inbox) = Desk::new();
        let event = |number: usize| Event {
            queue_id: QueueId::from_bytes([7; 16]),
            at: Timestamp::default(),
            agent: "mta@test".to_owned(),
            kind: EventKind::Attempt,
            recipients: Vec::new(),
            text: number.to_string(),
            fields: BTreeMap::new(),
        };
        desk.tell((0..TOLD + 2).map(event));
        let first = inbox.told.try_recv().ok();
        let mut told = inbox.take(first, 3);
        assert_eq!(told.len(), 3);
        told.extend(inbox.take(None, TOLD));
        assert_eq!(told, (0..TOLD).map(event).collect::<Vec<_>>());
        assert!(inbox.take(None, 1).is_empty());
        desk.tell([event(7)]);
        assert_eq!(inbox.take(None, 1), [event(7)], "there is room again");
        // Nobody listens any more: that is no fault.
        drop(inbox);
        desk.tell([event(8)]);
    }

    #[tokio::test]
    async fn a_refusal_is_heard_and_whoever_hears_nothing_goes_on() {
        let (desk, mut inbox) = Desk::new();
        let mut asked = Asked::default();
        let answer = |permits: bool, connections: u32, asked: &mut Asked, ask: Ask| {
            asked.answers(permits);
            let Some(permit) = asked.enter(ask) else {
                return false;
            };
            asked.answer(Permitted {
                request: permit.request,
                connections,
                retry_after: Duration::from_secs(9),
            });
            true
        };
        for (permits, connections, expected) in [
            (true, 1, Ok(())),
            (true, 0, Err(Duration::from_secs(9))),
            (false, 0, Ok(())),
        ] {
            let asking = desk.may_connect(lease(), "mx.test");
            let answering = async {
                let ask = inbox.asks.recv().await.unwrap();
                assert_eq!(answer(permits, connections, &mut asked, ask), permits);
            };
            assert_eq!(tokio::join!(asking, answering).0, expected);
        }
        assert_eq!(Desk::closed().may_connect(lease(), "mx.test").await, Ok(()));
    }
}
