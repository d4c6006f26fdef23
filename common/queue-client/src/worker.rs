//! A worker: keeps a stream of leases open and calls a handler for each.
//!
//! ```text
//! connect ─► hello with what is still held ─► credits ─► lease ─► handler ─► settle ─► durable ─► one more credit
//!    ▲                                                      └── extended while the handler is at it
//!    └── back-off when the queue is away; results that found no queue are offered again after the reconnect
//! ```
//!
//! A queue of several nodes has a stream to each, and each goes through its losses alone. The handlers at work are bounded in
//! all; which node they work for is settled by credits ([`slots`]).
//!
//! Leases of one mail that came in a row are first sorted by the handler ([`Handler::part`]) into those that go together.
//!
//! A handler that takes longer than its lease is not stopped: the lease is extended until the queue revokes it.
//! On shutdown no more leases are taken, running handlers get the grace period, and what has not begun goes back.

mod desk;
mod handler;
mod parties;
mod results;
mod slots;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use postroad_envelope::{Event, LeaseRef, RouteClass, StoreName};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    desk::Desk,
    handler::{Handler, Verdict},
    parties::Party,
};
use self::{
    desk::{Ask, Asked, Inbox},
    parties::Done,
    slots::{NodeSlots, Slots},
};
use crate::{
    FormerStream, HandBack, HeldLease, Lease, QueueError, QueueNode, QueueService, Touch,
    WorkChannel, WorkDown, WorkHello, WorkUp,
};

/// Who a worker is and how much it takes on.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Name of the agent, which its copies share: `mta@host`.
    pub agent: String,
    /// The host it runs on.
    pub host: String,
    /// What it carries out.
    pub classes: Vec<RouteClass>,
    /// Of local mail: the stores it serves; none is the default one.
    pub stores: Vec<StoreName>,
    /// Leases at once, of all nodes together.
    pub concurrency: u32,
    /// How long running handlers may take after shutdown began.
    pub grace: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a worker that leaves waits for the queue to have heard so.
const FAREWELL: Duration = Duration::from_secs(2);
/// Before a lease is offered again that this worker was not made for.
const REST: Duration = Duration::from_secs(60);
/// How often running leases are extended; more often if they last less than three times that.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTENSIONS_IN_A_LEASE: u32 = 3;
const EXTEND_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// Events in a message.
const EVENTS: usize = 256;

/// Works until `shutdown`, through any number of reconnects.
pub async fn run(
    queue: Arc<dyn QueueService>,
    options: WorkerOptions,
    handler: Arc<dyn Handler>,
    shutdown: CancellationToken,
) {
    let nodes = queue.nodes();
    let slots = Slots::new(options.concurrency, nodes.len());
    if nodes.is_empty() {
        let worker = Worker::new(options, handler, None, slots.of(0), shutdown);
        return worker.work_for(queue).await;
    }
    let mut workers = JoinSet::new();
    for (at, QueueNode { name, queue }) in nodes.into_iter().enumerate() {
        let (options, handler) = (options.clone(), Arc::clone(&handler));
        let worker = Worker::new(options, handler, Some(name), slots.of(at), shutdown.clone());
        workers.spawn(worker.work_for(queue));
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            tracing::error!(event = "fault", task = "worker", %error);
        }
    }
}

struct Worker {
    options: WorkerOptions,
    handler: Arc<dyn Handler>,
    /// Which of several nodes it works for.
    node: Option<String>,
    slots: NodeSlots,
    shutdown: CancellationToken,
    /// Credits that the queue has of us.
    credits: u32,
    /// The queue wants us to take no more.
    drained: bool,
    /// Leases a handler works on, by the name they were handed out under → the name they have now.
    running: HashMap<LeaseRef, LeaseRef>,
    /// Leases that have ended while a handler works on them, by the name they have now: nothing prolongs them.
    ended: HashSet<LeaseRef>,
    /// Results that are not yet durable, by the lease's present name.
    results: HashMap<LeaseRef, Verdict>,
    tasks: JoinSet<Done>,
    /// The leases each task works on, by the names they were handed out under.
    leases: HashMap<tokio::task::Id, Vec<LeaseRef>>,
    /// Leases of one mail that came, while others of it are to follow.
    row: Vec<Lease>,
    /// By the shortest lease so far.
    extend_every: Duration,
    refusal: Option<QueueError>,
    /// What handlers ask, and who waits for an answer.
    desk: Desk,
    inbox: Inbox,
    asked: Asked,
    /// The stream that there was last.
    former: Option<FormerStream>,
}

