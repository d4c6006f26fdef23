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
    use postroad_envelope::{Fence, JobKey, QueueId};

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
