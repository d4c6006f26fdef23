//! Gives due jobs to connected workers, by class and credits. One thread of its own: it reads records, and a worker that
//! does not listen never keeps it, since it leases no more than fits into the worker's channel.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use postroad_envelope::{EventKind, LeaseRef, QueueId, Route, RouteClass, StoreName};
use postroad_journal::JournalError;
use postroad_queue::{Content, Holder, Instruction, Lease as Grant, Leased};
use postroad_queue_client::{Lease, QueueError, WorkDown};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info};

use crate::{
    agents::Connected,
    clock,
    core::{Core, ReadError},
    store::damage,
    words,
};

/// Larger content is read by the worker.
const CONTENT_IN_LEASE: usize = 64 << 10;
/// Leases to one worker before the next one gets its turn.
const TURN: usize = 16;
/// Without anything to wait for, look again.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

pub(crate) type Down = mpsc::Sender<Result<WorkDown, QueueError>>;

/// What the dispatcher is told.
#[derive(Debug)]
pub(crate) enum ToDispatcher {
    /// A worker's stream began.
    Connect(Worker),
    /// It has room for so many more leases.
    Credits(u64, u32),
    /// It ended.
    Disconnect(u64),
    /// Its worker left in peace, or came back on another: what it was given there and does not hold is due at once.
    Left(Holder),
    /// Something may have become due.
    Look,
    /// Tell the workers of this name to finish what they hold; they are marked already.
    DrainAgent(String),
    /// Lease no more, and tell the workers.
    Drain,
}

/// A connected worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub holder: Holder,
    /// What it carries out; local mail of the stores it serves.
    pub carries: Vec<(RouteClass, StoreName)>,
    pub credits: u32,
    pub down: Down,
    pub connected: Arc<Connected>,
}

impl Worker {
    /// What a worker carries out that says so of itself: one that names no store serves the default one.
    pub fn carries(classes: &[RouteClass], stores: &[StoreName]) -> Vec<(RouteClass, StoreName)> {
        let default = [StoreName::default()];
        let stores = if stores.is_empty() { &default } else { stores };
        let of = |&class: &RouteClass| {
            let stores = match class {
                RouteClass::Local => stores,
                _ => &default,
            };
            let pairs = stores.iter().map(|store| (class, store.clone()));
            pairs.collect::<Vec<_>>()
        };
        classes.iter().flat_map(of).collect()
    }
}

/// Runs until every sender is gone or the queue has ended.
pub(crate) async fn run(
    core: Arc<Core>,
    mut messages: mpsc::Receiver<ToDispatcher>,
    reports: mpsc::Sender<QueueId>,
) {
    let mut rounds = core.committer.rounds();
    let ended = core.ended.clone();
    let mut dispatcher = Dispatcher {
        core,
        workers: Vec::new(),
        first: 0,
        reports,
        draining: false,
    };
    loop {
        let sleep = sleep_until(dispatcher.next_wake());
        tokio::select! {
            () = ended.cancelled() => return,
            message = messages.recv() => match message {
                Some(message) => dispatcher.receive(message),
                None => return,
            },
            Ok(()) = rounds.changed() => {}
            () = sleep => {}
        }
        while let Ok(message) = messages.try_recv() {
            dispatcher.receive(message);
        }
        dispatcher.turn().await;
    }
}

struct Dispatcher {
    core: Arc<Core>,
    workers: Vec<Worker>,
    /// Whose turn it is first.
    first: usize,
    reports: mpsc::Sender<QueueId>,
    draining: bool,
}

impl Dispatcher {
    fn next_wake(&self) -> Instant {
        let wait = match self.core.queue.next_wakeup() {
            Some(at) => at.since(clock::now()).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        };
        // Rounded up: a wake-up in the middle of a millisecond would find nothing to do.
        Instant::now() + wait + Duration::from_millis(1)
    }