impl Worker {
    fn new(
        options: WorkerOptions,
        handler: Arc<dyn Handler>,
        node: Option<String>,
        slots: NodeSlots,
        shutdown: CancellationToken,
    ) -> Self {
        let (desk, inbox) = Desk::new();
        Self {
            options,
            handler,
            node,
            slots,
            shutdown,
            desk,
            inbox,
            asked: Asked::default(),
            credits: 0,
            drained: false,
            running: HashMap::new(),
            ended: HashSet::new(),
            results: HashMap::new(),
            tasks: JoinSet::new(),
            leases: HashMap::new(),
            row: Vec::new(),
            extend_every: EXTEND_EVERY,
            refusal: None,
            former: None,
        }
    }

    async fn work_for(mut self, queue: Arc<dyn QueueService>) {
        let shutdown = self.shutdown.clone();
        let mut pause = FIRST_PAUSE;
        while !shutdown.is_cancelled() {
            let stream = tokio::select! {
                stream = queue.work(self.hello()) => stream,
                () = shutdown.cancelled() => return,
            };
            match stream {
                Ok(channel) => {
                    let (worker, node) = (self.options.agent.clone(), self.node.clone());
                    tracing::info!(event = "queue_connected", worker, node);
                    let since = Instant::now();
                    let lost = self.converse(channel).await;
                    // What was to follow does not; and at once, since later these leases may be somebody else's.
                    self.begin_row();
                    if shutdown.is_cancelled() {
                        return;
                    }
                    tracing::info!(event = "queue_lost", worker, node, reason = %lost, "lost the queue, connecting again");
                    self.refusal = None;
                    // A stream that lasted shows that the queue is well; one that ended at once does not.
                    if since.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(error) => self.tell_refusal(error),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Once: the worker asks again and again. That the queue is away is told by who probes it.
    fn tell_refusal(&mut self, error: QueueError) {
        tracing::debug!(reason = %error, "no lease can be had now");
        if matches!(error, QueueError::Unavailable(_)) || self.refusal.as_ref() == Some(&error) {
            return;
        }
        let (worker, node) = (self.options.agent.clone(), self.node.clone());
        tracing::warn!(event = "rejected", worker, node, reason = %error, "the queue gives this agent no leases; its log says why");
        self.refusal = Some(error);
    }

    fn hello(&self) -> WorkHello {
        let held = self.running.values().chain(self.results.keys());
        WorkHello {
            agent: self.options.agent.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.options.host.clone(),
            classes: self.options.classes.clone(),
            stores: self.options.stores.clone(),
            held: held.map(|&lease| HeldLease { lease }).collect(),
            former: self.former,
            joins: self.handler.joins(),
        }
    }

    /// Speaks with the queue until the stream breaks or the shutdown is over.
    async fn converse(&mut self, mut channel: WorkChannel) -> QueueError {
        let shutdown = self.shutdown.clone();
        (self.credits, self.drained) = (0, false);
        // Whoever still waits for an answer of the former stream goes on without.
        self.asked = Asked::default();
        let mut extend = self.extensions();
        let gone = || QueueError::Unavailable("the stream of leases ended".to_owned());
        // Until then what is held has names that may hold no more.
        let mut welcomed = false;
        loop {
            let sent = tokio::select! {
                down = channel.down.next() => match down {
                    Some(Ok(down)) => {
                        welcomed |= matches!(down, WorkDown::Welcome { .. });
                        self.receive(down, &channel.up).await
                    }
                    Some(Err(error)) => return error,
                    None => return gone(),
                },
                Some(done) = self.tasks.join_next_with_id(), if welcomed => self.finish(done, &channel.up).await,
                _ = extend.tick(), if welcomed => self.extend(&channel.up).await,
                Some(ask) = self.inbox.asks.recv(), if welcomed => self.ask(ask, &channel.up).await,
                Some(event) = self.inbox.told.recv(), if welcomed => self.tell(Some(event), &channel.up).await,
                () = shutdown.cancelled() => {
                    let _ = timeout(self.options.grace, self.drain(&mut channel)).await;
                    return QueueError::Unavailable("this worker stops".to_owned());
                }
            };
            if sent.is_err() {
                return gone();
            }
            if extend.period() != self.extend_every {
                extend = self.extensions();
            }
        }
    }

    fn extensions(&self) -> Interval {
        let mut extend = interval(self.extend_every);
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        extend
    }

    async fn receive(&mut self, down: WorkDown, up: &mpsc::Sender<WorkUp>) -> Result<(), Gone> {
        match down {
            WorkDown::Welcome {
                epoch,
                stream,
                permits,
                resumed,
            } => {
                self.asked.answers(permits);
                // A queue of the version before does not tell.
                self.former = (stream != 0).then_some(FormerStream { epoch, stream });
                self.resume(resumed, up).await
            }
            WorkDown::Lease(lease) if !self.options.classes.contains(&lease.route.class) => {
                self.credits = self.credits.saturating_sub(1);
                let back = HandBack {
                    delay: REST,
                    reason: "this worker carries out no such mail".to_owned(),
                    ..untried(lease.lease)
                };
                send(up, WorkUp::HandBack(back)).await?;
                self.give_credits(up).await
            }
            WorkDown::Lease(lease) => {
                self.take(*lease);
                Ok(())
            }
            WorkDown::Settled { lease, result } => self.settled(lease, result, up).await,
            WorkDown::Revoked(leases) => {
                self.revoked(&leases);
                Ok(())
            }
            WorkDown::Permitted(permitted) => {
                self.asked.answer(permitted);
                Ok(())
            }
            WorkDown::Drain => {
                self.drained = true;
                Ok(())
            }
        }
    }

    async fn ask(&mut self, mut ask: Ask, up: &mpsc::Sender<WorkUp>) -> Result<(), Gone> {
        ask.lease = self.running.get(&ask.lease).copied().unwrap_or(ask.lease);
        match self.asked.enter(ask) {
            Some(permit) => send(up, WorkUp::Permit(permit)).await,
            None => Ok(()),
        }
    }

    /// All that handlers have told so far, in few messages.
    async fn tell(&mut self, first: Option<Event>, up: &mpsc::Sender<WorkUp>) -> Result<(), Gone> {
        let mut next = first;
        loop {
            let events = self.inbox.take(next.take(), EVENTS);
            if events.is_empty() {
                return Ok(());
            }
            send(up, WorkUp::Events(events)).await?;
        }
    }

    /// Lets handlers end and their results become durable; leases that still come go straight back.
    async fn drain(&mut self, channel: &mut WorkChannel) {
        self.drained = true;
        self.begin_row();
        while !self.running.is_empty() || !self.results.is_empty() {
            let sent = tokio::select! {
                down = channel.down.next() => match down {
                    Some(Ok(WorkDown::Lease(lease))) => {
                        send(&channel.up, WorkUp::HandBack(untried(lease.lease))).await
                    }
                    Some(Ok(down)) => self.receive(down, &channel.up).await,
                    Some(Err(_)) | None => return,
                },
                Some(done) = self.tasks.join_next_with_id() => self.finish(done, &channel.up).await,
                Some(ask) = self.inbox.asks.recv() => self.ask(ask, &channel.up).await,
            };
            if sent.is_err() {
                return;
            }
        }
        // Leases may still be on their way to us; the queue takes them back and ends the stream.
        if send(&channel.up, WorkUp::Drained).await.is_ok() {
            let ended = async { while let Some(Ok(_)) = channel.down.next().await {} };
            let _ = timeout(FAREWELL, ended).await;
        }
    }
}

/// Back it goes: this worker leaves.
fn untried(lease: LeaseRef) -> HandBack {
    HandBack {
        lease,
        delay: Duration::ZERO,
        reason: "draining".to_owned(),
        touch: Touch::Untouched,
    }
}

/// The queue end of the channel is gone.
struct Gone;

async fn send(up: &mpsc::Sender<WorkUp>, message: WorkUp) -> Result<(), Gone> {
    up.send(message).await.map_err(|_| Gone)
}
