use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postroad_proto::queue::v1::{
    self,
    queue_client::QueueClient,
    submit_many_response::{Message, answer},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::{
    Accepted, QueueError,
    wire::{from_status, refusal_into_error},
};

/// Mails on one stream that wait for their answer, at most.
const WINDOW: usize = 256;
/// A mail whose answer was lost with the stream is sent again for so long; the id makes that harmless. Then the
/// client is told 451.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One stream of submissions per channel, each run by a task of its own. Dropping this ends them.
pub(super) struct SubmitStreams {
    streams: Vec<SubmitStream>,
    next: AtomicUsize,
    _tasks: JoinSet<()>,
}

impl SubmitStreams {
    pub(super) fn start(channels: &[Channel]) -> Self {
        let mut tasks = JoinSet::new();
        let mut streams = Vec::new();
        for channel in channels {
            let (offers, inbox) = mpsc::channel(WINDOW);
            let run = Runner {
                client: QueueClient::new(channel.clone()),
                inbox,
                waiting: BTreeMap::new(),
                sequence: 0,
            };
            tasks.spawn(run.run());
            streams.push(SubmitStream {
                offers: Arc::new(offers),
            });
        }
        Self {
            streams,
            next: AtomicUsize::new(0),
            _tasks: tasks,
        }
    }

    pub(super) fn pick(&self) -> SubmitStream {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.streams.len().max(1);
        self.streams[at].clone()
    }
}

/// The way onto a shared stream.
#[derive(Clone)]
pub(super) struct SubmitStream {
    offers: Arc<mpsc::Sender<Offer>>,
}

struct Offer {
    request: v1::SubmitManyRequest,
    since: Instant,
    answer: oneshot::Sender<Result<Accepted, QueueError>>,
}

impl SubmitStream {
    pub(super) async fn submit(
        &self,
        request: v1::SubmitManyRequest,
    ) -> Result<Accepted, QueueError> {
        let (answer, result) = oneshot::channel();
        let offer = Offer {
            request,
            since: Instant::now(),
            answer,
        };
        let gone = || QueueError::Unavailable("this agent is stopping".to_owned());
        self.offers.send(offer).await.map_err(|_| gone())?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }
}

struct Runner {
    client: QueueClient<Channel>,
    inbox: mpsc::Receiver<Offer>,
    /// Sent, not yet answered; in the order of sending.
    waiting: BTreeMap<u64, Offer>,
    sequence: u64,
}

impl Runner {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while self.wait_for_work().await {
            let (sender, requests) = mpsc::channel(WINDOW);
            // A server that answers no headers until it has read something would block us here; the first
            // mails are therefore on their way before the call is made.
            for offer in self.waiting.values() {
                let _ = sender.try_send(offer.request.clone());
            }
            let lost = match self.client.submit_many(ReceiverStream::new(requests)).await {
                Ok(answers) => {
                    pause = FIRST_PAUSE;
                    self.converse(sender, answers.into_inner()).await
                }
                Err(status) => from_status(&status),
            };
            self.give_up_old(&lost);
            if !self.waiting.is_empty() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Returns when something waits to be sent; false when nobody can offer any more.
    async fn wait_for_work(&mut self) -> bool {
        if self.waiting.is_empty() {
            match self.inbox.recv().await {
                Some(offer) => self.enlist(offer),
                None => return false,
            };
        }
        true
    }

    fn enlist(&mut self, mut offer: Offer) -> v1::SubmitManyRequest {
        self.sequence += 1;
        offer.request.sequence = self.sequence;
        let request = offer.request.clone();
        self.waiting.insert(self.sequence, offer);
        request
    }

    /// Sends and receives until the stream breaks; says why it did.
    async fn converse(
        &mut self,
        sender: mpsc::Sender<v1::SubmitManyRequest>,
        mut answers: Streaming<v1::SubmitManyResponse>,
    ) -> QueueError {
        let ended = || QueueError::Unavailable("the queue ended the stream".to_owned());
        loop {
            let room = self.waiting.len() < WINDOW;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(message)) => self.settle(message),
                    Ok(None) => return ended(),
                    Err(status) => return from_status(&status),
                },
                offer = self.inbox.recv(), if room => {
                    let Some(offer) = offer else { return ended() };
                    let request = self.enlist(offer);
                    // The channel holds a whole window, so this never waits while answers could come.
                    if sender.send(request).await.is_err() {
                        return ended();
                    }
                }
            }
        }
    }

    fn settle(&mut self, message: v1::SubmitManyResponse) {
        // Admission is advice for those who could wait with DATA; `admit` asks for it there.
        let Some(Message::Answer(answer)) = message.message else {
            return;
        };
        let Some(offer) = self.waiting.remove(&answer.sequence) else {
            return;
        };
        let result = match answer.result {
            Some(answer::Result::Accepted(accepted)) => {
                accepted.try_into().map_err(QueueError::from)
            }
            Some(answer::Result::Refusal(refusal)) => Err(refusal_into_error(refusal)),
            None => Err(QueueError::Unavailable(
                "the queue gave an empty answer".to_owned(),
            )),
        };
        let _ = offer.answer.send(result);
    }

    /// Tells those who waited too long that nobody knows; the others are sent again on the next stream.
    fn give_up_old(&mut self, lost: &QueueError) {
        let now = Instant::now();
        let final_answer = !matches!(lost, QueueError::Unavailable(_));
        let old = |offer: &Offer| final_answer || now.duration_since(offer.since) >= PATIENCE;
        let (give_up, keep): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, offer)| old(offer));
        self.waiting = keep;
        for offer in give_up.into_values() {
            let _ = offer.answer.send(Err(lost.clone()));
        }
    }
}
