mod ticket;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use postroad_proto::queue::v1::{
    self,
    queue_client::QueueClient,
    submit_many_response::{Message, answer},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use self::ticket::Ticket;
use crate::{
    Accepted, QueueError,
    wire::{from_status, refusal_into_error},
};

/// Mails on one stream that wait for their answer, at most.
const WINDOW: usize = 256;
/// A mail whose answer was lost with the stream is sent again for so long; the id makes that harmless. Then the
/// client is told 451.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
                unasked: Arc::default(),
            };
            streams.push(SubmitStream {
                offers: Arc::new(offers),
                unasked: Arc::clone(&run.unasked),
            });
            tasks.spawn(run.run());
        }
        Self {
            streams,
            next: AtomicUsize::new(0),
            _tasks: tasks,
        }
    }

    /// Whether the queue has said, of a stream that lasts, that it takes mail of this size from anybody.
    pub(super) fn take_unasked(&self, size: u64) -> bool {
        let unasked = |stream: &SubmitStream| stream.unasked.load(Ordering::Relaxed);
        self.streams
            .iter()
            .any(|stream| (1..=unasked(stream)).contains(&size.max(1)))
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
    /// `Admission.unasked`, as it was said last; 0 without a stream.
    unasked: Arc<AtomicU64>,
}

struct Offer {
    /// On the heap, since it is large and changes hands often.
    request: Box<v1::SubmitManyRequest>,
    ticket: Arc<Ticket>,
    since: Instant,
    /// Another queue may take it if this one provably did not: then it is not sent here again.
    movable: bool,
    answer: oneshot::Sender<Result<Accepted, Failure>>,
}

/// Why a mail was not acknowledged, and with it whether another queue may be offered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The queue got none of it, or said that it kept none of what it did not answer.
    Unsent(QueueError),
    /// The queue answered so.
    Answered(QueueError),
    /// The queue may have it.
    Unknown(QueueError),
}

impl Failure {
    fn into_error(self) -> QueueError {
        match self {
            Self::Unsent(error) | Self::Answered(error) | Self::Unknown(error) => error,
        }
    }
}

impl SubmitStream {
    /// Submits here and nowhere else, again and again while it is not known what became of it.
    pub(super) async fn submit(
        &self,
        request: Box<v1::SubmitManyRequest>,
    ) -> Result<Accepted, QueueError> {
        let (offer, result) = Offer::new(request, false);
        self.offers.send(offer).await.map_err(|_| stopping())?;
        let result = result.await.unwrap_or_else(|_| Err(unknown()));
        result.map_err(Failure::into_error)
    }

    /// Submits here if that begins within `patience`; once it has begun, as [`SubmitStream::submit`].
    pub(super) async fn offer(
        &self,
        request: Box<v1::SubmitManyRequest>,
        patience: Duration,
    ) -> Result<Accepted, Failure> {
        let unsent = |why: &str| Err(Failure::Unsent(QueueError::Unavailable(why.to_owned())));
        let until = Instant::now() + patience;
        let (offer, mut result) = Offer::new(request, true);
        let ticket = Arc::clone(&offer.ticket);
        match timeout_at(until, self.offers.send(offer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failure::Unsent(stopping())),
            Err(_) => return unsent("too many mails wait for its answer"),
        }
        let result = match timeout_at(until, &mut result).await {
            Ok(result) => result,
            Err(_) if ticket.withdraw() => return unsent("it takes no mail in time"),
            Err(_) => result.await,
        };
        result.unwrap_or_else(|_| Err(unknown()))
    }
}

fn stopping() -> QueueError {
    QueueError::Unavailable("this agent is stopping".to_owned())
}

fn unknown() -> Failure {
    Failure::Unknown(stopping())
}

impl Offer {
    fn new(
        request: Box<v1::SubmitManyRequest>,
        movable: bool,
    ) -> (Self, oneshot::Receiver<Result<Accepted, Failure>>) {
        let (answer, result) = oneshot::channel();
        let offer = Self {
            request,
            ticket: Arc::default(),
            since: Instant::now(),
            movable,
            answer,
        };
        (offer, result)
    }
}

/// The way out of a stream: a mail that was withdrawn does not take it.
type Outgoing = mpsc::Sender<(Box<v1::SubmitManyRequest>, Arc<Ticket>)>;

/// Why a stream is no more.
struct Lost {
    why: QueueError,
    /// The queue ended it in good order. It answers all it has read before, so of what is not answered it keeps nothing.
    in_order: bool,
}

impl From<QueueError> for Lost {
    fn from(why: QueueError) -> Self {
        Self {
            why,
            in_order: false,
        }
    }
}

