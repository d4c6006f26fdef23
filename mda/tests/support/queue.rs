//! A queue of plain data: it keeps what is submitted, and a test speaks for it on the worker's stream.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use postroad_envelope::{
    Envelope, Event, Fence, JobKey, LeaseRef, Outcome, QueueId, RecipientIndex, Route, RouteClass,
};
use postroad_queue_client::*;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct FakeQueue {
    /// What can be read, by id.
    pub contents: Mutex<HashMap<QueueId, Bytes>>,
    /// What was submitted and acknowledged.
    pub submitted: Arc<Mutex<Vec<Submitted>>>,
    /// What was asked before content.
    pub admitted: Mutex<Vec<AdmitRequest>>,
    /// Set: the answer to everything.
    pub away: Mutex<Option<QueueError>>,
    pub events: Arc<Mutex<Vec<Event>>>,
    /// What every read waits for, if anything: that this becomes true.
    pub read_gate: Mutex<Option<watch::Receiver<bool>>>,
    /// The next stream breaks when the first events have come, and what follows them has not.
    pub cut_behind_events: AtomicBool,
    sessions: Mutex<Option<mpsc::Sender<Session>>>,
}

#[derive(Debug, Clone)]
pub struct Submitted {
    pub envelope: Envelope,
    pub content: Bytes,
    pub completion: Completion,
}

impl Submitted {
    /// The content as a reader of the queue sees it, edits applied.
    pub fn edited(&self) -> String {
        let mut edits = self.envelope.header_edits.clone();
        edits.extend(self.completion.header_edits.clone());
        let (header, body) = postroad_message::split(&self.content);
        let mut whole = postroad_message::apply_edits(header, &edits);
        whole.extend_from_slice(body);
        String::from_utf8(whole).unwrap()
    }
}

/// The queue's end of a worker's stream.
pub struct Session {
    pub up: mpsc::Receiver<WorkUp>,
    down: mpsc::Sender<Result<WorkDown, QueueError>>,
}

impl FakeQueue {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Where the streams of workers arrive.
    pub fn sessions(&self) -> mpsc::Receiver<Session> {
        let (send, receive) = mpsc::channel(4);
        *self.sessions.lock().unwrap() = Some(send);
        receive
    }

    pub fn mails(&self) -> Vec<Submitted> {
        self.submitted.lock().unwrap().clone()
    }

