//! A queue that is plain data: leases to give, and what came back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use postroad_envelope::{Envelope, Event, QueueId};
use postroad_queue_client::{
    Accepted, AdmitRequest, Completion, ContentStream, Count, Counted, HandBack, HeldLease, Lease,
    QueueError, QueueService, SettleResult, Settlement, Submission, WorkChannel, WorkDown,
    WorkHello, WorkUp,
};
use tokio::sync::mpsc;

/// Clones share everything.
#[derive(Clone, Default)]
pub struct FakeQueue(Arc<Mutex<Data>>);

#[derive(Default)]
pub struct Data {
    /// Given to the first worker with credits.
    pub leases: Vec<Lease>,
    /// The first stream ends after so many leases.
    pub stream_breaks_after: Option<usize>,
    /// What `read` gives, in chunks.
    pub content: HashMap<QueueId, Bytes>,
    /// `read` breaks off after so many octets.
    pub read_breaks_after: Option<usize>,
    /// Everything that is asked fails with this.
    pub away: Option<QueueError>,
    pub admitted: Vec<AdmitRequest>,
    pub mails: Vec<(Envelope, Completion, Vec<u8>)>,
    pub settled: Vec<Settlement>,
    pub handed_back: Vec<HandBack>,
    pub events: Vec<Event>,
    /// Whether the worker said that it sends jobs of one mail together.
    pub joins: bool,
    /// Told of every settlement, lease handed back and mail taken.
    pub told: Option<mpsc::UnboundedSender<()>>,
}

impl FakeQueue {
    pub fn with<T>(&self, what: impl FnOnce(&mut Data) -> T) -> T {
        what(&mut self.0.lock().unwrap())
    }

    fn here(&self) -> Result<(), QueueError> {
        self.with(|data| data.away.clone()).map_or(Ok(()), Err)
    }

    fn hear(&self, up: WorkUp) -> Option<WorkDown> {
        self.with(|data| {
            let answer = match up {
                WorkUp::Settle(settlement) => {
                    let lease = settlement.lease;
                    data.settled.push(settlement);
                    let result = SettleResult::Durable;
                    Some(WorkDown::Settled { lease, result })
                }
                WorkUp::Events(events) => {
                    data.events.extend(events);
                    return None;
                }
                WorkUp::HandBack(back) => {
                    data.handed_back.push(back);
                    None
                }
                _ => return None,
            };
            if let Some(told) = &data.told {
                let _ = told.send(());
            }
            answer
        })
    }
}

#[async_trait]
impl QueueService for FakeQueue {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        self.here()?;
        self.with(|data| data.admitted.push(request));
        Ok(())
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        self.here()?;
        Ok(Box::new(FakeSubmission {
            queue: self.clone(),
            envelope,
            content: Vec::new(),
        }))
    }

    async fn work(&self, hello: WorkHello) -> Result<WorkChannel, QueueError> {
        self.here()?;
        let mut until_break = self.with(|data| {
            data.joins = hello.joins;
            data.stream_breaks_after.take()
        });
        let (up, mut ups) = mpsc::channel(16);
        let (downs, down) = mpsc::unbounded_channel();
        let queue = self.clone();
        tokio::spawn(async move {
            // Under their old names.
            let held = hello.held.into_iter();
            let resumed = held
                .map(|HeldLease { lease }| (lease, Some(lease)))
                .collect();
            let _ = downs.send(WorkDown::Welcome {
                epoch: 1,
                stream: 0,
                permits: false,
                resumed,
            });
            let mut credits = 0;
            while let Some(up) = ups.recv().await {
                match up {
                    WorkUp::Credits(more) => credits += more,
                    WorkUp::Drained => return,
                    up => {
                        if let Some(answer) = queue.hear(up) {
                            let _ = downs.send(answer);
                        }
                    }
                }
                while credits > 0 {
                    if until_break == Some(0) {
                        return;
                    }
                    let Some(lease) = queue.with(|data| data.leases.pop()) else {
                        break;
                    };
                    credits -= 1;
                    until_break = until_break.map(|left| left - 1);
                    let _ = downs.send(WorkDown::Lease(Box::new(lease)));
                }
            }
        });
        let down = stream::unfold(down, |mut down| async move {
            Some((Ok(down.recv().await?), down))
        });
        Ok(WorkChannel {
            up,
            down: down.boxed(),
        })
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.here()?;
        let (content, breaks_after) =
            self.with(|data| (data.content.get(&queue_id).cloned(), data.read_breaks_after));
        let content = content.ok_or(QueueError::NotFound)?;
        let content = content.slice(usize::try_from(offset).unwrap()..);
        let whole = content.len();
        let upto = breaks_after.map_or(whole, |after| after.min(whole));
        // An odd size, so that chunks end anywhere in a line.
        let chunks: Vec<_> = content[..upto]
            .chunks(65_535)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .collect();
        let broken = (upto < whole).then(|| Err(QueueError::Unavailable("test".into())));
        Ok(stream::iter(chunks.into_iter().chain(broken)).boxed())
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.with(|data| data.events.extend(events));
        Ok(())
    }

    async fn count(&self, _: Count) -> Result<Counted, QueueError> {
        Err(QueueError::Unsupported("count".into()))
    }
}

struct FakeSubmission {
    queue: FakeQueue,
    envelope: Envelope,
    content: Vec<u8>,
}

#[async_trait]
impl Submission for FakeSubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        self.queue.here()?;
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        self.queue.here()?;
        let FakeSubmission {
            queue,
            envelope,
            content,
        } = *self;
        let queue_id = envelope.queue_id;
        assert_eq!(completion.size, content.len() as u64);
        queue.with(|data| {
            data.mails.push((envelope, completion, content));
            if let Some(told) = &data.told {
                let _ = told.send(());
            }
        });
        Ok(Accepted {
            queue_id,
            duplicate: false,
        })
    }
}