    fn receive(&mut self, message: ToDispatcher) {
        match message {
            ToDispatcher::Connect(worker) => {
                if self.draining {
                    let _ = worker.down.try_send(Ok(WorkDown::Drain));
                }
                self.workers.push(worker);
            }
            ToDispatcher::Credits(stream, count) => {
                if let Some(worker) = self.worker(stream) {
                    worker.credits = worker.credits.saturating_add(count);
                }
            }
            ToDispatcher::Disconnect(stream) => {
                self.workers.retain(|worker| worker.holder.stream != stream);
            }
            ToDispatcher::Left(holder) => {
                // Here, since nobody else grants: after this the stream gets no more.
                self.workers.retain(|worker| worker.holder != holder);
                self.core.queue.free_stream(&holder, clock::now());
            }
            ToDispatcher::Look => {}
            ToDispatcher::DrainAgent(name) => {
                let named = |worker: &&Worker| worker.connected.name == name;
                for worker in self.workers.iter().filter(named) {
                    let _ = worker.down.try_send(Ok(WorkDown::Drain));
                }
            }
            ToDispatcher::Drain => {
                self.draining = true;
                for worker in &self.workers {
                    let _ = worker.down.try_send(Ok(WorkDown::Drain));
                }
            }
        }
    }

    fn worker(&mut self, stream: u64) -> Option<&mut Worker> {
        self.workers
            .iter_mut()
            .find(|worker| worker.holder.stream == stream)
    }

    /// Does what time demands, then leases while there are jobs and room.
    async fn turn(&mut self) {
        let ticked = self.core.queue.tick(clock::now());
        for lease in ticked.expired {
            self.expired(lease);
        }
        for id in ticked.reports {
            // If there is no room the schedule names it again.
            let _ = self.reports.try_send(id);
        }
        if self.draining {
            return;
        }
        loop {
            let mut leased = 0;
            for at in self.order() {
                leased += self.serve(at).await;
            }
            if leased == 0 {
                return;
            }
            self.first = self.first.wrapping_add(1);
            // Messages wait: credits and disconnects are as urgent as leases.
            tokio::task::yield_now().await;
        }
    }

    /// Who has most room comes first: a worker that fell silent keeps what it has, and what comes goes to the others. Among equals it goes in turns.
    fn order(&self) -> Vec<usize> {
        let count = self.workers.len();
        let turns = (0..count).map(|at| (self.first + at) % count);
        let mut order: Vec<usize> = turns.collect();
        order.sort_by_key(|&at| Reverse(self.workers.get(at).map_or(0, |worker| worker.credits)));
        order
    }

    async fn serve(&mut self, at: usize) -> usize {
        let Some(worker) = self.workers.get_mut(at) else {
            return 0;
        };
        if worker.connected.is_draining() {
            return 0;
        }
        let mut total = 0;
        for at_class in 0..worker.carries.len() {
            let room = worker.down.capacity().saturating_sub(KEPT_FOR_ANSWERS);
            let credits = usize::try_from(worker.credits).unwrap_or(usize::MAX);
            let max = credits.min(room).min(TURN);
            let Some((class, store)) = worker.carries.get(at_class).filter(|_| max > 0) else {
                continue;
            };
            let (queue, now) = (&self.core.queue, clock::now());
            let granted = match queue.lease_in(*class, store, &worker.holder, max, now) {
                Ok(granted) => granted,
                Err(error) => {
                    error!(event = "fault", error = %error, "jobs cannot be leased");
                    continue;
                }
            };
            total += granted.len();
            for leased in granted {
                worker.credits = worker.credits.saturating_sub(1);
                if let Err(leased) = hand_out(&self.core, worker, leased).await {
                    worker.credits = worker.credits.saturating_add(1);
                    let (job, fence) = (leased.job, leased.fence);
                    // Stale means that the stream's end freed it already.
                    let _ = self
                        .core
                        .queue
                        .hand_back(job, fence, RETRY_READ, clock::now());
                }
            }
        }
        total
    }

    fn expired(&mut self, lease: Grant) {
        self.core.counts.leases_expired.count();
        info!(
            event = "lease_expired", queue_id = %lease.job.queue_id, worker = %lease.holder.agent,
            duration_ms = u64::try_from(clock::now().since(lease.granted_at).as_millis()).unwrap_or(0)
        );
        let reference = words::lease_ref(&lease);
        if let Some(worker) = self.worker(lease.holder.stream) {
            let _ = worker.down.try_send(Ok(WorkDown::Revoked(vec![reference])));
        }
    }
}