struct Runner {
    client: QueueClient<Channel>,
    inbox: mpsc::Receiver<Offer>,
    /// Sent, not yet answered; in the order of sending.
    waiting: BTreeMap<u64, Offer>,
    sequence: u64,
    unasked: Arc<AtomicU64>,
}

impl Runner {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while self.wait_for_work().await {
            let (sender, requests) = mpsc::channel::<(_, Arc<Ticket>)>(WINDOW);
            // A server that answers no headers until it has read something would block us here; the first
            // mails are therefore on their way before the call is made.
            for offer in self.waiting.values() {
                let _ = sender.try_send(offer.outgoing());
            }
            // Only what is taken from here on can have reached the queue; without a connection nothing is.
            let requests = ReceiverStream::new(requests)
                .filter_map(async |(request, ticket)| ticket.take().then_some(*request));
            let lost = match self.client.submit_many(Box::pin(requests)).await {
                Ok(answers) => {
                    pause = FIRST_PAUSE;
                    self.converse(sender, answers.into_inner()).await
                }
                Err(status) => from_status(&status).into(),
            };
            self.unasked.store(0, Ordering::Relaxed);
            self.give_up(&lost);
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

    fn enlist(&mut self, mut offer: Offer) -> (Box<v1::SubmitManyRequest>, Arc<Ticket>) {
        self.sequence += 1;
        offer.request.sequence = self.sequence;
        let outgoing = offer.outgoing();
        self.waiting.insert(self.sequence, offer);
        outgoing
    }

    /// Sends and receives until the stream breaks; says why it did.
    async fn converse(
        &mut self,
        sender: Outgoing,
        mut answers: Streaming<v1::SubmitManyResponse>,
    ) -> Lost {
        let ended = || QueueError::Unavailable("the queue ended the stream".to_owned());
        loop {
            if self.waiting.len() >= WINDOW {
                self.waiting.retain(|_, offer| !offer.ticket.is_withdrawn());
            }
            let room = self.waiting.len() < WINDOW;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(message)) => self.settle(message),
                    // A stream that was cut off has no trailers.
                    Ok(None) => return Lost {
                        why: ended(),
                        in_order: matches!(answers.trailers().await, Ok(Some(_))),
                    },
                    Err(status) => return from_status(&status).into(),
                },
                offer = self.inbox.recv(), if room => {
                    let Some(offer) = offer else { return ended().into() };
                    let outgoing = self.enlist(offer);
                    // The channel holds a whole window, so this never waits while answers could come.
                    if sender.send(outgoing).await.is_err() {
                        return ended().into();
                    }
                }
            }
        }
    }

    fn settle(&mut self, message: v1::SubmitManyResponse) {
        let answer = match message.message {
            Some(Message::Answer(answer)) => answer,
            Some(Message::Admission(admission)) => {
                let unasked = if admission.open { admission.unasked } else { 0 };
                return self.unasked.store(unasked, Ordering::Relaxed);
            }
            None => return,
        };
        let Some(offer) = self.waiting.remove(&answer.sequence) else {
            return;
        };
        let result = match answer.result {
            Some(answer::Result::Accepted(accepted)) => accepted
                .try_into()
                .map_err(|error| Failure::Unknown(QueueError::from(error))),
            Some(answer::Result::Refusal(refusal)) => {
                Err(Failure::Answered(refusal_into_error(refusal)))
            }
            None => Err(Failure::Unknown(QueueError::Unavailable(
                "the queue gave an empty answer".to_owned(),
            ))),
        };
        let _ = offer.answer.send(result);
    }

    /// Tells those whom another queue may serve, and those who waited too long that nobody knows; the others are sent again on
    /// the next stream.
    fn give_up(&mut self, lost: &Lost) {
        let now = Instant::now();
        let is_final = !matches!(lost.why, QueueError::Unavailable(_));
        for (sequence, offer) in std::mem::take(&mut self.waiting) {
            let failure = if offer.movable && (lost.in_order || offer.ticket.withdraw()) {
                Failure::Unsent(lost.why.clone())
            } else if is_final || now.duration_since(offer.since) >= PATIENCE {
                Failure::Unknown(lost.why.clone())
            } else {
                self.waiting.insert(sequence, offer);
                continue;
            };
            let _ = offer.answer.send(Err(failure));
        }
    }
}

impl Offer {
    fn outgoing(&self) -> (Box<v1::SubmitManyRequest>, Arc<Ticket>) {
        (self.request.clone(), Arc::clone(&self.ticket))
    }
}