    fn here(&self) -> Result<(), QueueError> {
        self.away.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl QueueService for FakeQueue {
    async fn admit(&self, request: AdmitRequest) -> Result<(), QueueError> {
        self.here()?;
        self.admitted.lock().unwrap().push(request);
        Ok(())
    }

    async fn submit(&self, envelope: Envelope) -> Result<Box<dyn Submission>, QueueError> {
        self.here()?;
        Ok(Box::new(FakeSubmission {
            envelope,
            content: BytesMut::new(),
            submitted: Arc::clone(&self.submitted),
        }))
    }

    async fn work(&self, _: WorkHello) -> Result<WorkChannel, QueueError> {
        self.here()?;
        let cut = self.cut_behind_events.swap(false, Ordering::Relaxed);
        // With room for one message the next one is still with the worker when the stream breaks.
        let (up, mut from_worker) = mpsc::channel(if cut { 1 } else { 64 });
        let (to_session, ups) = mpsc::channel(64);
        let (down, downs) = mpsc::channel(64);
        let left = CancellationToken::new();
        let (leaves, events) = (left.clone(), Arc::clone(&self.events));
        tokio::spawn(async move {
            while let Some(message) = from_worker.recv().await {
                match &message {
                    WorkUp::Drained => leaves.cancel(),
                    WorkUp::Events(told) => events.lock().unwrap().extend(told.iter().cloned()),
                    _ => {}
                }
                if cut && matches!(message, WorkUp::Events(_)) {
                    leaves.cancel();
                    break;
                }
                // A test need not listen to the end.
                let _ = to_session.send(message).await;
            }
        });
        let welcome = WorkDown::Welcome {
            epoch: 1,
            stream: 0,
            permits: false,
            resumed: Vec::new(),
        };
        down.send(Ok(welcome)).await.unwrap();
        let sessions = self.sessions.lock().unwrap().clone();
        let session = Session { up: ups, down };
        match sessions {
            Some(sessions) => sessions.send(session).await.map_err(|_| gone())?,
            None => return Err(gone()),
        }
        let down = stream::unfold(downs, |mut downs| async {
            downs.recv().await.map(|message| (message, downs))
        });
        Ok(WorkChannel {
            up,
            down: down.take_until(left.cancelled_owned()).boxed(),
        })
    }

    async fn read(&self, queue_id: QueueId, offset: u64) -> Result<ContentStream, QueueError> {
        self.here()?;
        let gate = self.read_gate.lock().unwrap().clone();
        if let Some(mut gate) = gate {
            let _ = gate.wait_for(|open| *open).await;
        }
        let contents = self.contents.lock().unwrap();
        let content = contents.get(&queue_id).ok_or(QueueError::NotFound)?;
        let content = content.slice(usize::try_from(offset).unwrap()..);
        let chunks: Vec<_> = content
            .chunks(64 * 1024)
            .map(|chunk| Ok(content.slice_ref(chunk)))
            .collect();
        Ok(stream::iter(chunks).boxed())
    }

    async fn record(&self, events: Vec<Event>) -> Result<(), QueueError> {
        self.events.lock().unwrap().extend(events);
        Ok(())
    }

    async fn count(&self, _: Count) -> Result<Counted, QueueError> {
        Err(QueueError::Unsupported("count".into()))
    }
}

fn gone() -> QueueError {
    QueueError::Unavailable("nobody plays the queue".to_owned())
}

struct FakeSubmission {
    envelope: Envelope,
    content: BytesMut,
    submitted: Arc<Mutex<Vec<Submitted>>>,
}

#[async_trait]
impl Submission for FakeSubmission {
    async fn chunk(&mut self, bytes: Bytes) -> Result<(), QueueError> {
        assert!(bytes.len() <= 64 * 1024, "chunks are at most 64 KiB");
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>, completion: Completion) -> Result<Accepted, QueueError> {
        assert_eq!(completion.size, self.content.len() as u64);
        let queue_id = self.envelope.queue_id;
        let mut submitted = self.submitted.lock().unwrap();
        let duplicate = submitted
            .iter()
            .any(|known| known.envelope.queue_id == queue_id);
        if !duplicate {
            submitted.push(Submitted {
                envelope: self.envelope,
                content: self.content.freeze(),
                completion,
            });
        }
        Ok(Accepted {
            queue_id,
            duplicate,
        })
    }
}

impl Session {
    /// Gives a lease of these recipients; the content travels with it, or is to be read.
    pub async fn lease(&self, envelope: &Envelope, content: Option<Bytes>) -> LeaseRef {
        let lease = LeaseRef {
            job: JobKey {
                queue_id: envelope.queue_id,
                number: 0,
            },
            revision: 1,
            fence: Fence {
                epoch: 1,
                counter: 1,
            },
        };
        let message = Lease {
            lease,
            duration: Duration::from_secs(60),
            route: Route::new(RouteClass::Local, "example.org", "test"),
            attempt: 1,
            envelope: envelope.clone(),
            content,
            site: None,
            followed_by: 0,
        };
        self.say(WorkDown::Lease(Box::new(message))).await;
        lease
    }

    /// The outcomes of the next settlement, which is then durable.
    pub async fn settled(&mut self) -> Vec<(RecipientIndex, Outcome)> {
        let settlement = self.settlement().await;
        self.keep(&settlement).await;
        settlement.outcomes
    }

    /// Answers a settlement.
    pub async fn keep(&self, settlement: &Settlement) {
        self.say(WorkDown::Settled {
            lease: settlement.lease,
            result: SettleResult::Durable,
        })
        .await;
    }

    /// The next settlement, unanswered.
    pub async fn settlement(&mut self) -> Settlement {
        match self.result().await {
            WorkUp::Settle(settlement) => settlement,
            other => panic!("not a settlement: {other:?}"),
        }
    }

    /// The next settlement or lease handed back.
    pub async fn result(&mut self) -> WorkUp {
        loop {
            let next = timeout(PATIENCE, self.up.recv()).await;
            let next = next.expect("no result in time");
            if let result @ (WorkUp::Settle(_) | WorkUp::HandBack(_)) = next.expect("no worker") {
                return result;
            }
        }
    }

    async fn say(&self, message: WorkDown) {
        self.down.send(Ok(message)).await.unwrap();
    }
}