/// Room in a worker's channel that leases leave to other messages.
const KEPT_FOR_ANSWERS: usize = 16;
/// A job whose mail could not be read now, or whose worker has just gone, is offered again after this.
const RETRY_READ: Duration = Duration::from_millis(100);

/// Sends the job with all it takes; gives the grant back if that cannot be.
async fn hand_out(core: &Arc<Core>, worker: &Worker, leased: Leased) -> Result<(), Grant> {
    let lease = match build(core, &leased) {
        Ok(lease) => lease,
        Err(error) if error.is_gone() && !damage::is_lost(core, &leased.mail) => {
            return Err(leased.lease);
        }
        Err(error) => {
            unreadable(core, &leased, &error);
            return Err(leased.lease);
        }
    };
    let (reference, attempt) = (lease.lease, lease.attempt);
    let place = worker.down.try_reserve();
    let place = place.map_err(|_| leased.lease.clone())?;
    // Told first: whatever the worker tells comes after it.
    tell(core, &leased, reference, attempt);
    core.counts.leased(leased.state.class);
    place.send(Ok(WorkDown::Lease(Box::new(lease))));
    Ok(())
}

pub(crate) fn build(core: &Core, leased: &Leased) -> Result<Lease, ReadError> {
    let record = core.record_of(&leased.mail)?;
    let mut envelope = record.envelope;
    let pending: Vec<_> = leased.state.pending().collect();
    envelope
        .recipients
        .retain(|recipient| pending.contains(&recipient.index));
    let content = match record.content {
        Content::Inline(bytes) if bytes.len() <= CONTENT_IN_LEASE => Some(bytes),
        Content::Inline(_) => None,
        Content::File(file) => {
            // A worker could only fail to read it, for ever.
            core.store.damaged.check(&file)?;
            core.contents.reader(&file).map_err(|error| match error {
                JournalError::Gone => ReadError::NoContent(file.nonce),
                other => other.into(),
            })?;
            None
        }
    };
    let state = &leased.state;
    Ok(Lease {
        lease: words::lease_ref(&leased.lease),
        duration: core.config().lease.duration.into(),
        route: Route {
            class: state.class,
            destination: state.destination.clone(),
            store: state.store.clone(),
            next_hop: state.next_hop.clone(),
            rule: state.rule.clone(),
        },
        attempt: state.attempts.saturating_add(1),
        envelope,
        content,
    })
}

fn tell(core: &Core, leased: &Leased, lease: LeaseRef, attempt: u32) {
    let agent = leased.lease.holder.agent.to_string();
    debug!(
        event = "leased", queue_id = %lease.job.queue_id, destination = leased.state.destination,
        attempt, worker = agent
    );
    let text = format!(
        "given to {agent}, attempt {attempt}, by {}",
        leased.state.rule
    );
    let fields = [
        ("attempt", attempt.to_string()),
        ("rule", leased.state.rule.clone()),
    ];
    let recipients = leased.state.pending().collect();
    core.tell(
        lease.job.queue_id,
        EventKind::Leased,
        recipients,
        text,
        fields,
    );
}

/// Its record is damaged: trying again does not help, a person may.
fn unreadable(core: &Arc<Core>, leased: &Leased, error: &ReadError) {
    let job = leased.lease.job;
    error!(event = "corruption", queue_id = %job.queue_id, error = %error, "the mail cannot be read; it is held");
    let committer = core.committer.clone();
    let why = Instruction::Hold(format!("cannot be read: {error}"));
    let holding = async move {
        let hold =
            move |queue: &postroad_queue::Queue, now| Ok((Some(queue.prepare(job, why, now)?), ()));
        // If it is not held it is tried again, and fails again.
        let _ = committer.commit(hold).await;
    };
    core.tasks.spawn_on(holding, &core.runtime);
}
